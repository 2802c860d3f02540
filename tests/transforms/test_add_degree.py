"""Degrees: NetworkX and counting by hand as oracles."""

import pickle

import networkx as nx
import pytest
import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.utils import degree, from_networkx

from pyg_gt.transforms import AddDegree, precompute

EMPTY = torch.empty(2, 0, dtype=torch.long)


def encode(data: Data) -> Tensor:
    """``[N, 2]``."""
    found = AddDegree()(data).degree
    assert found.dtype == torch.int64 and found.shape == (data.num_nodes, 2)
    return found


def random_graph(n: int) -> Data:
    """Directed, with loops, repeated edges and edges of weight zero."""
    return Data(
        edge_index=torch.randint(n, (2, 3 * n)),
        edge_weight=torch.randint(3, (3 * n,)).float(),
        num_nodes=n,
    )


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
    data = random_graph(30)
    data.edge_weight = None
    for column, end in ((0, 1), (1, 0)):
        expected = degree(data.edge_index[end], 30, torch.long)
        assert torch.equal(encode(data)[:, column], expected)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_no_edge(n: int) -> None:
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        assert not encode(data).any()


def test_permutation_equivariance() -> None:
    data = random_graph(20)
    order = torch.randperm(20)
    shuffled = Data(
        edge_index=torch.argsort(order)[data.edge_index],
        edge_weight=data.edge_weight,
        num_nodes=20,
    )
    assert torch.equal(encode(shuffled), encode(data)[order])


def test_graph_gets_in_a_batch_and_in_bulk_what_it_gets_alone() -> None:
    graphs = [random_graph(n) for n in (1, 4, 4, 9)]
    alone = [encode(graph) for graph in graphs]
    assert torch.equal(encode(Batch.from_data_list(graphs)), torch.cat(alone))
    batch = Batch.from_data_list([AddDegree()(graph) for graph in graphs])
    assert torch.equal(batch.degree, torch.cat(alone))
    bulk = precompute(graphs, AddDegree(), progress=False)
    for graph, expected in zip(bulk, alone, strict=True):
        assert torch.equal(graph.degree, expected)


def test_appended_to_x() -> None:
    data = random_graph(6)
    assert torch.equal(AddDegree(None)(data).x, encode(data))
    data.x = torch.randn(6, 2)
    assert torch.equal(AddDegree(None)(data).x[:, 2:], encode(data).float())


def test_repr_compose_and_pickle() -> None:
    assert repr(AddDegree()) == "AddDegree(attr_name='degree')"
    assert repr(AddDegree(attr_name="d")) == "AddDegree(attr_name='d')"
    data = random_graph(6)
    again = pickle.loads(pickle.dumps(T.Compose([AddDegree()])))
    assert torch.equal(again(data).degree, encode(data))
    source = torch.utils.data.datapipes.iter.IterableWrapper([data])
    assert torch.equal(next(iter(source.pyg_gt_add_degree())).degree, encode(data))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="choose another name"):
        AddDegree("degree_index")
    with pytest.raises(ValueError, match="got HeteroData"):
        AddDegree()(HeteroData())
    with pytest.raises(IndexError, match="node 3, but the graph has 3 nodes"):
        AddDegree()(Data(edge_index=torch.tensor([[0], [3]]), num_nodes=3))
