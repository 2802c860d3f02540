"""Probabilities of random walks between nodes as an encoding of pairs."""

from __future__ import annotations

from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import check_columns, check_memory, check_pair_name
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .graphs.pairs import check_pairs
from .walks.walk_probabilities import walk_probabilities


@functional_transform("pyg_gt_add_relative_random_walk_pe")
class AddRelativeRandomWalkPE(GraphEncoding):
    r"""Adds the probabilities that a random walk leads from node to node in 0, 1, ... steps.

    The relative random walk probabilities (RRWP) of `"Graph Inductive Biases in Transformers
    without Message Passing" <https://arxiv.org/abs/2305.17589>`_, which
    :class:`pyg_gt.nn.RelativeWalkBias` reads. ``{attr_name} [P, walk_length]``, float32: for each
    ordered pair ``(i, j)`` of nodes of a graph, row by row in the order of its nodes, column ``t``
    is ``(P^t)_ij``. Column 0 is the identity; the columns from 1 on of the pairs ``(i, i)`` are
    what :class:`AddRandomWalkPE` adds.

    **The walk** ``P = D^{-1} W`` leaves a node along its outgoing edges (``edge_index[0]`` to
    ``edge_index[1]``), each with its share of their ``edge_weight``; a repeated edge counts as
    often as it stands, a self-loop is a step, an edge of weight zero is none. So each row of ``P``
    sums to one, or to zero at a node without outgoing edges, where the walk ends; on a directed
    graph, each row of ``P^t`` to the probability that it has not ended.

    Args:
        walk_length (int): Number of columns, at most 2^20.
        attr_name (str, optional): Name of the attribute, which begins with ``pair_``.
            (default: :obj:`"pair_walk"`)

    Raises:
        ValueError: if a graph has more than :attr:`MAX_NODES` nodes.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddRelativeRandomWalkPE
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> walks = AddRelativeRandomWalkPE(walk_length=3)(path).pair_walk  # [9, 3]
        >>> walks.view(3, 3, 3)[0, :, 2].tolist()  # from node 0 in two steps
        [0.5, 0.0, 0.5]
    """

    #: Number of nodes of a graph above which its pairs are refused: 67 MB a column.
    MAX_NODES: int = 4096

    def __init__(self, walk_length: int, attr_name: str = "pair_walk") -> None:
        self.walk_length = check_columns(self, "walk_length", walk_length)
        self.attr_name = check_pair_name(self, attr_name)

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddRelativeRandomWalkPE`."""
        check_pairs(self, graphs, self.MAX_NODES, 4 * self.walk_length)
        num_bytes = 4 * int(graphs.pair_ptr[-1]) * self.walk_length
        check_memory(self, "walk_length", self.walk_length, num_bytes)
        walks = walk_probabilities(graphs, self.walk_length)
        return [Attribute(self.attr_name, walks, graphs.pair_ptr)]
