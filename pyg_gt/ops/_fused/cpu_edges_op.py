"""The ops around ``_cpu_edges``, and their place in autograd: one node forward, one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from .._kernels.cpu import edges as _cpu_edges
from .._kernels.cpu.edges import Problem
from ..deferred import LIBRARY, TAGS, found_edges
from ..memory import is_plain
from ..op_arguments import needs_no_node
from ..second_derivatives import differentiable_once


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeLayout | DeferredEdges | Tensor,
    values: Tensor | None,
    features: Tensor | None,
    scale: float,
    dropout_p: float,
    seed: Tensor | None,
) -> Tensor:
    """``[Nq, H, C]``; see :class:`~pyg_gt.ops._kernels.cpu.edges.Problem` for the arguments."""
    known: EdgeLayout | DeferredEdges | Tensor
    if is_plain(query):  # what traced code has deferred is made now
        known = edges
        if not isinstance(edges, EdgeLayout):
            known = EdgeLayout.of(edges, key.size(0), query.size(0))
    else:  # an op takes tensors alone
        known = edges if isinstance(edges, Tensor) else edges.edge_index
    out: Tensor
    tensors = query, key, value, values, features
    if needs_no_node(*tensors):
        out = torch.ops.pyg_gt.cpu_edges(*tensors, known, seed, scale, dropout_p)
    else:
        out = EdgeAttention.apply(  # type: ignore[no-untyped-call]
            *tensors, known, seed, scale, dropout_p
        )
    return out


class EdgeAttention(torch.autograd.Function):
    """Two ops, or in eager code what stands behind them."""

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
    ) -> Tensor:
        """``[Nq, H, C]``."""
        run = torch.ops.pyg_gt.cpu_edges if isinstance(edges, Tensor) else _forward
        out: Tensor = run(query, key, value, values, features, edges, seed, scale, dropout_p)
        is_op = isinstance(edges, Tensor)
        ctx.save_for_backward(
            query, key, value, values, features, edges if is_op else None, seed
        )
        ctx.edges = None if is_op else edges
        ctx.numbers = scale, dropout_p
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        *tensors, edges, seed = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:5])
        # 'create_graph=True'
        again = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if ctx.edges is not None and not again and is_plain(grad):
            made = _gradients(grad, *tensors, ctx.edges, seed, *ctx.numbers, needs)
            return *made, *(None,) * 4
        with torch.no_grad():
            edges = edges if ctx.edges is None else ctx.edges.edge_index
            grads = torch.ops.pyg_gt.cpu_edges_backward(
                grad, *tensors, edges, seed, *ctx.numbers, needs
            )
        cure = "backend='sparse' or 'reference'"
        grads = differentiable_once("cpu", cure, grads, [grad, *tensors])
        wanted = (d if need else None for d, need in zip(grads, needs, strict=True))
        return *wanted, *(None,) * 4


_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? values, Tensor? features, "
    "Tensor edges, Tensor? seed, float scale, float dropout_p"
)
LIBRARY.define(f"cpu_edges({_ARGUMENTS}) -> Tensor", tags=TAGS)
LIBRARY.define(
    f"cpu_edges_backward(Tensor grad, {_ARGUMENTS}, bool[] needs) "
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
    queries, heads, channels = query.shape
    keys = key.size(0)
    _check("key", key, (keys, heads, channels), query.dtype)
    _check("value", value, (keys, heads, channels), query.dtype)
    layout = found_edges(edges, keys, queries) if isinstance(edges, Tensor) else edges
    if query.dtype not in _cpu_edges.TYPES:
        raise NotImplementedError(f"'query' must be float32 or bfloat16 (got {query.dtype})")
    if heads == 0 or channels == 0:
        raise ValueError(f"'query' must have heads and channels (got {list(query.shape)})")
    if values is not None:
        _check("values", values, (layout.num_edges, heads), query.dtype, torch.float32)
    if features is not None:
        _check("features", features, (layout.num_edges, heads, channels), query.dtype)
    if seed is not None:
        _check("seed", seed, (1,), torch.int64)
    return Problem(layout, values, features, seed, scale, dropout_p)


def _check(name: str, x: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    if x.shape != shape or x.dtype not in dtypes or not x.is_cpu:
        raise ValueError(
            f"'{name}' must have shape {list(shape)} and type {dtypes[0]} on the CPU (got "
            f"{list(x.shape)}, {x.dtype} on '{x.device}')"
        )


def _forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return _cpu_edges.forward(_problem(query, key, value, *rest), query, key, value)


def _gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor | None, ...]:
    *problem, needs = rest
    _check("grad", grad, query.shape, *_cpu_edges.TYPES)
    return _cpu_edges.backward(
        _problem(query, key, value, *problem), grad, query, key, value, tuple(needs)
    )


def _backward(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    # an op returns tensors, and no tensor twice
    return tuple(grad.new_empty(0) if x is None else x for x in _gradients(grad, *rest))


LIBRARY.impl("cpu_edges", _forward, "CPU")
LIBRARY.impl("cpu_edges_backward", _backward, "CPU")


@torch.library.register_fake("pyg_gt::cpu_edges", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.register_fake("pyg_gt::cpu_edges_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _backward_fake(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, _, _, _, _, needs = rest
    return tuple(
        x.new_empty(x.shape) if need and x is not None else grad.new_empty(0)
        for x, need in zip(tensors, needs, strict=True)
    )
