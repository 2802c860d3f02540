"""`swap` turns layers into their faster twins in place, and nothing else changes."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel
from torch_geometric.nn import (
    GCNConv,
    GINEConv,
    HeteroConv,
    MessagePassing,
    TransformerConv,
    global_mean_pool,
    to_hetero,
)
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.utils import get_num_hops

import pyg_gt
from pyg_gt.nn import FullTransformerConv, GPSConv, MaskedTransformerConv

F, H = 8, 2


class Model(torch.nn.Module):
    """Encoders, two GPS layers, two attention convs, a readout: what users have."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.nodes = torch.nn.Linear(F, F)
        self.edges = torch.nn.Embedding(5, F)
        self.layers = torch.nn.ModuleList(
            PyGGPSConv(
                F, GINEConv(torch.nn.Linear(F, F)), heads=H, dropout=dropout, norm=norm,
                attn_kwargs={"dropout": dropout},
            )
            for norm in ("batch_norm", "layer_norm")
        )  # fmt: skip
        self.attn = TransformerConv(F, F // H, heads=H, edge_dim=F, beta=True, dropout=dropout)
        self.last = torch.nn.ModuleDict({"conv": TransformerConv(F, F, concat=False)})
        self.head = torch.nn.Linear(F, 3)

    def forward(self, x, edge_index, kinds, batch):
        x, edge_attr = self.nodes(x), self.edges(kinds)
        for layer in self.layers:
            x = layer(x, edge_index, batch, edge_attr=edge_attr)
        x = self.attn(x, edge_index, edge_attr).relu()
        x = self.last["conv"](x, edge_index)
        return self.head(global_mean_pool(x, batch))


def inputs(sizes=(4, 5, 1, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    edges, start = [], 0
    for n in sizes:
        edges.append(start + torch.randint(n, (2, 3 * n), generator=generator))
        start += n
    x = torch.randn(start, F, generator=generator, dtype=torch.float64)
    kinds = torch.randint(5, (3 * start,), generator=generator)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return x, torch.cat(edges, 1), kinds, batch


def model_of(**kwargs):
    torch.manual_seed(0)
    return Model(**kwargs).double()


def gradients(model, *args):
    model.zero_grad()
    out = model(*args)
    out.square().sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return out.detach(), {name: grad.clone() for name, grad in grads.items()}


def assert_same(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=1e-11)
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in ours[1].items():
        torch.testing.assert_close(grad, theirs[1][name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_outputs_gradients_and_statistics_stay(training):
    theirs = model_of().train(training)
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    assert ours.training is training
    for seed in range(2):
        assert_same(gradients(ours, *inputs(seed=seed)), gradients(theirs, *inputs(seed=seed)))
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, dict(theirs.named_buffers())[name])


def test_the_layers_are_turned_and_everything_is_the_same_object():
    model = model_of()
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    state = model.state_dict()
    assert pyg_gt.swap(model) is model
    assert [type(layer) for layer in model.layers] == [GPSConv] * 2
    assert type(model.attn) is type(model.last["conv"]) is MaskedTransformerConv
    for name, module in modules.items():
        assert model.get_submodule(name) is module
    for kind, before in (("parameters", parameters), ("buffers", buffers)):
        after = dict(getattr(model, f"named_{kind}")())
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)
    assert list(model.state_dict()) == list(state)
    assert all(model.state_dict()[name].equal(value) for name, value in state.items())


def test_they_are_still_pygs_layers_and_print_alike():
    theirs = model_of()
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    assert all(isinstance(layer, PyGGPSConv) for layer in ours.layers)
    assert isinstance(ours.attn, TransformerConv)
    assert all(isinstance(m, MessagePassing) for m in (*ours.layers, ours.attn))
    assert str(ours) == str(theirs).replace("TransformerConv", "MaskedTransformerConv")


def test_a_swapped_layer_has_every_field_of_one_that_was_made():
    conv = GCNConv(F, F)
    made = GPSConv(F, conv, heads=H), MaskedTransformerConv(F, F)
    turned = pyg_gt.swap(PyGGPSConv(F, conv, heads=H)), pyg_gt.swap(TransformerConv(F, F))
    for a, b in zip(made, turned, strict=True):
        assert set(vars(a)) - {"propagate"} == set(vars(b)) - {"propagate"}
        assert set(a._modules) == set(b._modules)
        for name in (
            "node_dim",
            "flow",
            "aggr",
            "explain",
            "fuse",
            "decomposed_layers",
            "backend",
        ):
            assert getattr(a, name) == getattr(b, name), name
        assert b.propagate.__self__ is b
    assert turned[0].norm_first is False


def test_a_model_that_is_such_a_layer_itself_stays_the_same_object():
    for theirs in (PyGGPSConv(F, None), TransformerConv(F, F)):
        ours = pyg_gt.swap(theirs)
        assert ours is theirs
        assert type(ours) in (GPSConv, MaskedTransformerConv)


def test_swapping_again_changes_nothing_but_the_backend():
    model = pyg_gt.swap(model_of())
    want = gradients(model, *inputs())
    fields = {name: set(vars(m)) for name, m in model.named_modules()}
    model.layers[0].norm_first = False
    again = pyg_gt.swap(model, backend="reference")
    assert again is model
    assert fields == {name: set(vars(m)) for name, m in model.named_modules()}
    assert {m.backend for m in (*model.layers, model.attn)} == {"reference"}
    assert_same(gradients(model, *inputs()), want)


def test_swapping_again_leaves_options_of_ours_alone():
    ours = GPSConv(F, None, norm_first=True)
    ours.explain = True
    pyg_gt.swap(ours)
    assert ours.norm_first is True
    assert ours.explain is True


def test_a_backend_that_was_chosen_for_a_layer_is_kept():
    def model_with_choices():
        return torch.nn.ModuleDict(
            {
                "made": GPSConv(F, None, backend="reference"),
                "made masked": MaskedTransformerConv(F, F, backend="sparse"),
                "made auto": GPSConv(F, None),
                "theirs": PyGGPSConv(F, TransformerConv(F, F)),
            }
        )

    def backends(model):
        return [m.backend for m in model.modules() if isinstance(m, PyGGPSConv | TransformerConv)]

    model = pyg_gt.swap(model_with_choices())
    assert backends(model) == ["reference", "sparse", "auto", "auto", "auto"]
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"kept the backend of 2 layers.*made \('reference'"):
            pyg_gt.swap(model, backend="sdpa")
        assert backends(model) == ["reference", "sparse", "sdpa", "sdpa", "sdpa"]
    pyg_gt.swap(model)  # no backend is named: nothing changes
    assert backends(model) == ["reference", "sparse", "sdpa", "sdpa", "sdpa"]
    model["theirs"].backend = "flex"  # chosen after the swap
    with pytest.warns(UserWarning, match="kept the backend of 3 layers"):
        pyg_gt.swap(model, backend="auto")
    assert backends(model) == ["reference", "sparse", "auto", "flex", "auto"]


@pytest.mark.parametrize("backend", ["foo", "", "AUTO", 1, True, ["cpu"], torch], ids=str)
def test_an_unknown_backend_is_refused_before_anything_is_turned(backend):
    model = torch.nn.ModuleList([PyGGPSConv(F, None)])
    with pytest.raises(ValueError, match="Unknown backend.*expected 'auto' or one of"):
        pyg_gt.swap(model, backend=backend)
    with pytest.raises(ValueError, match="'varlen' was removed"):
        pyg_gt.swap(model, backend="varlen")
    assert type(model[0]) is PyGGPSConv


def test_tied_modules_stay_tied():
    torch.manual_seed(0)
    layer = PyGGPSConv(F, None, heads=H, norm=None)
    model = torch.nn.ModuleDict({"a": layer, "b": layer, "c": torch.nn.ModuleList([layer])})
    x = torch.randn(5, F)
    want = layer(layer(layer(x, None), None), None)
    pyg_gt.swap(model)
    assert model["a"] is model["b"] is model["c"][0] is layer
    assert type(layer) is GPSConv
    torch.testing.assert_close(model["c"][0](model["b"](model["a"](x, None), None), None), want)


def test_tied_parameters_stay_tied():
    a, b = TransformerConv(F, F), TransformerConv(F, F)
    b.lin_key.weight = a.lin_key.weight
    model = pyg_gt.swap(torch.nn.ModuleList([a, b]))
    assert model[0].lin_key.weight is model[1].lin_key.weight


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_an_optimizer_made_before_moves_the_weights(kind):
    results = []
    for swap in (False, True):
        model = model_of()
        optimizer = {
            "adam": lambda p: torch.optim.Adam(p, 0.01),
            "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
        }[kind](model.parameters())
        losses = []
        for step in range(4):
            if swap and step == 2:  # in the middle of training, with its state
                pyg_gt.swap(model)
            optimizer.zero_grad()
            loss = model(*inputs(seed=step)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results.append((losses, {n: p.detach().clone() for n, p in model.named_parameters()}))
    (want_losses, want), (losses, weights) = results
    torch.testing.assert_close(losses, want_losses, rtol=1e-6, atol=1e-9)
    start = dict(model_of().named_parameters())
    for name, weight in weights.items():
        torch.testing.assert_close(weight, want[name], rtol=1e-5, atol=1e-7)
        if weight.dim() > 1:
            assert not weight.equal(start[name]), name


def test_moving_averages_made_before_and_after():
    model = model_of()
    before = AveragedModel(model)
    pyg_gt.swap(model)
    after = AveragedModel(model)
    assert type(after.module.attn) is MaskedTransformerConv
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    for average in (before, after):
        average.update_parameters(model)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)
        average.update_parameters(model)
    model.eval()
    for average in (before, after):
        average.eval()
        pyg_gt.swap(average)
        assert average(*inputs()).shape == (4, 3)


@pytest.mark.parametrize("initialised", [False, True])
def test_lazy_parameters(initialised):
    def make():
        torch.manual_seed(0)
        return torch.nn.ModuleList([TransformerConv(-1, F, heads=H), TransformerConv((-1, -1), F)])

    x, edge_index = inputs()[0].float(), inputs()[1]
    model = make()
    if initialised:
        torch.manual_seed(1)
        model[1](model[0](x, edge_index), edge_index)
    pyg_gt.swap(model)
    if not initialised:
        torch.manual_seed(1)
    out = model[1](model[0](x, edge_index), edge_index)
    theirs = make()
    torch.manual_seed(1)
    torch.testing.assert_close(out, theirs[1](theirs[0](x, edge_index), edge_index))
    assert list(model.state_dict()) == list(theirs.state_dict())


def test_forward_hooks_and_message_hooks_are_kept():
    model = model_of()
    want = model(*inputs())
    seen = []
    handles = [
        model.layers[0].register_forward_hook(lambda *args: seen.append("forward")),
        model.layers[0].register_forward_pre_hook(lambda *args: seen.append("pre")),
        model.layers[0].register_full_backward_hook(lambda *args: seen.append("backward")),
        model.attn.register_message_forward_hook(lambda *args: seen.append("message")),
        model.attn.lin_key.register_forward_hook(lambda *args: seen.append("lin_key")),
        model.register_forward_hook(lambda *args: seen.append("model")),
    ]
    pyg_gt.swap(model)
    out = model(*inputs())
    torch.testing.assert_close(out, want)
    out.sum().backward()
    # as before the swap, the second layer's message hook included
    assert seen == ["pre", "forward", "lin_key", "message", "model", "backward"]
    for handle in handles:
        handle.remove()
    model(*inputs())
    assert len(seen) == 6


@pytest.mark.parametrize("copied", ["as it is", "deepcopy", "pickle"])
def test_message_hooks_set_after_the_swap_see_the_layer_itself(copied):
    # global attention had no messages in PyG; what it needs for them comes from another object
    model = model_of().eval()
    want = model(*inputs())
    pyg_gt.swap(model)
    if copied == "deepcopy":
        model = copy.deepcopy(model)
    if copied == "pickle":
        model = pickle.loads(pickle.dumps(model))
    seen = []
    for layer in model.layers:
        layer.register_message_forward_hook(lambda conv, args, out: seen.append((conv, out.shape)))
    torch.testing.assert_close(model(*inputs()), want)
    pairs = 16 + 25 + 1 + 49
    assert seen == [(layer, (pairs, H, F // H)) for layer in model.layers]


def test_copies_pickles_and_files_of_a_swapped_model():
    model = pyg_gt.swap(model_of())
    want = gradients(model, *inputs())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert type(other.layers[0]) is GPSConv
        assert_same(gradients(other, *inputs()), want)


def test_checkpoints_of_both_models_load_into_each_other():
    theirs, ours = model_of(), pyg_gt.swap(model_of())
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_()
    file = io.BytesIO()
    torch.save(theirs.state_dict(), file)
    file.seek(0)
    ours.load_state_dict(torch.load(file))
    assert_same(gradients(ours, *inputs()), gradients(theirs, *inputs()))
    model_of().load_state_dict(ours.state_dict())


def test_dropout_keeps_its_rate_and_draws_anew():
    model = pyg_gt.swap(model_of(dropout=0.5))
    assert model.layers[0].attn.dropout == model.attn.dropout == 0.5
    torch.manual_seed(1)
    out = model(*inputs())
    torch.manual_seed(1)
    assert model(*inputs()).equal(out)
    assert not torch.allclose(model(*inputs()), out)
    theirs = model_of(dropout=0.5).eval()
    theirs.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.eval()(*inputs()), theirs(*inputs()))


# What is left alone #############################################################################


class OwnGPS(PyGGPSConv):
    pass


class OwnAttention(TransformerConv):
    def message(self, *args, **kwargs):
        return super().message(*args, **kwargs)


def test_subclasses_are_left_alone_and_listed():
    model = torch.nn.ModuleDict(
        {"a": OwnGPS(F, None), "b": PyGGPSConv(F, OwnAttention(F, F)), "c": TransformerConv(F, F)}
    )
    with pytest.warns(UserWarning, match="swap left 2 layers as they are") as record:
        pyg_gt.swap(model)
    (warning,) = record
    assert "a ('OwnGPS' is a subclass of GPSConv)" in str(warning.message)
    assert "b.conv ('OwnAttention' is a subclass of TransformerConv)" in str(warning.message)
    assert warning.filename == __file__
    assert type(model["a"]) is OwnGPS
    assert not hasattr(model["a"], "backend")
    assert type(model["b"]) is GPSConv
    assert type(model["b"].conv) is OwnAttention
    assert type(model["c"]) is MaskedTransformerConv


def test_parametrised_layers_are_left_alone_and_listed():
    model = torch.nn.ModuleList([TransformerConv(F, F), TransformerConv(F, F)])

    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    model[0].register_parameter("extra", torch.nn.Parameter(torch.ones(2)))
    parametrize.register_parametrization(model[0], "extra", Doubled())
    kind = type(model[0])
    with pytest.warns(UserWarning, match="0 .it is a parametrised TransformerConv."):
        pyg_gt.swap(model)
    assert type(model[0]) is kind
    assert type(model[1]) is MaskedTransformerConv


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.filterwarnings("ignore:.*TorchScript")
def test_scripted_layers_are_left_alone_and_listed():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = TransformerConv(F, F)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return self.conv(x, edge_index)

    plain = One()
    x, edge_index = inputs()[0].float(), inputs()[1]
    want = plain(x, edge_index)
    model = torch.nn.ModuleList([torch.jit.script(plain), plain])
    with pytest.warns(UserWarning, match="left 1 layers as they are: 0.conv .it is scripted."):
        pyg_gt.swap(model)
    assert isinstance(model[0].conv, torch.jit.ScriptModule)
    assert type(model[1].conv) is MaskedTransformerConv
    torch.testing.assert_close(model[0](x, edge_index), want)
    torch.testing.assert_close(model[1](x, edge_index), want)


def test_parametrised_submodules_do_not_stand_in_the_way():
    model = torch.nn.ModuleList([TransformerConv(F, F), PyGGPSConv(F, None)])
    parametrizations.spectral_norm(model[0].lin_key)
    parametrizations.weight_norm(model[1].mlp[0])
    model.eval()
    x, edge_index = inputs()[0].float(), inputs()[1]
    want = model[1](model[0](x, edge_index), edge_index)
    pyg_gt.swap(model)
    torch.testing.assert_close(model[1](model[0](x, edge_index), edge_index), want)


def test_our_own_layers_are_no_strangers():
    class OwnFull(FullTransformerConv):
        pass

    class OwnGPSConv(GPSConv):
        pass

    model = torch.nn.ModuleList([FullTransformerConv(F, F), OwnFull(F, F), OwnGPSConv(F, None)])
    kinds = [type(m) for m in model]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyg_gt.swap(model)
    assert [type(m) for m in model] == kinds


def test_models_without_such_layers_pass_through():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    for verbose in (False, True):
        with pytest.warns(UserWarning, match="found no .*GPSConv.*in this 'Sequential'") as record:
            assert pyg_gt.swap(model, verbose=verbose) is model
        assert record[0].filename == __file__
    assert [type(m) for m in model] == [torch.nn.Linear, torch.nn.ReLU]


@pytest.mark.parametrize("value", [None, [PyGGPSConv(F, None)], "model", PyGGPSConv], ids=str)
def test_what_is_no_module_is_refused(value):
    with pytest.raises(ValueError, match="expected a 'torch.nn.Module'"):
        pyg_gt.swap(value)


def test_verbose_prints_a_line_for_each_layer(capsys):
    model = torch.nn.ModuleDict({"a": PyGGPSConv(F, TransformerConv(F, F)), "b": OwnGPS(F, None)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyg_gt.swap(model, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "swap: a: GPSConv",
        "swap: a.conv: MaskedTransformerConv",
        "swap: b: left, 'OwnGPS' is a subclass of GPSConv",
    ]
    pyg_gt.swap(PyGGPSConv(F, None), verbose=True)
    assert capsys.readouterr().out == "swap: (the model itself): GPSConv\n"
    pyg_gt.swap(PyGGPSConv(F, None))
    assert capsys.readouterr().out == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyg_gt.swap(
            torch.nn.ModuleList(
                [GPSConv(F, None, backend="reference"), FullTransformerConv(F, F)]
            ),
            backend="sdpa",
            verbose=True,
        )
    assert capsys.readouterr().out.splitlines() == [
        "swap: 0: GPSConv already, keeps backend='reference'",
        "swap: 1: FullTransformerConv already",
    ]


# Other ways to hold a model ######################################################################



class Small(torch.nn.Module):
    """One layer of each kind, since compiling takes its time."""

    def __init__(self):
        super().__init__()
        self.gps = PyGGPSConv(F, None, heads=H)
        self.attn = TransformerConv(F, F // H, heads=H)

    def forward(self, x, edge_index, batch):
        return self.attn(self.gps(x, edge_index, batch), edge_index)


def small(swapped=False):
    torch.compiler.reset()
    torch.manual_seed(0)
    x, edge_index, _, batch = inputs()
    model = Small().double()
    return (pyg_gt.swap(model) if swapped else model), (x, edge_index, batch)


@pytest.mark.parametrize(
    ("when", "backend"), [("before", "eager"), ("between", "eager"), ("after", "aot_eager")]
)
def test_torch_compile(when, backend):
    theirs, args = small()
    want = gradients(theirs, *args)
    ours, _ = small(swapped=when == "after")
    compiled = torch.compile(ours, backend=backend, dynamic=True)
    if when == "between":  # code for PyG's layers exists already
        gradients(compiled, *args)
        ours.load_state_dict(small()[0].state_dict())
    if when != "after":
        assert pyg_gt.swap(compiled) is compiled
    out, grads = gradients(compiled, *args)
    assert_same((out, {n.removeprefix("_orig_mod."): g for n, g in grads.items()}), want)
    # a backend that does not exist is only missed by the new code
    ours.gps.backend = "nope"
    with pytest.raises(Exception, match="Unknown backend 'nope'"):
        compiled(*args)


def test_layers_compiled_by_themselves_run_the_new_code():
    theirs, args = small()
    want = gradients(theirs, *args)
    ours, _ = small()
    ours.gps.compile(backend="eager", dynamic=True)
    gradients(ours, *args)
    ours.load_state_dict(small()[0].state_dict())
    pyg_gt.swap(ours)
    assert_same(gradients(ours, *args), want)
    # a backend that does not exist is only missed by the new code
    ours.gps.backend = "nope"
    with pytest.raises(Exception, match="Unknown backend 'nope'"):
        ours(*args)


def test_hetero_conv_and_to_hetero():
    x = {"a": torch.randn(5, F), "b": torch.randn(7, F)}
    edges = {
        ("a", "to", "b"): torch.tensor([[0, 1, 4, 4], [6, 0, 2, 2]]),
        ("b", "to", "a"): torch.tensor([[0, 1, 6, 3], [4, 0, 2, 2]]),
    }
    first = HeteroConv({kind: TransformerConv((F, F), F, heads=H) for kind in edges})

    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = TransformerConv((F, F), F)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index).relu()

    second = to_hetero(One(), (list(x), list(edges)))
    for model in (first, second):
        want = model(x, edges)
        pyg_gt.swap(model)
        convs = [m for m in model.modules() if isinstance(m, TransformerConv)]
        assert [type(m) for m in convs] == [MaskedTransformerConv] * 2
        out = model(x, edges)
        for kind in x:
            torch.testing.assert_close(out[kind], want[kind])
    # and the other way round: a swapped layer made heterogeneous
    one = pyg_gt.swap(One())
    model = to_hetero(one, (list(x), list(edges)))
    assert model(x, edges)["a"].shape == (5, F)


# What docs/after_swap.md says beside all this ####################################################


def saved_bytes(model, *args):
    """What the backward keeps alive."""
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(*args)
    assert out.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_memory_of_gps_does_not_grow_with_padding_or_pairs(dropout):
    # a graph of 150 nodes among 40 of two: 230 nodes, 41 * 150 padded rows, 22,660 pairs
    sizes = torch.tensor([150] + [2] * 40)
    batch = torch.arange(41).repeat_interleave(sizes)
    x = torch.randn(230, F)
    theirs = PyGGPSConv(F, None, heads=H, norm=None, attn_kwargs={"dropout": dropout})
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    mine, usual = saved_bytes(ours, x, None, batch), saved_bytes(theirs, x, None, batch)
    assert mine < 230 * F * 4 * 20
    assert usual > 41 * 150 * F * 4 * 3
    assert mine < usual / 5


def test_memory_of_masked_attention_does_not_grow_with_edges():
    x, edge_index = torch.randn(300, F), torch.randint(300, (2, 6000))
    theirs = TransformerConv(F, F, heads=H)
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    # 300 nodes, 6,000 edges
    assert saved_bytes(theirs, x, edge_index) > 6000 * F * H * 4
    assert saved_bytes(ours, x, edge_index) < 300 * F * H * 4 * 12


def test_edits_of_the_batch_are_seen():
    torch.manual_seed(0)
    ours = pyg_gt.swap(PyGGPSConv(F, None, heads=H, norm=None)).double()
    x, batch = torch.randn(4, F, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    before = ours(x, None, batch)
    for edit in (lambda b: b.data, lambda b: b.numpy(), lambda b: b):
        batch.copy_(torch.tensor([0, 0, 1, 1]))
        assert ours(x, None, batch).equal(before)
        edit(batch)[1] = 1
        assert not torch.allclose(ours(x, None, batch), before)
        torch.testing.assert_close(ours(x, None, batch), ours(x, None, batch.clone()))


def test_a_seed_gives_the_same_run_each_time_also_with_deterministic_algorithms():
    model = pyg_gt.swap(model_of(dropout=0.5))
    runs = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            torch.manual_seed(1)
            runs.append(gradients(model, *inputs()))
    finally:
        torch.use_deterministic_algorithms(False)
    assert runs[0][0].equal(runs[1][0])
    assert all(runs[0][1][name].equal(runs[1][1][name]) for name in runs[0][1])


def test_layers_that_send_messages_are_counted_with_gps():
    theirs = torch.nn.Sequential(PyGGPSConv(F, GCNConv(F, F)), TransformerConv(F, F))
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    assert (get_num_hops(theirs), get_num_hops(ours)) == (2, 3)


def test_second_derivatives_by_layer():
    torch.manual_seed(0)
    x, edge_index, _, batch = inputs()

    def second(layer, *args):
        y = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(y, *args).square().sum(), y, create_graph=True)
        return torch.autograd.grad(first.square().sum(), y)[0]

    theirs = TransformerConv(F, F, heads=H).double()
    want = second(theirs, edge_index)
    for backend in ("auto", "reference"):
        ours = pyg_gt.swap(theirs, backend=backend)
        torch.testing.assert_close(second(ours, edge_index), want)

    gps = PyGGPSConv(F, None, heads=H, norm=None).double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        want = second(gps, None, batch)
    with pytest.raises(RuntimeError, match="flash_attention.*not implemented"):
        second(gps, None, batch)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        second(pyg_gt.swap(gps), None, batch)
    torch.testing.assert_close(second(pyg_gt.swap(gps, backend="reference"), None, batch), want)


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_swapped_layers_cannot_be_scripted():
    refused = (torch.jit.frontend.NotSupportedError, RuntimeError, ValueError)
    for layer in (TransformerConv(F, F), PyGGPSConv(F, None)):
        with pytest.raises(refused):
            torch.jit.script(pyg_gt.swap(layer))


def test_a_missing_edge_attr_is_a_value_error():
    theirs = TransformerConv(F, F, edge_dim=3)
    x, edge_index = inputs()[0].float(), inputs()[1]
    with pytest.raises(AssertionError):
        theirs(x, edge_index)
    with pytest.raises(ValueError, match="needs 'edge_attr'"):
        pyg_gt.swap(theirs)(x, edge_index)
