"""When a layer must send its messages through PyG's ``propagate``, and along which pairs.

The fused route never makes a message. Where somebody wants to see or change messages, the same
attention runs as gather, message and aggregate over an explicit list of pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing, SumAggregation

from ...layout.deferred import DeferredLayout
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...ops.bias import (
    AttentionBias,
    EdgeBias,
    EdgeMask,
    PairBias,
    ScoreMod,
    TableBias,
    checked_edges_of,
)
from ...ops.inputs import checked
from ...ops.pairs import pair_of_edge, pair_ptr

_METHODS = ("message", "aggregate", "update", "edge_update", "message_and_aggregate")
_HOOKS = (
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
    "_edge_update_forward_pre_hooks",
    "_edge_update_forward_hooks",
)


class ExplainedOnRequest(MessagePassing):
    """A layer without edges of its own: explainers leave it out unless it is asked for.

    ``explain`` is False until it is set to True (or None). PyG's ``clear_masks`` sets None after
    an explanation; the request stays.
    """

    @property
    def explain(self) -> bool | None:
        """Whether explainers mask the messages of this layer."""
        explain: bool | None = self._explain
        return explain

    @explain.setter
    def explain(self, explain: bool | None) -> None:
        MessagePassing.explain.fset(self, True if explain is None else explain)

    def explain_message(self, inputs: Tensor, dim_size: int | None) -> Tensor:
        """Messages times the explainer's mask, where there is one."""
        if self._edge_mask is None:
            return inputs
        masked: Tensor = super().explain_message(inputs, dim_size)
        return masked


def needs_propagate(
    conv: MessagePassing, own: type[MessagePassing], *, aggregates: bool = True
) -> bool:
    """Whether PyG's route must run: hooks, an explainer, another aggregation, or an override.

    Args:
        conv: the layer.
        own: the class of this library whose methods the fused route replaces.
        aggregates: whether PyG's layer calls ``aggr_module``, so that hooks on it count.
    """
    if conv.explain and not (conv._edge_mask is None and isinstance(conv, ExplainedOnRequest)):
        return True
    if conv.decomposed_layers > 1 or any(getattr(conv, name) for name in _HOOKS):
        return True
    aggr = conv.aggr_module
    if type(aggr) is not SumAggregation:
        return True
    if aggregates and (
        aggr._forward_hooks
        or aggr._forward_pre_hooks
        or aggr._backward_hooks
        or aggr._backward_pre_hooks
    ):
        return True
    kind, instance = type(conv), vars(conv)
    return any(
        name in instance or getattr(kind, name) is not getattr(own, name) for name in _METHODS
    )


class Pairs(NamedTuple):
    """The messages of an attention: one for each pair, or for each edge of a mask.

    Attributes:
        edge_index: ``[2, L]``, key node and query node of each message.
        added: ``[L, H]`` or ``[L, 1]``, added to its score.
        features: ``[L, H, C]`` added to its key and value, or None.
        graph: ``[L]``, its graph.
        mods: functions of the scores, applied after ``added`` and before ``masked``.
        masked: ``[L, H]`` added last, or None.
    """

    edge_index: Tensor
    added: Tensor
    features: Tensor | None
    graph: Tensor
    mods: tuple[ScoreMod, ...]
    masked: Tensor | None


def pairs_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: GraphLayout,
    biases: tuple[AttentionBias, ...],
) -> Pairs:
    """The messages of attention inside each graph, in the order of flat pairs or of edges."""
    biases = checked(query, key, value, layout, layout, biases)
    mask = next((b for b in biases if isinstance(b, EdgeMask)), None)
    flat: Tensor | None = None
    for bias in biases:
        if isinstance(bias, (PairBias, TableBias, EdgeBias)):
            values = bias.pair_values(layout, layout)
            flat = values if flat is None else flat + values
    if mask is None:
        edge_index = complete_edge_index(layout)
        added = flat
        features = masked = None
    else:
        edges = checked_edges_of(mask)
        assert isinstance(edges, EdgeLayout)  # traced code has been refused by now
        edge_index = edges.edge_index.long()  # PyG sums over messages
        added = None if flat is None else flat[pair_of_edge(edges, layout, layout)]
        features, masked = mask.features, mask.values
    if added is None:
        added = torch.zeros(edge_index.size(1), 1, device=edge_index.device)
    mods = tuple(b for b in biases if isinstance(b, ScoreMod))
    return Pairs(edge_index, added, features, layout.batch[edge_index[1]], mods, masked)


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


def now(layout: GraphLayout | DeferredLayout) -> GraphLayout:
    """The layout itself; traced code has none to list pairs from."""
    if isinstance(layout, GraphLayout):
        return layout
    raise NotImplementedError(
        "hooks, 'return_attention_weights', an explainer, another 'aggr' or an overridden message "
        "send one message for each pair, whose number traced code cannot know: call this layer "
        "outside of 'torch.compile' (for instance through 'torch.compiler.disable')"
    )


def check_explained(conv: MessagePassing, num_messages: int) -> None:
    """Raises ``ValueError`` if an explainer's mask is not one number for each pair."""
    mask = conv._edge_mask
    if conv.explain and mask is not None and mask.size(0) != num_messages:
        raise ValueError(
            f"global attention sends {num_messages} messages, one for each pair of nodes, but the "
            f"explainer's mask has length {mask.size(0)}; give the explainer the 'edge_index' of "
            f"all pairs, or set 'explain = False' on this layer to explain the local convolution "
            f"alone, as with PyG's 'GPSConv'"
        )
