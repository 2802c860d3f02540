"""Attention along edges whose features multiply keys and queries."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.utils import softmax

from ...layout.edge_layout import EdgeLayout
from ..arguments import (
    check_counts,
    check_edge_index,
    check_features,
    check_flags,
    check_probabilities,
    describe,
)
from ..message_passing.edge_sets import values_of


class ExphormerConv(MessagePassing):
    r"""Attention along edges whose features multiply keys and queries.

    The attention of `"Exphormer: Sparse Transformers for Graphs"
    <https://arxiv.org/abs/2303.06147>`_ (Shirzad et al. 2023), on the edges of a graph, of an
    expander and of virtual nodes alike (:class:`InteractionGraph` joins them):

    .. math::
        x_i' = \sum_{j \in N(i)} \mathrm{softmax}_j(s_{ij}) \, V x_j, \quad
        s_{ij} = \mathrm{clamp}\left(\frac{1}{\sqrt{C}} \sum_{c=1}^{C}
        (Q x_i)_c (K x_j)_c (E e_{ij})_c, -5, 5\right)

    in each head. There is no output projection, and no constant term. A repeated edge counts as
    often as it stands, and a node without edges gets zeros.

    The softmax subtracts the largest score, so that any score is exact with ``clamp=None``. The
    authors' code exponentiates the clamped scores as they are and adds :math:`10^{-6}` to their
    sum, which is at least :math:`e^{-5}`: outputs differ by less than a factor of 1.00015.

    Time and memory are ``O(E H C)``: the products and messages of all edges are made, and kept for
    the backward pass.

    Args:
        in_channels (int): ``F``; -1 derives it from the first input.
        out_channels (int): ``C``.
        heads (int): ``H``. (default: :obj:`1`)
        concat (bool): Whether heads stand side by side; else their mean is taken.
            (default: :obj:`True`)
        edge_dim (int, optional): Width of ``edge_attr``; -1 derives it from the first input. None:
            there are no edge features, and scores are :math:`q_i^\top k_j / \sqrt{C}`.
            (default: :obj:`None`)
        clamp (float, optional): Largest absolute score; None: scores are left as they are.
            (default: :obj:`5.0`)
        dropout (float): Probability with which an attention weight is dropped in training (the
            authors' code never drops any). (default: :obj:`0.0`)
        bias (bool): Whether linear maps have a constant term. (default: :obj:`False`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import ExphormerConv
        >>> conv = ExphormerConv(16, 4, heads=4, edge_dim=8)
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> out, (edges, alpha) = conv(
        ...     x, edge_index, torch.randn(4, 8), return_attention_weights=True
        ... )
        >>> out.shape, alpha.shape
        (torch.Size([3, 16]), torch.Size([4, 4]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        edge_dim: int | None = None,
        clamp: float | None = 5.0,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        check_counts(lazy=True, in_channels=in_channels)
        check_counts(out_channels=out_channels, heads=heads)
        check_flags(concat=concat, bias=bias)
        check_probabilities(dropout=dropout)
        if edge_dim is not None:
            check_counts(lazy=True, edge_dim=edge_dim)
        _check_clamp(clamp)
        super().__init__(aggr="add", node_dim=0)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.edge_dim = edge_dim
        self.clamp = clamp
        self.dropout = dropout
        width = heads * out_channels
        self.lin_query = Linear(in_channels, width, bias=bias)
        self.lin_key = Linear(in_channels, width, bias=bias)
        self.lin_value = Linear(in_channels, width, bias=bias)
        if edge_dim is None:
            self.register_module("lin_edge", None)
        else:
            self.lin_edge = Linear(edge_dim, width, bias=bias)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        super().reset_parameters()
        for lin in (self.lin_query, self.lin_key, self.lin_value, self.lin_edge):
            if lin is not None:
                lin.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor): ``[2, E]``, an ``EdgeIndex``, a ``SparseTensor``, a
                ``torch.sparse`` tensor (transposed, as in PyG; its values act as ``edge_attr``) or
                an ``EdgeLayout``.
            edge_attr (Tensor, optional): ``[E, edge_dim]``. (default: :obj:`None`)
            return_attention_weights (bool, optional): With any value but None also returns
                ``(edge_index [2, E], alpha [E, H])``, before dropout. (default: :obj:`None`)

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: For a wrong shape or type, or if ``edge_attr`` is missing or given in vain.
            IndexError: If an index is out of range.
        """
        check_features("x", x, getattr(self.lin_query, "in_channels", -1))
        check_edge_index(edge_index, read_here=True)
        edge_attr = values_of(edge_index) if edge_attr is None else edge_attr
        edges = EdgeLayout.of(edge_index, x.size(0))
        shape = (-1, self.heads, self.out_channels)
        query, key, value = (
            lin(x).view(shape) for lin in (self.lin_query, self.lin_key, self.lin_value)
        )
        index, size = edges.edge_index, (x.size(0), x.size(0))
        alpha = self.edge_updater(
            index, query=query, key=key, edge=self._edges(edge_attr, edges.num_edges), size=size
        )
        out = self.propagate(index, size=size, value=value, alpha=alpha)
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        return out if return_attention_weights is None else (out, (index, alpha))

    def edge_update(
        self,
        query_i: Tensor,
        key_j: Tensor,
        edge: Tensor | None,
        index: Tensor,
        size_i: int | None,
    ) -> Tensor:
        """``[E, H]``: the weight of each edge."""
        dtype = key_j.dtype
        if dtype in (torch.float16, torch.bfloat16):  # in which 300 x 300 may be infinite
            query_i, key_j = query_i.float(), key_j.float()
        product = query_i * key_j
        if edge is not None:
            product = product * edge
        scores = product.sum(dim=-1) / math.sqrt(self.out_channels)
        if self.clamp is not None:
            scores = scores.clamp(-self.clamp, self.clamp)
        weights: Tensor = softmax(scores, index, num_nodes=size_i)
        return weights.to(dtype)

    def message(self, value_j: Tensor, alpha: Tensor) -> Tensor:
        """``[E, H, C]``: the weighted value of the source."""
        alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        return value_j * alpha.unsqueeze(-1)

    def _edges(self, edge_attr: Any, num_edges: int) -> Tensor | None:
        """``[E, H, C]``: what the features of each edge multiply its score with."""
        if self.lin_edge is None:
            if edge_attr is not None:
                raise ValueError(
                    "'edge_attr' was given, but this layer was made without 'edge_dim' and would "
                    "not read it; pass 'edge_dim' to the constructor"
                )
            return None
        if edge_attr is None or (isinstance(edge_attr, Tensor) and edge_attr.dim() != 2):
            raise ValueError(
                f"this layer has edge_dim={self.edge_dim} and needs 'edge_attr' of shape "
                f"[{num_edges}, {self.edge_dim}] (got {describe(edge_attr)})"
            )
        width = getattr(self.lin_edge, "in_channels", -1)
        check_features("edge_attr", edge_attr, width, rows="E")
        if edge_attr.size(0) != num_edges:
            raise ValueError(
                f"'edge_attr' has {edge_attr.size(0)} rows, but there are {num_edges} edges"
            )
        out: Tensor = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
        return out

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"heads={self.heads})"
        )


def _check_clamp(clamp: Any) -> None:
    if clamp is None:
        return
    real = isinstance(clamp, numbers.Real) and not isinstance(clamp, bool)
    if not real or not 0 < clamp < math.inf:
        raise ValueError(
            f"'clamp' must be a finite number above 0, or None for scores as they are (got "
            f"{clamp!r})"
        )
