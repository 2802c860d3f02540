"""Attention along edges."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...layout.deferred import DeferredLayout
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...ops import EdgeMask, attention
from ..arguments import check_edge_index, check_features, describe
from ..attention.route import AttentionRoute, fused_route
from ..message_passing.edge_sets import for_pyg, values_of
from ..message_passing.message_reasons import propagate_reason
from .transformer_conv_base import TransformerConvBase


class MaskedTransformerConv(TransformerConvBase):
    r"""PyG's ``TransformerConv`` on this library's attention.

    `"Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification"
    <https://arxiv.org/abs/2009.03509>`_ (Shi et al. 2021); eqs. 14-16 of `"Transformers are Graph
    Neural Networks" <https://arxiv.org/abs/2506.22084>`_ (Joshi 2025):

    .. math::
        x_i' = W_1 x_i + \sum_{j \in N(i)} \alpha_{ij} (W_2 x_j + W_6 e_{ij}), \quad
        \alpha_{ij} = \mathrm{softmax}_j \left(
        \frac{(W_3 x_i)^\top (W_4 x_j + W_6 e_{ij})}{\sqrt{C}} \right)

    Arguments, parameter names and outputs are PyG's, and
    ``pyg_gt.nn.TransformerConv`` is another name of this class. With hooks on messages, an
    explainer, another ``aggr``, ``return_attention_weights``, an overridden ``message`` or raw
    ``edge_attr`` without ``edge_dim``, PyG's own route runs. There is no ``batch``: edges say who
    attends to whom.

    Args:
        in_channels (int or tuple): ``F``, or a pair for sources and targets; -1 derives it from
            the first input.
        out_channels (int): ``C``.
        heads (int): ``H``. (default: :obj:`1`)
        concat (bool): Whether heads stand side by side; else their mean is taken.
            (default: :obj:`True`)
        beta (bool): Whether the root and the sum are mixed by a learned gate.
            (default: :obj:`False`)
        dropout (float): Probability with which an attention weight is dropped in training.
            (default: :obj:`0.0`)
        edge_dim (int, optional): Width of ``edge_attr``; -1 derives it from the first input.
            (default: :obj:`None`)
        bias (bool): Whether linear maps have a constant term. (default: :obj:`True`)
        root_weight (bool): Whether :math:`W_1 x_i` is added; without, there is no ``beta``.
            (default: :obj:`True`)
        aggr (str or list or Aggregation): How messages are aggregated, as in PyG's
            ``MessagePassing``; another one than the sum runs PyG's route. (default: :obj:`"add"`)
        aggr_kwargs (dict, optional): Arguments of ``aggr``. (default: :obj:`None`)
        flow (str): Which row of ``edge_index`` sends. (default: :obj:`"source_to_target"`)
        decomposed_layers (int): In how many parts messages are sent. (default: :obj:`1`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import MaskedTransformerConv
        >>> conv = MaskedTransformerConv(16, 8, heads=4, edge_dim=3)
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> conv(x, edge_index, edge_attr=torch.randn(4, 3)).shape
        torch.Size([3, 32])
    """

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor or tuple): ``[N, F]``, or a pair for sources and targets.
            edge_index (Tensor): ``[2, E]``, an ``EdgeIndex``, a ``SparseTensor``, a
                ``torch.sparse`` tensor (transposed, as in PyG; its values act as ``edge_attr``) or
                an ``EdgeLayout``.
            edge_attr (Tensor, optional): ``[E, edge_dim]``. (default: :obj:`None`)
            return_attention_weights (bool, optional): With any value but None, PyG's route also
                returns ``(edge_index, alpha [E, H])``. (default: :obj:`None`)

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: For a wrong shape or type, or if ``edge_attr`` is missing.
            IndexError: If an index is out of range.
        """
        self._check_features(x)
        check_edge_index(edge_index, read_here=True)
        if edge_attr is None:
            edge_attr = values_of(edge_index)
        elif not isinstance(edge_attr, Tensor) or (
            edge_attr.dim() == 1 and not edge_attr.is_floating_point()
        ):
            raise ValueError(
                f"'edge_attr' must hold the features of each edge (got {describe(edge_attr)}); "
                f"attention along edges needs no 'batch'"
            )
        if edge_attr is not None and self.lin_edge is None:
            self._check_raw(edge_attr)
        return self._attend(x, edge_index, edge_attr, return_attention_weights)

    def _attend(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_attr: Tensor | None,
        return_attention_weights: bool | None,
    ) -> Any:
        """The layer on checked features, on the fused route or on PyG's."""
        if self._message_reason(edge_attr, return_attention_weights) is not None:
            return super().forward(x, for_pyg(edge_index), edge_attr, return_attention_weights)
        call = self._call(x, edge_index, edge_attr)
        out = attention(
            call.query,
            call.key,
            call.value,
            call.layout,
            (call.mask,),
            query_layout=call.query_layout,
            dropout_p=self.dropout if self.training else 0.0,
            backend=self.backend,
        )
        if out.is_cuda and torch.is_autocast_enabled("cuda"):
            out = out.float()  # PyG's sums over edges are in float32 there
        return self._join_heads(out, x if isinstance(x, Tensor) else x[1])

    def _attention_route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_attr: Tensor | None,
        return_attention_weights: bool | None,
    ) -> AttentionRoute:
        """How :meth:`_attend` computes, with the same arguments."""
        reason = self._message_reason(edge_attr, return_attention_weights)
        if reason is not None:
            return AttentionRoute("messages", reason, self.backend)
        call = self._call(x, edge_index, edge_attr)
        return fused_route(
            call.query,
            call.key,
            call.value,
            call.layout,
            (call.mask,),
            self.backend,
            self.dropout if self.training else 0.0,
            query_layout=call.query_layout,
        )

    def _message_reason(self, edge_attr: Tensor | None, weights: bool | None) -> str | None:
        if weights is not None:
            return "its weights are asked for ('return_attention_weights')"
        if edge_attr is not None and self.lin_edge is None:
            return "it adds 'edge_attr' as it is, since it was made without 'edge_dim'"
        return propagate_reason(self, MaskedTransformerConv)

    def _call(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Any, edge_attr: Tensor | None
    ) -> _Call:
        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        query, key, value = self._project(x_src, x_dst)
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
            features = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
        # one graph a side: edges go wherever they go
        layout = GraphLayout.of(None, num_src, device=key.device)
        query_layout = layout
        if num_dst != num_src:
            query_layout = GraphLayout.of(None, num_dst, device=query.device)
        return _Call(query, key, value, layout, EdgeMask(edges, features=features), query_layout)

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
                f"{describe(edge_attr)}); pass 'edge_dim' to the constructor"
            )

    def _check_features(self, x: Any) -> None:
        """Raises ``ValueError`` unless ``x`` has features of nodes, or of sources and targets."""
        widths = self.in_channels
        if isinstance(x, Tensor) and isinstance(widths, int) and widths >= 0:
            check_features("x", x, widths, sparse=True)
            return
        # of lazy layers, once they are initialised
        widths = [getattr(lin, "in_channels", -1) for lin in (self.lin_key, self.lin_query)]
        if isinstance(x, Tensor):
            for width in widths:
                check_features("x", x, width, sparse=True)
            return
        if not isinstance(x, (tuple, list)) or len(x) != 2:
            raise ValueError(
                f"'x' must be a tensor of shape [N, F], or a pair of them for sources and targets "
                f"(got {describe(x)})"
            )
        for name, side, width in zip(("x[0]", "x[1]"), x, widths, strict=True):
            check_features(name, side, width, sparse=True)


class _Call(NamedTuple):
    """The arguments of one call of :func:`pyg_gt.attention`."""

    query: Tensor
    key: Tensor
    value: Tensor
    layout: GraphLayout | DeferredLayout
    mask: EdgeMask
    query_layout: GraphLayout | DeferredLayout
