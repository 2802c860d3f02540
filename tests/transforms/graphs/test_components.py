"""Splitting a graph into matrices, against NetworkX."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_gt.transforms.graphs import components
from pyg_gt.transforms.graphs.graphs import Graphs


def graph_of(n: int, edges: list[tuple[int, int, float]]) -> Graphs:
    row, col, weight = (
        (np.array(part) for part in zip(*edges, strict=True)) if edges else ([],) * 3
    )
    return Graphs(
        np.asarray(row, dtype=np.int64),
        np.asarray(col, dtype=np.int64),
        np.array(weight, dtype=np.float64),
        n,
        np.array([0, n]),
        np.arange(len(edges)),
    )


def dense(n: int, edges: list[tuple[int, int, float]]) -> np.ndarray:
    matrix = np.zeros((n, n))
    for a, b, w in edges:
        matrix[a, b] += w
    return matrix


def check(n: int, edges: list[tuple[int, int, float]], larger_than: int = 0) -> None:
    matrix = dense(n, edges)
    skeleton = nx.from_numpy_array(matrix + matrix.T)
    expected = [tuple(sorted(component)) for component in nx.connected_components(skeleton)]
    seen: list[tuple[int, ...]] = []
    for group in components.component_stacks(graph_of(n, edges)):
        nodes, stack = group.stacked_nodes(), group.dense()
        assert stack.shape == (*nodes.shape, group.width) and stack.dtype == np.float64
        assert nodes.shape == (group.num_components, group.width)
        blocks = group.sparse().toarray()
        for number, own in enumerate(nodes):
            seen.append(tuple(own.tolist()))
            np.testing.assert_allclose(stack[number], matrix[np.ix_(own, own)])
            here = slice(number * group.width, (number + 1) * group.width)
            np.testing.assert_allclose(blocks[here, here], matrix[np.ix_(own, own)])
    assert sorted(seen) == sorted(expected)
    assert [len(nodes) for nodes in seen] == sorted(len(nodes) for nodes in seen)

    for entries in (1, 20, 10**6):
        seen = []
        for block in components.component_blocks(graph_of(n, edges), larger_than, entries):
            assert block.num_components == 1 or block.nodes.size * block.width <= entries
            np.testing.assert_allclose(
                block.sparse().toarray(), matrix[np.ix_(block.nodes, block.nodes)], rtol=1e-15
            )
            ends = zip(block.ptr[:-1], block.ptr[1:], strict=True)
            seen += [tuple(block.nodes[a:b].tolist()) for a, b in ends]
        assert sorted(seen) == sorted(nodes for nodes in expected if len(nodes) > larger_than)


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, float]]]:
    n = draw(st.integers(1, 25))
    node = st.integers(0, n - 1)
    weight = st.sampled_from([0.5, 1.0, 3.0])
    return n, draw(st.lists(st.tuples(node, node, weight), max_size=30))


@settings(max_examples=150, deadline=None)
@given(edge_lists(), st.sampled_from([0, 1, 3, 100]))
def test_pieces_are_the_components(
    graph: tuple[int, list[tuple[int, int, float]]], larger_than: int
) -> None:
    check(*graph, larger_than)


@pytest.mark.parametrize("larger_than", [2, 10, 1000])
def test_pieces_of_a_graph_too_large_for_the_short_search(larger_than: int) -> None:
    random = np.random.default_rng(0)
    edges = [(int(a), int(b), 1.0) for a, b in random.integers(0, 700, (500, 2))]
    check(700, edges, larger_than)


def test_both_searches_agree() -> None:
    random = np.random.default_rng(0)
    edges = [(int(a), int(b), 1.0) for a, b in random.integers(0, 100, (80, 2))]
    short = components._component_labels(graph_of(100, edges))
    long = components._component_labels(graph_of(100, edges * 10))
    assert (np.equal.outer(short, short) == np.equal.outer(long, long)).all()


def test_large_stacks_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_STACK_ENTRIES", 20)
    edges = [(3 * i, 3 * i + j, 1.0) for i in range(7) for j in (1, 2)]
    check(25, edges, 2)
    shapes = [a.dense().shape for a in components.component_stacks(graph_of(25, edges))]
    assert shapes == [(4, 1, 1)] + [(2, 3, 3)] * 3 + [(1, 3, 3)]


def test_no_nodes() -> None:
    assert list(components.component_stacks(graph_of(0, []))) == []
    assert list(components.component_blocks(graph_of(0, []), 0, 10)) == []
