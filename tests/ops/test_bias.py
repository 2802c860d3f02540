"""Biases against their dense definition, written out here pair by pair."""

import pytest
import torch
from torch import Tensor
from torch_geometric.utils import to_dense_batch

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
from pyg_gt.ops.bias import segment_logsumexp
from pyg_gt.ops.pairs import num_pairs, pair_of_edge, pair_ptr

from .cases import CPU, INF, Case, layout_of, make_case

NAMES = ["pair", "table-uint8", "table-int64", "edge", "edge-repeats"]
MASKS = ["mask", "mask-repeats", "mask-values", "mask-values-repeats", "mask-values-inf"]


def places(layout: GraphLayout) -> list[list[int]]:
    """The nodes of each graph, in the caller's order."""
    return [
        [i for i, g in enumerate(layout.batch.tolist()) if g == graph]
        for graph in range(layout.num_graphs)
    ]


def dense(case: Case) -> Tensor:
    """``[B, H, Mq, Mk]`` of the one bias of a case, one entry at a time."""
    (bias,) = case.biases
    masks = isinstance(bias, EdgeMask)
    heads = 1 if masks and bias.values is None else case.heads
    shape = (case.layout.num_graphs, heads, case.query_layout.max_nodes, case.layout.max_nodes)
    rows = [[-INF if masks else 0.0] * heads for _ in range(shape[0] * shape[2] * shape[3])]
    entries = [torch.tensor(row, dtype=torch.float64) for row in rows]
    number = 0
    for graph, (queries, keys) in enumerate(
        zip(places(case.query_layout), places(case.layout), strict=True)
    ):
        for i, query in enumerate(queries):
            for j, key in enumerate(keys):
                at = (graph * shape[2] + i) * shape[3] + j
                if isinstance(bias, PairBias):
                    entries[at] = bias.values[number]
                elif isinstance(bias, TableBias):
                    entries[at] = bias.table[int(bias.index[number])]
                else:
                    mine = [
                        e for e, edge in enumerate(bias.edges.t().tolist()) if edge == [key, query]
                    ]
                    if not masks and mine:
                        entries[at] = sum(bias.values[e] for e in mine)
                    elif mine and bias.values is None:
                        entries[at] = torch.tensor([len(mine)]).double().log()
                    elif mine:
                        entries[at] = torch.logsumexp(bias.values[mine], 0)
                number += 1
    assert number == num_pairs(case.query_layout, case.layout)
    return torch.stack(entries).view(shape[0], shape[2], shape[3], heads).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("name", [*NAMES, *MASKS])
def test_materialize_is_the_definition(name: str, order: str, kind: str) -> None:
    case = make_case(name, order, kind)
    (bias,) = case.biases
    query_layout = None if kind == "self" else case.query_layout
    got, want = bias.materialize(case.layout, query_layout).double(), dense(case)
    # a mask without values says with one head what holds for all
    torch.testing.assert_close(got, want)
    if name.startswith("mask"):
        assert (want == -INF).any() and (want != -INF).any()
    for leaf in [x for x in vars(bias).values() if isinstance(x, Tensor) and x.requires_grad]:
        waves = torch.randn_like(want) * (want != -INF)
        (a,), (b,) = (
            torch.autograd.grad(torch.where(want == -INF, 0.0, x), leaf, waves, retain_graph=True)
            for x in (got, want)
        )
        finite = leaf.isfinite()
        torch.testing.assert_close(a[finite], b[finite])
        assert b[finite].any()
        assert a.isfinite().all()


@pytest.mark.parametrize("name", ["pair", "edge-repeats", "mask-values-repeats"])
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_attention_is_the_dense_softmax_with_the_materialized_bias(
    backend: str, name: str
) -> None:
    """Eq. 20 of Joshi: the whole batch padded, one matrix product."""
    case = make_case(name)
    (bias,) = case.biases
    q, k, v = (
        to_dense_batch(x, case.layout.batch, batch_size=5)[0]
        for x in (case.query, case.key, case.value)
    )
    _, there = to_dense_batch(case.query, case.layout.batch, batch_size=5)
    scores = torch.einsum("bihc,bjhc->bhij", q, k) * 3**-0.5 + bias.materialize(case.layout)
    scores = scores.masked_fill(~there[:, None, None, :], -INF)
    weights = scores.softmax(-1).nan_to_num(0.0)  # a node with nothing to attend to
    want = torch.einsum("bhij,bjhc->bihc", weights, v)[there]
    torch.testing.assert_close(case.attention(backend), want)


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("room", [0, 3])
def test_a_dense_bias_is_read_pair_by_pair(room: int, order: str, kind: str) -> None:
    case = make_case("pair", order, kind)
    query_layout = None if kind == "self" else case.query_layout
    shape = (case.query_layout.max_nodes + room, case.layout.max_nodes + 2 * room)
    dense = torch.randn(case.layout.num_graphs, 2, *shape, dtype=torch.float64)
    inside = torch.zeros(dense.shape, dtype=torch.bool)
    rows = []
    for graph, (queries, keys) in enumerate(
        zip(places(case.query_layout), places(case.layout), strict=True)
    ):
        for i in range(len(queries)):
            for j in range(len(keys)):
                rows.append((graph, i, j))
                inside[graph, :, i, j] = True
    dense[~inside] = torch.nan  # nothing of it is read
    dense[4, 1, 1, 2] = -INF
    dense.requires_grad_()
    bias = PairBias.from_dense(dense, case.layout, query_layout)
    want = torch.stack([dense[graph, :, i, j] for graph, i, j in rows])
    torch.testing.assert_close(bias.values, want, rtol=0, atol=0)
    assert (want == -INF).sum() == 1

    wave = torch.randn(want.shape, dtype=torch.float64)
    (got,) = torch.autograd.grad(bias.values, dense, wave)
    (expected,) = torch.autograd.grad(want, dense, wave)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert (got[~inside] == 0).all() and (got[inside] != 0).all()

    back = bias.to_dense(case.layout, query_layout)
    height, width = case.query_layout.max_nodes, case.layout.max_nodes
    inner = torch.where(inside, dense, 0.0)[:, :, :height, :width]
    torch.testing.assert_close(back, inner, rtol=0, atol=0)
    again = PairBias.from_dense(back, case.layout, query_layout)
    assert torch.equal(again.values, bias.values)


def test_a_dense_bias_goes_by_batch_vectors() -> None:
    batch, queries = torch.tensor([0, 0, 1]), torch.tensor([0, 2])
    dense = torch.arange(3.0 * 2 * 2).view(3, 1, 2, 2)
    bias = PairBias.from_dense(dense, batch)  # graph 2 has no nodes
    assert bias.values.flatten().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(bias.to_dense(batch), bias.to_dense(GraphLayout.from_batch(batch)))
    crossed = PairBias.from_dense(dense[:, :, :1], batch, queries)
    assert crossed.values.flatten().tolist() == [0, 1]
    assert crossed.to_dense(batch, queries).tolist() == [[[[0, 1]]], [[[0, 0]]], [[[0, 0]]]]


@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU])
def test_attention_with_a_dense_mask(backend: str) -> None:
    layout = layout_of([3, 1, 4])
    query, key, value = torch.randn(3, layout.num_nodes, 2, 4)
    scores = torch.randn(3, 2, 4, 4)
    allowed = torch.rand(3, 1, 4, 4) < 0.6
    allowed[..., 0] = True
    bias = PairBias.from_dense(scores.masked_fill(~allowed, -INF), layout)
    got = attention(query, key, value, layout, bias, backend=backend)
    start = 0
    for graph, n in enumerate(layout.sizes):
        rows = slice(start, start + n)
        q, k, v = (x[rows].transpose(0, 1) for x in (query, key, value))  # [H, n, C]
        logits = q @ k.transpose(1, 2) / 2 + scores[graph, :, :n, :n]
        weights = logits.masked_fill(~allowed[graph, :, :n, :n], -INF).softmax(-1)
        torch.testing.assert_close(got[rows], (weights @ v).transpose(0, 1))
        start += n


@pytest.mark.parametrize(
    ("dense", "words"),
    [
        (torch.zeros(2, 3, 3), r"one score for all heads: 'dense.unsqueeze\(1\).expand"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.bool), r"masked_fill\(~mask, -torch.inf\)"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.int64), "floating-point tensor of shape"),
        (torch.zeros(3, 1, 3, 3), r"shape \[2, H, Mq, Mk\] .* \(got \[3, 1, 3, 3\]\)"),
        (torch.zeros(2, 1, 2, 3), "Mq >= 3 queries"),
        (torch.zeros(2, 3, 3, 1), r"Mk >= 3 keys .*dense.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 1, 3, 3, device="meta"), "lies on 'meta'"),
        (torch.zeros(2, 1, 3, 3).to_sparse(), "must be a dense tensor"),
        ([[0.0]], "must be a dense tensor .* 'list'"),
    ],
)
def test_a_dense_bias_that_does_not_fit(dense: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PairBias.from_dense(dense, layout_of([3, 2]))


def test_layouts_of_dense_biases_are_named() -> None:
    dense = torch.zeros(2, 1, 3, 3)
    with pytest.raises(ValueError, match="'layout' must be a 'GraphLayout' or a 'batch'"):
        PairBias.from_dense(dense, [3, 2])
    with pytest.raises(ValueError, match="'query_layout' has 1 graphs and 'layout' 2"):
        PairBias.from_dense(dense, layout_of([3, 2]), layout_of([3]))


def test_the_order_of_pairs() -> None:
    """Graph by graph; within a graph query by query, in the order of the caller's nodes."""
    layout = GraphLayout.from_batch(torch.tensor([1, 0, 1]))
    values = torch.tensor([[10.0], [0.0], [2.0], [20.0], [22.0]])
    got = PairBias(values).materialize(layout)
    assert got.shape == (2, 1, 2, 2)
    assert got[0, 0].tolist() == [[10, 0], [0, 0]]
    # nodes 0 and 2 of graph 1: (0, 0), (0, 2), (2, 0), (2, 2)
    assert got[1, 0].tolist() == [[0, 2], [20, 22]]
    queries = GraphLayout.from_batch(torch.tensor([1]), num_graphs=2)
    got = PairBias(torch.tensor([[5.0], [7.0]])).materialize(layout, queries)
    assert got[:, 0].tolist() == [[[0, 0]], [[5, 7]]]


def test_pairs_are_counted() -> None:
    layout, queries = layout_of([1, 5, 0, 2]), layout_of([2, 0, 3, 1], "unsorted")
    assert num_pairs(layout, layout) == layout.num_pairs == 1 + 25 + 4
    assert num_pairs(queries, layout) == 2 + 2
    assert pair_ptr(queries, layout).tolist() == [0, 2, 2, 2, 4]
    assert pair_ptr(GraphLayout.from_sizes([]), GraphLayout.from_sizes([])).tolist() == [0]


def test_the_pair_of_an_edge() -> None:
    case = make_case("edge", "unsorted", "cross")
    edges = case.biases[0].edges
    layout = EdgeLayout.of(edges, case.layout.num_nodes, case.query_layout.num_nodes)
    number, of_pair = 0, {}
    for queries, keys in zip(places(case.query_layout), places(case.layout), strict=True):
        for query in queries:
            for key in keys:
                of_pair[key, query] = number
                number += 1
    want = [of_pair[tuple(edge)] for edge in edges.t().tolist()]
    assert pair_of_edge(layout, case.query_layout, case.layout).tolist() == want


def test_segment_logsumexp_against_torch() -> None:
    values = torch.randn(40, 3, dtype=torch.float64) * 300  # exp overflows without a maximum
    index = torch.randint(9, (40,))
    index[index == 4] = 5  # nothing in segment 4
    values[index == 7] = -INF
    values[3] = -INF
    values.requires_grad_()
    got = segment_logsumexp(values, index, 10)
    want = torch.stack(
        [
            torch.logsumexp(values[index == i], 0)
            if (index == i).any() and i != 7
            else torch.full((3,), -INF, dtype=torch.float64)
            for i in range(10)
        ]
    )
    torch.testing.assert_close(got, want)
    assert (want[[4, 7, 9]] == -INF).all()
    wave = torch.randn_like(want).masked_fill(want == -INF, 0.0)
    results = [
        torch.autograd.grad(torch.where(want == -INF, 0.0, x), values, wave, retain_graph=True)[0]
        for x in (got, want)
    ]
    torch.testing.assert_close(*results)
    assert results[0].isfinite().all() and results[0].any()


@pytest.mark.parametrize("shape", [(2,), (3, 2), (0, 2), (4, 0, 2), (2, 3, 4, 2)])
def test_a_function_is_applied_to_each_score(shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape)
    graph, query, key = (torch.randint(5, shape[:-1]) for _ in range(3))
    mod = ScoreMod(lambda score, g, h, q, k: score + 10 * g + 100 * h + 1000 * q + 10_000 * k)
    got = mod.apply(scores, graph, query, key)
    head = torch.arange(2)
    want = scores + 100 * head + (10 * graph + 1000 * query + 10_000 * key).unsqueeze(-1)
    torch.testing.assert_close(got, want)


def test_a_mask_with_features_has_no_dense_form() -> None:
    case = make_case("mask-features")
    with pytest.raises(ValueError, match="'features' is no function of the pair"):
        case.biases[0].materialize(case.layout)


def test_a_bias_that_does_not_fit_cannot_be_materialized() -> None:
    layout = layout_of([2, 2])
    with pytest.raises(ValueError, match="'PairBias' of 7 pairs .* has 8"):
        PairBias(torch.randn(7, 1)).materialize(layout)
    edges = torch.tensor([[0, 3], [1, 0]])
    with pytest.raises(ValueError, match="edge 1 joins node 3 of graph 1"):
        EdgeBias(edges, torch.randn(2, 1)).materialize(layout)
    with pytest.raises(IndexError, match="source index 4"):
        EdgeMask(edges + 1).materialize(layout)


def test_biases_are_values() -> None:
    bias = PairBias(torch.randn(3, 1))
    with pytest.raises(AttributeError):
        bias.values = torch.randn(3, 1)  # type: ignore[misc]


def test_a_dense_batch_in_compiled_code_needs_a_layout() -> None:
    dense, batch = torch.randn(2, 2, 3, 3), torch.tensor([0, 0, 1, 1, 1])
    layout = GraphLayout.from_batch(batch)

    def run(dense: Tensor) -> Tensor:
        return PairBias.from_dense(dense, layout).values

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert torch.equal(compiled(dense), run(dense))
    with pytest.raises(ValueError, match="make a 'GraphLayout' before"):
        PairBias.from_dense(dense.to("meta"), batch.to("meta"))


@pytest.mark.parametrize("values", [torch.ones(13), [1.0]])
def test_values_of_pairs_have_two_dimensions(values: object) -> None:
    with pytest.raises(ValueError, match=r"must hold a tensor \[P, H\]"):
        PairBias(values).to_dense(GraphLayout.from_sizes([2, 3]))  # type: ignore[arg-type]
