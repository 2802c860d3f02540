"""Gated message passing that updates edges too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import scatter

from ..arguments import (
    check_counts,
    check_edge_index,
    check_features,
    check_flags,
    check_probabilities,
    check_resolvable,
    describe,
)
from ..message_passing.edge_sets import edge_index_of, for_pyg, values_of
from ..norm.batch_norm import BatchNorm

_BatchNorm = BatchNorm  # of pickles made when it stood here


class GatedGCNConv(MessagePassing):
    r"""Nodes gate their neighbours by learned edge features.

    `"Residual Gated Graph ConvNets" <https://arxiv.org/abs/1711.07553>`_ (Bresson & Laurent 2018),
    as GraphGPS runs it:

    .. math::
        \hat e_{ij} = D x_i + E x_j + C e_{ij}, \quad
        x_i' = x_i + \mathrm{ReLU}\left(\mathrm{BN}\left(A x_i + \frac{\sum_j
        \sigma(\hat e_{ij}) \odot B x_j}{\sum_j \sigma(\hat e_{ij}) + 10^{-6}}\right)\right)

    and :math:`e_{ij}' = e_{ij} + \mathrm{ReLU}(\mathrm{BN}(\hat e_{ij}))`, with dropout after each
    ReLU. Parameters are named as in GraphGPS. One node, or one edge, has no variance: it is
    normalised as in evaluation.

    :class:`GPSConv` adds ``x`` and drops its local part itself. Leave the nodes' residual and
    dropout to it, as in the published layer, where each is there once:
    ``GatedGCNConv(C, C, residual=False, edge_residual=True, edge_dropout=p)`` inside
    ``GPSConv(..., dropout=p)``. ``GPSConv(C, GatedGCNConv(C, C))`` adds ``x`` twice.

    Args:
        in_channels (int): ``F`` of nodes and edges; -1 derives it from the first input.
        out_channels (int): ``F'``.
        dropout (float): Of nodes and edges after the activation. (default: :obj:`0.0`)
        residual (bool): Add the inputs; needs ``in_channels == out_channels``.
            (default: :obj:`True`)
        edge_residual (bool, optional): Add the edges' input, whatever ``residual`` says of the
            nodes'; None: as ``residual``. (default: :obj:`None`)
        edge_dropout (float, optional): Dropout of edges; None: as ``dropout``.
            (default: :obj:`None`)
        edge_output (bool): Compute and return the edges; without them there are no
            ``bn_edge_e`` (of a last layer, nobody reads them). (default: :obj:`True`)
        act (str or Callable): The activation in place of ReLU. (default: :obj:`"relu"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range, or a residual does not
            fit.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import GatedGCNConv
        >>> conv = GatedGCNConv(16, 16)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> x, edge_attr = conv(torch.randn(3, 16), edge_index, torch.randn(4, 16))
        >>> x.shape, edge_attr.shape
        (torch.Size([3, 16]), torch.Size([4, 16]))
    """

    # of pickles made when nodes and edges had one switch
    edge_residual: bool | None = None
    edge_dropout: float | None = None
    edge_output: bool = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dropout: float = 0.0,
        residual: bool = True,
        *,
        edge_residual: bool | None = None,
        edge_dropout: float | None = None,
        edge_output: bool = True,
        act: Any = "relu",
    ) -> None:
        check_counts(lazy=True, in_channels=in_channels)
        check_counts(out_channels=out_channels)
        check_probabilities(dropout=dropout)
        check_flags(residual=residual, edge_output=edge_output)
        if edge_residual is not None:
            check_flags(edge_residual=edge_residual)
        if edge_dropout is not None:
            check_probabilities(edge_dropout=edge_dropout)
        check_resolvable("act", act)
        if (residual or edge_residual) and in_channels not in (-1, out_channels):
            raise ValueError(
                f"a residual needs as many channels out as in (got {in_channels} and "
                f"{out_channels}); pass 'residual=False'"
            )
        super().__init__(aggr="add", node_dim=0)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dropout = dropout
        self.residual = residual
        self.edge_residual = edge_residual
        self.edge_dropout = edge_dropout
        self.edge_output = edge_output
        self.act = activation_resolver(act) if isinstance(act, str) else act
        self.A = Linear(in_channels, out_channels)
        self.B = Linear(in_channels, out_channels)
        self.C = Linear(in_channels, out_channels)
        self.D = Linear(in_channels, out_channels)
        self.E = Linear(in_channels, out_channels)
        self.bn_node_x = BatchNorm(out_channels)
        if edge_output:
            self.bn_edge_e = BatchNorm(out_channels)
        else:
            self.register_module("bn_edge_e", None)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        super().reset_parameters()
        for module in (self.A, self.B, self.C, self.D, self.E, self.bn_node_x, self.bn_edge_e):
            if module is not None:
                module.reset_parameters()

    def forward(
        self, x: Tensor, edge_index: Any, edge_attr: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor): ``[2, E]``, an ``EdgeIndex``, a ``SparseTensor`` or a
                ``torch.sparse`` tensor (transposed, as in PyG), whose entries are edges in the
                order in which PyG reads them: row by row, a COO matrix as it stands, a CSC matrix
                column by column.
            edge_attr (Tensor, optional): ``[E, F]``; None: the values of a sparse
                ``edge_index``. (default: :obj:`None`)

        Returns:
            ``x [N, F']`` and ``edge_attr [E, F']``; ``x`` alone with ``edge_output=False``.

        Raises:
            ValueError: For a wrong shape or type, if ``edge_attr`` is missing, or the residual
                does not fit.
        """
        width, lazy = self.in_channels, self.in_channels < 0
        check_features("x", x, getattr(self.A, "in_channels", -1) if lazy else width)
        check_edge_index(edge_index, read_here=True)
        if isinstance(edge_index, Tensor) and edge_index.layout is torch.strided:
            edge_index = for_pyg(edge_index)
        elif isinstance(edge_index, (Tensor, SparseTensor)):
            sizes = (
                edge_index.sizes() if isinstance(edge_index, SparseTensor) else edge_index.shape
            )
            if list(sizes)[:2] != [x.size(0)] * 2:
                raise ValueError(
                    f"a sparse adjacency must have shape [N, N] with N = {x.size(0)} nodes (got "
                    f"{list(sizes)})"
                )
            if edge_attr is None:
                edge_attr = values_of(edge_index)
            edge_index = edge_index_of(edge_index)
        else:
            raise ValueError(
                f"'edge_index' must be a tensor or a sparse adjacency (got {describe(edge_index)})"
            )
        num_edges = edge_index.size(1)
        if (
            not isinstance(edge_attr, Tensor)
            or edge_attr.dim() != 2
            or edge_attr.size(0) != num_edges
        ):
            got = list(edge_attr.shape) if isinstance(edge_attr, Tensor) else describe(edge_attr)
            raise ValueError(f"this layer needs 'edge_attr' of shape [{num_edges}, F] (got {got})")
        width = getattr(self.C, "in_channels", -1) if lazy else width
        check_features("edge_attr", edge_attr, width, rows="E")
        edge_residual = self.residual if self.edge_residual is None else self.edge_residual
        edge_residual = edge_residual and self.edge_output
        for tensor, residual in ((x, self.residual), (edge_attr, edge_residual)):
            if residual and tensor.size(1) != self.out_channels:
                raise ValueError(
                    f"a residual needs {self.out_channels} channels of nodes and edges (got "
                    f"{(x.size(1), edge_attr.size(1))}); pass 'residual=False'"
                )
        gate = self.edge_updater(
            edge_index, target=self.D(x), source=self.E(x), edge=self.C(edge_attr)
        )
        out = self.A(x) + self.propagate(
            edge_index, size=(x.size(0), x.size(0)), value=self.B(x), gate=gate
        )
        new_x = self._activate(self.bn_node_x(out), self.dropout)
        new_x = x + new_x if self.residual else new_x
        if not self.edge_output:
            return new_x
        edge_dropout = self.dropout if self.edge_dropout is None else self.edge_dropout
        new_edge = self._activate(self.bn_edge_e(gate), edge_dropout)
        return new_x, edge_attr + new_edge if edge_residual else new_edge

    def edge_update(self, target_i: Tensor, source_j: Tensor, edge: Tensor) -> Tensor:
        """``[E, F']``: the gate before the sigmoid."""
        return target_i + source_j + edge

    def message(self, value_j: Tensor, gate: Tensor) -> Tensor:
        """``[E, F']``: the gated neighbour."""
        return gate.sigmoid() * value_j

    def aggregate(
        self, inputs: Tensor, gate: Tensor, index: Tensor, dim_size: int | None = None
    ) -> Tensor:
        """``[N, F']``: the sum of gated neighbours over the sum of gates."""
        total = scatter(gate.sigmoid(), index, 0, dim_size, reduce="sum")
        out: Tensor = scatter(inputs, index, 0, dim_size, reduce="sum") / (total + 1e-6)
        return out

    def _activate(self, h: Tensor, dropout: float) -> Tensor:
        return F.dropout(self.act(h), p=dropout, training=self.training)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Reads pickles made when there was no other activation."""
        super().__setstate__(state)
        if not hasattr(self, "act"):
            self.act = torch.nn.ReLU()
