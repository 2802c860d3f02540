"""Pair encoders in the layers they are for, and what every encoder can do."""

import copy
import pickle

import pytest
import torch

from pyg_gt import GraphLayout, attention
from pyg_gt.nn import FullTransformerConv, GPSConv, TransformerBlock
from pyg_gt.testing import assert_same_attention

from .graphs import ENCODERS, GRAPHS, HEADS, bias_of, join

CHANNELS = 4
LAYERS = {
    "full": lambda backend: FullTransformerConv(
        CHANNELS, CHANNELS // HEADS, HEADS, backend=backend
    ),
    "gps": lambda backend: GPSConv(CHANNELS, None, HEADS, norm=None, backend=backend),
    "block": lambda backend: TransformerBlock(CHANNELS, HEADS, backend=backend),
}
encoders = pytest.mark.parametrize("name", ENCODERS)


class Model(torch.nn.Module):
    """A layer with a bias; the idioms of the docstrings."""

    def __init__(self, encoder, layer, backend="auto"):
        super().__init__()
        self.bias = encoder
        self.layer = LAYERS[layer](backend).double()

    def forward(self, x, data, batch):
        biases = (bias_of(self.bias, data, batch),)
        if isinstance(self.layer, TransformerBlock):
            return self.layer(x, batch, biases)
        return self.layer(x, data.edge_index, batch=batch, biases=biases)


def nodes(data, dtype=torch.float64):
    return torch.randn(data.num_nodes, CHANNELS, dtype=dtype)


@encoders
@pytest.mark.parametrize("layer", LAYERS)
def test_backends_agree_in_outputs_and_gradients(name, layer):
    data = join()
    data.edge_attr.requires_grad_()
    x = nodes(data).requires_grad_()
    model = Model(ENCODERS[name](), layer)
    leaves = {"x": x, **dict(model.named_parameters())}
    if name == "edge_path":
        leaves["edge_attr"] = data.edge_attr
    results = []
    for backend in ("reference", "sdpa"):
        model.layer.backend = backend
        out = model(x, data, data.batch)
        waves = torch.arange(out.numel(), dtype=out.dtype).cos().view_as(out)
        grads = torch.autograd.grad(out, list(leaves.values()), waves, materialize_grads=True)
        results.append([out, *grads])
    for what, ours, theirs in zip(["out", *leaves], *results, strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda m, what=what: f"{what}: {m}")
        if what.startswith("bias.") or what == "edge_attr":
            assert theirs.any(), what


@encoders
def test_the_bias_is_added_to_the_scores_pair_by_pair(name):
    data = join()
    layout = GraphLayout.from_batch(data.batch, len(GRAPHS))
    query, key, value = (
        torch.randn(data.num_nodes, HEADS, 2, dtype=torch.float64) for _ in range(3)
    )
    bias = bias_of(ENCODERS[name](), data, layout)
    flat = bias.pair_values(layout, layout)
    want, number = torch.zeros_like(query), 0
    for graph in range(len(GRAPHS)):
        members = (data.batch == graph).nonzero().flatten().tolist()
        for i in members:
            scores = []
            for j in members:
                scores.append((query[i] * key[j]).sum(-1) / 2**0.5 + flat[number])
                number += 1
            weights = torch.stack(scores).softmax(0)
            want[i] = sum(
                w.unsqueeze(-1) * value[j] for w, j in zip(weights, members, strict=True)
            )
    assert number == data.num_pairs
    torch.testing.assert_close(attention(query, key, value, layout, (bias,)), want)
    for backend in ("sdpa", "reference"):
        assert_same_attention(backend, query, key, value, layout, (bias,))


@pytest.mark.compiled
@encoders
def test_the_compiled_kernel_reads_it(name):
    data = join()
    layout = GraphLayout.from_batch(data.batch, len(GRAPHS))
    qkv = [torch.randn(data.num_nodes, HEADS, 2, requires_grad=True) for _ in range(3)]
    bias = bias_of(ENCODERS[name](), data, layout)
    assert_same_attention("cpu", *qkv, layout, (bias,))


@encoders
@pytest.mark.parametrize("layer", LAYERS)
def test_relabelled_nodes_give_relabelled_outputs(name, layer):
    data = join()
    model, x = Model(ENCODERS[name](), layer), nodes(data)
    graphs, where, attrs = [], [], []
    for n, edges in GRAPHS:
        new = torch.randperm(n).tolist()  # node i becomes new[i]
        order = torch.randperm(len(edges)).tolist()
        renamed = [(new[a], new[b]) for a, b in edges]
        attrs += [sum(len(e) for _, e in graphs) + k for k in order]
        where += [len(where) + i for i in torch.tensor(new).argsort().tolist()]
        graphs.append((n, [renamed[k] for k in order]))
    moved = join(graphs, data.edge_attr[attrs])
    assert not moved.edge_index.equal(data.edge_index)
    keep = torch.ones_like(data.batch, dtype=torch.bool)
    if name == "edge_path":  # of edges that stand twice, a path takes the first that it finds
        keep = data.batch != len(GRAPHS) - 1
    want = model(x, data, data.batch)[where]
    got = model(x[where], moved, moved.batch)
    torch.testing.assert_close(got[keep], want[keep])


@encoders
@pytest.mark.parametrize("layer", LAYERS)
def test_a_graph_does_not_see_its_companions(name, layer):
    data = join()
    model, x = Model(ENCODERS[name](), layer), nodes(data)
    out = model(x, data, data.batch)
    before = 0
    for number, (n, edges) in enumerate(GRAPHS):
        here = data.batch == number
        alone = join([(n, edges)], data.edge_attr[before : before + len(edges)])
        before += len(edges)
        torch.testing.assert_close(model(x[here], alone, alone.batch), out[here])


@encoders
def test_no_pairs_at_all(name):
    data, encoder = join([(0, []), (0, [])]), ENCODERS[name]()
    layout = GraphLayout.from_sizes([0, 0])
    data.edge_attr.requires_grad_()
    values = bias_of(encoder, data, layout).pair_values(layout, layout)
    assert values.shape == (0, HEADS)
    values.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())


@encoders
def test_graphs_without_edges(name):
    data = join([(1, []), (3, [])])
    model = Model(ENCODERS[name](), "full")
    out = model(nodes(data), data, data.batch)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.bias.parameters())


@encoders
def test_autocast(name):
    data = join(dtype=torch.float32)
    x = nodes(data, torch.float32)
    model = Model(ENCODERS[name](torch.float32), "full").float()
    want = model(x, data, data.batch)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(x, data, data.batch)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)
    got.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.bias.parameters())


@encoders
def test_copies_pickles_and_state_dicts_give_the_same(name):
    data, encoder = join(), ENCODERS[name]()
    layout = GraphLayout.from_batch(data.batch, len(GRAPHS))

    def values(module):
        return bias_of(module, data, layout).pair_values(layout, layout)

    want, other = values(encoder), ENCODERS[name]()
    assert not values(other).equal(want)
    other.load_state_dict(encoder.state_dict())
    for same in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), other):
        assert values(same).equal(want)


@encoders
def test_reset_parameters_draws_anew(name):
    encoder = ENCODERS[name]()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(7.0)
    encoder.reset_parameters()
    for parameter in encoder.parameters():
        assert not (parameter == 7.0).any()
        assert parameter.unique().numel() == parameter.numel()


@encoders
def test_second_derivatives(name):
    data, encoder = join(GRAPHS[1:3]), ENCODERS[name]()
    layout = GraphLayout.from_batch(data.batch)
    leaves = [*encoder.parameters()]
    if name == "edge_path":
        leaves.append(data.edge_attr.requires_grad_())

    def values(*_):
        return bias_of(encoder, data, layout).pair_values(layout, layout).square()

    assert torch.autograd.gradgradcheck(values, leaves)
