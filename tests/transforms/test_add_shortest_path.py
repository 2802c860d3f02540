"""Hops and shortest paths: closed forms, SciPy and NetworkX as oracles, every path followed."""

import copy
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
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_gt.nn import EdgePathBias, ShortestPathBias
from pyg_gt.transforms import AddShortestPathDistance, EncodeAndCollate
from pyg_gt.transforms.paths import hop_distances, path_edges
from tests.transforms.samples import EMPTY, as_data, random_graph, weighted_graphs

NAME, EDGES = "pair_distance", "pair_distance_edges"


def distances(data: Data, max_distance: int = 20) -> Tensor:
    """``[n, n]``."""
    out = AddShortestPathDistance(max_distance)(data)[NAME]
    assert out.dtype == torch.uint8 and out.shape == (data.num_nodes**2,)
    return out.view(data.num_nodes, data.num_nodes)


def oracle(data: Data, max_distance: int = 20) -> np.ndarray:
    """``[n, n]``, by SciPy."""
    n = data.num_nodes
    edges = data.edge_index
    if data.edge_weight is not None:
        edges = edges[:, data.edge_weight > 0]
    adjacency = csr_array((np.ones(edges.size(1)), edges.numpy()), shape=(n, n))
    return np.minimum(shortest_path(adjacency, unweighted=True), max_distance + 1)


def best_path(data: Data, i: int, j: int) -> list[int] | None:
    """The edges of the shortest path that comes first node by node, by trying all, by NetworkX."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(data.num_nodes))
    weight = torch.ones(data.num_edges) if data.edge_weight is None else data.edge_weight
    number: dict[tuple[int, int], int] = {}
    for edge, (a, b) in enumerate(data.edge_index.T.tolist()):
        if weight[edge] > 0:
            graph.add_edge(a, b)
            number.setdefault((a, b), edge)
    if not nx.has_path(graph, i, j):
        return None
    nodes = min(nx.all_shortest_paths(graph, i, j))
    return [number[pair] for pair in zip(nodes[:-1], nodes[1:], strict=True)]


def walk_paths(data: Data, max_distance: int) -> None:
    """Follows every path from its first node to its last."""
    n = data.num_nodes
    out = AddShortestPathDistance(max_distance, path_length=max_distance)(data)
    distance, edges = out[NAME].view(n, n).long(), out[EDGES].view(n, n, max_distance)
    at = torch.arange(n)[:, None].repeat(1, n)
    for place in range(max_distance):
        edge = edges[..., place]
        goes_on = (distance <= max_distance) & (place < distance)
        assert torch.equal(edge >= 0, goes_on) and bool((edge[~goes_on] == -1).all())
        source, target = data.edge_index[:, edge[goes_on]]
        assert torch.equal(source, at[goes_on])
        at[goes_on] = target
    reached = distance <= max_distance
    assert torch.equal(at[reached], torch.arange(n).repeat(n, 1)[reached])


def difference(n: int) -> np.ndarray:
    """``[n, n]``, ``|i - j|``."""
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


@pytest.mark.parametrize("n", [2, 9, 64, 65, 300])
@pytest.mark.parametrize("max_distance", [1, 20, 254])
def test_path(n: int, max_distance: int) -> None:
    expected = np.minimum(difference(n), max_distance + 1)
    np.testing.assert_array_equal(distances(as_data(nx.path_graph(n)), max_distance), expected)


@pytest.mark.parametrize("n", [3, 10, 129])
def test_cycle(n: int) -> None:
    expected = np.minimum(difference(n), n - difference(n))
    np.testing.assert_array_equal(distances(as_data(nx.cycle_graph(n)), 254), expected)


@pytest.mark.parametrize("n", [3, 10, 129])
def test_directed_cycle(n: int) -> None:
    expected = np.subtract.outer(np.arange(n), np.arange(n)).T % n
    data = as_data(nx.cycle_graph(n, create_using=nx.DiGraph))
    np.testing.assert_array_equal(distances(data, 254), expected)


@pytest.mark.parametrize("leaves", [1, 5, 200])
def test_star(leaves: int) -> None:
    expected = 2 - 2 * torch.eye(leaves + 1, dtype=torch.uint8)
    expected[0, 1:] = expected[1:, 0] = 1
    expected[0, 0] = 0
    assert torch.equal(distances(as_data(nx.star_graph(leaves))), expected)


@pytest.mark.parametrize("n", [2, 20, 70])
def test_complete_graph(n: int) -> None:
    expected = 1 - torch.eye(n, dtype=torch.uint8)
    assert torch.equal(distances(as_data(nx.complete_graph(n))), expected)


def test_grid() -> None:
    expected = (difference(9)[:, None, :, None] + difference(11)[None, :, None, :]).reshape(99, 99)
    np.testing.assert_array_equal(distances(as_data(nx.grid_2d_graph(9, 11))), expected)


@pytest.mark.parametrize("max_distance", [3, 254])
def test_disconnected_union(max_distance: int) -> None:
    data = as_data(nx.disjoint_union_all([nx.path_graph(3), nx.empty_graph(1), nx.path_graph(2)]))
    order = torch.tensor([4, 0, 3, 5, 1, 2])
    data.edge_index = order[data.edge_index]
    expected = np.full((6, 6), max_distance + 1)
    for part in (order[:3], order[3:4], order[4:]):
        expected[np.ix_(part, part)] = difference(len(part))
    np.testing.assert_array_equal(distances(data, max_distance), expected)
    walk_paths(data, max_distance)


def test_edges_only_lead_along_their_direction() -> None:
    data = as_data(nx.path_graph(3, create_using=nx.DiGraph))
    assert distances(data, 5).tolist() == [[0, 1, 2], [6, 0, 1], [6, 6, 0]]


def test_loops_repeats_and_weights_change_no_distance() -> None:
    data = as_data(nx.path_graph(4))
    expected = distances(data)
    loops = torch.tensor([[0, 2, 2], [0, 2, 2]])
    data.edge_index = torch.cat([loops, data.edge_index, data.edge_index], dim=1)
    assert torch.equal(distances(data), expected)
    data.edge_weight = torch.rand(data.num_edges) + 0.01
    assert torch.equal(distances(data), expected)


def test_edge_of_weight_zero_is_none_but_keeps_its_number() -> None:
    edges = torch.tensor([[0, 0, 1, 1], [2, 1, 2, 2]])
    data = Data(edge_index=edges, edge_weight=torch.tensor([0.0, 1, 0, 1]), num_nodes=3)
    assert distances(data, 5)[0].tolist() == [0, 1, 2]
    out = AddShortestPathDistance(5, path_length=3)(data)
    assert out[EDGES].view(3, 3, 3)[0].tolist() == [[-1, -1, -1], [1, -1, -1], [1, 3, -1]]


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_no_edge(n: int) -> None:
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        out = AddShortestPathDistance(7, path_length=2)(data)
        expected = 8 - 8 * torch.eye(n, dtype=torch.uint8)
        assert torch.equal(out[NAME], expected.view(-1))
        assert torch.equal(out[EDGES], torch.full((n * n, 2), -1, dtype=torch.int32))


def test_longest_distance_with_a_row_of_its_own() -> None:
    data = as_data(nx.path_graph(258, create_using=nx.DiGraph))
    assert distances(data, 254)[0, 252:].tolist() == [252, 253, 254, 255, 255, 255]
    walk_paths(data, 254)


@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 130, 400])
@pytest.mark.parametrize("edges_per_node", [0.7, 1.5, 6])
def test_agrees_with_scipy(n: int, edges_per_node: float) -> None:
    data = random_graph(n, n, edges_per_node, weights="counts")
    np.testing.assert_array_equal(distances(data), oracle(data))
    walk_paths(data, 20)


def test_agrees_with_networkx_on_a_regular_graph() -> None:
    graph = nx.random_regular_graph(3, 80, seed=0)
    lengths = dict(nx.all_pairs_shortest_path_length(graph))
    expected = torch.tensor([[lengths[i][j] for j in range(80)] for i in range(80)])
    assert torch.equal(distances(as_data(graph)).long(), expected)


def test_path_is_the_first_node_by_node() -> None:
    # From 0 to 5 by 1, 2 or 3; the edge 0 -> 1 stands twice.
    edges = torch.tensor([[0, 3, 0, 2, 1, 0, 0], [3, 5, 2, 5, 4, 1, 1]])
    data = Data(edge_index=edges, num_nodes=6)
    out = AddShortestPathDistance(4, path_length=3)(data)[EDGES].view(6, 6, 3)
    assert out[0, 5].tolist() == [2, 3, -1]
    assert out[0, 4].tolist() == [5, 4, -1]


@pytest.mark.parametrize("path_length", [1, 2, 30])
def test_as_many_columns_as_asked_for(path_length: int) -> None:
    data = as_data(nx.path_graph(9))
    out = AddShortestPathDistance(6, path_length=path_length)(data)[EDGES]
    assert out.shape == (81, path_length) and out.dtype == torch.int32
    for pair, edges in enumerate(out.tolist()):
        expected = best_path(data, *divmod(pair, 9))
        assert expected is not None
        expected = [] if len(expected) > 6 else expected[:path_length]
        assert edges == expected + [-1] * (path_length - len(expected))


@settings(max_examples=100, deadline=None)
@given(weighted_graphs([0, 1, 2], max_nodes=9, max_edges=30), st.integers(1, 9))
def test_any_graph(data: Data, max_distance: int) -> None:
    np.testing.assert_array_equal(distances(data, max_distance), oracle(data, max_distance))
    walk_paths(data, max_distance)
    out = AddShortestPathDistance(9, path_length=9)(data)[EDGES]
    for pair, edges in enumerate(out.tolist()):
        expected = best_path(data, *divmod(pair, data.num_nodes)) or []
        assert edges == expected + [-1] * (9 - len(expected))


def several() -> list[Data]:
    """Graphs of all sizes, some of them disconnected, without edges or without nodes."""
    sizes = (1, 2, 3, 3, 3, 30, 64, 65, 0, 100, 0, 7)
    return [random_graph(n, n, 1.5, weights="counts") for n in sizes]


def test_edges_are_counted_graph_by_graph_where_a_batch_mixes_them() -> None:
    transform = AddShortestPathDistance(6, path_length=4)
    batch = Batch.from_data_list(several())
    expected = transform(copy.copy(batch))[EDGES]
    # The edges of all graphs mixed, those of each in their order.
    mixed = batch.batch[batch.edge_index[0]][torch.randperm(batch.num_edges)]
    order = torch.empty_like(mixed)
    order[mixed.argsort(stable=True)] = torch.arange(batch.num_edges)
    assert not torch.equal(order, torch.arange(batch.num_edges))
    batch.edge_index, batch.edge_weight = batch.edge_index[:, order], batch.edge_weight[order]
    assert torch.equal(transform(batch)[EDGES], expected)


def test_edges_of_paths_are_named_after_the_distances() -> None:
    data = random_graph(9, weights="counts")
    out = AddShortestPathDistance(4, "pair_hops", path_length=2)(data)
    expected = AddShortestPathDistance(4, path_length=2)(data)
    assert torch.equal(out.pair_hops, expected[NAME])
    assert torch.equal(out.pair_hops_edges, expected[EDGES])


def test_pair_encoders_read_them() -> None:
    data = [as_data(nx.path_graph(4)), as_data(nx.cycle_graph(5))]
    batch = EncodeAndCollate(AddShortestPathDistance(8, path_length=3))(data)
    assert ShortestPathBias(8, heads=2)(batch[NAME]).index is batch[NAME]
    edge_attr = torch.arange(1.0, batch.num_edges + 1)[:, None]
    bias = EdgePathBias(1, heads=1, path_length=3)
    torch.nn.init.ones_(bias.weight)
    values = bias(batch[EDGES], edge_attr, batch.edge_index, batch.batch).values
    offset = 0
    for graph, start in zip(data, (0, data[0].num_edges), strict=True):
        for pair in range(graph.num_nodes**2):
            path = (best_path(graph, *divmod(pair, graph.num_nodes)) or [])[:3]
            expected = sum(edge_attr[start + edge, 0] for edge in path) / max(len(path), 1)
            torch.testing.assert_close(values[offset + pair, 0], torch.as_tensor(expected) * 1.0)
        offset += graph.num_nodes**2


@pytest.mark.parametrize("words", [1, 400, 10**6])
@pytest.mark.parametrize("entries", [9, 10**4])
def test_blocks_do_not_matter(words: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [random_graph(n, n, 2, weights=None) for n in (5, 130, 66)]
    transform = AddShortestPathDistance(10, path_length=3)
    expected = transform(Batch.from_data_list(graphs))
    monkeypatch.setattr(hop_distances, "_WORDS", words)
    monkeypatch.setattr(hop_distances, "_BLOCK_ENTRIES", entries)
    monkeypatch.setattr(path_edges, "_PAIRS", entries)
    out = transform(Batch.from_data_list(graphs))
    assert torch.equal(out[NAME], expected[NAME]) and torch.equal(out[EDGES], expected[EDGES])


def test_memory_of_a_large_graph_is_that_of_its_distances() -> None:
    n = 3000
    data = as_data(nx.random_regular_graph(4, n, seed=0))
    tracemalloc.start()
    found = distances(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * n * n + 2e7
    np.testing.assert_array_equal(found[:20], oracle(data)[:20])


def test_graph_too_large_is_refused_with_its_memory() -> None:
    transform = AddShortestPathDistance(3, path_length=2)
    data = Data(edge_index=EMPTY, num_nodes=20_000)
    with pytest.raises(ValueError, match=r"3\.6 GB for a graph of 20000 nodes; set MAX_NODES"):
        transform(data)
    transform.MAX_NODES = 5
    with pytest.raises(ValueError, match="now 5"):
        transform(Batch.from_data_list([random_graph(6), random_graph(2)]))
    assert NAME in transform(random_graph(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_distance": 0}, "max_distance=0; expected a whole number of at least 1"),
        ({"max_distance": 255}, "max_distance=255; expected at most 254"),
        ({"max_distance": 2.0}, r"max_distance=2\.0"),
        ({"path_length": 0}, "path_length=0"),
        ({"attr_name": "distance"}, "begins with 'pair_'"),
        ({"attr_name": None}, "begins with 'pair_'"),
        ({"attr_name": "pair_index"}, "choose another name"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddShortestPathDistance(**arguments)
