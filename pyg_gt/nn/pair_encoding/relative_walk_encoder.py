"""Probabilities of random walks as states of nodes and of pairs: GRIT's encodings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear
from torch.nn.init import xavier_uniform_

from ...layout.graph_layout import GraphLayout
from ..arguments import check_counts, check_edge_index, check_features, check_tensor
from ..message_passing.pair_index import pair_index


class RelativeWalkEncoder(torch.nn.Module):
    r"""Adds walk probabilities to the states of nodes, and makes states of pairs of them.

    The encodings (RRWP) of `"Graph Inductive Biases in Transformers without Message Passing"
    <https://arxiv.org/abs/2305.17589>`_, with :math:`R_{ij} = [I, P, P^2, \dots]_{ij}` and the
    edge features :math:`f` of the edges from key :math:`j` to query :math:`i`:

    .. math::
        x_i' = x_i + W_n R_{ii}, \quad e_{ij} = W_p R_{ij} + \sum_{j \to i} f_{ji}

    :math:`R_{ij}` are the walks from the query to the key, as in the official code since its
    correction (its first release had those from the key to the query, which are others where
    degrees differ).

    Args:
        walk_length (int): Probabilities of each pair.
        channels (int): ``F``.

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import RelativeWalkEncoder
        >>> from pyg_gt.transforms import AddRelativeRandomWalkPE
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = AddRelativeRandomWalkPE(8)(Data(torch.randn(3, 16), edge_index))
        >>> encoder = RelativeWalkEncoder(8, 16)
        >>> x, pair_attr = encoder(data.x, data.pair_walk, edge_index, torch.randn(4, 16))
        >>> x.shape, pair_attr.shape
        (torch.Size([3, 16]), torch.Size([9, 16]))
    """

    def __init__(self, walk_length: int, channels: int) -> None:
        super().__init__()
        check_counts(walk_length=walk_length, channels=channels)
        self.walk_length = walk_length
        self.channels = channels
        self.lin_node = Linear(walk_length, channels, bias=False)
        self.lin_pair = Linear(walk_length, channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        xavier_uniform_(self.lin_node.weight)
        xavier_uniform_(self.lin_pair.weight)

    def forward(
        self,
        x: Tensor,
        pair_walk: Tensor,
        edge_index: Any = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | GraphLayout | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Runs the encoder.

        Args:
            x (Tensor): ``[N, F]``.
            pair_walk (Tensor): ``[P, walk_length]``, from ``AddRelativeRandomWalkPE``.
            edge_index (Tensor, optional): ``[2, E]``; only read with ``edge_attr``.
                (default: :obj:`None`)
            edge_attr (Tensor, optional): ``[E, F]``; None: pairs know of walks alone.
                (default: :obj:`None`)
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)

        Returns:
            ``x [N, F]`` and ``pair_attr [P, F]``.

        Raises:
            ValueError: For a wrong shape or type, or an edge that joins two graphs.
        """
        check_features("x", x, self.channels)
        cure = f"'AddRelativeRandomWalkPE({self.walk_length})' makes it"
        check_tensor("pair_walk", pair_walk, ("walk_length", self.walk_length), None, cure)
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        index = pair_index(layout, pair_walk.size(0), "pair_walk", x.device)
        walk = pair_walk.to(self.lin_pair.weight.dtype)
        x = x + self.lin_node(walk[index.start + index.pos])
        pair_attr: Tensor = self.lin_pair(walk)
        if edge_attr is None:
            return x, pair_attr
        check_edge_index(edge_index, read_here=True)
        check_features("edge_attr", edge_attr, self.channels, rows="E")
        pairs = index.of_edges(edge_index, layout)
        if pairs.size(0) != edge_attr.size(0):
            raise ValueError(
                f"'edge_attr' must have a row for each edge (got {pairs.size(0)} edges and "
                f"{edge_attr.size(0)} rows)"
            )
        return x, pair_attr.index_add(0, pairs, edge_attr.to(pair_attr.dtype))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.walk_length}, {self.channels})"
