"""Gather, segment softmax, scatter: linear in the number of edges, in torch operations only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ..edge_layout import DeferredEdges, EdgeLayout
from ._checked import checked_edges
from ._inputs import Inputs
from ._philox import keep
from .bias import EdgeBias, EdgeMask, checked_edges_of

NAME = "sparse"


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    mask = inputs.mask
    if mask is None:
        return "it attends along edges and needs an 'EdgeMask'"
    edges = checked_edges_of(mask)
    for bias in inputs.biases:
        if not isinstance(bias, (EdgeMask, EdgeBias)):
            return f"it has scores on edges only and cannot read a '{type(bias).__name__}'"
        if not _same_edges(checked_edges_of(bias), edges):
            return "an 'EdgeBias' must lie on the very edges of the 'EdgeMask'"
    if any(isinstance(b, EdgeBias) for b in inputs.biases) and _has_repeats(edges):
        return "an 'EdgeBias' adds up over repeated edges, which edge by edge it cannot see"
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    mask = inputs.mask
    assert mask is not None
    edges = checked_edges_of(mask)
    source, target = checked_edges(edges, inputs.query_layout, inputs.layout).unbind()
    key, value = inputs.key[source], inputs.value[source]  # [E, H, C]
    if mask.features is not None:
        key, value = key + mask.features, value + mask.features
    products = inputs.query[target] * key
    wide = torch.float64 if key.dtype == torch.float64 else torch.float32
    scores = inputs.scale * products.sum(-1, dtype=wide)  # [E, H]
    for bias in inputs.biases:
        if isinstance(bias, (EdgeMask, EdgeBias)) and bias.values is not None:
            scores = scores + bias.values
    weights = segment_softmax(scores, target, inputs.query.size(0))
    if inputs.seed is not None:
        numbers = torch.arange(target.size(0), device=target.device)
        weights = weights * keep(inputs.seed, numbers, inputs.heads, inputs.dropout_p, wide)
    messages = weights.to(value.dtype).unsqueeze(-1) * value
    out: Tensor = scatter(messages, target, 0, inputs.query.size(0), reduce="sum")
    return out


def segment_softmax(scores: Tensor, index: Tensor, size: int) -> Tensor:
    """Softmax of ``scores [E, H]`` over equal ``index``; zero where all are minus infinity."""
    # 'max' of an empty segment is 0, and subtracting any constant is right
    top = scatter(scores.detach(), index, 0, size, reduce="max")
    top = top.masked_fill(top == float("-inf"), 0.0)
    exps: Tensor = (scores - top[index]).exp()
    total: Tensor = scatter(exps, index, 0, size, reduce="sum")
    return exps / total.masked_fill(total == 0, 1.0)[index]


def _same_edges(a: EdgeLayout | DeferredEdges, b: EdgeLayout | DeferredEdges) -> bool:
    return a is b or a.edge_index is b.edge_index


def _has_repeats(edges: EdgeLayout | DeferredEdges) -> bool:
    # traced code cannot know: it takes the safe side
    return not isinstance(edges, EdgeLayout) or edges.has_repeats
