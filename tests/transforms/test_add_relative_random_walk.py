"""Walk probabilities of pairs: closed forms, powers of the transition matrix and our RWSE."""

from math import comb
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_gt.nn import RelativeWalkBias
from pyg_gt.transforms import AddRandomWalkPE, AddRelativeRandomWalkPE, EncodeAndCollate
from pyg_gt.transforms.walks import walk_probabilities
from tests.transforms.samples import EMPTY, as_data, random_graph, transition, weighted_graphs

NAME = "pair_walk"


def encode(data: Data, walk_length: int) -> Tensor:
    """``[n, n, walk_length]``, in float64."""
    pe = AddRelativeRandomWalkPE(walk_length)(data)[NAME]
    assert pe.dtype == torch.float32 and pe.shape == (data.num_nodes**2, walk_length)
    assert pe.is_contiguous() and bool(((pe >= 0) & (pe <= 1)).all())
    return pe.double().view(data.num_nodes, data.num_nodes, walk_length)


def powers(data: Data, walk_length: int) -> np.ndarray:
    """The definition, with matrix powers."""
    P = transition(data)
    return np.stack([np.linalg.matrix_power(P, t) for t in range(walk_length)], axis=-1)


@pytest.mark.parametrize("n", [2, 3, 12, 130])
def test_complete_graph(n: int) -> None:
    t = np.arange(15)
    home = (1 + (n - 1) * (-1 / (n - 1)) ** t) / n
    expected = np.where(np.eye(n, dtype=bool)[..., None], home, (1 - home) / (n - 1))
    np.testing.assert_allclose(encode(as_data(nx.complete_graph(n)), 15), expected, atol=1e-7)


@pytest.mark.parametrize("n", [14, 121])
def test_cycle_longer_than_the_walk(n: int) -> None:
    expected = np.zeros((n, n, 13))
    for t in range(13):
        for right in range(t + 1):
            i = np.arange(n)
            expected[i, (i + 2 * right - t) % n, t] += comb(t, right) / 2**t
    np.testing.assert_allclose(encode(as_data(nx.cycle_graph(n)), 13), expected, atol=1e-7)


@pytest.mark.parametrize("leaves", [3, 150])
def test_star(leaves: int) -> None:
    out = encode(as_data(nx.star_graph(leaves)), 5)
    even, odd = torch.zeros(2, leaves + 1, leaves + 1).double()
    even[0, 0], even[1:, 1:] = 1, 1 / leaves
    odd[0, 1:], odd[1:, 0] = 1 / leaves, 1
    for t, expected in enumerate([torch.eye(leaves + 1).double(), odd, even, odd, even]):
        torch.testing.assert_close(out[..., t], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n", [5, 120])
def test_directed_cycle(n: int) -> None:
    out = encode(as_data(nx.cycle_graph(n, create_using=nx.DiGraph)), n + 2)
    for t in range(n + 2):
        assert torch.equal(out[..., t], torch.eye(n).double().roll(t, 1))


def test_path_by_hand() -> None:
    out = encode(as_data(nx.path_graph(3)), 3)
    assert out[..., 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert out[..., 1].tolist() == [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]]
    assert out[..., 2].tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]]


def test_no_walk_leaves_its_component() -> None:
    parts = [nx.path_graph(3), nx.empty_graph(1), nx.cycle_graph(4)]
    data = as_data(nx.disjoint_union_all(parts))
    order = torch.randperm(8)
    data.edge_index = order[data.edge_index]
    expected = torch.zeros(8, 8, 5).double()
    for part, nodes in zip(parts, order.split([3, 1, 4]), strict=True):
        expected[nodes[:, None], nodes] = encode(as_data(part), 5)
    assert torch.equal(encode(data, 5), expected)


def test_walk_ends_where_no_edge_leaves() -> None:
    data = Data(edge_index=torch.tensor([[0, 1, 1], [1, 0, 2]]), num_nodes=4)
    rows = encode(data, 4).sum(1)
    assert rows.tolist() == [[1, 1, 1, 0.5], [1, 1, 0.5, 0.5], [1, 0, 0, 0], [1, 0, 0, 0]]
    data.edge_weight = torch.tensor([1.0, 0, 2])
    assert encode(data, 4)[0, :, :3].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_loops_weights_and_repeated_edges() -> None:
    edges = torch.tensor([[0, 0, 0, 1], [1, 1, 2, 1]])
    data = Data(edge_index=edges, edge_weight=torch.tensor([0.1, 0.2, 0.1, 7]), num_nodes=3)
    expected = [[0, 0.75, 0.25], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(encode(data, 2)[..., 1], expected, atol=1e-7)


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_no_edge(n: int) -> None:
    expected = torch.zeros(n, n, 3).double()
    expected[..., 0] = torch.eye(n)
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        assert torch.equal(encode(data, 3), expected)


@pytest.mark.parametrize("n", [3, 30, 101, 200])
@pytest.mark.parametrize("edges_per_node", [1.5, 20])
@pytest.mark.parametrize("walk_length", [1, 2, 17])
def test_agrees_with_matrix_powers(n: int, edges_per_node: float, walk_length: int) -> None:
    data = random_graph(n, n, edges_per_node)
    np.testing.assert_allclose(encode(data, walk_length), powers(data, walk_length), atol=1e-7)


def test_each_row_sums_to_one_after_many_steps() -> None:
    rows = encode(as_data(nx.barabasi_albert_graph(200, 2, seed=0)), 100).sum(1)
    torch.testing.assert_close(rows, torch.ones_like(rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [1, 20, 150])
def test_diagonal_is_that_of_the_node_encoding(n: int) -> None:
    data = random_graph(n, n, 1.5)
    out = encode(data, 9).diagonal().T[:, 1:]
    nodes = AddRandomWalkPE(8)(data).random_walk_pe
    torch.testing.assert_close(out, nodes.double(), rtol=0, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(weighted_graphs([0, 1e-30, 0.3, 1, 2, 1e9], max_nodes=10), st.integers(1, 9))
def test_any_graph(data: Data, walk_length: int) -> None:
    np.testing.assert_allclose(encode(data, walk_length), powers(data, walk_length), atol=1e-7)


@pytest.mark.parametrize("entries", [1, 3000, 10**7])
@pytest.mark.parametrize("columns", [1, 32])
def test_blocks_do_not_matter(entries: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_probabilities, "_ENTRIES", entries)
    monkeypatch.setattr(walk_probabilities, "_COLUMNS", columns)
    graphs = [random_graph(n, n, each) for n, each in ((5, 1), (60, 0.5), (41, 9), (70, 2))]
    expected = np.concatenate([powers(graph, 5).reshape(-1, 5) for graph in graphs])
    out = AddRelativeRandomWalkPE(5)(Batch.from_data_list(graphs))[NAME]
    np.testing.assert_allclose(out, expected, atol=1e-7)


def test_pair_encoder_reads_it() -> None:
    data = [as_data(nx.path_graph(4)), as_data(nx.cycle_graph(5))]
    batch = EncodeAndCollate(AddRelativeRandomWalkPE(6))(data)
    bias = RelativeWalkBias(6, heads=2)(batch[NAME])
    torch.testing.assert_close(bias.values.shape, torch.Size([41, 2]))


def test_graph_too_large_is_refused_with_its_memory() -> None:
    transform = AddRelativeRandomWalkPE(17)
    with pytest.raises(ValueError, match=r"6\.8 GB for a graph of 10000 nodes; set MAX_NODES"):
        transform(Data(edge_index=EMPTY, num_nodes=10_000))
    transform.MAX_NODES = 5
    with pytest.raises(ValueError, match="now 5"):
        transform(random_graph(6, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"walk_length": 0}, "walk_length=0; expected a whole number of at least 1"),
        ({"walk_length": 2.5}, r"walk_length=2\.5"),
        ({"walk_length": 2, "attr_name": "rrwp"}, "begins with 'pair_'"),
        ({"walk_length": 2, "attr_name": "pair_batch"}, "choose another name"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddRelativeRandomWalkPE(**arguments)
