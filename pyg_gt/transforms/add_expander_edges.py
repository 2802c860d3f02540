"""Edges of random regular graphs, along which any two nodes are a few steps apart."""

from __future__ import annotations

import math
import warnings

import numpy as np
from torch_geometric.data.datapipes import functional_transform

from .expanders.random_numbers import graph_keys
from .expanders.spectral_gap import expander_edges
from .graph_encoding import GraphEncoding
from .graphs.arguments import check_count, check_edge_index_name, check_memory
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs, offsets


@functional_transform("pyg_gt_add_expander_edges")
class AddExpanderEdges(GraphEncoding):
    r"""Adds the edges of a random graph that has the same nodes and a large spectral gap.

    From `"Exphormer: Sparse Transformers for Graphs" <https://arxiv.org/abs/2303.06147>`_, for
    attention along a few edges a node that yet reaches all nodes in about ``log N`` steps. Stored
    as ``{attr_name} [2, E']``, each edge both ways, sorted by source and target. PyG renumbers the
    nodes in it when it batches graphs (its `NeighborLoader` does not: give this transform to the
    loader instead).

    Every node of a graph of ``n`` nodes has ``degree`` neighbours. Every simple graph of that kind
    can be drawn, and if ``n`` is large, all are nearly equally likely. If ``n`` and ``degree`` are
    both odd, there is none, and one random node has ``degree + 1``. If ``n <= degree``, all nodes
    are neighbours. A directed graph gets an undirected expander too. (In the authors' code, every
    node is the source of ``degree`` random edges and the target of as many, which gives about
    twice the number for the same ``degree``, with repeated edges among them.)

    **The spectral gap.** The second largest ``|eigenvalue|`` of the new graph's adjacency matrix
    is at most ``2 sqrt(degree - 1) +`` :attr:`SLACK`, which also makes it connected. Most random
    regular graphs are near that bound, and no large one is far below (`Friedman 2008
    <https://arxiv.org/abs/cs/0405020>`_). One that is above is drawn again; if all ``max_tries``
    are, the best one is kept and there is a warning. (Of more than 256 nodes, the eigenvalue is
    computed to a thousandth.)

    **Randomness.** The draw depends on ``seed`` and on the graph itself, that is on its number of
    nodes and its edges in any order, and on nothing else (not on weights, but an edge of weight
    zero is none). So a graph gets the same expander alone, in a `Batch` and in any process.

    Args:
        degree (int): Number of neighbours, at least 3: less is no expander.
        attr_name (str, optional): Name of the attribute, which ends with ``_edge_index``.
            (default: :obj:`"expander_edge_index"`)
        seed (int, optional): Seed of the random numbers. (default: :obj:`0`)
        max_tries (int, optional): Most draws for each graph. (default: :obj:`100`)

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddExpanderEdges
        >>> ring = torch.stack([torch.arange(20), torch.arange(20).roll(-1)])
        >>> data = AddExpanderEdges(degree=4)(Data(edge_index=ring, num_nodes=20))
        >>> data.expander_edge_index[0].bincount().unique().tolist()
        [4]
    """

    #: How far the eigenvalue may be above ``2 sqrt(degree - 1)``.
    SLACK: float = 0.1

    reads_weights = False

    def __init__(
        self,
        degree: int,
        attr_name: str = "expander_edge_index",
        *,
        seed: int = 0,
        max_tries: int = 100,
    ) -> None:
        self.degree = check_count(self, "degree", degree, least=3, most=2**31 - 1)
        self.attr_name = check_edge_index_name(self, attr_name)
        self.seed = check_count(self, "seed", seed, least=0)
        self.max_tries = check_count(self, "max_tries", max_tries)

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddExpanderEdges`."""
        size = graphs.sizes
        neighbours = np.minimum(self.degree, np.maximum(size - 1, 0))
        # each edge both ways, its two ends, and as much again while it is sorted
        check_memory(self, "degree", self.degree, 32 * int((neighbours * size).sum()))
        bound = 2 * math.sqrt(self.degree - 1) + self.SLACK
        source, target, norm = expander_edges(
            size, self.degree, graph_keys(graphs, self.seed), bound, self.max_tries
        )
        if (norm > bound).any():
            warnings.warn(
                f"{(norm > bound).sum()} of {norm.size} expanders of degree {self.degree} have a "
                f"second eigenvalue above {bound:.3g}, up to {norm.max():.3g}, after "
                f"max_tries={self.max_tries}; raise max_tries",
                stacklevel=2,
            )
        graph = np.repeat(np.arange(size.size), size)
        ptr = offsets(np.bincount(graph[source], minlength=size.size))
        return [Attribute(self.attr_name, np.stack([source, target]), ptr, is_edge_index=True)]
