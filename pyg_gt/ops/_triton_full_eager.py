"""Full attention by Triton in eager mode: no op, since nobody but autograd looks on.

Small graphs are done in less time than it takes to call an op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import _triton_full
from ._addresses import is_plain, may_come_back_changed
from ._once_differentiable import differentiable_once
from ._op_arguments import layout_arguments
from ._triton_full import Problem
from ._triton_full_call import Biases, gradients, on_pairs
from ._triton_full_op import CURE
from .bias import num_pairs


def attend(
    problem: Problem,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edge_index: Tensor | None = None,
    edge_pairs: Tensor | None = None,
    edge_values: Tensor | None = None,
) -> Tensor:
    """``[Nq, H, C]``; what the door of ``attention`` has checked is not checked again.

    Args:
        problem: all but what is added on edges.
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        edge_index: ``[2, E]``, or None.
        edge_pairs: ``[E]``, the pair of each edge.
        edge_values: ``[E, H]``.
    """
    tensors = query, key, value, problem.pairs, problem.table, edge_values
    if not torch.is_grad_enabled() or not any(x is not None and x.requires_grad for x in tensors):
        problem = _with_edges(problem, edge_pairs, edge_values)
        return _triton_full.forward(problem, query, key, value)[0]
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        *tensors, edge_index, edge_pairs, problem
    )
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pairs: Tensor | None,
        table: Tensor | None,
        edge_values: Tensor | None,
        edge_index: Tensor | None,
        edge_pairs: Tensor | None,
        problem: Problem,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        seen = _with_edges(problem, edge_pairs, edge_values)
        out, stats = _triton_full.forward(seen, query, key, value)
        # tensors go through autograd, which sees edits and lets checkpoints drop them
        saved = (
            query, key, value, pairs, table, edge_values, problem.index, edge_index, edge_pairs,
            problem.seed, out, stats,
        )  # fmt: skip
        ctx.save_for_backward(*saved)
        ctx.kinds = None
        if may_come_back_changed():
            ctx.kinds = [None if x is None else _kind(x) for x in saved]
        ctx.problem = problem.without_tensors()
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        saved = ctx.saved_tensors
        if ctx.kinds is not None:
            _check_kinds(saved, ctx.kinds)
        query, key, value, pairs, table, edge_values, index, edges, edge_pairs, *rest = saved
        seed, out, stats = rest
        problem = ctx.problem.with_tensors(pairs, table, index, seed)
        biases = Biases(pairs, table, edge_values)
        needs = ctx.needs_input_grad[3:6]
        grads: tuple[Tensor | None, ...]
        with torch.no_grad():
            if is_plain(grad):
                seen = _with_edges(problem, edge_pairs, edge_values)
                grads = gradients(
                    seen, edge_pairs, biases, grad, query, key, value, out, stats, needs
                )
            else:  # a batch of gradients, or a compiler at work
                grads = _by_op(
                    problem, edges, edge_values, grad, query, key, value, out, stats, needs
                )
        tensors = grad, query, key, value, pairs, table, edge_values
        return *differentiable_once("triton", CURE, grads, tensors), None, None, None


def _with_edges(
    problem: Problem, edge_pairs: Tensor | None, edge_values: Tensor | None
) -> Problem:
    if edge_values is None:
        return problem
    size = num_pairs(problem.query_layout, problem.layout)
    return replace(problem, pairs=on_pairs(problem.pairs, edge_pairs, edge_values, size))


def _check_kinds(saved: Sequence[Tensor | None], kinds: Sequence[Any]) -> None:
    for x, kind in zip(saved, kinds, strict=True):
        if x is not None and _kind(x) != kind:
            raise ValueError(
                f"a saved tensor must have shape, type and device {kind} as before (got "
                f"{_kind(x)}); a hook on saved tensors must hand back an equal one"
            )


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.device


def _by_op(
    problem: Problem,
    edges: Tensor | None,
    edge_values: Tensor | None,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    dq, dk, dv, *rest = torch.ops.pyg_gt.triton_full_backward(
        grad, query, key, value, out, stats, problem.pairs, problem.table, edge_values,
        problem.index, edges, problem.seed,
        *layout_arguments(problem.query_layout, problem.layout), problem.scale,
        problem.dropout_p, needs,
    )  # fmt: skip
    return dq, dk, dv, *(x if need else None for x, need in zip(rest, needs, strict=True))
