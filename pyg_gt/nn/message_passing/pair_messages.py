"""Attention as gather, message and aggregate over an explicit list of pairs.

The fused route never makes a message. Where somebody wants to see or change messages, the same
attention runs on these.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import softmax

from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...ops.bias import ADDITIVE, AttentionBias, EdgeMask, ScoreMod, checked_edges_of
from ...ops.checks import checked
from ...ops.pairs import pair_of_edge, pair_ptr


class PairMessages(NamedTuple):
    """The messages of an attention: one for each pair, or for each edge of a mask.

    Attributes:
        edge_index: ``[2, L]``, key node and query node of each message.
        added: ``[L, H]`` or ``[L, 1]``, added to its score.
        features: ``[L, H, C]`` added to its key and value, or None.
        graph: ``[L]``, its graph.
        mods: Functions of the scores, applied after ``added`` and before ``masked``.
        masked: ``[L, H]`` added last, or None.
    """

    edge_index: Tensor
    added: Tensor
    features: Tensor | None
    graph: Tensor
    mods: tuple[ScoreMod, ...]
    masked: Tensor | None


def pair_messages(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: GraphLayout,
    biases: tuple[AttentionBias, ...],
) -> PairMessages:
    """The messages of attention inside each graph, in the order of flat pairs or of edges."""
    biases = checked(query, key, value, layout, layout, biases)
    mask = next((b for b in biases if isinstance(b, EdgeMask)), None)
    flat: Tensor | None = None
    for bias in biases:
        if isinstance(bias, ADDITIVE):
            values = bias.pair_values(layout, layout)
            flat = values if flat is None else flat + values
    if mask is None:
        edge_index = complete_edge_index(layout)
        added = flat
        features = masked = None
    else:
        edges = checked_edges_of(mask)
        assert isinstance(edges, EdgeLayout)  # the layout is concrete, so nothing is traced
        edge_index = edges.edge_index.long()  # PyG sums over messages
        added = None if flat is None else flat[pair_of_edge(edges, layout, layout)]
        features, masked = mask.features, mask.values
    if added is None:
        added = torch.zeros(edge_index.size(1), 1, device=edge_index.device)
    mods = tuple(b for b in biases if isinstance(b, ScoreMod))
    return PairMessages(edge_index, added, features, layout.batch[edge_index[1]], mods, masked)


def complete_edge_index(layout: GraphLayout) -> Tensor:
    """``[2, P]``: every ordered pair of nodes of one graph, self-loops too, as messages."""
    ptr = pair_ptr(layout, layout)
    graph = torch.repeat_interleave(ptr.diff())
    local = torch.arange(graph.numel(), device=graph.device) - ptr[graph]
    size = layout.ptr.diff()[graph]
    order = layout.order
    start = layout.ptr[graph]
    source, target = start + local % size, start + local // size
    return torch.stack([source, target] if order is None else [order[source], order[target]])


def pair_weights(
    query_i: Tensor, key_j: Tensor, pairs: PairMessages, index: Tensor, size_i: int | None
) -> Tensor:
    """``[L, H]``: softmax over the messages of each node, in plain PyG operations."""
    dtype = key_j.dtype
    score_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    # before anything is multiplied: 300 x 300 is infinite in float16
    query_i, key_j = query_i.to(score_dtype), key_j.to(score_dtype)
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
    value_j: Tensor, alpha: Tensor, pairs: PairMessages, dropout: float, training: bool
) -> Tensor:
    """``[L, H, C]``: values times their weights after dropout."""
    if pairs.features is not None:
        value_j = value_j + pairs.features
    return value_j * F.dropout(alpha, p=dropout, training=training).unsqueeze(-1)
