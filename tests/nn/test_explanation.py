"""`explain` says how each layer attends, and leaves the model as it was."""

import copy
import re

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import GCNConv, GINEConv, MessagePassing
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.nn.resolver import activation_resolver

import pyg_gt
from pyg_gt import EdgeMask, GraphLayout, explain_choice
from pyg_gt.nn import (
    FullTransformerConv,
    GPSConv,
    MaskedTransformerConv,
    TransformerBlock,
    TransformerConv,
)

F, H = 8, 2


class Model(torch.nn.Module):
    """One layer of each kind, and what a model has besides."""

    def __init__(self, dropout=0.0, **options):
        super().__init__()
        local = GINEConv(torch.nn.Linear(F, F))
        self.gps = GPSConv(F, local, heads=H, dropout=dropout, attn_dropout=dropout, **options)
        self.full = FullTransformerConv(F, F // H, heads=H, dropout=dropout, **options)
        self.masked = MaskedTransformerConv(F, F // H, heads=H, dropout=dropout)
        self.block = TransformerBlock(F, heads=H, dropout=dropout, **options)
        self.act = activation_resolver("relu")
        self.last = GCNConv(F, 1)

    def forward(self, x, edge_index, batch, edge_attr=None, biases=()):
        x = self.gps(x, edge_index, batch, edge_attr=edge_attr, biases=biases)
        x = self.act(self.full(x, batch=batch))
        x = self.masked(x, edge_index)
        return self.last(self.block(x, batch), edge_index)


@pytest.fixture
def inputs(batch_of):
    torch.manual_seed(0)
    batch, edge_index = batch_of()
    x = torch.randn(batch.numel(), F)
    return x, edge_index, batch, torch.randn(edge_index.size(1), F)


LAYERS = ["gps", "full", "masked", "block"]


@pytest.mark.parametrize("training", [True, False])
def test_every_layer_is_told_by_its_path(training, inputs):
    found = pyg_gt.explain(Model(0.5).train(training), *inputs)
    assert list(found) == LAYERS
    assert len(found) == 4 and found.not_called == ()
    for path, route in found.items():
        assert (route.name, route.reason, route.requested) == ("fused", None, "auto"), path
        assert route.choices[route.backend] == "chosen"
    # dropout acts in training alone, and 'flex' has none
    assert ("dropout" in found["block"].choices["flex"]) == training
    along_edges = found["masked"].choices["sparse"]
    assert along_edges.startswith(("chosen", "could run"))
    assert "EdgeMask" in found["full"].choices["sparse"]


def test_the_lines_are_those_of_explain_choice(inputs):
    x, _, batch, _ = inputs
    conv = FullTransformerConv(F, F // H, heads=H)
    want = explain_choice(*conv._project(x, x), GraphLayout.from_batch(batch))
    route = pyg_gt.explain(conv, x, batch=batch)["(the model itself)"]
    assert route.choices == want
    assert route.backend == next(name for name, line in want.items() if line == "chosen")


def test_biases_reach_the_choice(inputs):
    x, edge_index, batch, edge_attr = inputs
    model = Model()
    plain = pyg_gt.explain(model, x, edge_index, batch, edge_attr)
    masked = pyg_gt.explain(model, x, edge_index, batch, edge_attr, biases=EdgeMask(edge_index))
    assert "EdgeMask" in plain["gps"].choices["sparse"]
    assert masked["gps"].choices["sparse"].startswith(("chosen", "could run"))
    assert masked["full"].choices == plain["full"].choices


def test_models_on_data(inputs):
    class OnData(Model):
        def forward(self, data):
            return super().forward(data.x, data.edge_index, data.batch, data.edge_attr)

    x, edge_index, _, edge_attr = inputs
    data = Batch.from_data_list([Data(x=x, edge_index=edge_index, edge_attr=edge_attr)] * 2)
    assert list(pyg_gt.explain(OnData(), data)) == LAYERS


class OwnMessage(FullTransformerConv):
    def message(self, value_j, alpha, pairs):
        return super().message(value_j, alpha, pairs)


def with_hook(name, layer):
    getattr(layer, name)(lambda *args: None)
    return layer


def mean(kind, **options):
    return kind(F, F // H, heads=H, aggr="mean", **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mean(FullTransformerConv), "aggregates by 'MeanAggregation'"),
        (lambda: mean(MaskedTransformerConv), "aggregates by 'MeanAggregation'"),
        (lambda: OwnMessage(F, F // H, heads=H), "'OwnMessage' overrides 'message'"),
        (
            lambda: with_hook(
                "register_message_forward_hook", FullTransformerConv(F, F // H, heads=H)
            ),
            "hooks on its messages .*'_message_forward_hooks'",
        ),
        (
            lambda: with_hook(
                "register_propagate_forward_pre_hook", MaskedTransformerConv(F, F // H, heads=H)
            ),
            "hooks on its messages .*'_propagate_forward_pre_hooks'",
        ),
        (
            lambda: with_hook("register_message_forward_pre_hook", GPSConv(F, None, heads=H)),
            "hooks on its messages",
        ),
    ],
)
def test_why_messages_are_sent(make, words, inputs):
    x, edge_index, batch, _ = inputs
    layer = make()
    given = {} if isinstance(layer, MaskedTransformerConv) else {"batch": batch}
    (route,) = pyg_gt.explain(layer, x, edge_index, **given).values()
    assert (route.name, route.backend, route.choices) == ("messages", None, {})
    assert re.search(words, route.reason)


def test_an_explainers_mask_is_named(inputs):
    x, edge_index, _, _ = inputs
    conv = MaskedTransformerConv(F, F // H, heads=H)
    set_masks(conv, torch.ones(edge_index.size(1)), edge_index)
    (route,) = pyg_gt.explain(conv, x, edge_index).values()
    assert route.name == "messages" and "an explainer masks" in route.reason


@pytest.mark.parametrize("kind", [FullTransformerConv, MaskedTransformerConv])
def test_weights_that_are_asked_for(kind, inputs):
    x, edge_index, _, _ = inputs
    conv = kind(F, F // H, heads=H)
    (route,) = pyg_gt.explain(conv, x, edge_index, return_attention_weights=True).values()
    assert route.name == "messages" and "return_attention_weights" in route.reason


def test_raw_edge_features_are_pygs(inputs):
    x, edge_index, _, _ = inputs
    conv = MaskedTransformerConv(F, F // H, heads=H)
    raw = torch.randn(edge_index.size(1), H, F // H)
    (route,) = pyg_gt.explain(conv, x, edge_index, raw).values()
    assert route.name == "messages" and "without 'edge_dim'" in route.reason


def test_padded_and_own_attention(inputs):
    class Own(torch.nn.Module):
        def forward(self, x, batch):
            return x

    x, edge_index, batch, _ = inputs
    for options, name, words in (
        ({"attn_type": "performer"}, "padded", "'PerformerAttention'"),
        ({"attn": Own()}, "module", "'Own' of its own"),
    ):
        (route,) = pyg_gt.explain(GPSConv(F, None, H, **options), x, edge_index, batch).values()
        assert route.name == name and words in route.reason


def test_hooks_on_attention_are_named_and_the_backend_too(inputs):
    x, _, batch, _ = inputs
    block = TransformerBlock(F, H, backend="reference")
    block.self_attn.register_forward_hook(lambda *args: None)
    (route,) = pyg_gt.explain(block, x, batch).values()
    assert (route.name, route.backend) == ("fused", "reference")
    assert "hooks on 'attn'" in route.reason


def test_a_backend_that_refuses_is_reported_and_the_model_runs_on(inputs):
    model = Model(backend="sparse")
    found = pyg_gt.explain(model, *inputs)
    for path in ("gps", "full", "block"):
        route = found[path]
        assert route.is_refused and route.requested == "sparse" and route.backend is None
        assert route.reason == f"'sparse' refuses: {route.choices['sparse']}"
    assert not found["masked"].is_refused
    assert [getattr(model, path).backend for path in ("gps", "full", "block")] == ["sparse"] * 3
    assert "(asked for: sparse)" in repr(found)
    with pytest.raises(NotImplementedError, match="Backend 'sparse' cannot run"):
        model(*inputs)


def test_a_layer_that_is_called_twice_or_never():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = FullTransformerConv(F, F, heads=1)
            self.other = self.shared
            self.unused = TransformerBlock(F, H)

        def forward(self, x):
            return self.other(self.shared(x), return_attention_weights=True)

    found = pyg_gt.explain(Twice(), torch.randn(3, F))
    assert [(path, route.name) for path, route in found.items()] == [
        ("shared", "fused"), ("shared (call 2)", "messages")
    ]  # fmt: skip
    assert found.not_called == ("unused",)
    assert re.search(r"unused +TransformerBlock +not called", repr(found))


def test_a_model_without_attention_says_so(inputs):
    x, edge_index, batch, _ = inputs
    for model in (GCNConv(F, F), PyGGPSConv(F, None, heads=H)):
        found = pyg_gt.explain(model, x, edge_index)
        assert len(found) == 0
        assert repr(found).startswith("No attention layer of 'pyg_gt' in this model")


def test_it_prints_a_table(inputs):
    model = Model()
    model.full = mean(FullTransformerConv)
    text = str(pyg_gt.explain(model, *inputs))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "class", "route", "backend", "why"]
    column = lines[0].index("route")
    assert {line[column:].split("  ")[0] for line in lines[1:5]} == {
        "fused attention", "PyG's messages"
    }  # fmt: skip
    # what is the same for two layers stands once
    assert text.count("Backends for") == 2
    assert "Backends for gps, block:" in text and "Backends for masked:" in text
    assert all(name in text for name in ("reference", "sdpa", "triton"))


def test_the_model_is_left_as_it_was(inputs):
    model = Model(0.5).train()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    state = copy.deepcopy(model.state_dict())
    buffers = {name: (b, b._version) for name, b in model.named_buffers()}
    fields = {name: set(vars(m)) for name, m in model.named_modules()}
    hooks = {name: len(m._forward_pre_hooks) for name, m in model.named_modules()}
    rng = torch.get_rng_state()

    pyg_gt.explain(model, *inputs)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(m.training for m in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, b in model.named_buffers():
        assert b is buffers[name][0] and b._version == buffers[name][1], name
    assert fields == {name: set(vars(m)) for name, m in model.named_modules()}
    assert hooks == {name: len(m._forward_pre_hooks) for name, m in model.named_modules()}
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert any("running_mean" in name for name in state)  # which a call in training moves
    model(*inputs)
    assert not torch.equal(model.state_dict()["gps.norm1.module.running_mean"],
                           state["gps.norm1.module.running_mean"])  # fmt: skip


def test_an_error_of_the_model_leaves_nothing_behind(inputs):
    x, edge_index, batch, edge_attr = inputs
    model = Model(backend="sparse")
    with pytest.raises(ValueError, match="'x' must be"):
        pyg_gt.explain(model, x[:, :3], edge_index, batch, edge_attr)
    assert not any("_attend" in vars(m) for m in model.modules())
    assert model.gps.backend == "sparse"


def test_subclasses_with_a_forward_of_their_own(inputs):
    class Single(GPSConv):
        def forward(self, x):
            return super().forward(x, None)

    (route,) = pyg_gt.explain(Single(F, None, heads=H), inputs[0]).values()
    assert route.name == "fused"


@pytest.mark.compiled
@pytest.mark.parametrize("way", ["wrapped", "in place", "a part"])
def test_compiled_models_are_explained_as_they_were(way, inputs):
    def never(*args):
        raise AssertionError("it was compiled")

    model = Model()
    if way == "wrapped":
        model = torch.compile(model, backend=never)
    elif way == "in place":
        model.compile(backend=never)
    else:
        model.block = torch.compile(model.block, backend=never)
    assert list(pyg_gt.explain(model, *inputs)) == LAYERS


def test_lazy_models_have_to_be_called_before(inputs):
    x, edge_index, batch, _ = inputs
    conv = FullTransformerConv(-1, F, heads=1)
    with pytest.raises(ValueError, match="'lin_key.weight' is made by the first call"):
        pyg_gt.explain(conv, x, batch=batch)
    conv(x, batch=batch)
    assert len(pyg_gt.explain(conv, x, batch=batch)) == 1


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="expected a 'torch.nn.Module' \\(got 'function'"):
        pyg_gt.explain(pyg_gt.attention)


def test_another_name_of_the_masked_layer():
    assert TransformerConv is MaskedTransformerConv
    assert TransformerConv.__name__ == "MaskedTransformerConv"
    assert str(TransformerConv(F, 4, heads=H)) == f"MaskedTransformerConv({F}, 4, heads={H})"
    assert isinstance(TransformerConv(F, 4), MessagePassing)


class Wrapper(torch.nn.Module):
    """Hands on the attributes of what it wraps, as torch's checkpoint wrapper does."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *inputs: object) -> object:
        return self.inner(*inputs)


def test_a_wrapper_is_no_layer_and_stays_as_it_is() -> None:
    wrapper = Wrapper(TransformerBlock(8, heads=2))
    found = pyg_gt.explain(wrapper, torch.randn(3, 8))
    assert list(found) == ["inner"] and found.not_called == ()
    assert "backend" not in vars(wrapper)


class Filling(torch.nn.Module):
    """Fills one buffer and makes another as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.block = TransformerBlock(8, heads=2)
        self.register_buffer("seen", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.mean(0)
        self.register_buffer("late", x.sum(0))
        return self.block(x)


def test_buffers_that_the_call_fills_are_gone_again() -> None:
    model = Filling()
    before = dict(model.state_dict())
    pyg_gt.explain(model, torch.randn(3, 8))
    assert model.state_dict().keys() == before.keys() and model.seen is None


class Asking(torch.nn.Module):
    """Explains itself as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.block = TransformerBlock(8, heads=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert list(pyg_gt.explain(self.block, x)) == ["(the model itself)"]
        return self.block(x)


def test_an_explanation_inside_of_another() -> None:
    model = Asking()
    assert list(pyg_gt.explain(model, torch.randn(3, 8)))[-1].startswith("block")
    assert "_attend" not in vars(model.block)


def test_a_backend_that_does_not_exist() -> None:
    block = TransformerBlock(8, heads=2)
    block.backend = "nope"
    with pytest.raises(ValueError, match="Unknown backend 'nope'"):
        pyg_gt.explain(block, torch.randn(3, 8))
