"""Attention between all nodes of a graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from ...layout.deferred import DeferredLayout
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias, EdgeBias, attention
from ..arguments import as_biases, check_counts, check_edge_index, check_features
from ..attention.route import AttentionRoute, fused_route
from ..message_passing.message_reasons import (
    PairMessagePassing,
    check_explained,
    propagate_reason,
    require_concrete_layout,
)
from ..message_passing.pair_messages import PairMessages, pair_messages, weighted_values
from .transformer_conv_base import TransformerConvBase


class FullTransformerConv(PairMessagePassing, TransformerConvBase):
    r"""Message passing on the complete graph of each graph of a batch.

    Eqs. 17-19 of `"Transformers are Graph Neural Networks" <https://arxiv.org/abs/2506.22084>`_
    (Joshi 2025): what PyG's ``TransformerConv`` gives on all pairs of nodes (self-loops too),
    without listing them.

    .. math::
        x_i' = W_1 x_i + \sum_j \alpha_{ij} W_2 x_j, \quad \alpha_{ij} = \mathrm{softmax}_j
        \left( \frac{(W_3 x_i)^\top W_4 x_j}{\sqrt{C}} + b_{ij} \right)

    Arguments and parameter names are PyG's, so a ``state_dict`` without edge features loads either
    way. With ``edge_dim``, edge features give a learned bias for each head
    (``lin_edge_bias [edge_dim -> H]``) on the pairs that an edge joins.

    Args:
        in_channels (int): ``F``; -1 derives it from the first input.
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
            ``MessagePassing``; another one than the sum runs on messages. (default: :obj:`"add"`)
        aggr_kwargs (dict, optional): Arguments of ``aggr``. (default: :obj:`None`)
        flow (str): Which row of ``edge_index`` sends. (default: :obj:`"source_to_target"`)
        decomposed_layers (int): In how many parts messages are sent. (default: :obj:`1`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import FullTransformerConv
        >>> conv = FullTransformerConv(16, 8, heads=4)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> conv(x, batch=batch).shape
        torch.Size([5, 32])
        >>> out, (pairs, alpha) = conv(x, batch=batch, return_attention_weights=True)
        >>> pairs.shape, alpha.shape  # 3 * 3 + 2 * 2 pairs
        (torch.Size([2, 13]), torch.Size([13, 4]))
    """

    def __init__(
        self,
        in_channels: int,
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
            raise ValueError(
                f"'in_channels' must be one integer, since every node both sends and receives "
                f"(got {in_channels}); 'MaskedTransformerConv' takes a pair"
            )
        if edge_dim is not None:
            check_counts(lazy=True, edge_dim=edge_dim)
        super().__init__(
            in_channels, out_channels, heads, concat, beta, dropout, None, bias, root_weight,
            aggr=aggr, aggr_kwargs=aggr_kwargs, flow=flow, decomposed_layers=decomposed_layers,
            backend=backend,
        )  # fmt: skip
        self.edge_dim = edge_dim
        # explainers mask edges, and this layer has none of its own
        self.explain = False
        if edge_dim is None:
            self.register_module("lin_edge_bias", None)
        else:
            self.lin_edge_bias = Linear(edge_dim, heads, bias=False)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        edge_dim, self.edge_dim = self.edge_dim, None
        super().reset_parameters()  # knows nothing of 'lin_edge_bias'
        self.edge_dim = edge_dim
        if edge_dim is not None:
            self.lin_edge_bias.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | GraphLayout | None = None,
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor, optional): ``[2, E]``, or another of PyG's edge sets; only read
                with ``edge_dim``. (default: :obj:`None`)
            edge_attr (Tensor, optional): ``[E, edge_dim]``. (default: :obj:`None`)
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)
            biases (AttentionBias or tuple): What is added to scores, a bias or a tuple of them;
                see :func:`pyg_gt.attention`. (default: :obj:`()`)
            return_attention_weights (bool, optional): With any value but None also returns
                ``(pairs [2, P], alpha [P, H])``, source above target. (default: :obj:`None`)

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: For a wrong shape or type, if ``x`` is a pair, or ``edge_attr`` is missing
                or given in vain.
        """
        width = self.in_channels
        width = width if width >= 0 else getattr(self.lin_query, "in_channels", -1)
        check_features("x", x, width, sparse=True)
        check_edge_index(edge_index, read_here=True)
        if isinstance(batch, bool):
            raise ValueError(
                f"'batch' must be a tensor (got {batch}); attention weights are asked for by "
                f"name: 'return_attention_weights='"
            )
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        every_bias = as_biases(biases) + self._edge_biases(edge_index, edge_attr, x.size(0))
        returns_weights = return_attention_weights is not None
        query, key, value = self._project(x, x)
        out, weights = self._attend(query, key, value, layout, every_bias, returns_weights)
        out = self._join_heads(out, x)
        return (out, weights) if returns_weights else out

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
        returns_weights: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """``[N, H, C]`` and, on messages, ``(pairs [2, L], alpha [L, H])``."""
        if self._message_reason(returns_weights) is None:
            dropout_p = self.dropout if self.training else 0.0
            out = attention(
                query, key, value, layout, biases, dropout_p=dropout_p, backend=self.backend
            )
            return out, None
        pairs = pair_messages(query, key, value, require_concrete_layout(layout), biases)
        check_explained(self, pairs.edge_index.size(1))
        # PyG reads this line and the next of its kind
        # edge_updater_type: (query: Tensor, key: Tensor, pairs: Any)
        index = pairs.edge_index
        index = index if self.flow == "source_to_target" else index.flip(0)
        alpha = self.edge_updater(index, query=query, key=key, pairs=pairs)
        # propagate_type: (value: Tensor, alpha: Tensor, pairs: Any)
        size = (query.size(0), query.size(0))
        out = self.propagate(index, size=size, value=value, alpha=alpha, pairs=pairs)
        return out, (pairs.edge_index, alpha)

    def _attention_route(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
        returns_weights: bool,
    ) -> AttentionRoute:
        """How :meth:`_attend` computes, with the same arguments."""
        if (reason := self._message_reason(returns_weights)) is not None:
            return AttentionRoute("messages", reason, self.backend)
        dropout_p = self.dropout if self.training else 0.0
        return fused_route(query, key, value, layout, biases, self.backend, dropout_p)

    def _message_reason(self, returns_weights: bool) -> str | None:
        if returns_weights:
            return "its weights are asked for ('return_attention_weights')"
        return propagate_reason(self, FullTransformerConv)

    def message(self, value_j: Tensor, alpha: Tensor, pairs: PairMessages) -> Tensor:
        """``[L, H, C]``: what each pair sends."""
        return weighted_values(value_j, alpha, pairs, self.dropout, self.training)

    def _edge_biases(
        self, edge_index: Any, edge_attr: Tensor | None, num_nodes: int
    ) -> tuple[EdgeBias, ...]:
        if self.lin_edge_bias is None:
            if edge_attr is not None:
                raise ValueError(
                    "'edge_attr' was given, but this layer was made without 'edge_dim' and would "
                    "not read it; pass 'edge_dim' to the constructor (a batch vector is given by "
                    "name: 'batch=')"
                )
            return ()
        if edge_index is None or edge_attr is None:
            raise ValueError(
                f"this layer has edge_dim={self.edge_dim} and needs 'edge_index' and 'edge_attr'"
            )
        check_features(
            "edge_attr", edge_attr, getattr(self.lin_edge_bias, "in_channels", -1), rows="E"
        )
        if self.flow != "source_to_target":
            edge_index = EdgeLayout.of(edge_index, num_nodes, flow=self.flow)
        return (EdgeBias(edge_index, self.lin_edge_bias(edge_attr)),)
