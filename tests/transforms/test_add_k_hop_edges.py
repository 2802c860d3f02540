"""Edges to all nodes within some hops: closed forms and SciPy's shortest paths as oracle."""

import tracemalloc
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from torch_geometric.data import Batch, Data
from torch_geometric.loader import NeighborLoader

from pyg_gt.nn import MaskedTransformerConv
from pyg_gt.transforms import AddKHopEdges, AddShortestPathDistance
from pyg_gt.transforms.paths import k_hop_pairs
from tests.transforms.samples import EMPTY, as_data, random_graph, weighted_graphs

NAME, DISTANCE = "k_hop_edge_index", "k_hop_distance"


def encode(data: Data, k: int) -> dict[tuple[int, int], int]:
    """The number of hops of each edge."""
    out = AddKHopEdges(k)(data)
    edges, hops = out[NAME], out[DISTANCE]
    assert edges.dtype == torch.int64 and hops.dtype == torch.uint8
    assert edges.shape == (2, len(hops)) and hops.dim() == 1 and edges.is_contiguous()
    pairs = [(i, j) for i, j in edges.T.tolist()]
    assert pairs == sorted(set(pairs))
    return dict(zip(pairs, hops.tolist(), strict=True))


def oracle(data: Data, k: int) -> dict[tuple[int, int], int]:
    """The same, by SciPy."""
    n = data.num_nodes
    edges = data.edge_index
    if data.edge_weight is not None:
        edges = edges[:, data.edge_weight > 0]
    adjacency = csr_array((np.ones(edges.size(1)), edges.numpy()), shape=(n, n))
    distance = shortest_path(adjacency, unweighted=True)
    pairs = np.argwhere((distance >= 1) & (distance <= k))
    return {(int(i), int(j)): int(distance[i, j]) for i, j in pairs}


@pytest.mark.parametrize("k", [1, 2, 5, 254])
def test_path_and_cycle(k: int) -> None:
    n = 300
    apart = {(i, j): abs(i - j) for i in range(n) for j in range(n) if 1 <= abs(i - j) <= k}
    assert encode(as_data(nx.path_graph(n)), k) == apart
    around = {
        (i, j): min(abs(i - j), n - abs(i - j))
        for i in range(n)
        for j in range(n)
        if 1 <= min(abs(i - j), n - abs(i - j)) <= k
    }
    assert encode(as_data(nx.cycle_graph(n)), k) == around


def test_star_and_complete_graph() -> None:
    star = encode(as_data(nx.star_graph(50)), 2)
    assert len(star) == 51 * 50
    assert all(hops == (1 if 0 in pair else 2) for pair, hops in star.items())
    complete = encode(as_data(nx.complete_graph(30)), 4)
    assert len(complete) == 30 * 29 and set(complete.values()) == {1}


def test_grid() -> None:
    found = encode(as_data(nx.grid_2d_graph(7, 8)), 3)
    nodes = [(a, b) for a in range(7) for b in range(8)]
    apart = {
        (i, j): abs(a - c) + abs(b - d)
        for i, (a, b) in enumerate(nodes)
        for j, (c, d) in enumerate(nodes)
    }
    assert found == {pair: hops for pair, hops in apart.items() if 1 <= hops <= 3}


def test_directed_path_has_no_way_back() -> None:
    data = as_data(nx.path_graph(4, create_using=nx.DiGraph))
    assert encode(data, 2) == {(0, 1): 1, (0, 2): 2, (1, 2): 1, (1, 3): 2, (2, 3): 1}


def test_one_hop_is_the_graph_without_loops_and_repeats() -> None:
    data = random_graph(40, 0, 4, weights=None)
    pairs = {(i, j) for i, j in data.edge_index.T.tolist() if i != j}
    assert encode(data, 1) == dict.fromkeys(pairs, 1)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_no_edge(n: int) -> None:
    loops = torch.arange(n).repeat(2, 1)
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n), Data(edge_index=loops)):
        data.num_nodes = n
        assert encode(data, 3) == {}
        assert data.num_nodes == n


@pytest.mark.parametrize("n", [2, 30, 200])
@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 64, 2**13])
def test_agrees_with_scipy(n: int, k: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k_hop_pairs, "_ROWS", rows)
    data = random_graph(n, n, 1.5, weights="counts")
    assert encode(data, k) == oracle(data, k)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_agrees_with_the_distances_of_all_pairs(k: int) -> None:
    batch = Batch.from_data_list([random_graph(n, n, 2, weights="counts") for n in (3, 40, 90)])
    distance = AddShortestPathDistance(k)(batch).pair_distance
    near = distance[(distance > 0) & (distance <= k)]
    assert torch.equal(AddKHopEdges(k)(batch)[DISTANCE], near)


@settings(max_examples=100, deadline=None)
@given(weighted_graphs([0, 1, 2], max_edges=40), st.integers(1, 9))
def test_any_graph(data: Data, k: int) -> None:
    assert encode(data, k) == oracle(data, k)


def test_distances_are_named_after_the_edges() -> None:
    data = random_graph(9, weights="counts")
    out = AddKHopEdges(3, "near_edge_index")(data)
    assert torch.equal(out.near_edge_index, AddKHopEdges(3)(data)[NAME])
    assert torch.equal(out.near_distance, AddKHopEdges(3)(data)[DISTANCE])


def test_attention_over_two_hops_sees_two_hops() -> None:
    data = AddKHopEdges(2)(as_data(nx.path_graph(5)))
    conv = MaskedTransformerConv(4, 4)
    x = torch.randn(5, 4, requires_grad=True)
    conv(x, data[NAME])[0].sum().backward()
    assert (x.grad != 0).any(1).tolist() == [True, True, True, False, False]


def test_memory_of_a_large_graph_is_that_of_its_edges() -> None:
    n = 20_000  # 400 MB as a dense matrix of bytes
    data = as_data(nx.random_regular_graph(4, n, seed=0))
    tracemalloc.start()
    out = AddKHopEdges(3)(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out[NAME].size(1) > 50 * n * 0.99
    assert peak < 5 * 17 * out[NAME].size(1)
    graph = nx.Graph(data.edge_index.T.tolist())
    for node in (0, 8191, 8192, n - 1):
        lengths = nx.single_source_shortest_path_length(graph, node, cutoff=3)
        here = out[NAME][0] == node
        found = zip(out[NAME][1, here].tolist(), out[DISTANCE][here].tolist(), strict=True)
        assert dict(found) == {other: hops for other, hops in lengths.items() if hops}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0; expected a whole number of at least 1"),
        ({"k": True}, "k=True"),
        ({"k": 255}, "k=255; expected at most 254"),
        ({"k": 2, "attr_name": "edges"}, "ends with '_edge_index'"),
        ({"k": 2, "attr_name": "my_batch_edge_index"}, "ends with '_edge_index'"),
        ({"k": 2, "attr_name": "index_edge_index"}, "choose another name"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddKHopEdges(**arguments)


@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without a 'pyg-lib':UserWarning")
def test_with_a_neighbour_sampler() -> None:
    """PyG's loader renumbers ``edge_index`` and no other edges; the two cures of the docs."""
    pytest.importorskip("torch_sparse")
    graph = as_data(nx.cycle_graph(40))
    graph.x = torch.arange(40.0).view(-1, 1)
    near = AddKHopEdges(2)(graph)
    seeds = {"input_nodes": torch.arange(4) * 10, "batch_size": 4}
    (batch,) = NeighborLoader(near, num_neighbors=[-1, -1], **seeds)
    assert batch.num_nodes == 20 and batch.k_hop_edge_index.max() == 39  # what is wrong
    (sampled,) = NeighborLoader(graph, num_neighbors=[-1, -1], transform=AddKHopEdges(2), **seeds)
    along = Data(x=graph.x, edge_index=near.k_hop_edge_index, edge_attr=near.k_hop_distance)
    (renumbered,) = NeighborLoader(along, num_neighbors=[-1], **seeds)
    expected = {
        (int(i), int(j), int(hops))
        for i, j, hops in zip(*near.k_hop_edge_index, near.k_hop_distance, strict=True)
        if j % 10 == 0
    }
    for found, edges, hops in (
        (sampled, sampled.k_hop_edge_index, sampled.k_hop_distance),
        (renumbered, renumbered.edge_index, renumbered.edge_attr),
    ):
        i, j = found.n_id[edges]
        to_seeds = j % 10 == 0
        rows = zip(
            i[to_seeds].tolist(), j[to_seeds].tolist(), hops[to_seeds].tolist(), strict=True
        )
        assert set(rows) == expected
