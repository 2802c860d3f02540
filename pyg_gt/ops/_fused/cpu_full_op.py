"""The ops around ``_cpu_full``, and their place in autograd.

Host numbers are read only inside the ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layout.edge_layout import EdgeLayout
from .._kernels.cpu import full as _cpu_full
from .._kernels.cpu.full import Problem
from ..deferred import LIBRARY, TAGS, checked_table_index, found_edges
from ..memory import check
from ..op_arguments import check_pairs, layouts_of
from ..second_derivatives import differentiable_once
from .cpu_full_eager import CURE


class FullAttention(torch.autograd.Function):
    """Two ops; eager code goes by ``_cpu_full_eager``."""

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
        out, stats = torch.ops.pyg_gt.cpu_full(query, key, value, *rest)
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
            grads = torch.ops.pyg_gt.cpu_full_backward(
                grad, query, key, value, out, stats, *rest, needs
            )
        tensors = grad, query, key, value, pairs, table, edge_values
        dq, dk, dv, *rest_of = differentiable_once("cpu", CURE, grads, tensors)
        wanted = (d if need else None for d, need in zip(rest_of, needs, strict=True))
        return dq, dk, dv, *wanted, *(None,) * 9


_PROBLEM = (
    "Tensor? pairs, Tensor? table, Tensor? edge_values, Tensor? index, Tensor? edges, "
    "Tensor? seed, Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs, "
    "float scale, float dropout_p"
)
LIBRARY.define(
    f"cpu_full(Tensor query, Tensor key, Tensor value, {_PROBLEM}) -> (Tensor, Tensor)", tags=TAGS
)
LIBRARY.define(
    f"cpu_full_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
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
) -> Problem:
    """Everything is checked here: behind it are addresses."""
    _check_tensors(query, key, value)
    query_layout, layout = layouts_of(query, key, query_batch, query_graphs, batch, graphs)
    heads = query.size(1)
    if pairs is not None:
        check_pairs(pairs, query_layout, layout)
        check("pairs", pairs, (pairs.size(0), heads), torch.float32)
    if (table is None) != (index is None) or (edge_values is None) != (edges is None):
        raise ValueError("'table' needs an 'index', 'edge_values' need 'edges', and vice versa")
    if table is not None and index is not None:
        check("table", table, (table.size(0), heads), torch.float32)
        checked_table_index(index, table.size(0))
        check_pairs(index, query_layout, layout)
        check("index", index, index.shape, index.dtype)
    edge_layout: EdgeLayout | None = None
    if edge_values is not None and edges is not None:
        edge_layout = found_edges(edges, layout.num_nodes, query_layout.num_nodes)
        edge_layout.check_within_graphs(query_layout, layout)
        check("edge_values", edge_values, (edge_layout.num_edges, heads), torch.float32)
    if seed is not None:
        check("seed", seed, (1,), torch.int64)
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"'dropout_p' must lie in [0, 1] (got {dropout_p})")
    return Problem(
        query_layout, layout, pairs, table, index, edge_layout, edge_values, seed, scale, dropout_p
    )


def _check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    if query.dtype not in _cpu_full.TYPES:
        raise NotImplementedError(f"'query' must be float32 or bfloat16 (got {query.dtype})")
    if query.dim() != 3 or query.size(2) == 0:
        raise ValueError(f"'query' must have shape [Nq, H, C] and channels (got {query.shape})")
    check("query", query, query.shape, query.dtype)
    for name, x in (("key", key), ("value", value)):
        check(name, x, (key.size(0), *query.shape[1:]), query.dtype)


def _forward_op(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _cpu_full.forward(_problem(query, key, value, *rest), query, key, value)


def _gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    *numbers, needs = rest
    problem = _problem(query, key, value, *numbers)
    check("grad", grad, query.shape, query.dtype, *_cpu_full.TYPES)
    check("out", out, query.shape, query.dtype)
    check("stats", stats, (*query.shape[:2], 2), torch.float32)
    made = _cpu_full.backward(
        problem, grad, query, key, value, out, stats, tuple(needs)
    )
    # an op returns tensors, and no tensor twice
    return tuple(query.new_empty(0) if x is None else x for x in made)


LIBRARY.impl("cpu_full", _forward_op, "CPU")
LIBRARY.impl("cpu_full_backward", _gradients, "CPU")


@torch.library.register_fake("pyg_gt::cpu_full", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    return query.new_empty(query.shape), stats


@torch.library.register_fake("pyg_gt::cpu_full_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
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
