"""Expanders: NetworkX and dense eigenvalues as oracles."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_undirected

from pyg_gt.transforms import AddExpanderEdges
from pyg_gt.transforms.expanders import spectral_gap
from pyg_gt.transforms.expanders.random_numbers import split_mix
from pyg_gt.transforms.expanders.random_regular import random_regular_edges
from tests.transforms.samples import EMPTY, as_data

ROOT = Path(__file__).resolve().parents[2]
NAME = "expander_edge_index"


def expander(data: Data, degree: int, **kwargs: Any) -> Tensor:
    """``[2, E']``, undirected and sorted."""
    found = AddExpanderEdges(degree, **kwargs)(data)[NAME]
    assert found.dtype == torch.int64
    assert is_undirected(found, num_nodes=data.num_nodes)
    order = found[0] * max(1, data.num_nodes) + found[1]
    assert bool((order[1:] > order[:-1]).all()), "sorted, no edge twice"
    return found


def as_networkx(edges: Tensor, n: int) -> nx.Graph:
    graph = nx.empty_graph(n)
    graph.add_edges_from(edges.T.tolist())
    return graph


def second_eigenvalue(graph: nx.Graph) -> float:
    """The second largest absolute value."""
    values = np.abs(np.linalg.eigvalsh(nx.to_numpy_array(graph)))
    return float(np.sort(values)[-2])


@pytest.mark.parametrize("degree", [3, 4, 5, 6, 9])
def test_regular_connected_and_with_a_gap(degree: int) -> None:
    for n in [*range(2, 32), 80]:
        edges = expander(as_data(nx.path_graph(n)), degree)
        graph = as_networkx(edges, n)
        assert nx.is_connected(graph) and nx.number_of_selfloops(graph) == 0
        assert graph.number_of_edges() * 2 == edges.size(1)
        degrees = sorted(dict(graph.degree).values())
        if n <= degree:
            assert degrees == [n - 1] * n
        elif n * degree % 2 == 0:
            assert nx.is_regular(graph) and degrees[0] == degree
            assert second_eigenvalue(graph) <= 2 * np.sqrt(degree - 1) + 0.1 + 1e-9
        else:
            assert degrees == [degree] * (n - 1) + [degree + 1]
            assert second_eigenvalue(graph) <= 2 * np.sqrt(degree - 1) + 0.1 + 1e-9


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_connect(n: int) -> None:
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        assert expander(data, 3).shape == (2, 0)


def test_no_edge_and_many_components_make_no_difference_to_what_is_drawn() -> None:
    for graph in (nx.empty_graph(12), nx.disjoint_union(nx.path_graph(5), nx.path_graph(7))):
        drawn = as_networkx(expander(as_data(graph), 3), 12)
        assert nx.is_connected(drawn) and nx.is_k_regular(drawn, 3)


def test_table() -> None:
    # It must not change from one version to the next without a line in the changelog.
    edges = expander(as_data(nx.cycle_graph(8)), 3)
    neighbours = ["267", "356", "045", "167", "257", "124", "013", "034"]
    assert edges.T.tolist() == [[i, int(j)] for i in range(8) for j in neighbours[i]]


def test_same_in_another_process() -> None:
    code = (
        "import networkx, torch; from torch_geometric.utils import from_networkx;"
        "from pyg_gt.transforms import AddExpanderEdges;"
        "data = from_networkx(networkx.cycle_graph(20));"
        f"print(AddExpanderEdges(5, seed=7)(data).{NAME}.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(expander(as_data(nx.cycle_graph(20)), 5, seed=7).tolist())


def test_draw_depends_on_seed_size_and_edges_in_any_order() -> None:
    cycle = as_data(nx.cycle_graph(20))
    drawn = expander(cycle, 3)
    for seed in (1, 2, 2**64 - 1):
        assert not torch.equal(expander(cycle, 3, seed=seed), drawn)
    assert not torch.equal(expander(as_data(nx.path_graph(20)), 3), drawn)
    one_way = Data(edge_index=cycle.edge_index[:, ::2], num_nodes=20)
    assert not torch.equal(expander(one_way, 3), drawn)
    cycle.edge_index = cycle.edge_index[:, torch.randperm(40)]
    cycle.edge_weight = torch.rand(40) + 0.1
    cycle.x = torch.randn(20, 2)
    assert torch.equal(expander(cycle, 3), drawn)
    none = torch.tensor([[0, 7], [9, 7]])
    cycle.edge_index = torch.cat([cycle.edge_index, none], dim=1)
    cycle.edge_weight = torch.cat([cycle.edge_weight, torch.zeros(2)])
    assert torch.equal(expander(cycle, 3), drawn)


def test_generators_are_left_alone() -> None:
    data = as_data(nx.cycle_graph(300))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    expander(data, 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize("degree", [3, 6])
def test_large_graphs(degree: int) -> None:
    graphs = [as_data(nx.path_graph(n)) for n in (300, 301, 300)]
    graphs[2].edge_index = graphs[2].edge_index[:, :-1]
    batch = Batch.from_data_list(graphs)
    edges = expander(batch, degree)
    for number, graph in enumerate(graphs):
        inside = batch.batch[edges[0]] == number
        own = edges[:, inside] - batch.ptr[number]
        assert torch.equal(own, expander(graph, degree))
        drawn = as_networkx(own, graph.num_nodes)
        assert nx.is_connected(drawn)
        assert second_eigenvalue(drawn) <= 2 * np.sqrt(degree - 1) + 0.11


def test_eigenvalues_of_dense_and_sparse_matrices_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    size = np.array([0, 1, 2, 12, 40, 40, 41, 100])
    key = split_mix(np.zeros(8, np.uint64), np.arange(8))
    edges = random_regular_edges(size, 3, key)
    dense = spectral_gap.spectral_norms(size, *edges)
    monkeypatch.setattr(spectral_gap, "_DENSE_LIMIT", 10)
    sparse = spectral_gap.spectral_norms(size, *edges)
    np.testing.assert_allclose(sparse, dense, rtol=2e-3)
    graph = as_networkx(torch.tensor(np.stack(edges)), int(size.sum()))
    parts = np.split(np.arange(size.sum()), np.cumsum(size)[:-1])
    for nodes, norm in zip(parts[3:6], dense[3:6], strict=True):
        assert abs(second_eigenvalue(graph.subgraph(nodes.tolist())) - norm) < 1e-9
    # 41 nodes of degree 3: one has 4, and the norm is at least the eigenvalue.
    second = second_eigenvalue(graph.subgraph(parts[6].tolist()))
    assert second - 1e-9 <= dense[6] <= second + 0.1


def test_two_components_have_no_gap() -> None:
    twice = nx.disjoint_union(nx.complete_graph(4), nx.complete_graph(4))
    row, col = as_data(twice).edge_index.numpy()
    norm = spectral_gap.spectral_norms(np.array([8]), row, col)
    np.testing.assert_allclose(norm, 3)
    big = nx.disjoint_union(
        nx.random_regular_graph(3, 200, seed=0), nx.random_regular_graph(3, 200, seed=1)
    )
    row, col = np.array(sorted([*big.edges, *((b, a) for a, b in big.edges)])).T
    norm = spectral_gap.spectral_norms(np.array([400]), row, col)
    np.testing.assert_allclose(norm, 3, rtol=1e-3)


def test_warns_when_no_draw_passes_and_keeps_the_best() -> None:
    data = as_data(nx.path_graph(30))
    found = {}
    for max_tries in (1, 5, 40):
        transform = AddExpanderEdges(4, max_tries=max_tries)
        transform.SLACK = -2
        message = f"1 of 1 expanders of degree 4 have a .* after max_tries={max_tries}; raise"
        with pytest.warns(UserWarning, match=message):
            edges = transform(data)[NAME]
        graph = as_networkx(edges, 30)
        assert nx.is_k_regular(graph, 4)
        found[max_tries] = second_eigenvalue(graph)
    assert found[40] <= found[5] <= found[1] and found[40] < found[1]


def test_most_draws_pass() -> None:
    for degree in (3, 4, 5, 8):
        for n in (6, 7, 12, 25, 26, 60):
            size = np.full(200, n)
            key = split_mix(np.zeros(200, np.uint64), np.arange(200))
            norm = spectral_gap.spectral_norms(size, *random_regular_edges(size, degree, key))
            assert (norm <= 2 * np.sqrt(degree - 1) + 0.1).mean() > 0.8


@pytest.mark.parametrize("degree", [3, 4, 5, 7, 10, 20])
def test_random_graphs_of_all_densities_are_simple(degree: int) -> None:
    size = np.tile(np.arange(41), 20)
    key = split_mix(np.zeros(size.size, np.uint64), np.arange(size.size))
    row, col = random_regular_edges(size, degree, key)
    assert (row != col).all()
    assert (np.diff(row * size.sum() + col) > 0).all()
    graph = np.repeat(np.arange(size.size), size)
    assert (graph[row] == graph[col]).all()
    wanted = np.minimum(degree, np.maximum(size - 1, 0))
    degrees = np.bincount(row, minlength=size.sum())
    start = np.cumsum(size) - size
    for n, d, first in zip(size, wanted, start, strict=True):
        own = np.sort(degrees[first : first + n])
        assert (own[: n - 1] == d).all() and (own[n - 1 :] == d + n * d % 2).all()


def draw(n: int, degree: int, draws: int) -> np.ndarray:
    """``[draws, n * degree, 2]``, edges both ways."""
    key = split_mix(np.zeros(draws, np.uint64), np.arange(draws))
    edges = np.stack(random_regular_edges(np.full(draws, n), degree, key), axis=-1)
    return edges.reshape(draws, n * degree, 2) % n


def test_every_graph_is_drawn() -> None:
    # There are 70 cubic graphs of 6 nodes.
    assert len({graph.tobytes() for graph in draw(6, 3, 3000)}) == 70


def test_draws_are_nearly_uniform() -> None:
    # Of the 19355 cubic graphs of 8 nodes 840 are cubes, which are the bipartite ones.
    found = np.mean([nx.is_bipartite(nx.Graph(graph.tolist())) for graph in draw(8, 3, 4000)])
    assert abs(found - 840 / 19355) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degree": 2}, "degree=2; expected a whole number of at least 3"),
        ({"degree": 3.5}, r"degree=3\.5"),
        ({"degree": 3, "attr_name": "expander"}, "a name that ends with '_edge_index'"),
        ({"degree": 3, "attr_name": None}, "a name that ends with '_edge_index'"),
        ({"degree": 3, "seed": -1}, "seed=-1"),
        ({"degree": 3, "max_tries": 0}, "max_tries=0; expected a whole number of at least 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddExpanderEdges(**arguments)
