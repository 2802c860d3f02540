"""Full attention by compiled code in eager mode: no op, since nobody but autograd looks on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._kernels.cpu import full as _cpu_full
from .._kernels.cpu.full import Problem
from ..memory import check, empty_like, is_plain
from ..op_arguments import layout_arguments
from ..second_derivatives import differentiable_once
from .qkv import as_one, parts_of

# where there are second derivatives
CURE = "backend='reference' (all pairs) or 'sparse' (along edges)"


def attend(problem: Problem, query: Tensor, key: Tensor | None, value: Tensor | None) -> Tensor:
    """``[Nq, H, C]``; what the door of ``attention`` has checked is not checked again.

    Without a key and a value, ``query`` is ``[N, 3, H, C]``, of which all three are parts.
    """
    biases = problem.pairs, problem.table, problem.edge_values
    tensors = query, key, value, *biases
    if not torch.is_grad_enabled() or not any(x is not None and x.requires_grad for x in tensors):
        return _cpu_full.forward(problem, *parts_of(query, key, value))[0]
    out: Tensor = _Attention.apply(*tensors, problem)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        pairs: Tensor | None,
        table: Tensor | None,
        edge_values: Tensor | None,
        problem: Problem,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        out, stats = _cpu_full.forward(problem, *parts_of(query, key, value))
        # tensors go through autograd, which sees edits and lets checkpoints drop them
        saved = (
            query, key, value, pairs, table, edge_values, problem.table_index, problem.seed, out,
            stats,
        )  # fmt: skip
        ctx.save_for_backward(*saved)
        ctx.kinds = [None if x is None else (x.shape, x.dtype) for x in saved]
        ctx.problem = problem._replace(
            pairs=None, table=None, edge_values=None, table_index=None, seed=None
        )
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        saved = ctx.saved_tensors
        query, key, value, pairs, table, edge_values, index, seed, out, stats = saved
        problem = ctx.problem._replace(
            pairs=pairs, table=table, edge_values=edge_values, table_index=index, seed=seed
        )
        needs = ctx.needs_input_grad[3:6]
        with torch.no_grad():
            grads: Any
            if is_plain(grad):
                for x, kind in zip(saved, ctx.kinds, strict=True):
                    if kind is not None:  # hooks on saved tensors may hand back others
                        check("a saved tensor", x, *kind)
                joined = empty_like(query) if key is None else None
                parts = parts_of(query, key, value)
                grads = _cpu_full.backward(problem, grad, *parts, out, stats, needs, joined)
            else:  # a batch of gradients, or a compiler at work
                parts, joined = parts_of(query, key, value), None
                grads = _by_op(problem, grad, *parts, out, stats, needs)
            if key is None:
                grads = (as_one(grads[:3], joined), None, None, *grads[3:])
        tensors = grad, query, key, value, pairs, table, edge_values
        return *differentiable_once("cpu", CURE, grads, tensors), None


def _by_op(
    problem: Problem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    query_layout, layout, pairs, table, index, edges, edge_values, seed, *numbers = problem
    dq, dk, dv, *rest = torch.ops.pyg_gt.cpu_full_backward(
        grad, query, key, value, out, stats, pairs, table, edge_values, index,
        None if edges is None else edges.edge_index, seed,
        *layout_arguments(query_layout, layout), *numbers, needs,
    )  # fmt: skip
    return dq, dk, dv, *(x if need else None for x, need in zip(rest, needs, strict=True))
