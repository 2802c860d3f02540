"""Return probabilities: closed forms, powers of the transition matrix and PyG as oracles."""

import copy
import inspect
import tracemalloc
from math import comb
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_gt.transforms import AddRandomWalkPE
from pyg_gt.transforms.walks import power_diagonals, return_probabilities
from tests.transforms.samples import as_data, random_graph, transition, weighted_graphs

NAME = "random_walk_pe"


def encode(data: Data, walk_length: int) -> Tensor:
    """``[N, walk_length]``, in float64."""
    pe = AddRandomWalkPE(walk_length)(data)[NAME]
    assert pe.dtype == torch.float32 and pe.shape == (data.num_nodes, walk_length)
    assert bool(((pe >= 0) & (pe <= 1)).all())
    return pe.double()


def powers(data: Data, walk_length: int) -> np.ndarray:
    """The definition, with matrix powers."""
    P = transition(data)
    return np.stack(
        [np.linalg.matrix_power(P, t).diagonal() for t in range(1, walk_length + 1)], axis=1
    )


@pytest.mark.parametrize("n", [2, 3, 12, 130])
def test_complete_graph(n: int) -> None:
    t = np.arange(1, 16)
    expected = (1 + (n - 1) * (-1 / (n - 1)) ** t) / n
    np.testing.assert_allclose(
        encode(as_data(nx.complete_graph(n)), 15), np.tile(expected, (n, 1)), atol=1e-6
    )


@pytest.mark.parametrize("n", [14, 121])
def test_cycle_longer_than_the_walk(n: int) -> None:
    expected = [0 if t % 2 else comb(t, t // 2) / 2**t for t in range(1, 13)]
    np.testing.assert_allclose(
        encode(as_data(nx.cycle_graph(n)), 12), np.tile(expected, (n, 1)), atol=1e-6
    )


@pytest.mark.parametrize("leaves", [3, 150])
def test_star(leaves: int) -> None:
    expected = np.tile([0, 1 / leaves, 0, 1 / leaves], (leaves + 1, 1))
    expected[0] = [0, 1, 0, 1]
    np.testing.assert_allclose(encode(as_data(nx.star_graph(leaves)), 4), expected, atol=1e-6)


def test_grid_is_a_product() -> None:
    # A walk on the torus moves along either axis with probability one half.
    one = [1] + [0 if t % 2 else comb(t, t // 2) / 2**t for t in range(1, 9)]
    expected = [
        sum(comb(t, s) * one[s] * one[t - s] for s in range(t + 1)) / 2**t for t in range(1, 9)
    ]
    pe = encode(as_data(nx.grid_2d_graph(11, 11, periodic=True)), 8)
    np.testing.assert_allclose(pe, np.tile(expected, (121, 1)), atol=1e-6)


def test_worked_tables_of_pyg() -> None:
    edge_index = torch.tensor([[0, 1, 0, 4, 1, 4, 2, 3, 3, 5], [1, 0, 4, 0, 4, 1, 3, 2, 5, 3]])
    assert encode(Data(edge_index=edge_index, num_nodes=6), 3).tolist() == [
        [0.0, 0.5, 0.25],
        [0.0, 0.5, 0.25],
        [0.0, 0.5, 0.00],
        [0.0, 1.0, 0.00],
        [0.0, 0.5, 0.25],
        [0.0, 0.5, 0.00],
    ]
    loops = Data(edge_index=torch.tensor([[0, 1, 2], [0, 1, 2]]), num_nodes=4)
    assert encode(loops, 3).tolist() == [[1.0] * 3] * 3 + [[0.0] * 3]


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("n", [2, 20, 90, 150, 400])
def test_agrees_with_pyg_on_simple_graphs(n: int, directed: bool) -> None:
    data = as_data(nx.gnp_random_graph(n, min(1.0, 4 / n), seed=n, directed=directed))
    theirs = T.AddRandomWalkPE(9)(data)[NAME].double()
    torch.testing.assert_close(encode(data, 9), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("n", [3, 30, 100, 101, 200])
@pytest.mark.parametrize("walk_length", [1, 2, 7, 20])
def test_agrees_with_matrix_powers(n: int, directed: bool, walk_length: int) -> None:
    data = random_graph(n, n, 3, directed=directed)
    np.testing.assert_allclose(encode(data, walk_length), powers(data, walk_length), atol=1e-6)


def test_weights_of_a_path() -> None:
    data = as_data(nx.path_graph(4))
    data.edge_weight = torch.full((6,), 0.1)
    expected = torch.tensor([[0, 0.5, 0, 0.375], [0, 0.75, 0, 0.6875]]).double()[[0, 1, 1, 0]]
    torch.testing.assert_close(encode(data, 4), expected)


def test_repeated_edges_count_as_often_as_they_stand() -> None:
    path = as_data(nx.path_graph(4))
    twice = Data(edge_index=path.edge_index.repeat(1, 2), num_nodes=4)
    torch.testing.assert_close(encode(twice, 4), encode(path, 4))
    edges = torch.tensor([[0, 0, 0, 1, 2], [1, 1, 2, 0, 0]])
    pe = encode(Data(edge_index=edges, num_nodes=3), 2)
    torch.testing.assert_close(pe[:, 1], torch.tensor([1, 2 / 3, 1 / 3]).double())


def test_walk_ends_where_no_edge_leaves() -> None:
    data = Data(edge_index=torch.tensor([[0, 1, 1], [1, 0, 2]]), num_nodes=4)
    expected = [[0, 0.5, 0, 0.25], [0, 0.5, 0, 0.25], [0] * 4, [0] * 4]
    assert encode(data, 4).tolist() == expected
    data.edge_weight = torch.tensor([1.0, 0, 2])
    assert not encode(data, 4).any()


@pytest.mark.parametrize("n", [5, 120])
def test_directed_cycle(n: int) -> None:
    expected = torch.zeros(n, 2 * n + 1)
    expected[:, [n - 1, 2 * n - 1]] = 1
    pe = encode(as_data(nx.cycle_graph(n, create_using=nx.DiGraph)), 2 * n + 1)
    assert torch.equal(pe.float(), expected)


@pytest.mark.parametrize("entries", [60, 400, 10**6])
@pytest.mark.parametrize("dense_limit", [0, 10**6])
def test_dense_and_sparse_paths_agree(
    entries: int, dense_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(return_probabilities, "_TINY", 5)
    monkeypatch.setattr(power_diagonals, "_SPARSE_ENTRIES", entries)
    monkeypatch.setattr(power_diagonals, "_DENSE_COLUMNS", 7)
    graphs = (
        nx.gnp_random_graph(60, 0.3, seed=0, directed=True),  # soon everywhere
        nx.gn_graph(60, seed=0),  # leaves
        nx.gnp_random_graph(60, 0.2, seed=0),
        nx.path_graph(60),  # stays near
    )
    for graph in graphs:
        data = as_data(graph)
        transform = AddRandomWalkPE(11)
        transform.DENSE_LIMIT = dense_limit
        np.testing.assert_allclose(transform(data)[NAME], powers(data, 11), atol=1e-6)


def test_runs_of_components_of_many_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [random_graph(n, n, 3) for n in (65, 66, 70, 70, 71, 90)]
    graphs += [as_data(nx.cycle_graph(n)) for n in (65, 72, 80)]
    together = Batch.from_data_list([copy.copy(g).update({"edge_weight": None}) for g in graphs])
    expected = torch.cat([torch.from_numpy(powers(graph, 9)) for graph in together.to_data_list()])
    for entries in (1, 65 * 65 * 2, 10**7):
        for module in (power_diagonals, return_probabilities):
            monkeypatch.setattr(module, "BLOCK_ENTRIES", entries)
        torch.testing.assert_close(
            encode(together, 9).double(), expected.double(), rtol=0, atol=1e-6
        )


def test_memory_of_a_large_graph_is_far_from_its_square() -> None:
    n = 6000  # 288 MB as a dense matrix, and the walks reach most nodes
    data = as_data(nx.random_regular_graph(4, n, seed=0))
    tracemalloc.start()
    pe = encode(data, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e8
    row, col = data.edge_index
    for start in (0, 1234, n - 1):
        at = torch.zeros(n).double()
        at[start] = 1
        for t in range(8):
            at = torch.zeros(n).double().index_add_(0, col, at[row] / 4)
            assert abs(float(at[start] - pe[start, t])) < 1e-6


@settings(max_examples=100, deadline=None)
@given(weighted_graphs([0, 1e-30, 0.3, 1, 2, 1e9]), st.integers(1, 9))
def test_any_graph(data: Data, walk_length: int) -> None:
    np.testing.assert_allclose(encode(data, walk_length), powers(data, walk_length), atol=1e-6)


def test_long_walk_forgets_its_start() -> None:
    data = as_data(nx.lollipop_graph(5, 4))
    degree = torch.bincount(data.edge_index[0]).double()
    torch.testing.assert_close(encode(data, 2000)[:, -1], degree / degree.sum(), rtol=0, atol=1e-6)


def test_signature_is_that_of_pyg() -> None:
    ours = inspect.signature(AddRandomWalkPE).parameters.values()
    theirs = inspect.signature(T.AddRandomWalkPE).parameters.values()
    shared = [p for p in ours if p.kind is not p.KEYWORD_ONLY]
    assert [(p.name, p.kind, p.default) for p in shared] == [
        (p.name, p.kind, p.default) for p in theirs
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"walk_length": 0}, "walk_length=0; expected a whole number of at least 1"),
        ({"walk_length": 2.5}, r"walk_length=2\.5"),
        ({"walk_length": 2, "attr_name": 3}, "attr_name=3; expected a name, or None"),
        ({"walk_length": 2, "attr_name": "face"}, "choose another name"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddRandomWalkPE(**arguments)
