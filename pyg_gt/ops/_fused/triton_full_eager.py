"""Full attention by Triton in eager mode: no op, since nobody but autograd looks on.

Small graphs are done in less time than it takes to call an op.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._kernels.problem import FullProblem
from .._kernels.triton import full as kernels
from ..memory import apply, empty_like, is_plain, may_come_back_changed
from ..op_arguments import layout_arguments
from ..second_derivatives import differentiable_once
from .qkv import as_one, parts_of
from .triton_full_op import CURE


def attend(
    problem: FullProblem, query: Tensor, key: Tensor | None, value: Tensor | None
) -> Tensor:
    """``[Nq, H, C]``; what the door of ``attention`` has checked is not checked again.

    Args:
        problem: the attention.
        query: ``[Nq, H, C]``, plain (see ``memory``); or ``[N, 3, H, C]``, of which query, key
            and value are parts.
        key: ``[Nk, H, C]``, or None.
        value: ``[Nk, H, C]``, or None.
    """
    biases = problem.pairs, problem.table, problem.edge_values
    records = torch.is_grad_enabled() and (
        query.requires_grad
        or (key is not None and key.requires_grad)
        or (value is not None and value.requires_grad)
        or any(x is not None and x.requires_grad for x in biases)
    )  # fmt: skip
    if not records:
        return kernels.forward(problem, *parts_of(query, key, value))[0]
    if all(x is None for x in biases):
        return apply(_Attention, query, key, value, problem)
    rest = *biases, problem.table_index
    return apply(_Attention, query, key, value, _with_biases(problem, (None,) * 4), *rest)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        problem: FullProblem,
        *biases: Tensor | None,
    ) -> Tensor:
        """``[Nq, H, C]``; arguments as of :func:`attend`.

        ``biases`` are none, or pairs, table, values of edges and index of the table.
        """
        seen = _with_biases(problem, biases) if biases else problem
        out, stats = kernels.forward(seen, *parts_of(query, key, value))
        # tensors go through autograd, which sees edits and lets checkpoints drop them
        saved = query, key, value, out, stats, problem.seed, *biases
        ctx.save_for_backward(*saved)
        ctx.kinds = None
        if may_come_back_changed():
            ctx.kinds = [None if x is None else _kind(x) for x in saved]
        ctx.problem = problem if problem.seed is None else problem._replace(seed=None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        query, key, value, out, stats, seed, *biases = saved = ctx.saved_tensors
        if ctx.kinds is not None:
            _check_kinds(saved, ctx.kinds)
        problem = ctx.problem if seed is None else ctx.problem._replace(seed=seed)
        if biases:
            problem = _with_biases(problem, biases)
        # otherwise a batch of gradients, a compiler at work, or 'create_graph=True'
        plain = is_plain(grad) and not torch.is_grad_enabled()
        joined = empty_like(query) if key is None and plain else None
        parts = parts_of(query, key, value)
        needs = (*ctx.needs_input_grad[4:7], False, False, False)[:3]
        grads: tuple[Tensor | None, ...]
        if plain and not biases:
            dq, dk, dv, *_ = kernels.backward(problem, grad, *parts, out, stats, needs, joined)
            return (dq, dk, dv, None) if joined is None else (joined, None, None, None)
        with torch.no_grad():
            if plain:
                grads = kernels.backward(problem, grad, *parts, out, stats, needs, joined)
            else:
                grads = _by_op(problem, grad, *parts, out, stats, needs)
            if key is None:
                grads = (as_one(grads[:3], joined), None, None, *grads[3:])
        tensors = grad, query, key, value, problem.pairs, problem.table, problem.edge_values
        dq, dk, dv, *of_biases = differentiable_once("triton", CURE, grads, tensors)
        return dq, dk, dv, None, *((*of_biases, None) if biases else ())


def _with_biases(problem: FullProblem, biases: Sequence[Tensor | None]) -> FullProblem:
    pairs, table, edge_values, index = biases
    return problem._replace(pairs=pairs, table=table, edge_values=edge_values, table_index=index)


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
    problem: FullProblem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    edges = None if problem.edges is None else problem.edges.edge_index
    dq, dk, dv, *rest = torch.ops.pyg_gt.triton_full_backward(
        grad, query, key, value, out, stats, problem.pairs, problem.table, problem.edge_values,
        problem.table_index, edges, problem.seed,
        *layout_arguments(problem.query_layout, problem.layout), problem.scale,
        problem.dropout_p, needs,
    )  # fmt: skip
    return dq, dk, dv, *(x if need else None for x, need in zip(rest, needs, strict=True))
