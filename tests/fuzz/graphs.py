"""Random graphs for transforms: directed or not, weighted, with loops, repeats, isolated nodes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from .draws import Random


def random_graphs(rng: Random, signed: bool = False) -> list[Data]:
    """One to four graphs that PyG can batch: all with weights or features, or none."""
    weighted, dtype = rng.random() < 0.5, torch.float64 if rng.random() < 0.5 else torch.float32
    column, features = rng.random() < 0.2, rng.random() < 0.3
    graphs = []
    for _ in range(int(rng.integers(1, 5))):
        edges, weights, n = _random_graph(rng, signed)
        data = Data(edge_index=torch.from_numpy(np.ascontiguousarray(edges)), num_nodes=n)
        if features:
            data.x = torch.randn(n, 2)
        if weighted:
            weight = torch.from_numpy(weights).to(dtype)
            data.edge_weight = weight[:, None] if column else weight
        graphs.append(data)
    return graphs


def _random_graph(rng: Random, signed: bool) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Of 0 to 14 nodes, or sometimes up to 120."""
    n = int(rng.integers(0, 15)) if rng.random() < 0.93 else int(rng.integers(60, 121))
    count = 0 if n == 0 else int(rng.integers(0, 3 * n + 1))
    if n > 1 and rng.random() < 0.1:  # a path, a ring, a star or all pairs
        edges = _known(rng, n)
    else:
        edges = rng.integers(0, max(n, 1), (2, count))
    if rng.random() < 0.3 and n > 2:  # two parts that no edge joins
        half = n // 2
        edges = edges[:, (edges[0] < half) == (edges[1] < half)]
    if rng.random() < 0.5:
        edges = edges[:, edges[0] != edges[1]]
    weights = _weights(rng, edges.shape[1], signed)
    if rng.random() < 0.5:  # both ways
        edges = np.concatenate([edges, edges[::-1]], 1)
        weights = np.concatenate([weights, weights])
    if rng.random() < 0.5:
        order = rng.permutation(edges.shape[1])
        edges = edges[:, order]
        weights = weights[order]
    return edges, weights, n


def _known(rng: Random, n: int) -> NDArray[np.int64]:
    kind = int(rng.integers(4))
    if kind == 0:
        return np.stack([np.arange(n - 1), np.arange(1, n)])
    if kind == 1:
        return np.stack([np.arange(n), (np.arange(n) + 1) % n])
    if kind == 2:
        return np.stack([np.zeros(n - 1, np.int64), np.arange(1, n)])
    return np.argwhere(~np.eye(min(n, 20), dtype=bool)).T


def _weights(rng: Random, count: int, signed: bool) -> NDArray[np.float64]:
    if rng.random() < 0.2:
        weights = np.exp(rng.normal(0, 4, count))
    else:
        weights = rng.uniform(0.1, 3, count)
    if rng.random() < 0.3:
        weights[rng.random(count) < 0.3] = 0
    if signed:
        weights *= rng.choice([-1, 1], count)
    return weights


def edges_of(data: Data) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Sources, targets and weights of the edges that count: those of a weight other than zero."""
    row, col = data.edge_index.numpy()
    weight = np.ones(len(row))
    if "edge_weight" in data:
        weight = data.edge_weight.double().numpy().reshape(-1)
    kept = weight != 0
    return row[kept], col[kept], weight[kept]
