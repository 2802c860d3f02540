"""Return probabilities: closed forms, powers of the transition matrix and PyG as oracles."""

import copy
import inspect
import pickle
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
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.utils import from_networkx

from pyg_gt.transforms import AddRandomWalkPE
from pyg_gt.transforms.walks import power_diagonals, return_probabilities

NAME = "random_walk_pe"
EMPTY = torch.empty(2, 0, dtype=torch.long)


def as_data(graph: nx.Graph) -> Data:
    """The edges of a NetworkX graph, both ways where it is undirected."""
    graph = nx.convert_node_labels_to_integers(graph)
    data = from_networkx(graph)
    return Data(edge_index=data.edge_index, num_nodes=graph.number_of_nodes())


def encode(data: Data, walk_length: int) -> Tensor:
    """``[N, walk_length]``, in float64."""
    pe = AddRandomWalkPE(walk_length)(data)[NAME]
    assert pe.dtype == torch.float32 and pe.shape == (data.num_nodes, walk_length)
    assert bool(((pe >= 0) & (pe <= 1)).all())
    return pe.double()


def powers(data: Data, walk_length: int) -> np.ndarray:
    """The definition, with matrix powers."""
    n = data.num_nodes
    weight = torch.ones(data.num_edges) if data.edge_weight is None else data.edge_weight
    P = np.zeros((n, n))
    for (a, b), w in zip(data.edge_index.T.tolist(), weight.tolist(), strict=True):
        P[a, b] += w
    degree = P.sum(1, keepdims=True)
    P = np.divide(P, degree, out=np.zeros_like(P), where=degree > 0)
    return np.stack(
        [np.linalg.matrix_power(P, t).diagonal() for t in range(1, walk_length + 1)], axis=1
    )


def random_graph(n: int, seed: int, weighted: bool = True, directed: bool = True) -> Data:
    random = np.random.default_rng(seed)
    edges = random.integers(0, n, (2, 3 * n))
    edges = edges if directed else np.concatenate([edges, edges[::-1]], axis=1)
    data = Data(edge_index=torch.from_numpy(edges), num_nodes=n)
    if weighted:
        data.edge_weight = torch.from_numpy(random.uniform(0, 3, edges.shape[1]))
    return data


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
    data = random_graph(n, n, directed=directed)
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


@pytest.mark.parametrize("n", [0, 1, 5, 150])
def test_no_edge(n: int) -> None:
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        assert not encode(data, 3).any()


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
    graphs = [random_graph(n, n) for n in (65, 66, 70, 70, 71, 90)]
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


@pytest.mark.parametrize("n", [23, 150])
def test_permutation_equivariance(n: int) -> None:
    data = random_graph(n, 0)
    order = torch.randperm(n)
    shuffled = copy.copy(data)
    shuffled.edge_index = torch.argsort(order)[data.edge_index]
    torch.testing.assert_close(encode(shuffled, 9), encode(data, 9)[order], rtol=0, atol=1e-6)


def test_graph_gets_in_a_batch_what_it_gets_alone() -> None:
    graphs = [random_graph(n, n) for n in (1, 2, 3, 3, 3, 30, 99, 100, 101, 150, 300)]
    graphs += [Data(edge_index=EMPTY, edge_weight=torch.ones(0), num_nodes=2)]
    together = encode(Batch.from_data_list(graphs), 8)
    alone = torch.cat([encode(graph, 8) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-7)


def test_graphs_of_all_sizes_batch() -> None:
    graphs = [as_data(nx.path_graph(n)) for n in (1, 2, 3, 30, 7)]
    transform = AddRandomWalkPE(5)
    batch = next(iter(DataLoader([transform(graph) for graph in graphs], batch_size=5)))
    assert batch[NAME].shape == (43, 5)
    for graph, back in zip(graphs, batch.to_data_list(), strict=True):
        assert torch.equal(back[NAME], transform(graph)[NAME])


@st.composite
def weighted_graphs(draw: st.DrawFn) -> Data:
    """Directed multigraphs with self-loops, isolated nodes and weights of many scales."""
    n = draw(st.integers(1, 12))
    node = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(node, node, st.sampled_from([0, 1e-30, 0.3, 1, 2, 1e9]))))
    index = torch.tensor([edge[:2] for edge in edges], dtype=torch.long).view(-1, 2).T
    weight = torch.tensor([edge[2] for edge in edges], dtype=torch.float64)
    return Data(edge_index=index, edge_weight=weight, num_nodes=n)


@settings(max_examples=100, deadline=None)
@given(weighted_graphs(), st.integers(1, 9))
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


def test_functional_names_of_both_libraries_stand_side_by_side() -> None:
    assert "add_random_walk_pe" in torch.utils.data.IterDataPipe.functions
    source = torch.utils.data.datapipes.iter.IterableWrapper([as_data(nx.path_graph(3))])
    (out,) = source.pyg_gt_add_random_walk_pe(walk_length=2)
    assert out[NAME].shape == (3, 2)


def test_repr_shows_every_argument() -> None:
    assert repr(AddRandomWalkPE(3)) == (
        "AddRandomWalkPE(walk_length=3, attr_name='random_walk_pe', num_samples=None, seed=0)"
    )
    assert repr(AddRandomWalkPE(4, "pe", num_samples=9, seed=1)) == (
        "AddRandomWalkPE(walk_length=4, attr_name='pe', num_samples=9, seed=1)"
    )


def test_compose_and_pickle() -> None:
    data = random_graph(9, 0)
    transform = T.Compose([AddRandomWalkPE(3)])
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(transform(data)[NAME], again(data)[NAME])


def test_data_is_left_as_it_was() -> None:
    data = random_graph(9, 0)
    before = copy.deepcopy(data)
    encode(data, 3)
    assert sorted(data.keys()) == sorted(before.keys())
    assert torch.equal(data.edge_index, before.edge_index)
    assert torch.equal(data.edge_weight, before.edge_weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_encoding_appended_to_x(dtype: torch.dtype) -> None:
    data = random_graph(9, 0)
    expected = AddRandomWalkPE(3)(data)[NAME]
    assert torch.equal(AddRandomWalkPE(3, attr_name=None)(data).x, expected)
    data.x = torch.randn(9, 2).to(dtype)
    out = AddRandomWalkPE(3, attr_name=None)(data)
    assert torch.equal(out.x, torch.cat([data.x, expected.to(dtype)], dim=1))
    assert torch.equal(AddRandomWalkPE(3, attr_name="x")(data).x, expected)
    data.x = data.x.long()
    with pytest.raises(ValueError, match="rounded to whole numbers"):
        AddRandomWalkPE(3, attr_name=None)(data)


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


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_weights_are_checked(bad: float) -> None:
    data = random_graph(9, 0)
    data.edge_weight[4] = bad
    with pytest.raises(ValueError, match=f"finite and not negative, got {bad}"):
        encode(data, 2)
    data.edge_weight = torch.ones(5)
    with pytest.raises(ValueError, match=r"shape \[27\]"):
        encode(data, 2)


def test_data_is_checked() -> None:
    with pytest.raises(IndexError, match="node 9, but the graph has 9 nodes"):
        encode(Data(edge_index=torch.tensor([[0], [9]]), num_nodes=9), 2)
    with pytest.raises(ValueError, match="got HeteroData"):
        AddRandomWalkPE(2)(HeteroData())


@pytest.mark.cuda
def test_encoding_lies_where_the_edges_do() -> None:
    data = random_graph(9, 0).to("cuda")
    out = AddRandomWalkPE(3)(data)[NAME]
    assert out.is_cuda
    assert torch.equal(out.cpu(), AddRandomWalkPE(3)(data.cpu())[NAME])
