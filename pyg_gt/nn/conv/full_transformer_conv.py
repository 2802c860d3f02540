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

from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias, EdgeBias, attention
from .._arguments import (
    as_biases,
    check_aggr,
    check_backend,
    check_counts,
    check_edge_index,
    check_features,
    check_flags,
    check_kwargs,
    check_probabilities,
)
from ._routes import (
    ExplainedOnRequest,
    Pairs,
    check_explained,
    needs_propagate,
    now,
    pairs_of,
)


class FullTransformerConv(ExplainedOnRequest, TransformerConv):
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
        concat: whether heads stand side by side; else their mean is taken.
        beta: whether the root and the sum are mixed by a learned gate.
        dropout: of the attention weights.
        edge_dim: width of ``edge_attr``, or None; -1 derives it from the first input.
        bias: whether linear maps have a constant term.
        root_weight: whether :math:`W_1 x_i` is added; without, there is no ``beta``.
        aggr: of PyG's ``MessagePassing``, as are the next three; another one than the sum runs on
            messages.
        aggr_kwargs: arguments of ``aggr``.
        flow: which row of ``edge_index`` sends.
        decomposed_layers: in how many parts messages are sent.
        backend: which attention backend runs; see :func:`pyg_gt.attention`.

    Raises:
        ValueError: if an argument is of the wrong type or out of range.
    """

    # not the ones that PyG generates for the parent class, which name the parent's arguments
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

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
        check_counts(lazy=True, in_channels=in_channels)
        check_counts(out_channels=out_channels, heads=heads, decomposed_layers=decomposed_layers)
        check_flags(concat=concat, beta=beta, bias=bias, root_weight=root_weight)
        check_probabilities(dropout=dropout)
        if edge_dim is not None:
            check_counts(lazy=True, edge_dim=edge_dim)
        check_aggr(aggr)
        check_kwargs(aggr_kwargs=aggr_kwargs)
        check_backend(backend)
        super().__init__(
            int(in_channels), out_channels, heads, concat, beta, dropout, None, bias, root_weight,
            aggr=aggr, aggr_kwargs=aggr_kwargs, flow=flow, decomposed_layers=decomposed_layers,
        )  # fmt: skip
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
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x: ``[N, F]``.
            edge_index: ``[2, E]``, only read with ``edge_dim``.
            edge_attr: ``[E, edge_dim]``.
            batch: ``[N]``, a ``GraphLayout``, or None for one graph.
            biases: what is added to scores, a bias or a tuple of them; see
                :func:`pyg_gt.attention`.
            return_attention_weights: with any value but None also returns
                ``(pairs [2, P], alpha [P, H])``, source above target.

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: for a wrong shape or type, if ``x`` is a pair, or ``edge_attr`` is missing
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
        heads, channels = self.heads, self.out_channels
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        biases = as_biases(biases) + self._edge_biases(edge_index, edge_attr, x.size(0))
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
            index = pairs.edge_index
            index = index if self.flow == "source_to_target" else index.flip(0)
            alpha = self.edge_updater(index, query=query, key=key, pairs=pairs)
            # propagate_type: (value: Tensor, alpha: Tensor, pairs: Any)
            size = (x.size(0), x.size(0))
            out = self.propagate(index, size=size, value=value, alpha=alpha, pairs=pairs)
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
