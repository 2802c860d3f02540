"""`GraphToken`: attention of each graph with rows and scores put in by hand is the same."""

import copy

import pytest
import torch

from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
)
from pyg_gt.nn import GraphToken, TransformerBlock

F, H = 8, 2
SIZES = [3, 0, 1, 5, 0]  # one node, and empty graphs, the last among them


def nodes_of(order="sorted"):
    batch = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    if order == "unsorted":
        batch = batch[torch.randperm(batch.numel())]
    return torch.randn(batch.numel(), F, dtype=torch.double), batch


def edges_of(batch):
    """Some edges inside graphs, one of them twice."""
    same = (batch[:, None] == batch[None, :]).nonzero().t()
    index = same[:, torch.randperm(same.size(1))[:12]]
    return torch.cat([index, index[:, :1]], 1)


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.double, requires_grad=True)


def make_biases(kind, batch):
    """Biases, and their tensors that have a gradient."""
    P, edges = sum(n * n for n in SIZES), edges_of(batch)
    E = edges.size(1)
    pair, table, on_edges = leaf(P, H), leaf(256, H), leaf(E, H)
    index = torch.randint(0, 256, (P,), dtype=torch.uint8)
    features = leaf(E, H, F // H)
    once = edges[:, :-1]
    biases = {
        "none": (),
        "pair": (PairBias(pair),),
        "table": (TableBias(table, index),),
        "edges": (EdgeBias(edges, on_edges),),
        "table, pair": (TableBias(table, index), PairBias(pair)),
        "edges, table": (EdgeBias(edges, on_edges), TableBias(table, index)),
        "mask": (EdgeMask(edges),),
        "mask, values": (EdgeMask(edges, on_edges),),
        "mask, features": (EdgeMask(edges, on_edges, features),),
        "mask, pair": (EdgeMask(edges), PairBias(pair)),
        "mask, edges": (EdgeMask(once), EdgeBias(once, on_edges[:-1])),
    }[kind]
    return biases, [x for x in (pair, table, on_edges, features) if x is not None]


def scores_by_hand(biases, batch, nodes, graph, token):
    """``[n + T, n + T, H]`` of one graph, but for the values of a mask."""
    n, T = len(nodes), token.num_tokens
    t = token.bias
    scores = torch.zeros(n + T, n + T, H, dtype=torch.double)
    for i in range(n + T):
        for j in range(n + T):
            if j >= n:
                scores[i, j] = t[j - n]
            elif i >= n:
                scores[i, j] = t[i - n]
    start = sum(m * m for m in SIZES[:graph])
    for bias in biases:
        if isinstance(bias, PairBias):
            added = bias.values[start : start + n * n].view(n, n, H)
            scores = scores + torch.nn.functional.pad(added, (0, 0, 0, T, 0, T))
        elif isinstance(bias, TableBias):
            added = bias.table[bias.index[start : start + n * n].long()].view(n, n, H)
            scores = scores + torch.nn.functional.pad(added, (0, 0, 0, T, 0, T))
        elif isinstance(bias, EdgeBias):
            scores = scores.clone()
            for e, (source, target) in enumerate(bias.edges.t().tolist()):
                if int(batch[source]) == graph:
                    scores[nodes.index(target), nodes.index(source)] += bias.values[e]
    return scores


def by_hand(x, batch, biases, token):
    """Attention of each graph with its tokens, query = key = value."""
    T, C = token.num_tokens, F // H
    mask = next((b for b in biases if isinstance(b, EdgeMask)), None)
    out, tokens = torch.zeros_like(x), []
    for graph in range(len(SIZES)):
        nodes = (batch == graph).nonzero().flatten().tolist()
        n = len(nodes)
        h = torch.cat([x[nodes], token.weight]).view(-1, H, C)
        scores = scores_by_hand(biases, batch, nodes, graph, token)
        # what each query attends to: keys, what is added to their scores and to themselves
        pairs = [(i, j, None) for i in range(n + T) for j in range(n + T)]
        if mask is not None:
            pairs = [(i, j, None) for i, j, _ in pairs if i >= n or j >= n]
            for e, (source, target) in enumerate(mask.edges.t().tolist()):
                if int(batch[source]) == graph:
                    pairs.append((nodes.index(target), nodes.index(source), e))
        rows = []
        for i in range(n + T):
            mine = [(j, e) for query, j, e in pairs if query == i]
            keys = [j for j, _ in mine]
            score, key = scores[i, keys], h[keys]
            if mask is not None and mask.values is not None:
                zero = torch.zeros(H, dtype=torch.double)
                score = score + torch.stack(
                    [zero if e is None else mask.values[e] for _, e in mine]
                )
            if mask is not None and mask.features is not None:
                zero = torch.zeros(H, C, dtype=torch.double)
                key = key + torch.stack([zero if e is None else mask.features[e] for _, e in mine])
            weight = ((h[i] * key).sum(-1) / C**0.5 + score).softmax(0)  # [keys, H]
            rows.append((weight[:, :, None] * key).sum(0).flatten())
        rows = torch.stack(rows)
        out = out.index_put((torch.tensor(nodes, dtype=torch.long),), rows[:n])
        tokens.append(rows[n:])
    return out, torch.stack(tokens)


KINDS = [
    *("none", "pair", "table", "edges", "table, pair", "edges, table"),
    *("mask", "mask, values", "mask, features", "mask, pair", "mask, edges"),
]


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("num_tokens", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_definition(kind, num_tokens, order) -> None:
    x, batch = nodes_of(order)
    x.requires_grad_()
    token = GraphToken(F, H, num_tokens).double()
    with torch.no_grad():
        token.weight.normal_()
        token.bias.normal_()
    biases, leaves = make_biases(kind, batch)
    want = by_hand(x, batch, biases, token)
    h, layout, new = token(x, GraphLayout.from_batch(batch, len(SIZES)), biases)
    qkv = h.view(-1, H, F // H)
    got = token.split(attention(qkv, qkv, qkv, layout, new).flatten(1), layout)
    starts = [x, token.weight, token.bias, *leaves]
    weights = [torch.randn_like(w) for w in want]
    grads = [torch.autograd.grad(ends, starts, weights, allow_unused=True) for ends in (got, want)]
    for a, b in zip((*got, *grads[0]), (*want, *grads[1]), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert grads[0][2].abs().max() > 0


def test_layout_and_order() -> None:
    x, batch = nodes_of("unsorted")
    token = GraphToken(F, H, 2).double()
    given = GraphLayout.from_batch(batch, len(SIZES))
    h, layout, _ = token(x, given)
    assert layout.sizes == tuple(n + 2 for n in SIZES)
    again = GraphLayout.from_batch(layout.batch)
    for name in ("ptr", "order", "pos"):
        assert torch.equal(getattr(layout, name), getattr(again, name))
    assert torch.equal(h[: len(x)], x)
    nodes, tokens = token.split(h, layout)
    assert torch.equal(nodes, x)
    assert torch.equal(tokens, token.weight.expand(5, -1, -1))
    assert token(x, given)[1] is layout  # made once
    one = token(x)[1]
    assert one.order is None and one.num_nodes == len(x) + 2
    none = token(x[:0], GraphLayout.from_sizes([]))
    assert none[0].shape == (0, F) and none[1].num_graphs == 0
    assert token.split(*none[:2])[1].shape == (0, 2, F)


def test_tables_and_edges_stay_what_they_are() -> None:
    x, batch = nodes_of()
    token = GraphToken(F, H).double()
    for rows, dtype in ((255, torch.uint8), (256, torch.int32)):
        index = torch.randint(0, rows, (35,)).byte()
        (table,) = token(x, batch, TableBias(leaf(rows, H), index))[2]
        assert table.table.shape == (rows + 1, H) and table.index.dtype == dtype
        assert int((table.index == rows).sum()) == 2 * 9 + 4  # graphs 0 to 3
    edges = EdgeLayout.of(edges_of(batch), len(x))
    mask, bias = token(x, batch, (EdgeMask(edges), EdgeBias(edges, leaf(13, H))))[2]
    assert mask.edges is bias.edges
    assert token(x, batch, EdgeMask(edges))[2][0].edges is mask.edges  # made once


def test_num_graphs_counts_empty_ones() -> None:
    x, batch = nodes_of()
    token = GraphToken(F, H).double()
    assert token(x, batch)[1].num_graphs == 4
    assert token(x, batch, num_graphs=5)[1].num_graphs == 5


def test_independence_of_the_batch() -> None:
    torch.manual_seed(0)
    token, block = GraphToken(F, H), TransformerBlock(F, H).eval()
    x, values = torch.randn(520, F), torch.randn(400 + 500 * 500, H)

    def run(sizes, pairs):
        layout = GraphLayout.from_sizes(sizes)
        h, layout, biases = token(x[: sum(sizes)], layout, PairBias(values[:pairs]))
        nodes, tokens = token.split(block(h, layout, biases), layout)
        return torch.cat([nodes[:20], tokens[0]])

    torch.testing.assert_close(run([20], 400), run([20, 500], len(values)), rtol=0, atol=1e-5)


def test_under_autocast() -> None:
    x, batch = nodes_of()
    token, block = GraphToken(F, H), TransformerBlock(F, H)
    with torch.autocast("cpu", torch.bfloat16):
        h, layout, biases = token(x.bfloat16(), batch)
        out = block(h, layout, biases)
    out.float().sum().backward()
    assert h.dtype == torch.bfloat16
    assert bool(token.bias.grad.isfinite().all()) and bool(token.weight.grad.isfinite().all())


@pytest.mark.parametrize("kind", ["table, pair", "mask"])
def test_compiles_whole(kind) -> None:
    torch.compiler.reset()
    token, block = GraphToken(F, H, 2), TransformerBlock(F, H)
    x, batch = nodes_of("unsorted")
    x = x.float()
    biases, _ = make_biases(kind, batch)
    biases = tuple(copy.copy(b) for b in biases)
    for bias in biases:
        for name in ("values", "table"):
            if getattr(bias, name, None) is not None:
                object.__setattr__(bias, name, getattr(bias, name).detach().float())

    def run(x, batch):
        h, layout, new = token(x, batch, biases, num_graphs=len(SIZES))
        return token.split(block(h, layout, new), layout)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
    for a, b in zip(compiled(x, batch), run(x, batch), strict=True):
        torch.testing.assert_close(a, b)
    compiled(x, batch)[1].sum().backward()
    assert bool(token.weight.grad.isfinite().all())
    with pytest.raises(torch._dynamo.exc.Unsupported, match="num_graphs"):
        torch.compile(lambda x, b: token(x, b)[0], backend="eager", fullgraph=True)(x, batch)


def test_state_and_repr() -> None:
    token, other = GraphToken(F, H, 2), GraphToken(F, H, 2)
    other.load_state_dict(token.state_dict())
    assert torch.equal(token.weight, other.weight) and torch.equal(token.bias, other.bias)
    other.reset_parameters()
    assert not torch.equal(token.weight, other.weight)
    assert not torch.equal(token.bias, other.bias)
    assert repr(token) == "GraphToken(8, heads=2, num_tokens=2)"
    with torch.device("meta"):
        assert GraphToken(F, H).weight.is_meta


def test_bad_arguments() -> None:
    x, batch = nodes_of()
    token = GraphToken(F, H).double()
    for arguments in ((0, 1), (8, 0), (8, 2, 0), (8.0, 2)):
        with pytest.raises(ValueError, match="must be a whole number"):
            GraphToken(*arguments)
    with pytest.raises(ValueError, match="shape \\[N, 8\\]"):
        token(x[:, :4], batch)
    with pytest.raises(ValueError, match="describes 35 pairs, but the graphs have 81"):
        token(x, None, PairBias(leaf(35, H)))
    with pytest.raises(ValueError, match="describes 34 pairs, but the graphs have 35"):
        token(x, batch, TableBias(leaf(3, H), torch.zeros(34, dtype=torch.long)))
    for bias in (PairBias(leaf(35, 3)), TableBias(leaf(3, 3), torch.zeros(35).byte())):
        with pytest.raises(ValueError, match="the token's 2 heads"):
            token(x, batch, bias)
    with pytest.raises(ValueError, match="'EdgeBias.values' .* the token's 2 heads"):
        token(x, batch, EdgeBias(edges_of(batch), leaf(13, 3)))
    with pytest.raises(ValueError, match="'ScoreMod' goes by the numbers of nodes"):
        token(x, batch, ScoreMod(lambda s, graph, head, q, k: s))
    with pytest.raises(ValueError, match="describes 13 nodes, but there are 9"):
        token.split(x, token(x, batch)[1])
