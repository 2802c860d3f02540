"""Small graphs, and what the transforms will say of their pairs, found by networkx and loops."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from pyg_gt.nn import EdgePathBias, RelativeWalkBias, ShortestPathBias

HEADS, EDGE_CHANNELS, MAX_DISTANCE, PATH_LENGTH, WALK_LENGTH = 2, 3, 3, 2, 4


def both_ways(*edges):
    return [e for a, b in edges for e in ((a, b), (b, a))]


# (nodes, edges): the edges in no order, since a path names them by their place
GRAPHS = [
    (1, []),
    (6, both_ways((3, 4), (1, 2), (4, 5), (0, 1), (2, 3))),  # longer than what is kept
    (3, [(2, 0), (0, 1), (1, 2)]),  # a directed cycle
    (0, []),
    (2, []),
    (5, both_ways((3, 4), (0, 1), (1, 2), (0, 2))),  # two components
    (1, [(0, 0)]),
    (4, [(0, 1), (1, 1), (1, 2), (0, 1), (2, 3), (0, 3)]),  # one way; a loop and a repeat
]


@dataclass
class Graphs:
    """Several graphs joined as PyG joins them."""

    graphs: list
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    pair_distance: Tensor
    pair_distance_edges: Tensor
    pair_walk: Tensor

    @property
    def num_nodes(self):
        return self.batch.numel()

    @property
    def num_pairs(self):
        return self.pair_distance.numel()


def paths_of(n, edges):
    """The places, among ``edges``, of the edges of one shortest path; None where there is none."""
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(range(n))
    nodes = dict(nx.all_pairs_shortest_path(graph))
    steps = {
        (i, j): [edges.index(step) for step in zip(path, path[1:], strict=False)]
        for i in nodes
        for j, path in nodes[i].items()
    }
    return [steps.get((i, j)) for i in range(n) for j in range(n)]


def walks_of(n, edges):
    """``[n * n, WALK_LENGTH]``: the chances of standing at j after k steps from i."""
    chances = [[[float(i == j) for j in range(n)] for i in range(n)]]
    degree = [sum(a == i for a, _ in edges) for i in range(n)]
    for _ in range(WALK_LENGTH - 1):
        new = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for a, b in edges:
                new[i][b] += chances[-1][i][a] / degree[a]
        chances.append(new)
    return [[step[i][j] for step in chances] for i in range(n) for j in range(n)]


def join(graphs=GRAPHS, edge_attr=None, dtype=torch.float64, path_dtype=torch.int16):
    edges, batch, distance, kept, walks = [], [], [], [], []
    for number, (n, own) in enumerate(graphs):
        edges += [(len(batch) + a, len(batch) + b) for a, b in own]
        batch += [number] * n
        for path in paths_of(n, own):
            far = MAX_DISTANCE + 1
            distance.append(far if path is None else min(len(path), far))
            kept.append([*(path or [])[:PATH_LENGTH], *[-1] * PATH_LENGTH][:PATH_LENGTH])
        walks += walks_of(n, own)
    if edge_attr is None:
        edge_attr = torch.randn(len(edges), EDGE_CHANNELS, dtype=dtype)
    return Graphs(
        graphs,
        torch.tensor(edges, dtype=torch.int64).view(-1, 2).t().contiguous(),
        edge_attr,
        torch.tensor(batch, dtype=torch.int64),
        torch.tensor(distance, dtype=torch.uint8),
        torch.tensor(kept, dtype=path_dtype).view(-1, PATH_LENGTH),
        torch.tensor(walks, dtype=dtype).view(-1, WALK_LENGTH),
    )


def widen(encoder):
    """Weights as large as scores, so that what is wrong shows."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_()
    return encoder


def shortest_path(dtype=torch.float64):
    return widen(ShortestPathBias(MAX_DISTANCE, HEADS).to(dtype))


def edge_path(dtype=torch.float64):
    return widen(EdgePathBias(EDGE_CHANNELS, HEADS, PATH_LENGTH).to(dtype))


def walk(dtype=torch.float64):
    return widen(RelativeWalkBias(WALK_LENGTH, HEADS).to(dtype))


def walk_hidden(dtype=torch.float64):
    return widen(RelativeWalkBias(WALK_LENGTH, HEADS, hidden_channels=5).to(dtype))


ENCODERS = {f.__name__: f for f in (shortest_path, edge_path, walk, walk_hidden)}


def bias_of(encoder, data, batch):
    """Calls an encoder with what it takes."""
    if isinstance(encoder, ShortestPathBias):
        return encoder(data.pair_distance)
    if isinstance(encoder, RelativeWalkBias):
        return encoder(data.pair_walk)
    return encoder(data.pair_distance_edges, data.edge_attr, data.edge_index, batch)
