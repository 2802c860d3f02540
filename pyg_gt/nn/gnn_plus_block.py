"""Message passing with all that a Transformer layer has around its attention: GNN+."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from .arguments import (
    check_counts,
    check_features,
    check_flags,
    check_module,
    check_probabilities,
    check_resolvable,
)
from .norm.batch_norm import BatchNorm


class GNNPlusBlock(torch.nn.Module):
    r"""A convolution with a norm, dropout, a residual and an MLP.

    `"Unlocking the Potential of Classic GNNs for Graph-level Tasks"
    <https://arxiv.org/abs/2502.09263>`_ (Luo et al. 2025), each part a switch:

    .. math::
        h &= x + \mathrm{Dropout}(\mathrm{act}(\mathrm{BN}(\mathrm{Conv}(x)))) \\
        h &= \mathrm{BN}(h), \quad x' = \mathrm{BN}(h + \mathrm{Dropout}(W_2 \,
        \mathrm{Dropout}(\mathrm{act}(W_1 h))))

    A convolution that has norm, activation and residual itself, as :class:`GatedGCNConv`, goes
    in with ``activated=True``; it may return ``(x, edge_attr)``, then so does the block.

    Args:
        channels (int): ``F``.
        conv (torch.nn.Module): ``F -> F``, called as PyG's.
        dropout (float): (default: :obj:`0.0`)
        act (str or Callable): The activation of the MLP, and of the convolution.
            (default: :obj:`"relu"`)
        conv_act (str or Callable, optional): Another activation of the convolution; GIN+ has
            always ReLU. (default: :obj:`None`)
        norm (bool): Normalise what the convolution gives. (default: :obj:`True`)
        residual (bool): Add the input to it. (default: :obj:`True`)
        ffn (bool): The second line. (default: :obj:`True`)
        activated (bool): The convolution does all of the first line itself.
            (default: :obj:`False`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import GCNEConv, GNNPlusBlock
        >>> block = GNNPlusBlock(16, GCNEConv(16, 16), dropout=0.1)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> block(torch.randn(3, 16), edge_index, edge_attr=torch.randn(4, 16)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        channels: int,
        conv: torch.nn.Module,
        dropout: float = 0.0,
        act: Any = "relu",
        conv_act: Any = None,
        norm: bool = True,
        residual: bool = True,
        ffn: bool = True,
        activated: bool = False,
    ) -> None:
        super().__init__()
        check_counts(channels=channels)
        check_module("conv", conv)
        check_probabilities(dropout=dropout)
        check_flags(norm=norm, residual=residual, ffn=ffn, activated=activated)
        conv_act = act if conv_act is None else conv_act
        check_resolvable("act", act)
        check_resolvable("conv_act", conv_act)
        self.channels = channels
        self.conv: Any = conv
        self.dropout = dropout
        self.residual = residual
        self.activated = activated
        self.act = activation_resolver(act) if isinstance(act, str) else act
        self.conv_act = activation_resolver(conv_act) if isinstance(conv_act, str) else conv_act
        self.norm = BatchNorm(channels) if norm and not activated else None
        self.ffn: Any = None
        if ffn:
            self.ffn = torch.nn.ModuleDict(
                {
                    "norm1": BatchNorm(channels),
                    "linear1": Linear(channels, 2 * channels),
                    "linear2": Linear(2 * channels, channels),
                    "norm2": BatchNorm(channels),
                }
            )

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        reset(self.conv)
        for module in (self.norm, *(() if self.ffn is None else self.ffn.values())):
            if module is not None:
                module.reset_parameters()

    def forward(self, x: Tensor, edge_index: Any, **kwargs: Any) -> Any:
        """Runs the block.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor): ``[2, E]``, or what the convolution takes.
            **kwargs (optional): Arguments of the convolution, as ``edge_attr``.

        Returns:
            ``[N, F]``; with a convolution that returns edge features, ``(x, edge_attr)``.

        Raises:
            ValueError: For a wrong shape or type.
        """
        check_features("x", x, self.channels)
        h = self.conv(x, edge_index, **kwargs)
        edge_attr = None
        if returns_edges := isinstance(h, tuple):
            h, edge_attr = h
        if not self.activated:
            h = h if self.norm is None else self.norm(h)
            h = self._drop(self.conv_act(h))
            h = x + h if self.residual else h
        if self.ffn is not None:
            h = self.ffn["norm1"](h)
            hidden = self._drop(self.act(self.ffn["linear1"](h)))
            h = self.ffn["norm2"](h + self._drop(self.ffn["linear2"](hidden)))
        return (h, edge_attr) if returns_edges else h

    def _drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, p=self.dropout, training=self.training)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, conv={self.conv}, "
            f"residual={self.residual}, ffn={self.ffn is not None})"
        )
