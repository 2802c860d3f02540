"""Where somebody wants to see or change messages, PyG's route runs and gives the same numbers."""

import copy

import pytest
import torch
from torch_geometric.explain import AttentionExplainer, CaptumExplainer, Explainer, GNNExplainer
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import (
    GINConv,
    MeanAggregation,
    MessagePassing,
    TransformerConv,
    global_add_pool,
)
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import PairBias
from pyg_gt.nn import FullTransformerConv, GatedGCNConv, GPSConv, MaskedTransformerConv
from tests.documents import ROOT, sections

F, H, C = 8, 2, 4
HOOKS = [
    "propagate_forward_pre",
    "propagate_forward",
    "message_forward_pre",
    "message_forward",
    "aggregate_forward_pre",
    "aggregate_forward",
]


def layers():
    """Each attention layer, and how to call it: name, layer, call(layer, x, edge_index, batch)."""
    return {
        "full": (FullTransformerConv(F, C, heads=H), lambda c, x, e, b: c(x, batch=b)),
        "masked": (MaskedTransformerConv(F, C, heads=H), lambda c, x, e, b: c(x, e)),
        "gps": (GPSConv(F, None, heads=H), lambda c, x, e, b: c(x, e, b)),
        "gps+gin": (
            GPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H, norm="layer_norm"),
            lambda c, x, e, b: c(x, e, b),
        ),
    }


NAMES = list(layers())


def nodes(n=16):
    return torch.randn(n, F, dtype=torch.float64)


def hook(conv, kind, function=lambda *args: None):
    return getattr(conv, f"register_{kind}_hook")(function)


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_hook_brings_pygs_route_with_the_same_numbers(name, kind, agree, batch_of, fused_calls):
    batch, edge_index = batch_of()
    ours, call = layers()[name]
    ours = ours.double()
    other = copy.deepcopy(ours)
    seen = []
    handle = hook(other, kind, lambda *args: seen.append(args))

    class Call(torch.nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return call(self.conv, x, edge_index, batch)

    agree(Call(ours), Call(other), nodes())
    assert len(fused_calls) == 1  # that of the layer without a hook
    assert len(seen) == 1
    assert seen[0][0] is other
    handle.remove()
    call(other, nodes(), edge_index, batch)
    assert len(fused_calls) == 2
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["full", "gps", "gps+gin"])
@pytest.mark.parametrize("kind", ["edge_update_forward_pre", "edge_update_forward"])
def test_edge_update_hooks_of_global_attention(kind, name, batch_of):
    batch, edge_index = batch_of()
    ours, call = layers()[name]
    ours = ours.double()
    x = nodes()
    want = call(ours, x, edge_index, batch)
    seen = []
    hook(ours, kind, lambda *args: seen.append(args[-1]))
    torch.testing.assert_close(call(ours, x, edge_index, batch), want)
    assert len(seen) == 1
    if kind == "edge_update_forward":  # its output are the attention weights of all pairs
        assert seen[0].shape == (1 + 25 + 9 + 49, H)


@pytest.mark.parametrize("kind", [*HOOKS, "edge_update_forward_pre", "edge_update_forward"])
def test_hooks_fire_as_often_as_on_pygs_layer_and_may_change_the_numbers(kind, agree, batch_of):
    _, edge_index = batch_of()
    theirs = TransformerConv(F, C, heads=H).double()
    ours = MaskedTransformerConv(F, C, heads=H).double()
    ours.load_state_dict(theirs.state_dict())
    fired = {ours: 0, theirs: 0}

    def change(conv, *args):
        fired[conv] += 1
        out = args[-1]
        return out * 2 if isinstance(out, torch.Tensor) else None

    for conv in (ours, theirs):
        hook(conv, kind, change)
    agree(ours, theirs, nodes(), edge_index)
    assert fired[ours] == fired[theirs]
    assert fired[ours] == (0 if kind.startswith("edge_update") else 1)


def test_a_hook_that_changes_messages_reaches_the_output_of_global_attention(batch_of):
    batch, edge_index = batch_of()
    ours = FullTransformerConv(F, C, heads=H, root_weight=False).double()
    x = nodes()
    want = ours(x, batch=batch)
    ours.register_message_forward_hook(lambda conv, inputs, out: 3 * out)
    torch.testing.assert_close(ours(x, batch=batch), 3 * want)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_on_the_aggregation_module_fire_as_on_pygs_layer(kind, batch_of, fused_calls):
    batch, edge_index = batch_of()
    for name in NAMES:
        ours, call = layers()[name]
        ours = ours.double()
        x = nodes()
        want = call(ours, x, edge_index, batch)
        seen = []
        hook(ours.aggr_module, kind, lambda *args, seen=seen: seen.append(1))
        fused_calls.clear()
        out = call(ours, x, edge_index, batch)
        torch.testing.assert_close(out, want)
        out.sum().backward()
        # PyG's GPSConv has no such module: to watch all of it must not list all pairs
        assert seen == ([] if name.startswith("gps") else [1]), name
        assert len(fused_calls) == len(name.startswith("gps") * [1])
        if name.startswith("gps"):  # where messages are sent, it adds them up
            ours.register_message_forward_hook(lambda *args: None)
            call(ours, x, edge_index, batch).sum().backward()
            assert seen == [1]


class Doubled:
    """An overridden method of each kind."""

    @staticmethod
    def message(base):
        class Sub(base):
            def message(self, value_j, alpha, pairs):
                return 2 * super().message(value_j, alpha, pairs)

        return Sub

    @staticmethod
    def aggregate(base):
        class Sub(base):
            def aggregate(self, inputs, index, ptr=None, dim_size=None):
                return 2 * super().aggregate(inputs, index, ptr, dim_size)

        return Sub

    @staticmethod
    def update(base):
        class Sub(base):
            def update(self, inputs):
                return 2 * inputs

        return Sub

    @staticmethod
    def edge_update(base):
        class Sub(base):
            def edge_update(self, query_i, key_j, pairs, index, size_i):
                return 2 * super().edge_update(query_i, key_j, pairs, index, size_i)

        return Sub


@pytest.mark.parametrize("method", ["message", "aggregate", "update", "edge_update"])
def test_an_overridden_method_of_global_attention_is_honoured(method, batch_of):
    batch, edge_index = batch_of()
    x = nodes()
    base = FullTransformerConv(F, C, heads=H, root_weight=False).double()
    sub = getattr(Doubled, method)(FullTransformerConv)(F, C, heads=H, root_weight=False).double()
    sub.load_state_dict(base.state_dict())
    torch.testing.assert_close(sub(x, batch=batch), 2 * base(x, batch=batch))
    assert str(sub) == "Sub(8, 4, heads=2)"

    base = GPSConv(F, None, heads=H, norm=None).double()
    sub = getattr(Doubled, method)(GPSConv)(F, None, heads=H, norm=None).double()
    sub.load_state_dict(base.state_dict())
    for conv in (base, sub):
        with torch.no_grad():
            conv.mlp[3].weight.zero_()
            conv.mlp[3].bias.zero_()
            conv.attn.out_proj.bias.zero_()
    torch.testing.assert_close(sub(x, None, batch) - x, 2 * (base(x, None, batch) - x))


def test_an_overridden_message_of_the_masked_layer_is_honoured(agree, batch_of):
    _, edge_index = batch_of()

    class Ours(MaskedTransformerConv):
        def message(self, query_i, key_j, value_j, edge_attr, index, ptr, size_i):
            return 2 * super().message(query_i, key_j, value_j, edge_attr, index, ptr, size_i)

    class Theirs(TransformerConv):
        def message(self, query_i, key_j, value_j, edge_attr, index, ptr, size_i):
            return 2 * super().message(query_i, key_j, value_j, edge_attr, index, ptr, size_i)

    ours, theirs = Ours(F, C, heads=H).double(), Theirs(F, C, heads=H).double()
    ours.load_state_dict(theirs.state_dict())
    agree(ours, theirs, nodes(), edge_index)


def test_a_method_replaced_on_the_object_is_honoured(batch_of):
    _, edge_index = batch_of()
    ours = MaskedTransformerConv(F, C, heads=H, root_weight=False).double()
    x = nodes()
    want = ours(x, edge_index)
    ours.aggregate = lambda inputs, index, ptr=None, dim_size=None: (
        3 * (MessagePassing.aggregate(ours, inputs, index, ptr, dim_size))
    )
    torch.testing.assert_close(ours(x, edge_index), 3 * want)


def test_a_subclass_that_leaves_messages_alone_stays_on_the_fused_route(batch_of, fused_calls):
    batch, edge_index = batch_of()

    class Named(GPSConv):
        def extra(self):
            return 1

    Named(F, None, heads=H)(nodes().float(), edge_index, batch)
    assert len(fused_calls) == 1


def test_another_aggregation_put_in_afterwards_is_honoured(batch_of):
    _, edge_index = batch_of()
    theirs = TransformerConv(F, C, heads=H).double()
    ours = MaskedTransformerConv(F, C, heads=H).double()
    ours.load_state_dict(theirs.state_dict())
    ours.aggr_module = theirs.aggr_module = MeanAggregation()
    x = nodes()
    torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index))


# Explainers ######################################################################################


class Model(torch.nn.Module):
    """Two GPS layers and a `TransformerConv`, for nodes or for graphs."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool
        self.gps1 = PyGGPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H)
        self.attn = TransformerConv(F, F, heads=H, concat=False)
        self.gps2 = PyGGPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H, norm="layer_norm")
        self.head = torch.nn.Linear(F, 3)

    def forward(self, x, edge_index, batch=None):
        x = self.gps1(x, edge_index, batch)
        x = self.attn(x, edge_index).relu()
        x = self.gps2(x, edge_index, batch)
        if self.pool:
            x = global_add_pool(x, batch)
        return self.head(x)


def explained(pool):
    """A model, its swapped twin, and inputs."""
    torch.manual_seed(1)
    theirs = Model(pool).double().eval()
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    assert type(ours.gps1) is GPSConv
    return ours, theirs


def explain(model, algorithm, pool, inputs, **masks):
    explainer = Explainer(
        model,
        algorithm=algorithm,
        explanation_type="model",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "graph" if pool else "node",
            "return_type": "raw",
        },
        **masks,
    )
    torch.manual_seed(11)
    x, edge_index, batch = inputs
    index = None if pool else 4
    return explainer(x, edge_index, index=index, batch=batch)


def the_model_still_works(ours, theirs, inputs, before, fused_calls):
    fused_calls.clear()
    torch.testing.assert_close(ours(*inputs), before)
    assert len(fused_calls) == 3
    assert [ours.gps1.explain, ours.gps2.explain] == [False, False]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copy.deepcopy(ours)


@pytest.mark.parametrize("pool", [False, True], ids=["nodes", "graphs"])
@pytest.mark.parametrize("node_mask", ["attributes", None], ids=["x and edges", "edges"])
def test_gnn_explainer_gives_pygs_masks(node_mask, pool, batch_of, fused_calls):
    batch, edge_index = batch_of((5, 3, 7))
    edge_index = torch.unique(edge_index, dim=1)
    inputs = nodes(15), edge_index, batch
    ours, theirs = explained(pool)
    before = ours(*inputs).detach()
    masks = {"edge_mask_type": "object", "node_mask_type": node_mask}
    mine = explain(ours, GNNExplainer(epochs=12), pool, inputs, **masks)
    want = explain(theirs, GNNExplainer(epochs=12), pool, inputs, **masks)
    torch.testing.assert_close(mine.edge_mask, want.edge_mask, rtol=1e-6, atol=1e-8)
    assert want.edge_mask.std() > 1e-3
    if node_mask is not None:
        torch.testing.assert_close(mine.node_mask, want.node_mask, rtol=1e-6, atol=1e-8)
    the_model_still_works(ours, theirs, inputs, before, fused_calls)


@pytest.mark.parametrize("method", ["IntegratedGradients", "Saliency", "InputXGradient"])
@pytest.mark.parametrize("node_mask", ["attributes", None], ids=["x and edges", "edges"])
def test_captum_explainer_gives_pygs_masks(node_mask, method, batch_of, fused_calls):
    pytest.importorskip("captum", reason="CaptumExplainer needs captum")
    batch, edge_index = batch_of((5, 3, 7))
    edge_index = torch.unique(edge_index, dim=1)
    inputs = nodes(15), edge_index, batch
    ours, theirs = explained(pool=False)
    before = ours(*inputs).detach()
    options = {"n_steps": 5} if method == "IntegratedGradients" else {}
    masks = {"edge_mask_type": "object", "node_mask_type": node_mask}
    mine = explain(ours, CaptumExplainer(method, **options), False, inputs, **masks)
    want = explain(theirs, CaptumExplainer(method, **options), False, inputs, **masks)
    torch.testing.assert_close(mine.edge_mask, want.edge_mask, rtol=1e-7, atol=1e-9)
    assert want.edge_mask.abs().max() > 1e-3
    if node_mask is not None:
        torch.testing.assert_close(mine.node_mask, want.node_mask, rtol=1e-7, atol=1e-9)
    the_model_still_works(ours, theirs, inputs, before, fused_calls)


def test_attention_explainer_reads_the_masked_layer(batch_of, fused_calls):
    batch, edge_index = batch_of((5, 3, 7))
    inputs = nodes(15), edge_index, batch
    ours, theirs = explained(pool=False)
    before = ours(*inputs).detach()
    masks = {"edge_mask_type": "object"}
    mine = explain(ours, AttentionExplainer(), False, inputs, **masks)
    want = explain(theirs, AttentionExplainer(), False, inputs, **masks)
    torch.testing.assert_close(mine.edge_mask, want.edge_mask)
    the_model_still_works(ours, theirs, inputs, before, fused_calls)


@pytest.mark.parametrize("name", ["full", "gps", "gps+gin"])
def test_explaining_global_attention_needs_a_mask_of_all_pairs(name, batch_of, all_pairs):
    batch, edge_index = batch_of((3, 4))
    ours, call = layers()[name]
    ours = ours.double().eval()
    x = nodes(7)
    plain = call(ours, x, edge_index, batch)
    ours.explain = True
    for length in (edge_index.size(1), 24, 26, 0):
        ours._edge_mask = torch.zeros(length, dtype=torch.float64)
        with pytest.raises(ValueError, match=f"sends 25 messages.*has length {length}"):
            call(ours, x, edge_index, batch)
    ours._edge_mask = None
    torch.testing.assert_close(call(ours, x, edge_index, batch), plain)

    # a mask of one number for each pair multiplies its messages
    mask = torch.rand(25, dtype=torch.float64)
    ours._edge_mask, ours._apply_sigmoid = mask, False
    out = call(ours, x, edge_index, batch)
    other, _ = layers()[name]
    other = other.double().eval()
    other.load_state_dict(ours.state_dict())
    other.register_message_forward_hook(lambda conv, inputs, out: out * mask.view(-1, 1, 1))
    torch.testing.assert_close(out, call(other, x, edge_index, batch))
    assert not torch.allclose(out, plain)
    ours._edge_mask = torch.ones(25, dtype=torch.float64)
    torch.testing.assert_close(call(ours, x, edge_index, batch), plain)
    ours.explain = False
    torch.testing.assert_close(call(ours, x, edge_index, batch), plain)


@pytest.mark.parametrize("choice", [True, None])
def test_gnn_explainer_can_be_pointed_at_full_attention(choice, all_pairs):
    # its edges are all pairs, so that a mask of their length fits
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = FullTransformerConv(F, 3)
            self.conv.explain = choice

        def forward(self, x, edge_index):
            return self.conv(x)

    class Listed(torch.nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = TransformerConv(F, 3).double()
            self.conv.load_state_dict(conv.state_dict())

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    ours = Whole().double()
    theirs = Listed(ours.conv)
    edge_index = all_pairs(torch.zeros(6, dtype=torch.int64))
    x = nodes(6)
    masks = []
    for model in (ours, theirs):
        explainer = Explainer(
            model,
            algorithm=GNNExplainer(epochs=10),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        torch.manual_seed(2)
        masks.append(explainer(x, edge_index).edge_mask)
    torch.testing.assert_close(masks[0], masks[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["full", "gps", "gps+gin"])
def test_a_layer_is_explained_on_request_and_the_request_stays(name, batch_of, fused_calls):
    batch, edge_index = batch_of((3, 4))
    ours, call = layers()[name]
    ours = ours.double().eval()
    x = nodes(7)
    want = call(ours, x, edge_index, batch)
    assert ours.explain is False
    set_masks(ours, torch.ones(25), edge_index)  # not asked for
    clear_masks(ours)
    assert ours.explain is False
    for choice in (True, None):
        ours.explain = False
        ours.explain = choice
        for _ in range(2):
            fused_calls.clear()
            torch.testing.assert_close(call(ours, x, edge_index, batch), want)
            assert len(fused_calls) == 1  # without a mask there is nothing to explain
            if name != "gps+gin":  # whose local part has another number of edges
                set_masks(ours, torch.zeros(25, dtype=torch.float64), edge_index)
                assert not torch.allclose(call(ours, x, edge_index, batch), want)
            clear_masks(ours)
            assert ours.explain is True
    # without a mask, message hooks see the messages as they are
    ours.register_message_forward_hook(lambda *args: None)
    torch.testing.assert_close(call(ours, x, edge_index, batch), want)
    other = copy.deepcopy(ours)
    assert other.explain is True
    torch.testing.assert_close(call(other, x, edge_index, batch), want)


def test_a_mask_of_another_length_is_named_with_the_cure(batch_of):
    batch, edge_index = batch_of((3, 4))
    ours, call = layers()["full"]
    ours.explain = True
    set_masks(ours, torch.ones(edge_index.size(1)), edge_index)
    with pytest.raises(ValueError, match="sends 25 messages.*length 21.*all pairs.*= False"):
        call(ours.double(), nodes(7), edge_index, batch)


@pytest.mark.parametrize("algorithm", ["GNNExplainer", "CaptumExplainer"])
@pytest.mark.parametrize("layer", ["gps", "gps+gin", "full"])
def test_the_code_of_the_page_explains_global_attention(layer, algorithm):
    if algorithm == "CaptumExplainer":
        pytest.importorskip("captum", reason="CaptumExplainer needs captum")
    _, block = sections(ROOT / "docs" / "after_swap.md")["Explainers"]
    torch.manual_seed(0)
    conv, _ = layers()[layer]
    conv = conv.double().eval()
    edge_index = torch.randint(6, (2, 9))
    space = {
        "torch": torch,
        "conv": conv,
        "x": nodes(6),
        "call": lambda x: conv(x) if layer == "full" else conv(x, edge_index),
        "algorithm": {
            "GNNExplainer": lambda: GNNExplainer(epochs=8),
            "CaptumExplainer": lambda: CaptumExplainer("IntegratedGradients", n_steps=5),
        }[algorithm](),
    }
    before = space["call"](space["x"])
    exec(block.code, space)
    mask = space["explanation"].edge_mask
    assert mask.shape == (36,)
    assert mask.std() > 1e-4
    assert space["pairs"].shape == (2, 36)
    # and the model goes on as before
    assert conv._edge_mask is None
    torch.testing.assert_close(space["call"](space["x"]), before)


def test_full_attention_honours_the_flow_on_both_routes(batch_of, all_pairs):
    batch, edge_index = batch_of((3, 4))
    edge_attr = torch.randn(edge_index.size(1), 3, dtype=torch.float64)
    x = nodes(7)
    forward = FullTransformerConv(F, C, heads=H, edge_dim=3).double()
    backward = FullTransformerConv(F, C, heads=H, edge_dim=3, flow="target_to_source").double()
    backward.load_state_dict(forward.state_dict())
    want = forward(x, edge_index, edge_attr, batch)
    for _ in range(2):
        torch.testing.assert_close(backward(x, edge_index.flip(0), edge_attr, batch), want)
        backward.register_message_forward_hook(lambda *args: None)
    assert not torch.allclose(backward(x, edge_index, edge_attr, batch), want)


def test_biases_work_on_both_routes_of_gps(batch_of):
    batch, edge_index = batch_of((3, 4))
    ours = GPSConv(F, None, heads=H).double()
    bias = PairBias(torch.randn(25, H, dtype=torch.float64))
    x = nodes(7)
    want = ours(x, edge_index, batch, biases=(bias,))
    ours.register_propagate_forward_hook(lambda *args: None)
    torch.testing.assert_close(ours(x, edge_index, batch, biases=(bias,)), want)
    with pytest.raises(ValueError, match="24 pairs, but the layout has 25"):
        ours(x, edge_index, batch, biases=(PairBias(bias.values[:24]),))


def test_gated_gcn_is_an_ordinary_message_passing_layer(batch_of):
    _, edge_index = batch_of((3, 4))
    ours = GatedGCNConv(F, F).double()
    fired = []
    for kind in [*HOOKS, "edge_update_forward_pre", "edge_update_forward"]:
        hook(ours, kind, lambda *args, kind=kind: fired.append(kind))
    ours(nodes(7), edge_index, torch.randn(edge_index.size(1), F, dtype=torch.float64))
    assert sorted(fired) == sorted([*HOOKS, "edge_update_forward_pre", "edge_update_forward"])
