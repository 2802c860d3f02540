"""Attention along edges, without a tensor for each edge where a backend can do without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import TransformerConv

from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...ops import EdgeMask, attention
from .._arguments import (
    check_aggr,
    check_backend,
    check_counts,
    check_edge_index,
    check_features,
    check_flags,
    check_kwargs,
    check_probabilities,
    said,
)
from ._edge_forms import for_pyg, values_of
from ._routes import needs_propagate


class MaskedTransformerConv(TransformerConv):
    r"""PyG's ``TransformerConv`` on this library's attention.

    "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification"
    (Shi et al. 2021, https://arxiv.org/abs/2009.03509); eqs. 14-16 of "Transformers are Graph
    Neural Networks" (Joshi 2025):

    .. math::
        x_i' = W_1 x_i + \sum_{j \in N(i)} \alpha_{ij} (W_2 x_j + W_6 e_{ij}), \quad
        \alpha_{ij} = \mathrm{softmax}_j \left(
        \frac{(W_3 x_i)^\top (W_4 x_j + W_6 e_{ij})}{\sqrt{C}} \right)

    Arguments, parameter names, outputs and printed form are PyG's. With hooks on messages, an
    explainer, another ``aggr``, ``return_attention_weights``, an overridden ``message`` or raw
    ``edge_attr`` without ``edge_dim``, PyG's own route runs.

    Args:
        in_channels: ``F``, or a pair for sources and targets; -1 derives it from the first input.
        out_channels: ``C``.
        heads: ``H``.
        concat: whether heads stand side by side; else their mean is taken.
        beta: whether the root and the sum are mixed by a learned gate.
        dropout: of the attention weights.
        edge_dim: width of ``edge_attr``, or None; -1 derives it from the first input.
        bias: whether linear maps have a constant term.
        root_weight: whether :math:`W_1 x_i` is added; without, there is no ``beta``.
        aggr: of PyG's ``MessagePassing``, as are the next three.
        aggr_kwargs: arguments of ``aggr``.
        flow: which row of ``edge_index`` sends.
        decomposed_layers: in how many parts messages are sent.
        backend: which attention backend runs; see :func:`pyg_gt.attention`.

    Raises:
        ValueError: if an argument is of the wrong type or out of range.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
        *,
        aggr: Any = "add",
        aggr_kwargs: dict[str, Any] | None = None,
        flow: str = "source_to_target",
        decomposed_layers: int = 1,
        backend: str = "auto",
    ) -> None:
        if isinstance(in_channels, (tuple, list)):
            if len(in_channels) != 2:
                raise ValueError(
                    f"'in_channels' must be one width or a pair, for sources and targets (got "
                    f"{in_channels})"
                )
            for width in in_channels:
                check_counts(lazy=True, in_channels=width)
        else:
            check_counts(lazy=True, in_channels=in_channels)
            in_channels = int(in_channels)
        check_counts(out_channels=out_channels, heads=heads, decomposed_layers=decomposed_layers)
        check_flags(concat=concat, beta=beta, bias=bias, root_weight=root_weight)
        check_probabilities(dropout=dropout)
        if edge_dim is not None:
            check_counts(lazy=True, edge_dim=edge_dim)
        check_aggr(aggr)
        check_kwargs(aggr_kwargs=aggr_kwargs)
        check_backend(backend)
        super().__init__(
            in_channels, out_channels, heads, concat, beta, dropout, edge_dim, bias, root_weight,
            aggr=aggr, aggr_kwargs=aggr_kwargs, flow=flow, decomposed_layers=decomposed_layers,
        )  # fmt: skip
        self.backend = backend

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x: ``[N, F]``, or a pair for sources and targets.
            edge_index: ``[2, E]``, an ``EdgeIndex``, a ``SparseTensor`` or a ``torch.sparse``
                tensor (transposed, as in PyG; its values act as ``edge_attr``).
            edge_attr: ``[E, edge_dim]``.
            return_attention_weights: with any value but None, PyG's route also returns
                ``(edge_index, alpha [E, H])``.

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: for a wrong shape or type, or if ``edge_attr`` is missing.
            IndexError: if an index is out of range.
        """
        x_src, x_dst = self._sides(x)
        check_edge_index(edge_index, read_here=True)
        if edge_attr is None:
            edge_attr = values_of(edge_index)
        elif not isinstance(edge_attr, Tensor) or (
            edge_attr.dim() == 1 and not edge_attr.is_floating_point()
        ):
            raise ValueError(
                f"'edge_attr' must hold the features of each edge (got {said(edge_attr)}); "
                f"attention along edges needs no 'batch'"
            )
        raw_features = edge_attr is not None and self.lin_edge is None
        if edge_attr is not None and raw_features:
            self._check_raw(edge_attr)
        weights_wanted = return_attention_weights is not None
        if weights_wanted or raw_features or needs_propagate(self, MaskedTransformerConv):
            return super().forward(x, for_pyg(edge_index), edge_attr, return_attention_weights)

        heads, channels = self.heads, self.out_channels
        query = self.lin_query(x_dst).view(-1, heads, channels)
        key = self.lin_key(x_src).view(-1, heads, channels)
        value = self.lin_value(x_src).view(-1, heads, channels)
        num_src, num_dst = key.size(0), query.size(0)
        edges = EdgeLayout.of(edge_index, num_src, num_dst, self.flow)
        features = None
        if self.lin_edge is not None:
            num_edges = edges.num_edges
            width = getattr(self.lin_edge, "in_channels", -1)
            if edge_attr is not None and edge_attr.dim() == 2 and edge_attr.size(0) == num_edges:
                check_features("edge_attr", edge_attr, width, rows="E")
            else:
                got = None if edge_attr is None else list(edge_attr.shape)
                raise ValueError(
                    f"this layer has edge_dim={self.edge_dim} and needs 'edge_attr' of shape "
                    f"[{num_edges}, {self.edge_dim}] (got {got})"
                )
            features = self.lin_edge(edge_attr).view(-1, heads, channels)
        # one graph a side: edges go wherever they go
        layout = GraphLayout.of(None, num_src, device=key.device)
        query_layout = layout
        if num_dst != num_src:
            query_layout = GraphLayout.of(None, num_dst, device=query.device)
        out = attention(
            query,
            key,
            value,
            layout,
            (EdgeMask(edges, features=features),),
            query_layout=query_layout,
            dropout_p=self.dropout if self.training else 0.0,
            backend=self.backend,
        )
        if out.is_cuda and torch.is_autocast_enabled("cuda"):
            out = out.float()  # PyG's sums over edges are in float32 there
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if not self.root_weight:
            return out
        root = self.lin_skip(x_dst)
        if self.lin_beta is None:
            return out + root
        beta = self.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()
        return beta * root + (1 - beta) * out

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        edge_attr: Tensor | None,
        index: Tensor,
        ptr: Tensor | None,
        size_i: int | None,
    ) -> Tensor:
        """``[E, H, C]``: PyG's, but that half precision is multiplied in float32."""
        dtype, half = value_j.dtype, value_j.dtype in (torch.float16, torch.bfloat16)
        if half:  # in which 300 x 300 may be infinite
            query_i, key_j = query_i.float(), key_j.float()
        out: Tensor = super().message(query_i, key_j, value_j, edge_attr, index, ptr, size_i)
        if not half or (out.is_cuda and torch.is_autocast_enabled("cuda")):
            return out  # as PyG's there
        self._alpha = vars(self)["_alpha"].to(dtype)
        return out.to(dtype)

    def _check_raw(self, edge_attr: Tensor) -> None:
        """Raises ``ValueError`` unless ``edge_attr`` can be added to keys ``[E, H, C]``."""
        allowed = (1, self.heads), (1, self.out_channels)
        shape = edge_attr.shape
        if edge_attr.dim() != 3 or shape[1] not in allowed[0] or shape[2] not in allowed[1]:
            raise ValueError(
                f"this layer was made without 'edge_dim' and adds 'edge_attr' to keys and values "
                f"as it is, which takes the shape [E, {self.heads}, {self.out_channels}] (got "
                f"{said(edge_attr)}); pass 'edge_dim' to the constructor"
            )

    def _sides(self, x: Any) -> tuple[Tensor, Tensor]:
        """The features of sources and of targets, checked."""
        widths = self.in_channels
        if isinstance(x, Tensor) and isinstance(widths, int) and widths >= 0:
            check_features("x", x, widths, sparse=True)
            return x, x
        # of lazy layers, once they are initialised
        widths = [getattr(lin, "in_channels", -1) for lin in (self.lin_key, self.lin_query)]
        if isinstance(x, Tensor):
            for width in widths:
                check_features("x", x, width, sparse=True)
            return x, x
        if not isinstance(x, (tuple, list)) or len(x) != 2:
            raise ValueError(
                f"'x' must be a tensor of shape [N, F], or a pair of them for sources and targets "
                f"(got {said(x)})"
            )
        for name, side, width in zip(("x[0]", "x[1]"), x, widths, strict=True):
            check_features(name, side, width, sparse=True)
        return x[0], x[1]
