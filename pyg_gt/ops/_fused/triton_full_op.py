"""The ops around the Triton kernels of full attention, and their place in autograd.

Host numbers are read only inside the ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._kernels.problem import FullProblem
from .._kernels.triton import full as kernels
from .._kernels.triton.availability import interprets
from .._kernels.triton.full import MAX_CHANNELS, TYPES
from ..deferred import LIBRARY, TAGS, checked_table_index, found_edges
from ..op_arguments import check_like, check_pairs, layouts_of
from ..second_derivatives import differentiable_once

# where there are second derivatives
CURE = "backend='reference'"


class FullAttention(torch.autograd.Function):
    """Two ops, so that ``torch.compile`` sees one node forward and one backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pairs: Tensor | None,
        table: Tensor | None,
        edge_values: Tensor | None,
        index: Tensor | None,
        edges: Tensor | None,
        seed: Tensor | None,
        query_batch: Tensor | None,
        query_graphs: int,
        batch: Tensor | None,
        graphs: int,
        scale: float,
        dropout_p: float,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        rest = (
            pairs, table, edge_values, index, edges, seed, query_batch, query_graphs, batch,
            graphs, scale, dropout_p,
        )  # fmt: skip
        out, stats = torch.ops.pyg_gt.triton_full(query, key, value, *rest)
        ctx.save_for_backward(
            query, key, value, pairs, table, edge_values, index, edges, seed, query_batch, batch,
            out, stats,
        )  # fmt: skip
        ctx.numbers = query_graphs, graphs, scale, dropout_p
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        (
            query, key, value, pairs, table, edge_values, index, edges, seed, query_batch, batch,
            out, stats,
        ) = ctx.saved_tensors  # fmt: skip
        query_graphs, graphs, scale, dropout_p = ctx.numbers
        needs = list(ctx.needs_input_grad[3:6])
        rest = (
            pairs, table, edge_values, index, edges, seed, query_batch, query_graphs, batch,
            graphs, scale, dropout_p,
        )  # fmt: skip
        with torch.no_grad():
            grads = torch.ops.pyg_gt.triton_full_backward(
                grad, query, key, value, out, stats, *rest, needs
            )
        tensors = grad, query, key, value, pairs, table, edge_values
        dq, dk, dv, *of_biases = differentiable_once("triton", CURE, grads, tensors)
        wanted = (d if need else None for d, need in zip(of_biases, needs, strict=True))
        return dq, dk, dv, *wanted, *(None,) * 9


_PROBLEM = (
    "Tensor? pairs, Tensor? table, Tensor? edge_values, Tensor? index, Tensor? edges, "
    "Tensor? seed, Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs, "
    "float scale, float dropout_p"
)
LIBRARY.define(
    f"triton_full(Tensor query, Tensor key, Tensor value, {_PROBLEM}) -> (Tensor, Tensor)",
    tags=TAGS,
)
LIBRARY.define(
    f"triton_full_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor stats, {_PROBLEM}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pairs: Tensor | None,
    table: Tensor | None,
    edge_values: Tensor | None,
    index: Tensor | None,
    edges: Tensor | None,
    seed: Tensor | None,
    query_batch: Tensor | None,
    query_graphs: int,
    batch: Tensor | None,
    graphs: int,
    scale: float,
    dropout_p: float,
) -> FullProblem:
    """Everything is checked here: behind it are addresses."""
    _check_tensors(query, key, value)
    query_layout, layout = layouts_of(query, key, query_batch, query_graphs, batch, graphs)
    heads = query.size(1)
    if pairs is not None:
        check_pairs(pairs, query_layout, layout)
        check_like("pairs", pairs, (pairs.size(0), heads), query, *TYPES, torch.float64)
    if (table is None) != (index is None) or (edge_values is None) != (edges is None):
        raise ValueError("'table' needs an 'index', 'edge_values' need 'edges', and vice versa")
    if table is not None and index is not None:
        check_like("table", table, (table.size(0), heads), query, *TYPES, torch.float64)
        checked_table_index(index, table.size(0))
        check_pairs(index, query_layout, layout)
        check_like("index", index, index.shape, query, index.dtype)
        if index.dtype in (torch.uint8, torch.int16):  # not found by identity, as in eager code
            index = index.int()
    if seed is not None:
        check_like("seed", seed, (1,), query, torch.int64)
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"'dropout_p' must lie in [0, 1] (got {dropout_p})")
    found = None
    if edge_values is not None and edges is not None:
        found = found_edges(edges, layout.num_nodes, query_layout.num_nodes)
        shape = found.num_edges, heads
        check_like("edge_values", edge_values, shape, query, edge_values.dtype)
    return FullProblem(
        query_layout, layout, pairs, table, index, found, edge_values, seed, scale, dropout_p
    )


def _check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    if query.dtype not in TYPES:
        raise NotImplementedError(
            f"'query' must be float32, float16 or bfloat16 (got {query.dtype})"
        )
    if query.dim() != 3 or not 0 < query.size(2) <= MAX_CHANNELS:
        raise ValueError(
            f"'query' must have shape [Nq, H, C] with C from 1 to {MAX_CHANNELS} (got "
            f"{list(query.shape)})"
        )
    for name, x in (("key", key), ("value", value)):
        check_like(name, x, (key.size(0), *query.shape[1:]), query, query.dtype)


def _forward_op(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return kernels.forward(_problem(query, key, value, *rest), query, key, value)


def _backward_op(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *given, needs = rest
    problem = _problem(query, key, value, *given)
    check_like("grad", grad, query.shape, query, grad.dtype)
    check_like("out", out, query.shape, query, query.dtype)
    check_like("stats", stats, (*query.shape[:2], 2), query, torch.float32)
    made = kernels.backward(problem, grad, query, key, value, out, stats, needs)
    # an op returns tensors, no tensor twice, and as its fake says that they lie in memory
    return tuple(query.new_empty(0) if x is None else x.contiguous() for x in made)


_DEVICES = ("CUDA", "CPU") if interprets() else ("CUDA",)
for _device in _DEVICES:
    LIBRARY.impl("triton_full", _forward_op, _device)
    LIBRARY.impl("triton_full_backward", _backward_op, _device)


@torch.library.register_fake("pyg_gt::triton_full", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    return query.new_empty(query.shape), stats


@torch.library.register_fake("pyg_gt::triton_full_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *biases, _, _, _, _, _, _, _, _, _, needs = rest
    like = [x.new_empty(x.shape) for x in (query, key, value)]
    made = [
        x.new_empty(x.shape) if need and x is not None else query.new_empty(0)
        for x, need in zip(biases, needs, strict=True)
    ]
    return (*like, *made)
