"""Shortest-path distances as an encoding of pairs, and the edges along the paths."""

from __future__ import annotations

from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import check_columns, check_count, check_memory, check_pair_name
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .graphs.pairs import check_pairs
from .paths.hop_distances import hop_distances
from .paths.path_edges import path_edges


@functional_transform("pyg_gt_add_shortest_path_distance")
class AddShortestPathDistance(GraphEncoding):
    r"""Adds how many edges a shortest path between any two nodes has, and which ones.

    What the spatial and the edge encoding of `"Do Transformers Really Perform Bad for Graph
    Representation?" <https://arxiv.org/abs/2106.05234>`_ read: :class:`pyg_gt.nn.ShortestPathBias`
    and :class:`pyg_gt.nn.EdgePathBias`.

    **Distances.** ``{attr_name} [P]``, uint8: for each ordered pair ``(i, j)`` of nodes of a
    graph, row by row in the order of its nodes, 0 where ``i = j``, the number of edges of a
    shortest path from ``i`` to ``j`` where it is at most ``max_distance``, and
    ``max_distance + 1`` for all other pairs, those without a path among them. Paths follow the
    edges from ``edge_index[0]`` to ``edge_index[1]``, so on a directed graph a pair and its
    reverse may differ. Edges are counted, not their weights, which may have any sign; but an edge
    of weight zero is none.

    **Paths.** With ``path_length``, also ``{attr_name}_edges [P, path_length]``, int32: the first
    edges of one shortest path from ``i`` to ``j`` in their order, each by its place among the
    edges of its own graph in ``edge_index`` (a number that batching leaves as it is), and -1
    behind the end of the path. Pairs farther apart than ``max_distance`` have -1 only, as have
    those without a path. Of several shortest paths it is the one that comes first when they are
    compared node by node, the smaller number first; of repeated edges the first. So which path it
    is depends on the order of the nodes.

    Args:
        max_distance (int, optional): The longest distance that is distinguished from longer
            ones, at most 254. (default: :obj:`20`)
        attr_name (str, optional): Name of the attribute, which begins with ``pair_``.
            (default: :obj:`"pair_distance"`)
        path_length (int, optional): Number of columns for the edges of paths, at most 2^20;
            :obj:`None` for distances alone. (default: :obj:`None`)

    Raises:
        ValueError: if a graph has more than :attr:`MAX_NODES` nodes.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddShortestPathDistance
        >>> path = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> data = AddShortestPathDistance(max_distance=5, path_length=2)(path)
        >>> data.pair_distance.view(3, 3).tolist()
        [[0, 1, 2], [6, 0, 1], [6, 6, 0]]
        >>> data.pair_distance_edges.view(3, 3, 2)[0, 2].tolist()  # edge 0, then edge 1
        [0, 1]
    """

    #: Number of nodes of a graph above which its pairs are refused: 0.3 GB of distances.
    MAX_NODES: int = 16384

    reads_weights = False

    def __init__(
        self,
        max_distance: int = 20,
        attr_name: str = "pair_distance",
        *,
        path_length: int | None = None,
    ) -> None:
        self.max_distance = check_count(
            self,
            "max_distance",
            max_distance,
            most=254,
            why=", since distances are stored as uint8",
        )
        self.attr_name = check_pair_name(self, attr_name)
        self.path_length = path_length
        if path_length is not None:
            self.path_length = check_columns(self, "path_length", path_length)

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddShortestPathDistance`."""
        L = self.path_length
        check_pairs(self, graphs, self.MAX_NODES, 1 + 4 * (L or 0))
        if L is not None:
            check_memory(self, "path_length", L, 4 * int(graphs.pair_ptr[-1]) * L)
        distance = hop_distances(graphs, self.max_distance)
        attributes = [Attribute(self.attr_name, distance, graphs.pair_ptr)]
        if L is not None:
            edges = path_edges(graphs, distance, self.max_distance, L)
            attributes.append(Attribute(f"{self.attr_name}_edges", edges, graphs.pair_ptr))
        return attributes
