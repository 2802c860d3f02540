"""Self-attention on a ragged batch: fused, by messages, with hooks, or padded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias
from .hooked import Compute, has_hooks, hooked_attention
from .multihead import multihead_attention, padding_reason, project
from .padded import padded_attention
from .route import AttentionRoute, fused_route


def self_attention(
    attn: Any,
    x: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    backend: str,
    messages: Compute | None = None,
) -> Tensor:
    """``[N, F]``: what ``attn`` gives for each graph by itself.

    Args:
        attn: A ``torch.nn.MultiheadAttention``, or PyG's ``PerformerAttention``.
        x: ``[N, F]``.
        layout: How ``x`` is split into graphs.
        biases: What is added to scores.
        backend: Which attention backend runs.
        messages: Computes attention by PyG's messages instead of a backend.
    """
    if (reason := padding_reason(attn)) is not None:
        return padded_attention(attn, x, layout, biases, reason)
    if has_hooks(attn):
        hooked: Tensor = hooked_attention(attn, x, layout, biases, backend, messages)
        return hooked
    if messages is not None:
        return messages(x, x, x)
    return multihead_attention(attn, x, x, x, layout, biases, backend)


def self_attention_route(
    attn: Any,
    x: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    backend: str,
    messages: str | None = None,
) -> AttentionRoute:
    """The route of :func:`self_attention`; ``messages`` says why there are messages, if any."""
    if (reason := padding_reason(attn)) is not None:
        return AttentionRoute("padded", reason, backend)
    if messages is not None:
        return AttentionRoute("messages", messages, backend)
    dropout_p = attn.dropout if attn.training else 0.0
    route = fused_route(*project(attn, x, x, x), layout, biases, backend, dropout_p)
    if has_hooks(attn) and not route.is_refused:
        return replace(route, reason="hooks on 'attn' are called with PyG's padded batch")
    return route
