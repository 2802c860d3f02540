"""Every node attends to every node of its graph."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing, TransformerConv
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.utils import softmax

from ...layout import GraphLayout
from ...ops import AttentionBias, EdgeBias, attention
from ._routes import Pairs, check_explained, needs_propagate, now, pairs_of


class FullTransformerConv(TransformerConv):
    r"""Message passing on the complete graph of each graph of a batch.

    Eqs. 17-19 of "Transformers are Graph Neural Networks" (Joshi 2025): what PyG's
    ``TransformerConv`` gives on all pairs of nodes (self-loops too), without listing them.

    .. math::
        x_i' = W_1 x_i + \sum_j \alpha_{ij} W_2 x_j, \quad \alpha_{ij} = \mathrm{softmax}_j
        \left( \frac{(W_3 x_i)^\top W_4 x_j}{\sqrt{C}} + b_{ij} \right)

    Arguments and parameter names are PyG's, so a ``state_dict`` without edge features loads either
    way. With ``edge_dim``, edge features give a learned bias for each head
    (``lin_edge_bias [edge_dim -> H]``) on the pairs that an edge joins.

    Args:
        in_channels: ``F``; -1 derives it from the first input.
        out_channels: ``C``.
        heads: ``H``.
        edge_dim: width of ``edge_attr``, or None.
        backend: which attention backend runs; see :func:`pyg_gt.attention`.
        **kwargs: as ``torch_geometric.nn.TransformerConv``.
    """

    # not the ones that PyG generates for the parent class, which name the parent's arguments
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *args: Any,
        edge_dim: int | None = None,
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        if not isinstance(in_channels, int):
            raise ValueError(
                f"'in_channels' must be one integer, since every node both sends and receives "
                f"(got {in_channels}); 'MaskedTransformerConv' takes a pair"
            )
        super().__init__(in_channels, out_channels, heads, *args, **kwargs)
        self.edge_dim = edge_dim
        self.backend = backend
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
        batch: Any = None,
        biases: tuple[AttentionBias, ...] = (),
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x: ``[N, F]``.
            edge_index: ``[2, E]``, only read with ``edge_dim``.
            edge_attr: ``[E, edge_dim]``.
            batch: ``[N]``, a ``GraphLayout``, or None for one graph.
            biases: what is added to scores; see :func:`pyg_gt.attention`.
            return_attention_weights: with any value but None also returns
                ``(pairs [2, P], alpha [P, H])``, source above target.

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: if ``x`` is a pair, or ``edge_attr`` is missing or given in vain.
        """
        if not isinstance(x, Tensor):
            raise ValueError("'x' must be one tensor: every node both sends and receives")
        heads, channels = self.heads, self.out_channels
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        biases = (*biases, *self._edge_biases(edge_index, edge_attr))
        query = self.lin_query(x).view(-1, heads, channels)
        key = self.lin_key(x).view(-1, heads, channels)
        value = self.lin_value(x).view(-1, heads, channels)
        alpha: Tensor | None = None
        if return_attention_weights is None and not needs_propagate(self, FullTransformerConv):
            dropout_p = self.dropout if self.training else 0.0
            out = attention(
                query, key, value, layout, biases, dropout_p=dropout_p, backend=self.backend
            )
        else:
            pairs = pairs_of(query, key, value, now(layout), biases)
            check_explained(self, pairs.edge_index.size(1))
            # PyG reads this line and the next of its kind
            # edge_updater_type: (query: Tensor, key: Tensor, pairs: Any)
            alpha = self.edge_updater(pairs.edge_index, query=query, key=key, pairs=pairs)
            # propagate_type: (value: Tensor, alpha: Tensor, pairs: Any)
            size = (x.size(0), x.size(0))
            out = self.propagate(
                pairs.edge_index, size=size, value=value, alpha=alpha, pairs=pairs
            )
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if self.root_weight:
            root = self.lin_skip(x)
            if self.lin_beta is None:
                out = out + root
            else:
                beta = self.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()
                out = beta * root + (1 - beta) * out
        if return_attention_weights is not None:
            return out, (pairs.edge_index, alpha)
        return out

    def edge_update(
        self, query_i: Tensor, key_j: Tensor, pairs: Pairs, index: Tensor, size_i: int | None
    ) -> Tensor:
        """``[L, H]``: the attention weight of each message."""
        return pair_weights(query_i, key_j, pairs, index, size_i)

    def message(self, value_j: Tensor, alpha: Tensor, pairs: Pairs) -> Tensor:
        """``[L, H, C]``: what each pair sends."""
        return weighted_values(value_j, alpha, pairs, self.dropout, self.training)

    def _edge_biases(self, edge_index: Any, edge_attr: Tensor | None) -> tuple[EdgeBias, ...]:
        if self.lin_edge_bias is None:
            if edge_attr is not None:
                raise ValueError(
                    "'edge_attr' was given, but this layer was made without 'edge_dim' and would "
                    "not read it; pass 'edge_dim' to the constructor"
                )
            return ()
        if edge_index is None or edge_attr is None:
            raise ValueError(
                f"this layer has edge_dim={self.edge_dim} and needs 'edge_index' and 'edge_attr'"
            )
        return (EdgeBias(edge_index, self.lin_edge_bias(edge_attr)),)


def pair_weights(
    query_i: Tensor, key_j: Tensor, pairs: Pairs, index: Tensor, size_i: int | None
) -> Tensor:
    """``[L, H]``: softmax over the messages of each node, in plain PyG operations."""
    dtype = key_j.dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    # before anything is multiplied: 300 x 300 is infinite in float16
    query_i, key_j = query_i.to(wide), key_j.to(wide)
    if pairs.features is not None:
        key_j = key_j + pairs.features
    scores = (query_i * key_j).sum(dim=-1) / math.sqrt(query_i.size(-1)) + pairs.added
    for mod in pairs.mods:
        scores = mod.apply(scores, pairs.graph, pairs.edge_index[1], pairs.edge_index[0])
    if pairs.masked is not None:
        scores = scores + pairs.masked
    weights: Tensor = softmax(scores, index, num_nodes=size_i)
    return weights.to(dtype)


def weighted_values(
    value_j: Tensor, alpha: Tensor, pairs: Pairs, dropout: float, training: bool
) -> Tensor:
    """``[L, H, C]``: values times their weights after dropout."""
    if pairs.features is not None:
        value_j = value_j + pairs.features
    return value_j * F.dropout(alpha, p=dropout, training=training).unsqueeze(-1)
