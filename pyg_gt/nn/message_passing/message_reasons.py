"""Reasons to send PyG's messages instead of calling a fused backend."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.nn import MessagePassing, SumAggregation

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from .pair_messages import PairMessages, pair_weights

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


class PairMessagePassing(MessagePassing):
    """Base class of layers whose messages are pairs of nodes, which explainers leave out.

    ``explain`` is False until it is set to True (or None). PyG's ``clear_masks`` sets None after
    an explanation; the request stays.
    """

    # not the ones that PyG generates for a parent class, which name the parent's arguments
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

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

    def edge_update(
        self,
        query_i: Tensor,
        key_j: Tensor,
        pairs: PairMessages,
        index: Tensor,
        size_i: int | None,
    ) -> Tensor:
        """``[L, H]``: the attention weight of each message."""
        return pair_weights(query_i, key_j, pairs, index, size_i)


def propagate_reason(
    conv: MessagePassing, base: type[MessagePassing], *, aggregates: bool = True
) -> str | None:
    """Why PyG's ``propagate`` must run, in words; None if the fused route gives the same.

    Args:
        conv: The layer.
        base: The class of this library whose methods the fused route replaces.
        aggregates: Whether PyG's layer calls ``aggr_module``, so that hooks on it count.
    """
    if conv.explain and not (conv._edge_mask is None and isinstance(conv, PairMessagePassing)):
        return "an explainer masks its messages ('explain')"
    if conv.decomposed_layers > 1:
        return f"decomposed_layers={conv.decomposed_layers}"
    for name in _HOOKS:
        if getattr(conv, name):
            return f"it has hooks on its messages ('{name}')"
    aggr = conv.aggr_module
    if type(aggr) is not SumAggregation:
        return f"it aggregates by '{type(aggr).__name__}', not by a sum"
    if aggregates and (
        aggr._forward_hooks
        or aggr._forward_pre_hooks
        or aggr._backward_hooks
        or aggr._backward_pre_hooks
    ):
        return "its 'aggr_module' has hooks"
    kind, instance = type(conv), vars(conv)
    for name in _METHODS:
        if name in instance or getattr(kind, name) is not getattr(base, name):
            return f"'{kind.__name__}' overrides '{name}'"
    return None


def require_concrete_layout(layout: GraphLayout | DeferredLayout) -> GraphLayout:
    """The layout itself.

    Raises:
        NotImplementedError: if it is deferred: traced code has no pairs to list.
    """
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
