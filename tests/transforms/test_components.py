"""Splitting a graph into matrices, against NetworkX."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_gt.transforms import _components
from pyg_gt.transforms._graph import WeightedGraph


def graph_of(n: int, edges: list[tuple[int, int, float]]) -> WeightedGraph:
    row, col, weight = (
        (np.array(part) for part in zip(*edges, strict=True)) if edges else ([],) * 3
    )
    return WeightedGraph(
        np.asarray(row, dtype=np.int64), np.asarray(col, dtype=np.int64), np.array(weight), n
    )


def dense(n: int, edges: list[tuple[int, int, float]]) -> np.ndarray:
    matrix = np.zeros((n, n))
    for a, b, w in edges:
        matrix[a, b] += w
    return matrix


def check(n: int, edges: list[tuple[int, int, float]], dense_up_to: int) -> None:
    matrix = dense(n, edges)
    skeleton = nx.from_numpy_array(matrix + matrix.T)
    expected = {tuple(sorted(component)) for component in nx.connected_components(skeleton)}
    seen: list[tuple[int, ...]] = []
    for nodes, adjacency in _components.split_components(graph_of(n, edges), dense_up_to):
        size = nodes.shape[1]
        if size > dense_up_to:
            assert len(nodes) == 1
            adjacency = adjacency.toarray()[None]
        assert adjacency.shape == (len(nodes), size, size) and adjacency.dtype == np.float64
        for own, part in zip(nodes, adjacency, strict=True):
            seen.append(tuple(own.tolist()))
            np.testing.assert_allclose(part, matrix[np.ix_(own, own)])
    assert len(seen) == len(expected) and set(seen) == expected


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, float]]]:
    n = draw(st.integers(1, 25))
    node = st.integers(0, n - 1)
    weight = st.sampled_from([0.5, 1.0, 3.0])
    return n, draw(st.lists(st.tuples(node, node, weight), max_size=30))


@settings(max_examples=150, deadline=None)
@given(edge_lists(), st.sampled_from([0, 1, 3, 100]))
def test_pieces_are_the_components(
    graph: tuple[int, list[tuple[int, int, float]]], dense_up_to: int
) -> None:
    check(*graph, dense_up_to)


@pytest.mark.parametrize("dense_up_to", [2, 10, 1000])
def test_pieces_of_a_graph_too_large_for_the_short_search(dense_up_to: int) -> None:
    random = np.random.default_rng(0)
    edges = [(int(a), int(b), 1.0) for a, b in random.integers(0, 700, (500, 2))]
    check(700, edges, dense_up_to)


def test_both_searches_agree() -> None:
    random = np.random.default_rng(0)
    edges = [(int(a), int(b), 1.0) for a, b in random.integers(0, 100, (80, 2))]
    short = _components._component_labels(graph_of(100, edges))
    long = _components._component_labels(graph_of(100, edges * 10))
    assert (np.equal.outer(short, short) == np.equal.outer(long, long)).all()


def test_large_stacks_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_components, "_STACK_ENTRIES", 20)
    edges = [(3 * i, 3 * i + j, 1.0) for i in range(7) for j in (1, 2)]
    check(25, edges, 10)
    shapes = [a.shape for _, a in _components.split_components(graph_of(25, edges), 10)]
    assert shapes == [(4, 1, 1)] + [(2, 3, 3)] * 3 + [(1, 3, 3)]


def test_no_nodes() -> None:
    assert list(_components.split_components(graph_of(0, []), 10)) == []
