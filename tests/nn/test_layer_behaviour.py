"""What every layer does: independence of the batch, permutation, copies, autocast, checkpoints."""

import copy
import io
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import GCNConv, GINConv, MessagePassing, Sequential, TransformerConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import GraphLayout
from pyg_gt.nn import (
    ExphormerConv,
    FullTransformerConv,
    GatedGCNConv,
    GPSConv,
    LatentTransformerConv,
    MaskedTransformerConv,
    TransformerBlock,
)

F, H, C = 8, 2, 4


class Case:
    """A layer, and how it is called on `x`, `edge_index`, `edge_attr [E, F]` and `batch`."""

    def __init__(self, make, call):
        self.make, self.call = make, call


def gps(norm="layer_norm", **kwargs):
    def make():
        torch.manual_seed(2)
        return GPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H, norm=norm, **kwargs)

    return Case(make, lambda m, x, e, a, b: m(x, e, b))


def seeded(function):
    def make():
        torch.manual_seed(2)
        return function()

    return make


CASES = {
    "full": Case(
        seeded(lambda: FullTransformerConv(F, C, heads=H)), lambda m, x, e, a, b: m(x, batch=b)
    ),
    "full, edges": Case(
        seeded(lambda: FullTransformerConv(F, C, heads=H, edge_dim=F, beta=True)),
        lambda m, x, e, a, b: m(x, e, a, b),
    ),
    "masked": Case(
        seeded(lambda: MaskedTransformerConv(F, C, heads=H, edge_dim=F)),
        lambda m, x, e, a, b: m(x, e, a),
    ),
    "gps layer_norm": gps(),
    "gps batch_norm": gps("batch_norm"),
    "gps graph_norm": gps("graph_norm"),
    "gps performer": gps(attn_type="performer"),
    "gps norm_first": gps(norm_first=True),
    "exphormer": Case(
        seeded(lambda: ExphormerConv(F, C, heads=H, edge_dim=F)),
        lambda m, x, e, a, b: m(x, e, a),
    ),
    "latent": Case(
        seeded(lambda: LatentTransformerConv(F, 3, heads=H, num_latent_layers=1)),
        lambda m, x, e, a, b: m(x, b),
    ),
    "gated": Case(seeded(lambda: GatedGCNConv(F, F)), lambda m, x, e, a, b: m(x, e, a)[0]),
    "block": Case(seeded(lambda: TransformerBlock(F, H)), lambda m, x, e, a, b: m(x, b)),
    "block gated": Case(
        seeded(lambda: TransformerBlock(F, H, gated=True, norm_first=True)),
        lambda m, x, e, a, b: m(x, b),
    ),
}
# PyG's Performer sums over the padding too, so its numbers depend on the other graphs
RAGGED = [name for name in CASES if name != "gps performer"]
ALL = list(CASES)


def graphs(sizes=(4, 5, 3, 8, 7), seed=0):
    """A list of graphs: features, edges, edge features."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for n in sizes:
        out.append(
            (
                torch.randn(n, F, generator=generator, dtype=torch.float64),
                torch.randint(0, n, (2, 3 * n), generator=generator),
                torch.randn(3 * n, F, generator=generator, dtype=torch.float64),
            )
        )
    return out


def together(parts):
    """`x`, `edge_index`, `edge_attr`, `batch` of a list of graphs."""
    sizes = [x.size(0) for x, _, _ in parts]
    starts = [sum(sizes[:i]) for i in range(len(parts))]
    return (
        torch.cat([x for x, _, _ in parts]),
        torch.cat([e + s for (_, e, _), s in zip(parts, starts, strict=True)], dim=1),
        torch.cat([a for _, _, a in parts]),
        torch.arange(len(parts)).repeat_interleave(torch.tensor(sizes)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", RAGGED)
def test_other_values_in_another_graph_change_no_bit(name, dtype):
    case = CASES[name]
    layer = case.make().to(dtype).eval()
    parts = graphs((4, 5, 3, 40, 130))
    x, edge_index, edge_attr, batch = together(parts)
    x, edge_attr = x.to(dtype), edge_attr.to(dtype)
    other = (batch == 1) | (batch == 3)
    new_x = torch.where(other[:, None], 100 * torch.randn_like(x), x)
    new_attr = torch.where(other[edge_index[0], None], torch.randn_like(edge_attr), edge_attr)
    want = case.call(layer, x, edge_index, edge_attr, batch)
    out = case.call(layer, new_x, edge_index, new_attr, batch)
    assert out[~other].equal(want[~other])
    assert not torch.isclose(out[other], want[other]).all()


@pytest.mark.parametrize("name", RAGGED)
def test_the_company_of_other_graphs_changes_rounding_alone(name):
    case = CASES[name]
    layer = case.make().double().eval()
    parts = graphs()
    alone = [case.call(layer, *together([part])) for part in parts]
    for company in (parts, parts[::-1], parts[1:], [*parts, *graphs((90, 1), seed=1)]):
        out = case.call(layer, *together(company))
        got = out.split([x.size(0) for x, _, _ in company])
        for part, mine in zip(company, got, strict=True):
            at = next((i for i, p in enumerate(parts) if p is part), None)
            if at is not None:
                torch.testing.assert_close(mine, alone[at], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RAGGED)
def test_a_graph_of_its_own_is_a_batch_of_one(name):
    case = CASES[name]
    layer = case.make().double()
    x, edge_index, edge_attr, batch = together(graphs((7,)))
    want = case.call(copy.deepcopy(layer), x, edge_index, edge_attr, batch)
    out = case.call(layer, x, edge_index, edge_attr, None)
    # PyG's own LayerNorm adds its eps elsewhere without a batch
    own = name in ("gps layer_norm", "gps norm_first")
    torch.testing.assert_close(out, want, rtol=1e-3 if own else 1e-10, atol=1e-4 if own else 1e-12)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", ALL)
def test_permuted_nodes_give_permuted_outputs(name, training):
    # nodes of all graphs are mixed, so the batch vector is unsorted
    case = CASES[name]
    layer = case.make().double().train(training)
    x, edge_index, edge_attr, batch = together(graphs())
    want = case.call(layer, x, edge_index, edge_attr, batch)
    order, edges = torch.randperm(x.size(0)), torch.randperm(edge_attr.size(0))
    moved = order.argsort()[edge_index][:, edges]
    out = case.call(layer, x[order], moved, edge_attr[edges], batch[order])
    torch.testing.assert_close(out, want[order], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", RAGGED)
def test_permuted_graphs_give_permuted_outputs(name):
    case = CASES[name]
    layer = case.make().double()
    parts = graphs()
    sizes = [x.size(0) for x, _, _ in parts]
    want = case.call(layer, *together(parts)).split(sizes)
    order = torch.randperm(len(parts)).tolist()
    moved = together([parts[i] for i in order])
    out = case.call(layer, *moved).split([sizes[i] for i in order])
    for i, mine in zip(order, out, strict=True):
        torch.testing.assert_close(mine, want[i], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ALL)
def test_copies_pickles_and_state_dicts_give_the_same(name):
    case = CASES[name]
    layer = case.make().double().eval()
    inputs = together(graphs())
    want = case.call(layer, *inputs)

    def saved():
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    fresh = case.make().double().eval()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.normal_()
    fresh.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), saved(), fresh):
        assert other is not layer
        assert case.call(other, *inputs).equal(want)
        assert str(other) == str(layer)
        if isinstance(other, MessagePassing):  # the copy must not send messages for the original
            seen = []
            other.register_message_forward_hook(lambda *args, seen=seen: seen.append(args[0]))
            case.call(other, *inputs)
            assert seen in ([other], [])
    assert case.call(layer, *inputs).equal(want)


@pytest.mark.parametrize("name", ALL)
def test_reset_parameters_draws_every_weight_anew(name):
    layer = CASES[name].make()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7.0)
    layer.reset_parameters()
    for key, parameter in layer.named_parameters():
        assert not (parameter == 7.0).any(), key
        if parameter.dim() > 1:
            assert parameter.std() > 0.01, key
    torch.manual_seed(4)
    layer.reset_parameters()
    want = [p.clone() for p in layer.parameters()]
    torch.manual_seed(4)
    layer.reset_parameters()
    for p, q in zip(layer.parameters(), want, strict=True):
        assert p.equal(q)


@pytest.mark.parametrize("name", ["full", "masked", "gps layer_norm", "gated"])
def test_message_passing_layers_are_message_passing_layers(name):
    assert isinstance(CASES[name].make(), MessagePassing)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", ["gps", "gps gcn", "masked", "full"])
def test_autocast_gives_pygs_types_and_close_numbers(kind, training, all_pairs):
    x, edge_index, _, batch = together(graphs())
    x = x.float()
    if kind.startswith("gps"):
        conv = GCNConv(F, F) if kind == "gps gcn" else None
        theirs = PyGGPSConv(F, conv, heads=H, norm="layer_norm")
        ours = GPSConv(F, copy.deepcopy(conv), heads=H, norm="layer_norm")
        args = want_args = (x, edge_index, batch)
    elif kind == "masked":
        theirs, ours = TransformerConv(F, C, heads=H), MaskedTransformerConv(F, C, heads=H)
        args = want_args = (x, edge_index)
    else:
        theirs, ours = TransformerConv(F, C, heads=H), FullTransformerConv(F, C, heads=H)
        args, want_args = (x, None, None, batch), (x, all_pairs(batch))
    ours.load_state_dict(theirs.state_dict())
    exact = theirs.train(training)(*want_args)
    with torch.autocast("cpu", torch.bfloat16):
        out, want = ours.train(training)(*args), theirs(*want_args)
    assert out.dtype == want.dtype
    # as near to full precision as PyG's layer
    error, usual = (out.float() - exact).abs().max(), (want.float() - exact).abs().max()
    assert 0 < error < 2 * usual + 0.01
    (grads, wants) = (
        torch.autograd.grad(y.float().square().sum(), list(m.parameters()), allow_unused=True)
        for y, m in ((out, ours), (want, theirs))
    )
    for a, b in zip(grads, wants, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0.1, atol=0.05 * float(b.abs().max()) + 0.05)


@pytest.mark.parametrize("norm_first", [False, True])
def test_autocast_of_the_block_gives_torchs_type_and_close_numbers(norm_first):
    theirs = torch.nn.TransformerEncoderLayer(
        F, H, 16, 0.0, batch_first=True, norm_first=norm_first
    )
    ours = TransformerBlock.from_torch(theirs)
    x = torch.randn(5, F)
    exact = theirs(x[None])[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, want = ours(x), theirs(x[None])[0]
    assert out.dtype == want.dtype
    error, usual = (out.float() - exact).abs().max(), (want.float() - exact).abs().max()
    assert 0 < error < 2 * usual + 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_a_module_in_half_precision(name, dtype):
    case = CASES[name]
    layer = case.make()
    x, edge_index, edge_attr, batch = together(graphs())
    exact = case.call(layer.eval(), x.float(), edge_index, edge_attr.float(), batch)
    layer = layer.to(dtype)
    given = (x.to(dtype), edge_index, edge_attr.to(dtype), batch)
    out = case.call(layer, *given)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.15)
    if isinstance(layer, MessagePassing):  # and so on PyG's route
        layer.register_message_forward_hook(lambda *args: None)
        again = case.call(layer, *given)
        assert again.dtype == dtype
        torch.testing.assert_close(again.float(), exact, rtol=0.1, atol=0.15)
    out.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "name", ["full", "masked", "gps layer_norm", "gps batch_norm", "gated", "block"]
)
def test_activation_checkpoints_give_the_same_gradients_with_dropout(name, reentrant):
    case = CASES[name]
    layer = case.make().double()
    layer.dropout = torch.nn.Dropout(0.4) if name == "block" else 0.4
    if hasattr(layer, "attn"):
        layer.attn.dropout = 0.5
    x, edge_index, edge_attr, batch = together(graphs())

    def gradients(wrap):
        torch.manual_seed(6)
        leaf = x.clone().requires_grad_()
        out = wrap(lambda y: case.call(layer, y, edge_index, edge_attr, batch), leaf)
        parameters = [p for p in layer.parameters() if p.requires_grad]
        layer.zero_grad()
        out.square().sum().backward()
        return [out.detach(), leaf.grad, *(p.grad for p in parameters)]

    want = gradients(lambda f, y: f(y))
    out = gradients(lambda f, y: checkpoint(f, y, use_reentrant=reentrant))
    for a, b in zip(out, want, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
    other = gradients(lambda f, y: (torch.rand(1), f(y))[1])
    assert not torch.allclose(other[0], want[0])  # the dropout was there


def test_sequential_of_pyg():
    x, edge_index, edge_attr, batch = together(graphs())
    names = ("gps layer_norm", "masked", "full, edges")
    layers = [CASES[name].make().double() for name in names]
    model = Sequential(
        "x, edge_index, edge_attr, batch",
        [
            (layers[0], "x, edge_index, batch -> x"),
            (layers[1], "x, edge_index, edge_attr -> x"),
            torch.nn.ReLU(),
            (layers[2], "x, edge_index, edge_attr, batch -> x"),
        ],
    )
    want = layers[0](x, edge_index, batch)
    want = layers[1](want, edge_index, edge_attr).relu()
    want = layers[2](want, edge_index, edge_attr, batch)
    assert model(x, edge_index, edge_attr, batch).equal(want)


@pytest.mark.parametrize(
    ("name", "door"),
    [
        ("full", "conv.full_transformer_conv.attention"),
        ("masked", "conv.masked_transformer_conv.attention"),
        ("gps layer_norm", "attention.multihead.qkv_attention"),
        ("block", "attention.multihead.qkv_attention"),
    ],
)
def test_the_named_backend_is_asked_for(name, door, monkeypatch):
    case = CASES[name]
    asked = []

    def attention(*args, backend, **kwargs):
        asked.append(backend)
        return getattr(pyg_gt, door.split(".")[-1])(*args, backend=backend, **kwargs)

    monkeypatch.setattr(f"pyg_gt.nn.{door}", attention)
    layer = case.make().double()
    inputs = together(graphs())
    case.call(layer, *inputs)
    layer.backend = "reference"
    case.call(layer, *inputs)
    assert asked == ["auto", "reference"]
    layer.backend = "nope"
    with pytest.raises(ValueError, match="Unknown backend 'nope'; expected 'auto' or one of"):
        case.call(layer, *inputs)


@pytest.mark.parametrize("name", ["full", "masked", "gps layer_norm", "block"])
def test_second_derivatives_on_the_backends_that_have_them(name):
    case = CASES[name]
    x, edge_index, edge_attr, batch = together(graphs((3, 4)))
    layer = case.make().double()
    layer.backend = "sparse" if name == "masked" else "reference"

    def function(x):
        return case.call(layer, x, edge_index, edge_attr, batch)

    assert torch.autograd.gradgradcheck(function, x.requires_grad_(), atol=1e-4)
    if name != "masked":
        layer.backend = "sdpa"
        # the residual is another path to 'x': part of the answer must not pass for all of it
        (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivative.*backend='reference'"):
            torch.autograd.grad(first.sum(), x)


def test_layouts_are_found_again_by_layers(monkeypatch):
    made = []
    from_batch = GraphLayout.from_batch.__func__

    def counted(cls, *args, **kwargs):
        made.append(1)
        return from_batch(cls, *args, **kwargs)

    monkeypatch.setattr(GraphLayout, "from_batch", classmethod(counted))
    inputs = together(graphs())
    for name in ("full", "gps layer_norm", "gps graph_norm", "block"):
        CASES[name].call(CASES[name].make().double(), *inputs)
    assert len(made) == 1


@pytest.mark.parametrize("name", ALL)
def test_features_of_the_wrong_width_are_an_error(name):
    case = CASES[name]
    x, edge_index, edge_attr, batch = together(graphs())
    with pytest.raises((ValueError, RuntimeError)):
        case.call(case.make().double(), x[:, :5], edge_index, edge_attr, batch)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("masked", "gated", "exphormer")])
def test_bad_batch_vectors_are_named(name):
    case = CASES[name]
    layer = case.make().double()
    x, edge_index, edge_attr, batch = together(graphs())
    for wrong, words in (
        (batch[:-1], "describes 26 nodes, but there are 27"),
        (batch - 1, "negative"),
        (batch.double(), "must hold integers"),
        (batch[None], "must be a vector"),
    ):
        with pytest.raises(ValueError, match=words):
            case.call(layer, x, edge_index, edge_attr, wrong)
