"""What the transforms should add, by numpy, scipy and networkx, from their docstrings alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from torch_geometric.data import Data

from .graphs import edges_of

Array = NDArray[Any]


def adjacency(data: Data) -> Array:
    """``[N, N]``: summed weights, from row to column."""
    row, col, weight = edges_of(data)
    found = np.zeros((data.num_nodes, data.num_nodes))
    np.add.at(found, (row, col), weight)
    return found


def walk_powers(data: Data, steps: int) -> list[Array]:
    """``P^0`` to ``P^steps``."""
    weights = adjacency(data)
    degree = weights.sum(1, keepdims=True)
    walk = np.divide(weights, degree, out=np.zeros_like(weights), where=degree > 0)
    powers = [np.eye(len(walk))]
    for _ in range(steps):
        powers.append(powers[-1] @ walk)
    return powers


def symmetric(data: Data) -> Array:
    """``(W + W^T) / 2`` without loops."""
    weights = adjacency(data)
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 0)
    return weights


def components(weights: Array) -> list[list[int]]:
    """The nodes of each connected component."""
    import networkx as nx

    return [sorted(c) for c in nx.connected_components(nx.from_numpy_array((weights > 0) * 1))]


def laplacian(weights: Array, normalization: str | None) -> Array:
    """Of one component; ``"rw"`` is ``I - D^-1 W``."""
    degree: Array = weights.sum(1)
    if normalization is None:
        found: Array = np.diag(degree) - weights
    elif normalization == "rw":
        found = np.eye(len(weights)) - weights / degree[:, None]
    else:
        root = np.sqrt(degree)
        found = np.eye(len(weights)) - weights / root[:, None] / root
    return found


def heat(data: Data, times: tuple[float, ...], normalization: str | None) -> Array:
    """``[N, T]``: diagonals of heat kernels less what is left after infinite time."""
    weights = symmetric(data)
    found = np.zeros((len(weights), len(times)))
    for nodes in components(weights):
        if len(nodes) < 2:
            continue
        part = weights[np.ix_(nodes, nodes)]
        degree = part.sum(1) if normalization else np.ones(len(nodes))
        left = degree / degree.sum()
        for column, time in enumerate(times):
            kernel = scipy.linalg.expm(-time * laplacian(part, "sym" if normalization else None))
            found[nodes, column] = kernel.diagonal() - left
    return found


def electrostatic(data: Data) -> Array:
    """``[N, 8]``, by the pseudoinverse of each component's Laplacian."""
    weights = symmetric(data)
    found = np.zeros((len(weights), 8))
    for nodes in components(weights):
        if len(nodes) < 2:
            continue
        part = weights[np.ix_(nodes, nodes)]
        green = np.linalg.pinv(laplacian(part, None), hermitian=True)
        v = green - green.diagonal()
        share = part / part.sum(1)[:, None] * v
        found[nodes] = np.stack(
            [v.min(0), v.mean(0), v.std(0, ddof=1), v.min(1), v.mean(1), v.std(1, ddof=1),
             share.sum(0), share.sum(1)], 1,
        )  # fmt: skip
    return found


def distances(data: Data, most: int) -> Array:
    """``[N, N]``: edges of a shortest path, ``most + 1`` where there is none of ``most``."""
    import networkx as nx

    row, col, _ = edges_of(data)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(data.num_nodes))
    graph.add_edges_from(zip(row.tolist(), col.tolist(), strict=True))
    found = np.full((data.num_nodes, data.num_nodes), most + 1)
    for source, lengths in nx.all_pairs_shortest_path_length(graph, cutoff=most):
        for target, length in lengths.items():
            found[source, target] = length
    return found


def degrees(data: Data) -> Array:
    """``[N, 2]``: edges in and out."""
    import networkx as nx

    row, col, _ = edges_of(data)
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(data.num_nodes))
    graph.add_edges_from(zip(row.tolist(), col.tolist(), strict=True))
    nodes = range(data.num_nodes)
    return np.array([[graph.in_degree(i), graph.out_degree(i)] for i in nodes], np.int64).reshape(
        -1, 2
    )
