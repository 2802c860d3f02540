"""Graphs that tests of transforms start from, their matrices by definition, and all encodings."""

import copy
from typing import Any

import networkx as nx
import numpy as np
import torch
from hypothesis import strategies as st
from torch_geometric.data import Data, Dataset
from torch_geometric.utils import from_networkx

from pyg_gt.transforms import (
    AddDegree,
    AddElectrostaticSE,
    AddExpanderEdges,
    AddHeatKernelSE,
    AddKHopEdges,
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddRelativeRandomWalkPE,
    AddShortestPathDistance,
    GraphEncoding,
)

EMPTY = torch.empty(2, 0, dtype=torch.long)

ENCODINGS: list[GraphEncoding] = [
    AddDegree(),
    AddElectrostaticSE(),
    AddExpanderEdges(3),
    AddHeatKernelSE((0.5, 2.0)),
    AddKHopEdges(2),
    AddLaplacianEigenvectorPE(3),
    AddRandomWalkPE(5),
    AddRandomWalkPE(5, num_samples=4),
    AddRelativeRandomWalkPE(4),
    AddShortestPathDistance(5, path_length=3),
]


def as_data(graph: nx.Graph, **attributes: Any) -> Data:
    """The edges of a NetworkX graph, both ways where it is undirected, with their "weight"."""
    n = graph.number_of_nodes()
    if not graph.number_of_edges():
        return Data(edge_index=EMPTY, num_nodes=n, **attributes)
    found = from_networkx(nx.convert_node_labels_to_integers(graph))
    data = Data(edge_index=found.edge_index, num_nodes=n, **attributes)
    if "weight" in found:
        data.edge_weight = found.weight.double()
    return data


def random_graph(
    n: int,
    seed: int = 0,
    edges_per_node: float = 2.0,
    *,
    weights: str | None = "any",
    directed: bool = True,
) -> Data:
    """Edges between random nodes, with self-loops and repeated ones; both ways if not directed.

    ``weights``: real numbers ("any", or "positive": none near zero), "counts" from 0 to 2, None.
    """
    random = np.random.default_rng(seed)
    edges = random.integers(0, max(n, 1), (2, int(edges_per_node * n)))
    edges = edges if directed else np.concatenate([edges, edges[::-1]], axis=1)
    E = edges.shape[1]
    data = Data(edge_index=torch.from_numpy(edges), num_nodes=n)
    if weights == "counts":
        data.edge_weight = torch.from_numpy(random.integers(0, 3, E)).float()
    elif weights is not None:
        low = 0.1 if weights == "positive" else 0.0
        data.edge_weight = torch.from_numpy(random.uniform(low, 3, E))
    return data


class ReadAnew(Dataset):
    """A dataset that reads each graph anew, with methods of its own."""

    def __init__(self, graphs: list[Data]) -> None:
        super().__init__()
        self.graphs = graphs

    def len(self) -> int:
        return len(self.graphs)

    def get(self, idx: int) -> Data:
        return copy.copy(self.graphs[idx])

    def first(self) -> list[int]:
        return list(range(len(self)))[:2]

    def get_idx_split(self) -> dict[str, list[int]]:
        return {"train": [0, 1]}


def permuted(data: Data, order: torch.Tensor) -> Data:
    """The graph whose node ``i`` is node ``order[i]`` of ``data``."""
    return Data(
        edge_index=torch.argsort(order)[data.edge_index],
        edge_weight=data.edge_weight,
        num_nodes=data.num_nodes,
    )


@st.composite
def weighted_graphs(
    draw: st.DrawFn, weights: list[float], max_nodes: int = 12, max_edges: int | None = None
) -> Data:
    """Directed multigraphs with self-loops, isolated nodes and some of ``weights``."""
    n = draw(st.integers(1, max_nodes))
    node = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(node, node, st.sampled_from(weights)), max_size=max_edges))
    index = torch.tensor([edge[:2] for edge in edges], dtype=torch.long).view(-1, 2).T
    weight = torch.tensor([edge[2] for edge in edges], dtype=torch.float64)
    return Data(edge_index=index, edge_weight=weight, num_nodes=n)


def adjacency(data: Data) -> np.ndarray:
    """``W [N, N]``; repeated edges add up."""
    n = data.num_nodes
    weight = torch.ones(data.num_edges) if data.edge_weight is None else data.edge_weight
    W = np.zeros((n, n))
    for (a, b), w in zip(data.edge_index.T.tolist(), weight.tolist(), strict=True):
        W[a, b] += w
    return W


def symmetric_adjacency(data: Data) -> np.ndarray:
    """``(W + W^T) / 2 [N, N]`` without self-loops."""
    W = adjacency(data)
    W = (W + W.T) / 2
    np.fill_diagonal(W, 0)
    return W


def transition(data: Data) -> np.ndarray:
    """``P = D^{-1} W [N, N]``; a row of zeros stays one."""
    W = adjacency(data)
    degree = W.sum(1, keepdims=True)
    return np.divide(W, degree, out=np.zeros_like(W), where=degree > 0)


def components(W: np.ndarray) -> list[list[int]]:
    """The nodes of each component, ascending."""
    return [sorted(nodes) for nodes in nx.connected_components(nx.from_numpy_array(W))]


def name_of(encoding: Any) -> str:
    """An id for ``pytest.mark.parametrize``."""
    return repr(encoding)
