"""The ops around ``_triton_edges``, and their place in autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from .._kernels.triton.edges import launches as _triton_edges
from .._kernels.triton.edges.launches import Problem
from .._kernels.triton.full.problem import MAX_CHANNELS, TYPES, interprets
from ..deferred import LIBRARY, TAGS, found_edges
from ..memory import apply, is_plain, may_come_back_changed
from ..op_arguments import check_like
from ..second_derivatives import differentiable_once


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeLayout | DeferredEdges | Tensor,
    values: Tensor | None,
    features: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
    is_checked: bool = False,
) -> Tensor:
    """``[Nq, H, C]``; arguments as of ``Problem``.

    With ``is_checked``, what an op would check is known to hold, and ``query`` to be plain.
    """
    tensors = query, key, value, values, features
    known: EdgeLayout | Tensor
    if is_checked or is_plain(query):
        found = edges if is_checked else EdgeLayout.of(edges, key.size(0), query.size(0))
        assert isinstance(found, EdgeLayout)
        if not torch.is_grad_enabled() or not any(
            [x is not None and x.requires_grad for x in tensors]
        ):
            return _forward(*tensors, found, seed, scale, dropout_p, is_checked)[0]
        known = found
    else:  # an op takes tensors alone
        known = edges if isinstance(edges, Tensor) else edges.edge_index
    rest = known, seed, scale, dropout_p, is_checked
    if is_checked:
        return apply(EdgeAttention, *tensors, *rest)
    out: Tensor = EdgeAttention.apply(*tensors, *rest)  # type: ignore[no-untyped-call]
    return out


class EdgeAttention(torch.autograd.Function):
    """Two ops, or in eager code what stands behind them, which takes less time to call."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        values: Tensor | None,
        features: Tensor | None,
        edges: EdgeLayout | Tensor,
        seed: Tensor | None,
        scale: float,
        dropout_p: float,
        is_checked: bool,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        is_op = isinstance(edges, Tensor)
        tensors = query, key, value, values, features
        out: Tensor
        if is_op:
            out, stats = torch.ops.pyg_gt.triton_edges(*tensors, edges, seed, scale, dropout_p)
        else:
            out, stats = _forward(*tensors, edges, seed, scale, dropout_p, is_checked)
        ctx.is_checked = is_checked and not may_come_back_changed()
        ctx.save_for_backward(*tensors, edges if is_op else None, seed, out, stats)
        ctx.edges = None if is_op else edges
        ctx.numbers = scale, dropout_p
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        *tensors, edges, seed, out, stats = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:5])
        # 'create_graph=True'
        again = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if ctx.edges is not None and not again and is_plain(grad):
            rest = ctx.edges, seed, *ctx.numbers, needs, ctx.is_checked
            return *_gradients(grad, out, stats, *tensors, *rest), *(None,) * 5
        with torch.no_grad():
            edges = edges if ctx.edges is None else ctx.edges.edge_index
            grads = torch.ops.pyg_gt.triton_edges_backward(
                grad, out, stats, *tensors, edges, seed, *ctx.numbers, needs
            )
        cure = "backend='sparse' or 'reference'"
        grads = differentiable_once("triton", cure, grads, [grad, *tensors])
        wanted = (d if need else None for d, need in zip(grads, needs, strict=True))
        return *wanted, *(None,) * 5


_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? values, Tensor? features, "
    "Tensor edges, Tensor? seed, float scale, float dropout_p"
)
LIBRARY.define(f"triton_edges({_ARGUMENTS}) -> (Tensor, Tensor)", tags=TAGS)
LIBRARY.define(
    f"triton_edges_backward(Tensor grad, Tensor out, Tensor stats, {_ARGUMENTS}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
    edges: EdgeLayout | Tensor,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
) -> Problem:
    """Everything is checked here: behind it are addresses."""
    if query.dtype not in TYPES:
        raise NotImplementedError(
            f"'query' must be float32, float16 or bfloat16 (got {query.dtype})"
        )
    if query.dim() != 3 or not 0 < query.size(2) <= MAX_CHANNELS:
        raise ValueError(
            f"'query' must have shape [Nq, H, C] with C from 1 to {MAX_CHANNELS} (got "
            f"{list(query.shape)})"
        )
    queries, heads, channels = query.shape
    keys = key.size(0)
    check_like("key", key, (keys, heads, channels), query, query.dtype)
    check_like("value", value, (keys, heads, channels), query, query.dtype)
    layout = found_edges(edges, keys, queries) if isinstance(edges, Tensor) else edges
    count = layout.num_edges
    check_like("edges", layout.ends, (2, count), query, layout.ends.dtype)
    if values is not None:
        check_like("values", values, (count, heads), query, *TYPES, torch.float64)
    if features is not None:
        check_like("features", features, (count, heads, channels), query, *TYPES, torch.float64)
    if seed is not None:
        check_like("seed", seed, (1,), query, torch.int64)
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"'dropout_p' must lie in [0, 1] (got {dropout_p})")
    return Problem(layout, values, features, seed, scale, dropout_p)


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
    edges: EdgeLayout | Tensor,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
    is_checked: bool = False,
) -> tuple[Tensor, Tensor]:
    if is_checked and isinstance(edges, EdgeLayout):
        problem = Problem(edges, values, features, seed, scale, dropout_p)
    else:
        rest = values, features, edges, seed, scale, dropout_p
        problem = _problem(query, key, value, *rest)
    return _triton_edges.forward(problem, query, key, value)


def _gradients(
    grad: Tensor,
    out: Tensor,
    stats: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
    edges: EdgeLayout | Tensor,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
    needs: list[bool],
    is_checked: bool = False,
) -> list[Tensor | None]:
    if is_checked and isinstance(edges, EdgeLayout):
        problem = Problem(edges, values, features, seed, scale, dropout_p)
    else:
        rest = values, features, edges, seed, scale, dropout_p
        problem = _problem(query, key, value, *rest)
        check_like("grad", grad, query.shape, query, *TYPES)
        check_like("out", out, query.shape, query, query.dtype)
        check_like("stats", stats, (*query.shape[:2], 2), query, torch.float32)
    return _triton_edges.backward(
        problem, grad, query, key, value, out.contiguous(), stats.contiguous(), needs
    )


def _backward(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    # an op returns tensors, and no tensor twice
    return tuple(grad.new_empty(0) if x is None else x for x in _gradients(grad, *rest))


for _device in ("CUDA", "CPU") if interprets() else ("CUDA",):
    LIBRARY.impl("triton_edges", _forward, _device)
    LIBRARY.impl("triton_edges_backward", _backward, _device)


@torch.library.register_fake("pyg_gt::triton_edges", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    return query.new_empty(query.shape), stats


@torch.library.register_fake("pyg_gt::triton_edges_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _backward_fake(grad: Tensor, out: Tensor, stats: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, _, _, _, _, needs = rest
    return tuple(
        x.new_empty(x.shape) if need and x is not None else grad.new_empty(0)
        for x, need in zip(tensors, needs, strict=True)
    )
