"""Biases against their dense definition, written out here pair by pair."""

import pytest
import torch
from torch import Tensor
from torch_geometric.utils import to_dense_batch

from pyg_gt import EdgeBias, EdgeLayout, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias
from pyg_gt.ops.bias import segment_logsumexp
from pyg_gt.ops.pairs import num_pairs, pair_of_edge, pair_ptr

from .cases import INF, Case, layout_of, make_case

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
