"""Edges between all nodes that are at most k hops apart."""

from __future__ import annotations

import numpy as np
from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import check_attr_name, check_count, check_edge_index_name
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .paths.k_hop_pairs import k_hop_pairs


@functional_transform("pyg_gt_add_k_hop_edges")
class AddKHopEdges(GraphEncoding):
    r"""Adds an edge from each node to all others that a path of at most ``k`` edges leads to.

    The neighbourhoods of `"How Powerful are K-hop Message Passing Graph Neural Networks"
    <https://arxiv.org/abs/2205.13328>`_, by shortest paths. They can be the edges of
    :class:`pyg_gt.nn.MaskedTransformerConv`, or of an :class:`pyg_gt.EdgeMask`, for attention over
    ``k`` hops. It adds:

    - ``{attr_name} [2, E_k]``, int64: the ordered pairs ``(i, j)``, ``i != j``, with a path of 1
      to ``k`` edges from ``i`` to ``j``, sorted by ``i``, then by ``j``. PyG renumbers it when it
      batches graphs, as it does with ``edge_index``.
    - ``{stem}_distance [E_k]``, uint8: the number of edges of a shortest path, where ``{stem}`` is
      ``attr_name`` without ``_edge_index``: by default ``k_hop_distance``.

    Paths follow the edges from ``edge_index[0]`` to ``edge_index[1]``, so on a directed graph a
    pair may be there without its reverse. Each pair is there once, whether edges are repeated or
    not. Weights do not matter, nor their signs, but an edge of weight zero is none.

    Time and memory grow with ``E_k``: with the number of nodes where degrees are bounded, but with
    the square of a node's degree from ``k = 2`` on.

    PyG's `NeighborLoader` renumbers ``edge_index`` and not these edges: give this transform to the
    loader instead (``docs/encodings.md``).

    Args:
        k (int): Most edges of a path, at most 254.
        attr_name (str, optional): Name of the attribute, which ends with ``_edge_index``.
            (default: :obj:`"k_hop_edge_index"`)

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddKHopEdges
        >>> path = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
        >>> data = AddKHopEdges(2)(path)
        >>> data.k_hop_edge_index.tolist()
        [[0, 0, 1, 1, 2], [1, 2, 2, 3, 3]]
        >>> data.k_hop_distance.tolist()
        [1, 2, 1, 2, 1]
    """

    reads_weights = False

    def __init__(self, k: int, attr_name: str = "k_hop_edge_index") -> None:
        self.k = check_count(self, "k", k, most=254, why=", since distances are stored as uint8")
        self.attr_name = check_edge_index_name(self, attr_name)
        check_attr_name(self, self._distance_name)

    @property
    def _distance_name(self) -> str:
        return f"{self.attr_name.removesuffix('_edge_index')}_distance"

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddKHopEdges`."""
        edge_index, distance = k_hop_pairs(graphs, self.k)
        ptr = np.searchsorted(edge_index[0], graphs.ptr)
        return [
            Attribute(self.attr_name, edge_index, ptr, is_edge_index=True),
            Attribute(self._distance_name, distance, ptr),
        ]
