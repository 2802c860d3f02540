"""Attention along edges: the op ``pyg_gt::edge_attention`` and its eager form.

Built as :mod:`.full` is.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from .._kernels.problem import EdgeProblem, Saved
from ..bias import checked_edges_of
from ..checks import FLOATS, check_like
from ..index_checks import checked_edges
from ..inputs import Inputs
from ..memory import apply, has_raw_memory, have_raw_memory
from ..second_derivatives import differentiable_once
from ..torch_library import LIBRARY, TAGS
from ..traced_layouts import resolved_edges
from .biases import values_on_edges
from .kernels import EAGER_ONLY, ONE_GRADIENT, edge_kernels
from .op_checks import check_dropout, check_qkv, check_saved
from .registration import as_outputs, check_needs, empty_where_needed, register
from .saved_tensors import check_kinds, kinds_of

_CURE = "backend='sparse' or 'reference'"


def edge_attention(
    inputs: Inputs, backend: str, kernels: ModuleType, *, eager_only: bool = False
) -> Tensor:
    """``[Nq, H, C]``; arguments as of :func:`~pyg_gt.ops._fused.full.full_attention`."""
    mask = inputs.mask
    assert mask is not None
    edges: EdgeLayout | DeferredEdges | Tensor = checked_edges_of(mask)
    if isinstance(edges, DeferredEdges) and inputs.layout.num_graphs != 1:
        edges = checked_edges(edges, inputs.query_layout, inputs.layout)  # inside graphs
    leaves = inputs.query, inputs.key, inputs.value, values_on_edges(inputs, mask), mask.features
    numbers = inputs.seed, inputs.scale, inputs.dropout_p
    out: Tensor
    if have_raw_memory(*leaves):
        if not isinstance(edges, EdgeLayout):  # what traced code has deferred is made now
            known = EdgeLayout.of(edges, inputs.key.size(0), inputs.query.size(0))
            assert isinstance(known, EdgeLayout)
            edges = known
        query, key, value, values, features = leaves
        problem = EdgeProblem(edges, values, features, *numbers)
        if torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in leaves]):
            return apply(_EdgeAttention, problem, backend, kernels, *leaves)
        out = kernels.forward(problem, query, key, value)[0]
        return out
    if eager_only:
        raise NotImplementedError(EAGER_ONLY)
    edge_index = edges if isinstance(edges, Tensor) else edges.edge_index
    out = torch.ops.pyg_gt.edge_attention(*leaves, edge_index, *numbers)[0]
    return out


class _EdgeAttention(torch.autograd.Function):
    """The eager form; its tensors are query, key, value, values and features."""

    @staticmethod
    def forward(
        ctx: Any, problem: EdgeProblem, backend: str, kernels: ModuleType, *leaves: Tensor | None
    ) -> Tensor:
        """``[Nq, H, C]``."""
        out: Tensor
        out, stats = kernels.forward(problem, *leaves[:3])
        kept = None if stats is None else out  # kernels without statistics read neither
        saved = *leaves, problem.seed, kept, stats
        ctx.save_for_backward(*saved)
        ctx.kinds = kinds_of(saved)
        ctx.problem = problem._replace(values=None, features=None, seed=None)
        ctx.backend, ctx.kernels = backend, kernels
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        saved = ctx.saved_tensors
        check_kinds(saved, ctx.kinds)
        *leaves, seed, out, stats = saved
        query, key, value, values, features = leaves
        problem = ctx.problem._replace(values=values, features=features, seed=seed)
        needs = tuple(ctx.needs_input_grad[3:])
        with torch.no_grad():
            grads: Any
            if has_raw_memory(grad):
                grads = ctx.kernels.backward(
                    problem, grad, Saved(query, key, value, out, stats), needs
                )
            else:  # a batch of gradients, or a compiler at work
                if ctx.kernels is not edge_kernels(query, features):
                    raise NotImplementedError(ONE_GRADIENT)
                if stats is None:
                    out, stats = query, _no_statistics(query)
                grads = torch.ops.pyg_gt.edge_attention_backward(
                    grad, out, stats, *leaves, problem.edges.edge_index, seed, problem.scale,
                    problem.dropout_p, needs,
                )  # fmt: skip
                grads = _asked_for(grads, needs)
        grads = differentiable_once(ctx.backend, _CURE, grads, (grad, *leaves))
        return None, None, None, *grads


def _asked_for(grads: Any, needs: Any) -> tuple[Tensor | None, ...]:
    return tuple(x if need else None for x, need in zip(grads, needs, strict=True))


_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? values, Tensor? features, "
    "Tensor edges, Tensor? seed, float scale, float dropout_p"
)
LIBRARY.define(f"edge_attention({_ARGUMENTS}) -> (Tensor, Tensor)", tags=TAGS)
LIBRARY.define(
    f"edge_attention_backward(Tensor grad, Tensor out, Tensor stats, {_ARGUMENTS}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
    edges: Tensor,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
) -> EdgeProblem:
    """Everything is checked here: kernels go by addresses."""
    check_qkv(edge_kernels(query, features), query, key, value)
    queries, heads, channels = query.shape
    if heads == 0:
        raise ValueError(f"'query' must have shape [Nq, H, C] with heads (got {[*query.shape]})")
    keys = key.size(0)
    layout = resolved_edges(edges, keys, queries)
    count = layout.num_edges
    check_like("edges", layout.ends, (2, count), query, layout.ends.dtype)
    if values is not None:
        check_like("values", values, (count, heads), query, *FLOATS)
    if features is not None:
        check_like("features", features, (count, heads, channels), query, *FLOATS)
    check_dropout(seed, dropout_p, query)
    return EdgeProblem(layout, values, features, seed, scale, dropout_p)


def _forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    problem = _problem(query, key, value, *rest)
    kernels = edge_kernels(query, problem.features)
    out, stats = kernels.forward(problem, query, key, value)
    return out, _no_statistics(query) if stats is None else stats


def _no_statistics(query: Tensor) -> Tensor:
    """What the op gives and takes where kernels compute the weights anew: zeros."""
    return query.new_zeros((*query.shape[:2], 2), dtype=torch.float32)


def _backward(
    grad: Tensor, out: Tensor, stats: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *given, needs = rest
    check_needs(needs, 5)
    problem = _problem(query, key, value, *given)
    check_saved(grad, out, stats, query)
    kernels = edge_kernels(query, problem.features)
    made = kernels.backward(problem, grad, Saved(query, key, value, out, stats), tuple(needs))
    return as_outputs(made, query)


def _backward_fake(grad: Tensor, out: Tensor, stats: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return empty_where_needed(rest[:5], rest[-1], grad)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, scale, dropout_p = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.numbers = scale, dropout_p


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out, stats = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:5])
    with torch.no_grad():
        grads = torch.ops.pyg_gt.edge_attention_backward(
            grad, out, stats, *tensors, *ctx.numbers, needs
        )
    backend = "triton" if tensors[0].is_cuda else "cpu"
    grads = differentiable_once(backend, _CURE, grads, (grad, *tensors[:5]))
    return *_asked_for(grads, needs), *(None,) * 4


register("edge_attention", _forward, _backward, _backward_fake, _save, _gradients)
