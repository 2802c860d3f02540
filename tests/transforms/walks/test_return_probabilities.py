"""The diagonals of powers by compiled code, against powers of matrices and against NumPy."""

import networkx as nx
import numpy as np
import pytest

from pyg_gt.transforms.compiled.library import COMPILED, call
from pyg_gt.transforms.graphs.components import component_blocks
from pyg_gt.transforms.graphs.graphs import Graphs
from pyg_gt.transforms.walks import return_probabilities as walks

GRAPHS = {
    "path": nx.path_graph(70),
    "star": nx.star_graph(40),  # more neighbours than float32 is used for
    "complete": nx.complete_graph(12),
    "grid": nx.grid_2d_graph(9, 11),
    "two components": nx.disjoint_union(nx.cycle_graph(33), nx.random_labeled_tree(64, seed=1)),
    "three components": nx.disjoint_union_all([nx.path_graph(n) for n in (2, 3, 65)]),
}


class Without:
    """No compiled code."""

    @staticmethod
    def why_not() -> str:
        return "switched off"


def graphs_of(graph: nx.Graph, loops: bool = False) -> tuple[Graphs, np.ndarray]:
    """With random weights, and the transition matrix."""
    adjacency = np.triu(nx.to_numpy_array(graph)) + np.eye(len(graph)) * loops
    adjacency *= np.random.default_rng(0).uniform(0.5, 2, adjacency.shape)
    adjacency = adjacency + np.triu(adjacency, 1).T
    row, col = np.nonzero(adjacency)
    n = len(graph)
    ptr, number = np.array([0, n]), np.arange(row.size)
    found = Graphs(row, col, adjacency[row, col], n, ptr, number)
    return found, adjacency / adjacency.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("walk_length", [1, 2, 3, 16])
def test_compiled_walks_are_powers(
    name: str, walk_length: int, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, transition = graphs_of(GRAPHS[name], loops)
    powers = [np.linalg.matrix_power(transition, t + 1) for t in range(walk_length)]
    expected = np.stack([np.diag(power) for power in powers], axis=1)
    for block in component_blocks(graphs, 0, 10**6):
        found = walks.exact_diagonals(block, walk_length, 2048)
        np.testing.assert_allclose(found, expected[block.nodes], atol=3e-7)
        monkeypatch.setattr(walks, "COMPILED", Without)
        without = walks.exact_diagonals(block, walk_length, 2048)
        np.testing.assert_allclose(found, without, atol=3e-7)
        monkeypatch.undo()


def test_companions_do_not_matter() -> None:
    graphs, _ = graphs_of(
        nx.disjoint_union_all([GRAPHS["path"], GRAPHS["grid"], nx.star_graph(60)])
    )
    (together,) = component_blocks(graphs, 0, 10**6)
    found = np.empty((graphs.num_nodes, 16))
    found[together.nodes] = walks.exact_diagonals(together, 16, 2048)
    for block in component_blocks(graphs, 0, 1):
        if 16 * block.row.size < block.width**2 and walks.COMPILED.why_not() is None:
            assert (walks.exact_diagonals(block, 16, 2048) == found[block.nodes]).all()


@pytest.mark.compiled
@pytest.mark.parametrize("column", [2, 3, -1, 10**9])
def test_an_entry_outside_of_its_block_is_no_address(column: int) -> None:
    """Two blocks of two nodes each; the compiled code takes lengths from what it has checked."""
    start, columns = np.array([0, 1, 2, 3, 4], np.int32), np.array([1, 0, 3, 2], np.int32)
    blocks, weight, result = np.array([0, 2, 4]), np.ones(4), np.zeros((4, 3))
    rest = blocks, 2, start, columns, weight, 3, 32, result
    call(COMPILED.get(), "diagonals_of_powers", *rest)
    assert result.tolist() == [[0, 1, 0]] * 4
    columns[1] = column
    with pytest.raises(ValueError, match="outside of the blocks"):
        call(COMPILED.get(), "diagonals_of_powers", *rest)
