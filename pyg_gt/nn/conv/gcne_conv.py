"""Graph convolution with edge features, as GNN+ runs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import zeros

from ..arguments import check_counts, check_edge_index, check_features


class GCNEConv(MessagePassing):
    r"""Sums projected neighbours and edge features through a ReLU: the "GCN" of GNN+.

    `"Unlocking the Potential of Classic GNNs for Graph-level Tasks"
    <https://arxiv.org/abs/2502.09263>`_ (Luo et al. 2025) calls it GCN+ wherever there are edge
    features:

    .. math::
        x_i' = b + \sum_{j \in \mathcal N(i)} \mathrm{ReLU}(W x_j + e_{ij})

    Nothing is normalised by degrees, and no self-loops are added: a node without one does not
    hear itself.

    Args:
        in_channels (int): ``F``; -1 derives it from the first input.
        out_channels (int): ``F'``, also the width of edge features.
        bias (bool): Learn :math:`b`. (default: :obj:`True`)

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import GCNEConv
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> GCNEConv(16, 8)(torch.randn(3, 16), edge_index, torch.randn(4, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        check_counts(lazy=True, in_channels=in_channels)
        check_counts(out_channels=out_channels)
        super().__init__(aggr="add", node_dim=0)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lin = Linear(in_channels, out_channels, bias=False)
        self.bias: Any = torch.nn.Parameter(torch.zeros(out_channels)) if bias else None

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        super().reset_parameters()
        self.lin.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Any, edge_attr: Tensor) -> Tensor:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor): ``[2, E]``, or another of PyG's edge sets.
            edge_attr (Tensor): ``[E, F']``.

        Returns:
            ``[N, F']``.

        Raises:
            ValueError: For a wrong shape or type.
        """
        check_features("x", x, self.in_channels)
        check_edge_index(edge_index, read_here=True)
        check_features("edge_attr", edge_attr, self.out_channels, rows="E")
        out: Tensor = self.propagate(
            edge_index, size=(x.size(0), x.size(0)), x=self.lin(x), edge_attr=edge_attr
        )
        return out if self.bias is None else out + self.bias

    def message(self, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        """``[E, F']``: what each edge carries."""
        return (x_j + edge_attr).relu()
