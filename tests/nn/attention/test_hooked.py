"""Hooks see what PyG's layer shows them, may change it, and change nothing by being there."""

import copy
import sys
import warnings
from collections import defaultdict

import pytest
import torch
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_leaves
from torch_geometric.nn import GINConv, TransformerConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import EdgeMask, GraphLayout, PairBias, ScoreMod
from pyg_gt.nn import FullTransformerConv, GatedGCNConv, GPSConv, TransformerBlock

F, H = 8, 2
SIZES = (3, 5, 4)
NORMS = ["batch_norm", "layer_norm", "graph_norm", None]


def nodes(n=12, dtype=torch.float64):
    return torch.randn(n, F, dtype=dtype)


def pair_of_layers(norm="batch_norm", local=True, **kwargs):
    """Ours and PyG's, with the same weights."""
    conv = GINConv(torch.nn.Linear(F, F)) if local else None
    theirs = PyGGPSConv(F, conv, heads=H, norm=norm, **kwargs).double()
    return pyg_gt.swap(copy.deepcopy(theirs)), theirs


def watch_every_module(layer):
    """Records what all kinds of hooks see, under the name of the module and the kind of hook."""
    seen = defaultdict(list)
    for name, module in layer.named_modules():
        if name == "aggr_module":  # PyG's layer has none
            continue

        def record(kind, name=name, keep=lambda *args: args):
            return lambda module, *args: seen[name, kind].append(keep(*args))

        module.register_forward_hook(record("forward"), with_kwargs=True)
        module.register_forward_pre_hook(record("pre"), with_kwargs=True)
        module.register_forward_hook(record("always"), always_call=True)
        if not isinstance(module, GINConv | PyGGPSConv):
            module.register_full_backward_hook(record("backward"))
            module.register_full_backward_pre_hook(record("backward pre"))
    return seen


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        mine, want = tree_leaves(ours[key]), tree_leaves(theirs[key])
        assert len(mine) == len(want), key
        for a, b in zip(mine, want, strict=True):
            if isinstance(b, torch.Tensor):
                torch.testing.assert_close(
                    a, b, rtol=1e-8, atol=1e-9, msg=lambda m, k=key: f"{k} {m}"
                )
            else:
                assert a == b, key


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("local", [True, False], ids=["gin", "no conv"])
def test_hooks_of_all_kinds_see_what_pygs_layer_shows_them(
    local, norm, training, batch_of, fused_calls
):
    batch, edge_index = batch_of(SIZES)
    layers = [layer.train(training) for layer in pair_of_layers(norm, local)]
    x = nodes()
    plain = layers[0](x, edge_index, batch)
    fused_calls.clear()
    seen, results = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in layers:
            seen.append(watch_every_module(layer))
            leaf = x.clone().requires_grad_()
            out = layer(leaf, edge_index, batch)
            out.square().sum().backward()
            results.append((out.detach(), leaf.grad, [p.grad for p in layer.parameters()]))
    assert_same(*seen)
    assert {"attn", "norm3" if norm else "mlp", "mlp.0"} <= {name for name, _ in seen[0]}
    assert_same(*[{"results": r} for r in results])
    torch.testing.assert_close(results[0][0], plain)
    assert len(fused_calls) == 1  # attention still runs on the nodes alone


NAMES = ["attn", "mlp", "mlp.0", "mlp.2", "norm1", "norm2", "norm3"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("forward", "pre", "backward") for name in NAMES),
        *((kind, "") for kind in ("forward", "pre")),
    ],
)
def test_what_a_hook_returns_takes_the_place_of_what_it_saw(kind, name, agree, batch_of):
    batch, edge_index = batch_of(SIZES)
    layers = pair_of_layers()

    def tripled(part):
        if isinstance(part, tuple):
            return tuple(tripled(p) for p in part)
        return 3 * part if isinstance(part, torch.Tensor) and part.is_floating_point() else part

    for layer in layers:
        module = layer.get_submodule(name)
        if kind == "forward":
            module.register_forward_hook(lambda m, args, out: tripled(out))
        elif kind == "pre":
            module.register_forward_pre_hook(lambda m, args: tripled(args))
        else:
            module.register_full_backward_hook(lambda m, grad, out: tripled(grad))
    agree(*layers, nodes(), edge_index, batch)


@pytest.mark.parametrize("average", [True, False])
def test_a_pre_hook_may_ask_for_the_weights(average, agree, batch_of):
    batch, edge_index = batch_of(SIZES)
    weights = []
    layers = pair_of_layers(local=False)
    wanted = {"need_weights": True, "average_attn_weights": average}
    for layer in layers:
        layer.attn.register_forward_pre_hook(
            lambda m, args, kwargs: (args, {**kwargs, **wanted}), with_kwargs=True
        )
        layer.attn.register_forward_hook(lambda m, args, out: weights.append(out[1].detach()))
    agree(*layers, nodes(), edge_index, batch)
    torch.testing.assert_close(weights[0], weights[1])
    bias = PairBias(torch.zeros(50, H, dtype=torch.float64))
    with pytest.raises(NotImplementedError, match="asks for its weights .* no 'biases'"):
        layers[0](nodes(), edge_index, batch, biases=bias)


def test_a_pre_hook_may_change_the_mask(agree, batch_of):
    batch, edge_index = batch_of(SIZES)
    layers = pair_of_layers(local=False)

    def hide_the_second_node(module, args, kwargs):
        mask = kwargs["key_padding_mask"].clone()
        mask[:, 1] = True
        return args, {**kwargs, "key_padding_mask": mask}

    for layer in layers:
        layer.attn.register_forward_pre_hook(hide_the_second_node, with_kwargs=True)
    agree(*layers, nodes(), edge_index, batch)


BIASES = {
    "pairs": lambda edges: PairBias(torch.randn(50, H, dtype=torch.float64)),
    "mask": lambda edges: EdgeMask(edges),
    "features": lambda edges: EdgeMask(
        edges, features=torch.randn(edges.size(1), H, F // H, dtype=torch.float64)
    ),
    "function": lambda edges: ScoreMod(lambda score, graph, head, query, key: 2 * score),
}


def watched_layers():
    return {
        "gps": (GPSConv(F, None, heads=H), "attn", lambda m, x, b, **k: m(x, None, b, **k)),
        "block": (TransformerBlock(F, H), "self_attn", lambda m, x, b, **k: m(x, b, **k)),
        "block norm_first": (
            TransformerBlock(F, H, norm_first=True, gated=True),
            "self_attn",
            lambda m, x, b, **k: m(x, b, **k),
        ),
    }


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", watched_layers())
def test_biases_reach_a_watched_attention(name, bias, batch_of):
    batch, edge_index = batch_of(SIZES)
    layer, attn, call = watched_layers()[name]
    layer = layer.double()
    biases = (BIASES[bias](edge_index),)
    x = nodes()
    want = call(layer, x, batch, biases=biases)
    seen = []
    layer.get_submodule(attn).register_forward_hook(lambda m, args, out: seen.append(out[0]))
    assert call(layer, x, batch, biases=biases).equal(want)
    assert seen[0].shape == (3, 5, F)


@pytest.mark.parametrize("form", ["sorted", "unsorted", "layout", "one graph", "gaps", "no nodes"])
@pytest.mark.parametrize("name", watched_layers())
def test_every_form_of_batch(name, form, batch_of):
    layer, attn, call = watched_layers()[name]
    layer = layer.double().eval()
    batch, _ = batch_of(SIZES)
    x = nodes()
    if form == "unsorted":
        batch = batch[torch.randperm(12)]
    if form == "layout":
        batch = GraphLayout.from_batch(batch, num_graphs=5)
    if form == "one graph":
        batch = None
    if form == "gaps":
        batch = 2 * batch + 1
    if form == "no nodes":
        x, batch = x[:0], batch[:0]
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    want = call(layer, leaves[0], batch)
    want.square().sum().backward()
    grads = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    seen = []
    layer.get_submodule(attn).register_forward_hook(lambda *args: seen.append(args))
    out = call(layer, leaves[1], batch)
    out.square().sum().backward()
    assert len(seen) == 1
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad)
    torch.testing.assert_close([p.grad for p in layer.parameters()], grads)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_block_shows_attention_what_torchs_layer_shows(norm_first, training, batch_of):
    from torch_geometric.utils import to_dense_batch

    batch, _ = batch_of(SIZES)
    theirs = torch.nn.TransformerEncoderLayer(
        F, H, 4 * F, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    ).train(training)
    ours = TransformerBlock.from_torch(theirs)
    seen = []
    for layer in (ours, theirs):
        layer.self_attn.register_forward_hook(lambda m, args, out: seen.append((args, out[0])))
    x = nodes()
    ours(x, batch)
    dense, mask = to_dense_batch(x, batch)
    theirs(dense, src_key_padding_mask=~mask)
    for a, b in zip(seen[0][0], seen[1][0], strict=True):
        torch.testing.assert_close(a[mask], b[mask])
    torch.testing.assert_close(seen[0][1][mask], seen[1][1][mask])


def test_hooks_for_all_modules_see_the_modules_that_pygs_layer_calls(batch_of):
    batch, edge_index = batch_of(SIZES)
    layers = pair_of_layers()
    x = nodes()
    want = layers[0](x, edge_index, batch)
    seen = []
    handles = [
        modules.register_module_forward_hook(lambda m, args, out: seen[-1].append(m)),
        modules.register_module_forward_pre_hook(lambda m, args: seen[-1].append(m)),
    ]
    try:
        for layer in layers:
            seen.append([])
            torch.testing.assert_close(layer(x, edge_index, batch), want)
            names = {module: name for name, module in layer.named_modules()}
            seen[-1] = [names[m] for m in seen[-1]]
    finally:
        for handle in handles:
            handle.remove()
    ours, theirs = ([n for n in names if "aggr_module" not in n] for names in seen)
    assert ours == theirs
    assert "attn" in ours


@pytest.mark.parametrize("layer", ["block", "full", "masked", "gated"])
def test_all_modules_of_the_other_layers_may_be_watched(layer, batch_of):
    batch, edge_index = batch_of(SIZES)
    edge_attr = torch.randn(edge_index.size(1), F, dtype=torch.float64)
    model, args = {
        "block": (TransformerBlock(F, H, dropout=0.1), (nodes(), batch)),
        "full": (
            FullTransformerConv(F, F, H, edge_dim=F),
            (nodes(), edge_index, edge_attr, batch),
        ),
        "masked": (
            pyg_gt.swap(TransformerConv(F, F, H, edge_dim=F)),
            (nodes(), edge_index, edge_attr),
        ),
        "gated": (GatedGCNConv(F, F), (nodes(), edge_index, edge_attr)),
    }[layer]
    model = model.double().eval()
    want = model(*args)
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, module in model.named_modules():
            module.register_forward_hook(lambda *args, name=name: seen.add(name))
        torch.testing.assert_close(model(*args), want)
    assert seen == {n for n, _ in model.named_modules()} - {"self_attn.out_proj"} - (
        {"aggr_module"} if layer == "gated" else set()  # its own 'aggregate' does not call it
    )


def test_message_hooks_and_hooks_on_attention_together(agree, batch_of):
    batch, edge_index = batch_of(SIZES)
    ours, theirs = pair_of_layers()
    seen = []
    ours.register_message_forward_hook(lambda *args: seen.append("message"))
    for layer in (ours, theirs):
        layer.attn.register_forward_hook(lambda *args: seen.append("attn"))
        layer.attn.register_full_backward_hook(lambda *args: None)
    agree(ours, theirs, nodes(), edge_index, batch)
    assert seen == ["message", "attn", "attn"]


def test_a_hook_that_raises_leaves_nothing_behind(batch_of, fused_calls):
    batch, edge_index = batch_of(SIZES)
    ours, _ = pair_of_layers()
    x = nodes()
    want = ours(x, edge_index, batch)

    def fail(*args):
        raise KeyError("mine")

    handle = ours.attn.register_forward_hook(fail)
    with pytest.raises(KeyError, match="mine"):
        ours(x, edge_index, batch)
    handle.remove()
    torch.testing.assert_close(ours(x, edge_index, batch), want)
    other = torch.nn.MultiheadAttention(F, H, batch_first=True).double()
    h = x.unsqueeze(0)
    assert other(h, h, h)[1].shape == (1, 12, 12)


def test_autocast_gives_the_types_it_gives_without_hooks(batch_of):
    batch, _ = batch_of(SIZES)
    layer = GPSConv(F, None, heads=H, norm=None)
    x = nodes(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        want = layer(x, None, batch)
        seen = []
        layer.attn.register_forward_hook(lambda m, args, out: seen.append(out[0].dtype))
        out = layer(x, None, batch)
    assert out.dtype == want.dtype
    assert seen == [torch.bfloat16]
    torch.testing.assert_close(out, want, rtol=0.02, atol=0.02)


def test_dropout_keeps_its_rate(batch_of):
    layer = GPSConv(F, None, heads=H, norm=None, attn_dropout=0.5).double()
    batch = torch.arange(4000).repeat_interleave(3)
    x = nodes(3).repeat(4000, 1)
    with torch.no_grad():
        want = layer(x, None, batch).view(4000, 3, F)
        layer.attn.register_forward_hook(lambda *args: None)
        out = layer(x, None, batch).view(4000, 3, F)
    spread = want.std(0)
    assert (out.mean(0) - want.mean(0)).abs().le(7 * spread / 4000**0.5).all()
    torch.testing.assert_close(out.std(0), spread, rtol=0.1, atol=1e-9)


def test_hooks_are_called_in_compiled_code(batch_of):
    batch, _ = batch_of(SIZES)
    layer = TransformerBlock(F, H).double()
    seen = []
    layer.self_attn.register_forward_hook(lambda m, args, out: seen.append(out[0].shape))
    layer.linear1.register_forward_hook(lambda m, args, out: 2 * out)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
    x = nodes()
    out = compiled(x, batch)
    out.sum().backward()
    assert seen == [(3, 5, F)]
    torch.testing.assert_close(out, layer(x, batch))
    torch.compiler.reset()


def rows_of_summary(monkeypatch, model, *args, **kwargs):
    """The names and shapes that PyG's summary puts into its table."""
    from torch_geometric.nn import summary

    monkeypatch.setattr(  # the table itself is made by another package
        sys.modules["torch_geometric.nn.summary"],
        "make_table",
        lambda info, max_depth: [
            (row["name"], row["input_shape"], row["output_shape"], row["#param"]) for row in info
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return summary(model, *args, **kwargs)


def test_pygs_summary_lists_what_it_lists_for_pygs_layers(monkeypatch, batch_of, fused_calls):
    batch, edge_index = batch_of(SIZES)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gps = PyGGPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H)
            self.conv = TransformerConv(F, F)

        def forward(self, x, edge_index, batch):
            return self.conv(self.gps(x, edge_index, batch), edge_index)

    theirs = Model().double()
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    args = (nodes(), edge_index, batch)
    want = ours(*args)
    mine = rows_of_summary(monkeypatch, ours, *args, leaf_module=None)
    usual = rows_of_summary(monkeypatch, theirs, *args, leaf_module=None)
    mine.remove(("│    └─(aggr_module)SumAggregation", "--", "--", "--"))  # that of GPSConv
    renamed = [(n.replace("MaskedTransformerConv", "TransformerConv"), *r) for n, *r in mine]
    assert sorted(renamed) == sorted(usual)
    short = rows_of_summary(monkeypatch, ours, *args)
    assert [row[0] for row in short] == [
        "Model",
        "├─(gps)GPSConv",
        "├─(conv)MaskedTransformerConv",
    ]
    assert short[1][1:3] == ("[12, 8], [2, 36], [12]", "[12, 8]")
    torch.testing.assert_close(ours(*args), want)  # in training mode again
