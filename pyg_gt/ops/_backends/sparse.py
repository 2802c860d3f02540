"""Gather, segment softmax, scatter: linear in the number of edges, in torch operations only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from ...layout.values import is_readable, is_traced
from .._kernels.problem import EdgeProblem, Saved
from .._kernels.torch_ops import edges as kernels
from ..bias import EdgeBias, EdgeMask, checked_edges_of
from ..dropout import keep_edges
from ..index_checks import checked_edges
from ..inputs import Inputs
from ..traced_layouts import NOT_IN_A_TRACE

NAME = "sparse"


def unsupported(inputs: Inputs) -> str | None:
    """Why not: no mask of edges, a trace, biases off the mask's edges or on repeated ones."""
    mask = inputs.mask
    if mask is None:
        return "it attends along edges and needs an 'EdgeMask'"
    if is_traced():
        return NOT_IN_A_TRACE
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
    dtype = torch.float64 if inputs.query.dtype == torch.float64 else torch.float32
    values: Tensor | None = None
    for bias in inputs.biases:
        if isinstance(bias, (EdgeMask, EdgeBias)) and bias.values is not None:
            values = bias.values if values is None else values.to(dtype) + bias.values.to(dtype)
    edges = checked_edges_of(mask)
    tensors = inputs.query, inputs.key, inputs.value, values, mask.features
    if isinstance(edges, EdgeLayout) and is_readable(inputs.query) and not inputs.is_transformed:
        problem = EdgeProblem(edges, None, None, inputs.seed, inputs.scale, inputs.dropout_p)
        out: Tensor = _EdgeAttention.apply(problem, *tensors)  # type: ignore[no-untyped-call]
        return out
    edge_index = checked_edges(edges, inputs.query_layout, inputs.layout)
    return _all_edges(*tensors, edge_index, inputs.scale, inputs.dropout_p, inputs.seed)


class _EdgeAttention(torch.autograd.Function):
    """Some targets at a time, so that nothing of the size ``[E, H, C]`` is made or kept."""

    @staticmethod
    def forward(ctx: Any, problem: EdgeProblem, *leaves: Any) -> Tensor:
        """``[Nq, H, C]`` from query, key, value, values and features, which ``problem`` lacks."""
        query, key, value, values, features = leaves
        problem = problem._replace(values=values, features=features)
        out, stats = kernels.forward(problem, query, key, value)
        # a layout owns its numbers; the rest goes through autograd, which sees edits
        ctx.save_for_backward(*leaves, stats, problem.seed)
        ctx.problem = problem._replace(values=None, features=None, seed=None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        query, key, value, values, features, stats, seed = ctx.saved_tensors
        problem = ctx.problem._replace(values=values, features=features, seed=seed)
        needs = ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            saved = Saved(query, key, value, None, stats)
            return None, *kernels.backward(problem, grad, saved, needs)
        # somebody will differentiate this gradient: record it in torch operations
        tensors = query, key, value, values, features
        recorded = _all_edges(
            *tensors, problem.edges.edge_index, problem.scale, problem.dropout_p, seed
        )
        wanted = [x for x, need in zip(tensors, needs, strict=True) if need]
        grads = iter(torch.autograd.grad(recorded, wanted, grad, create_graph=True))
        return None, *(next(grads) if need else None for need in needs)


def _all_edges(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
    edge_index: Tensor,
    scale: float,
    dropout_p: float,
    seed: Tensor | None,
) -> Tensor:
    """``[Nq, H, C]`` in torch operations on all edges: for compilers and second derivatives."""
    source, target = edge_index.unbind()
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    # before anything is multiplied: 300 x 300 is infinite in float16
    key, value = key[source].to(dtype), value[source].to(dtype)  # [E, H, C]
    if features is not None:
        key, value = key + features, value + features
    scores = scale * (query[target].to(dtype) * key).sum(-1)  # [E, H]
    if values is not None:
        scores = scores + values
    weights = _segment_softmax(scores, target, query.size(0))
    if seed is not None:
        numbers = torch.arange(target.size(0), device=target.device)
        weights = weights * keep_edges(seed, numbers, query.size(1), dropout_p, dtype)
    out: Tensor = scatter(weights.unsqueeze(-1) * value, target, 0, query.size(0), reduce="sum")
    return out.to(query.dtype)


def _segment_softmax(scores: Tensor, index: Tensor, size: int) -> Tensor:
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
