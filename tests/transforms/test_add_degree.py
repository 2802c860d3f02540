"""Degrees: NetworkX and counting by hand as oracles."""

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import degree, from_networkx

from pyg_gt.transforms import AddDegree
from tests.transforms.samples import random_graph


def encode(data: Data) -> Tensor:
    """``[N, 2]``."""
    found = AddDegree()(data).degree
    assert found.dtype == torch.int64 and found.shape == (data.num_nodes, 2)
    return found


def test_table_of_a_directed_multigraph() -> None:
    edge_index = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 1, 2, 0, 2, 0]])
    data = Data(edge_index=edge_index, num_nodes=5)
    assert encode(data).tolist() == [[2, 3], [2, 1], [2, 1], [0, 1], [0, 0]]
    data.edge_weight = torch.tensor([0.5, 0, 2, 1, 1, 0])
    assert encode(data).tolist() == [[1, 2], [1, 1], [2, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize("directed", [True, False])
def test_agrees_with_networkx(directed: bool) -> None:
    graph = nx.gnp_random_graph(40, 0.1, seed=0, directed=directed)
    found = encode(from_networkx(graph))
    incoming, outgoing = (
        (graph.in_degree, graph.out_degree) if directed else (graph.degree, graph.degree)
    )
    assert found[:, 0].tolist() == [incoming[i] for i in range(40)]
    assert found[:, 1].tolist() == [outgoing[i] for i in range(40)]


def test_agrees_with_pyg() -> None:
    data = random_graph(30, edges_per_node=3, weights=None)
    for column, end in ((0, 1), (1, 0)):
        expected = degree(data.edge_index[end], 30, torch.long)
        assert torch.equal(encode(data)[:, column], expected)


def test_a_name_that_pyg_renumbers_is_refused() -> None:
    with pytest.raises(ValueError, match="choose another name"):
        AddDegree("degree_index")
