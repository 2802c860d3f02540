"""A union of edge sets is attention along each of them."""

import pytest
import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor

from pyg_gt import EdgeLayout, EdgeMask, GraphLayout, attention

from .cases import CPU, HEADS, dtype_of, layout_of, random_edges, tolerance_of

C = 3
BACKENDS = ["reference", "sdpa", "sparse", CPU]
CARRIES = {
    "nothing": (),
    "values": ("values",),
    "values and features": ("values", "features"),
}


def sets(layout: GraphLayout, carries: tuple[str, ...], dtype: torch.dtype) -> list[EdgeMask]:
    """Three edge sets that share edges; the first carries nothing, the second values alone."""
    masks = []
    for names in ((), carries[:1], carries):
        edges = random_edges(layout, layout)
        shapes = {"values": (HEADS,), "features": (HEADS, C)}
        given = {
            name: torch.randn(edges.size(1), *shapes[name], dtype=dtype, requires_grad=True)
            for name in names
        }
        masks.append(EdgeMask(edges, **given))
    return masks


def by_hand(query: Tensor, key: Tensor, value: Tensor, masks: list[EdgeMask]) -> Tensor:
    """Query by query over the edges of every set."""
    out = []
    for i in range(query.size(0)):
        scores, values = [], []
        for mask in masks:
            for e, (j, target) in enumerate(mask.edges.t().tolist()):
                if target != i:
                    continue
                zero = torch.zeros(HEADS, C, dtype=query.dtype)
                feature = zero if mask.features is None else mask.features[e]
                score = (query[i] * (key[j] + feature)).sum(-1) * C**-0.5
                scores.append(score if mask.values is None else score + mask.values[e])
                values.append(value[j] + feature)
        if not scores:
            out.append(torch.zeros_like(query[i]))
            continue
        weights = torch.stack(scores).softmax(0)
        out.append((weights.unsqueeze(-1) * torch.stack(values)).sum(0))
    return torch.stack(out)


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("carries", CARRIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_along_a_union(backend: str, carries: str, order: str) -> None:
    dtype, layout = dtype_of(backend), layout_of([1, 5, 0, 4], order)
    masks = sets(layout, CARRIES[carries], dtype)
    q, k, v = torch.randn(3, layout.num_nodes, HEADS, C, dtype=dtype)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    leaves += [x for m in masks for x in (m.values, m.features) if x is not None]
    if backend == "sdpa" and "features" in carries:
        with pytest.raises(NotImplementedError, match="features"):
            attention(q, k, v, layout, EdgeMask.union(*masks), backend=backend)
        return
    got = attention(q, k, v, layout, EdgeMask.union(*masks), backend=backend)
    want = by_hand(q, k, v, masks)
    wave = torch.randn_like(want)
    tolerance = {"rtol": 20 * tolerance_of(backend), "atol": 20 * tolerance_of(backend)}
    torch.testing.assert_close(got, want, **tolerance)
    pairs = zip(
        torch.autograd.grad(got, leaves, wave),
        torch.autograd.grad(want, leaves, wave),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, **tolerance)


def test_a_union_of_disjoint_sets_is_the_mask_of_all_edges() -> None:
    layout = layout_of([4, 3])
    edges = random_edges(layout, layout)
    got = EdgeMask.union(edges[:, ::2], edges[:, 1::2]).materialize(layout)
    assert torch.equal(got, EdgeMask(edges).materialize(layout))


@pytest.mark.parametrize("form", ["int32", "EdgeLayout", "EdgeMask", "csr", "SparseTensor"])
def test_every_form_of_an_edge_set(form: str) -> None:
    edges = torch.tensor([[1, 0, 2], [0, 1, 1]])  # target by target, as a sparse matrix has them
    other = torch.tensor([[2], [2]])
    adjacency = torch.zeros(3, 3).index_put((edges[1], edges[0]), torch.ones(()))
    given = {
        "int32": edges.int(),
        "EdgeLayout": EdgeLayout.of(edges, 3),
        "EdgeMask": EdgeMask(edges),
        "csr": adjacency.to_sparse_csr(),
        "SparseTensor": SparseTensor.from_dense(adjacency),
    }[form]
    union = EdgeMask.union(other, given)
    assert set(map(tuple, union.edges.t().tolist())) == {(2, 2), (1, 0), (0, 1), (2, 1)}
    assert union.edges.shape == (2, 4)
    assert union.values is None and union.features is None


def test_coalesced_edges_stand_once_with_the_sum_of_what_they_carry() -> None:
    first = torch.tensor([[3, 0, 0], [1, 1, 1]])
    second = torch.tensor([[0, 2], [1, 0]])
    values = torch.randn(3, HEADS, requires_grad=True)
    features = torch.randn(2, HEADS, C)
    union = EdgeMask.union(
        EdgeMask(first, values), EdgeMask(second, features=features), coalesce=True
    )
    assert union.edges.tolist() == [[0, 2, 3], [1, 0, 1]]
    zero = torch.zeros(HEADS)
    torch.testing.assert_close(union.values, torch.stack([values[1] + values[2], zero, values[0]]))
    torch.testing.assert_close(
        union.features, torch.stack([features[0], features[1], torch.zeros(HEADS, C)])
    )
    (gradient,) = torch.autograd.grad(union.values.sum(), values)
    assert gradient.eq(1).all()


def test_coalesced_edges_that_carry_nothing() -> None:
    first, second = torch.tensor([[3, 0, 0], [1, 1, 1]]), torch.tensor([[0, 2], [1, 0]])
    union = EdgeMask.union(first, second, coalesce=True)
    assert union.edges.tolist() == [[0, 2, 3], [1, 0, 1]]
    assert union.values is None and union.features is None


def test_numbers_out_of_range_stay_so() -> None:
    edges = torch.tensor([[0, 1, 1], [1, -1, 0]])
    union = EdgeMask.union(edges, edges, coalesce=True)
    assert union.edges.tolist() == [[0, 1, 1], [1, -1, 0]]
    q, k, v = torch.randn(3, 2, HEADS, C)
    with pytest.raises(IndexError, match="target index -1"):
        attention(q, k, v, GraphLayout.from_sizes([2]), union)


@pytest.mark.parametrize("coalesce", [True, False])
def test_sets_without_edges(coalesce: bool) -> None:
    none = torch.empty(2, 0, dtype=torch.long)
    assert EdgeMask.union(none, none, coalesce=coalesce).edges.shape == (2, 0)
    edges = torch.tensor([[0], [1]])
    union = EdgeMask.union(EdgeMask(none, torch.empty(0, 2)), edges, coalesce=coalesce)
    assert union.edges.equal(edges) and union.values.equal(torch.zeros(1, 2))


def test_it_is_one_graph_of_compiled_code() -> None:
    layout = layout_of([4, 3])
    masks = sets(layout, ("values",), torch.float32)
    q, k, v = torch.randn(3, 7, HEADS, C)

    def run(q: Tensor, k: Tensor, v: Tensor, first: Tensor, second: Tensor) -> Tensor:
        mask = EdgeMask.union(first, EdgeMask(second, masks[1].values))
        return attention(q, k, v, layout.batch, mask)

    args = (q, k, v, masks[0].edges, masks[1].edges)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*args), run(*args))


EDGES = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "of one edge set at least"),
        ((EDGES, torch.zeros(3, 2, dtype=torch.long)), r"must have shape \[2, E\]"),
        ((EDGES, "edges"), "edges must be an 'edge_index' tensor"),
        ((EdgeLayout.of(EDGES, 2), EdgeLayout.of(EDGES, 3)), "join the same nodes"),
        ((EdgeMask(EDGES, torch.zeros(3, 2)),), r"edge set 0 must have shape \[2, H\]"),
        (
            (EdgeMask(EDGES, torch.zeros(2, 2)), EdgeMask(EDGES, torch.zeros(2, 3))),
            r"same H \(got \[2\], and \[3\] in edge set 1\)",
        ),
        ((EDGES, EdgeMask(EDGES, None, torch.zeros(2, 2))), r"'features' of edge set 1 .*H, C"),
        ((EDGES, EDGES.to("meta")), "must lie on one device"),
    ],
)
def test_sets_that_do_not_fit(given: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EdgeMask.union(*given)


def test_attention_of_flex_along_a_union() -> None:
    """Forward alone, which is what it computes on a CPU."""
    layout = layout_of([1, 5, 0, 4])
    masks = sets(layout, (), torch.float32)
    q, k, v = torch.randn(3, layout.num_nodes, HEADS, C)
    got = attention(q, k, v, layout, EdgeMask.union(*masks), backend="flex")
    torch.testing.assert_close(got, by_hand(q, k, v, masks), rtol=1e-5, atol=1e-5)
