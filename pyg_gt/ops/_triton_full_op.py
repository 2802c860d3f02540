"""The ops around ``_triton_full``, and their place in autograd.

Host numbers are read only inside the ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..edge_layout import EdgeLayout
from ..layout import DeferredLayout, GraphLayout
from . import _triton_full
from ._checked import LIBRARY, TAGS, checked_table_index, resolved
from ._triton_full import MAX_CHANNELS, MAX_TABLE_ROWS, TYPES, Problem
from .bias import num_pairs, pair_of_edge

# in place of the number of graphs: the queries' layout is the keys'
SAME = -2


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
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # 'create_graph=True'
            grads = _DifferentiableOnce.apply(  # type: ignore[no-untyped-call]
                *grads, grad, query, key, value, pairs, table, edge_values
            )
        dq, dk, dv, *of_biases = grads
        wanted = (d if need else None for d, need in zip(of_biases, needs, strict=True))
        return dq, dk, dv, *wanted, *(None,) * 9


class _DifferentiableOnce(torch.autograd.Function):
    """Gradients that refuse to be differentiated, as in ``_bucketed_op``."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The first six: the gradients, without what they were made from."""
        return tensors[:6]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Nothing."""
        raise NotImplementedError(
            "the 'triton' backend has no second derivative; pass backend='reference'"
        )


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


class _Call(NamedTuple):
    """A problem, in which the values on edges are among those of pairs already.

    Attributes:
        problem: what the kernels see.
        edge_pairs: ``[E]``, the pair of each edge, or None.
    """

    problem: Problem
    edge_pairs: Tensor | None


def _call(
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
) -> _Call:
    """Everything is checked here: behind it are addresses."""
    _check_tensors(query, key, value)
    key_side = query_side = DeferredLayout(batch, key.size(0), graphs)
    if query_graphs != SAME:
        query_side = DeferredLayout(query_batch, query.size(0), query_graphs)
    elif query.size(0) != key.size(0):
        raise ValueError(f"there are {query.size(0)} queries, but their layout is the keys'")
    query_layout, layout = resolved(query_side, key_side, query.device)
    heads = query.size(1)
    if pairs is not None:
        _check_pairs(pairs, query_layout, layout)
        _check("pairs", pairs, (pairs.size(0), heads), query, *TYPES, torch.float64)
    if (table is None) != (index is None) or (edge_values is None) != (edges is None):
        raise ValueError("'table' needs an 'index', 'edge_values' need 'edges', and vice versa")
    if table is not None and index is not None:
        _check("table", table, (table.size(0), heads), query, *TYPES, torch.float64)
        checked_table_index(index, table.size(0))
        _check_pairs(index, query_layout, layout)
        _check("index", index, index.shape, query, index.dtype)
    if seed is not None:
        _check("seed", seed, (1,), query, torch.int64)
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"'dropout_p' must lie in [0, 1] (got {dropout_p})")
    edge_pairs = None
    if edge_values is not None and edges is not None:
        edge_pairs = _edge_pairs(edges, query_layout, layout)
        _check("edge_values", edge_values, (edge_pairs.size(0), heads), query, edge_values.dtype)
        if pairs is None:
            pairs = query.new_zeros((num_pairs(query_layout, layout), heads), dtype=torch.float32)
        # torch sorts here where 'index_add' and 'scatter' are atomic
        pairs = pairs.float().index_put((edge_pairs,), edge_values.float(), accumulate=True)
    problem = Problem(query_layout, layout, pairs, table, index, seed, scale, dropout_p)
    return _Call(problem, edge_pairs)


def _edge_pairs(edges: Tensor, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
    made = EdgeLayout.of(edges, layout.num_nodes, query_layout.num_nodes)
    assert isinstance(made, EdgeLayout)
    made.check_within_graphs(query_layout, layout)
    key = ("pairs", weakref.ref(query_layout), weakref.ref(layout))
    return made.once(key, lambda: pair_of_edge(made, query_layout, layout))


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
        _check(name, x, (key.size(0), *query.shape[1:]), query, query.dtype)


def _check_pairs(bias: Tensor, query_layout: GraphLayout, layout: GraphLayout) -> None:
    pairs = num_pairs(query_layout, layout)
    if bias.size(0) != pairs:
        raise ValueError(f"a bias describes {bias.size(0)} pairs, but the layout has {pairs}")


def _check(
    name: str, x: Tensor, shape: tuple[int, ...], query: Tensor, *dtypes: torch.dtype
) -> None:
    if x.shape != shape or x.dtype not in dtypes or x.device != query.device:
        raise ValueError(
            f"'{name}' must have shape {list(shape)} and type {dtypes[0]} on '{query.device}' "
            f"(got {list(x.shape)}, {x.dtype} on '{x.device}')"
        )


def _forward_op(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _triton_full.forward(_call(query, key, value, *rest).problem, query, key, value)


def _backward_op(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *given, (needs_pairs, needs_table, needs_edges) = rest
    problem, edge_pairs = _call(query, key, value, *given)
    pairs, table, edge_values = given[:3]
    _check("grad", grad, query.shape, query, grad.dtype)
    _check("out", out, query.shape, query, query.dtype)
    _check("stats", stats, (*query.shape[:2], 2), query, torch.float32)
    sorts = needs_table and table.size(0) > MAX_TABLE_ROWS
    slopes = None
    if needs_pairs or needs_edges or sorts:
        size = num_pairs(problem.query_layout, problem.layout)
        wide = needs_edges or sorts
        slopes = query.new_empty(
            (size, query.size(1)), dtype=torch.float32 if wide else pairs.dtype
        )
    made = _triton_full.backward(
        problem, grad, query, key, value, out, stats, slopes, needs_table and not sorts
    )
    # an op returns tensors, and no tensor twice
    dpairs, dtable, dedges = (query.new_empty(0) for _ in range(3))
    if made.table is not None:
        dtable = made.table.to(table.dtype)
    if slopes is not None:
        if sorts:
            assert problem.index is not None
            sums = torch.zeros_like(table, dtype=torch.float32)
            dtable = sums.index_put_((problem.index.long(),), slopes, accumulate=True)
            dtable = dtable.to(table.dtype)
        if needs_edges:
            dedges = slopes[edge_pairs].to(edge_values.dtype)
        if needs_pairs:
            dpairs = slopes.to(pairs.dtype)
    return made.query, made.key, made.value, dpairs, dtable, dedges


_DEVICES = ("CUDA", "CPU") if _triton_full.interprets() else ("CUDA",)
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
