"""Full attention by Triton: the kernels' launches, below autograd and ops."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import GraphLayout
from ._addresses import aligned_strides, in_memory, with_dense_channels
from ._philox import threshold
from ._triton_launch import Arguments
from ._triton_programs import programs_of
from ._triton_tiles import Tiles, power_of_two, small_warps, tiles_of

TYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_CHANNELS = 256
# A kernel sums the gradient of a table by going through its rows, tile by tile. For a larger one
# it writes the slopes of all pairs, and torch sorts them.
MAX_TABLE_ROWS = 128


def interprets() -> bool:
    """Whether triton runs kernels on the CPU, in numpy; it decides so when it is imported."""
    switch = os.environ.get("TRITON_INTERPRET", "").lower()
    return switch in ("1", "true", "on", "yes", "y")


def is_installed() -> bool:
    """Whether triton can be imported."""
    return find_spec("triton") is not None


@dataclass(frozen=True, eq=False)
class Problem:
    """One attention, but for query, key and value.

    Attributes:
        query_layout: how the queries are split into graphs.
        layout: how the keys are.
        pairs: ``[P, H]``, or None.
        table: ``[K, H]``, or None.
        index: ``[P]``, rows of ``table``.
        seed: ``[1]``, or None without dropout.
        scale: factor of the scores. Kernels are given none below zero, and the queries negated:
            they look for the largest score before they multiply.
        dropout_p: probability of dropping a weight.
    """

    query_layout: GraphLayout
    layout: GraphLayout
    pairs: Tensor | None
    table: Tensor | None
    index: Tensor | None
    seed: Tensor | None
    scale: float
    dropout_p: float

    def tiles(self, query: Tensor) -> Tiles:
        """Tiles that suit this problem."""
        biased = self.pairs is not None or self.table is not None
        return tiles_of(query.size(2), query.dtype, biased)


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]``, and ``[Nq, H, 2]`` by which the backward finds the weights again."""
    from ._triton_small_kernels import small_forward
    from ._triton_tiled_kernels import tiled_forward

    if problem.scale < 0:
        return forward(replace(problem, scale=-problem.scale), -query, key, value)
    out = query.new_empty(query.shape)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    query, key, value = (with_dense_channels(x) for x in (query, key, value))
    tiles = problem.tiles(query)
    programs = programs_of(problem.query_layout, problem.layout, tiles)
    given = _arguments(problem, tiles, query, key, value, out=out, stats=stats)
    for side, table in programs.small:
        _launch_small(small_forward, side, table, given, {})
    sides = {"BQ": tiles.rows, "BK": tiles.keys}
    _launch_tiled(tiled_forward, programs.query_tiles, tiles, given, sides)
    return out, stats


class Gradients(NamedTuple):
    """What comes out of the backward kernels.

    Attributes:
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        slopes: ``[P, H]``, the gradients of all scores, or None where they were not asked for.
        table: ``[K, H]`` float32, or None.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    slopes: Tensor | None
    table: Tensor | None


def backward(
    problem: Problem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    slopes: Tensor | None,
    needs_table: bool,
) -> Gradients:
    """The gradients; the kernels write into ``slopes [P, H]`` if it is not None."""
    from ._triton_small_kernels import small_backward
    from ._triton_tiled_backward_kernels import tiled_backward_cols, tiled_backward_rows

    if problem.scale < 0:
        problem = replace(problem, scale=-problem.scale)
        made = backward(problem, grad, -query, key, value, out, stats, slopes, needs_table)
        return made._replace(query=-made.query)
    dq, dk, dv = (x.new_empty(x.shape) for x in (query, key, value))
    query, key, value = (with_dense_channels(x) for x in (query, key, value))
    grad = with_dense_channels(grad.to(query.dtype))
    tiles = problem.tiles(query)
    programs = programs_of(problem.query_layout, problem.layout, tiles)
    table_rows, parts = 1, None
    if needs_table and problem.table is not None:
        table_rows, heads = problem.table.shape
        parts = query.new_empty((programs.count, table_rows, heads), dtype=torch.float32)
    given = _arguments(problem, tiles, query, key, value, grad, stats=stats)
    to_rows: dict[str, Any] = {
        "query_grad": dq, "slopes_out": slopes, "K": table_rows,
        # a vector of a kernel has a power of two of elements
        "KP": max(16, power_of_two(table_rows)),
    }  # fmt: skip
    to_cols: dict[str, Any] = {"key_grad": dk, "value_grad": dv}
    first = 0
    for side, table in programs.small:
        to_rows["table_parts"] = None if parts is None else parts[first:]
        _launch_small(small_backward, side, table, given, to_rows | to_cols)
        first += table.size(0)
    if programs.query_tiles.size(0) + programs.key_tiles.size(0):
        to_rows["table_parts"] = None if parts is None else parts[first:]
        to_rows["out"] = out
        deltas = query.new_empty(query.shape[:2], dtype=torch.float32)
        to_rows |= {"deltas": deltas, "BQ": tiles.rows, "BK": tiles.keys}
        to_cols |= {"deltas": deltas, "BQ": tiles.queries, "BK": tiles.cols}
        _launch_tiled(tiled_backward_rows, programs.query_tiles, tiles, given, to_rows)
        _launch_tiled(tiled_backward_cols, programs.key_tiles, tiles, given, to_cols)
    return Gradients(dq, dk, dv, slopes, None if parts is None else parts.sum(0))


def _launch_small(
    kernel: Any, side: int, table: Tensor, given: Arguments, own: Mapping[str, Any]
) -> None:
    own = {**own, "programs": table, "B": side}
    given.launch(kernel, table.size(0) * given["H"], own, num_warps=small_warps(side))


def _launch_tiled(
    kernel: Any, table: Tensor, tiles: Tiles, given: Arguments, own: Mapping[str, Any]
) -> None:
    own = {**own, "programs": table}
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    given.launch(kernel, table.size(0) * given["H"], own, **options)


def _arguments(
    problem: Problem,
    tiles: Tiles,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor | None = None,
    **more: Tensor,
) -> Arguments:
    """What all kernels read, by name, and ``more``."""
    p, heads = problem.dropout_p, query.size(1)
    rows = {"query": query, "key": key, "value": value}
    if grad is not None:
        rows["grad"] = grad
    strides, align = aligned_strides(rows)
    named = rows | strides | more | {
        "pairs": _contiguous(problem.pairs), "table": _contiguous(problem.table),
        "index": _contiguous(problem.index), "seed": problem.seed,
        "query_order": problem.query_layout.order, "key_order": problem.layout.order,
        "scale": problem.scale, "threshold": threshold(p) - 2**31,
        "factor": 0.0 if p >= 1 else 1 / (1 - p),
        "H": heads, "C": query.size(2), "D": tiles.width,
        "WIDE": max(tiles.rows, tiles.queries) * problem.layout.max_nodes * heads >= 2**31,
        "ALIGN": align, "PRECISION": _precision(query.dtype),
        # numpy, in which the interpreter computes, has no bfloat16
        "UPCAST": query.dtype == torch.bfloat16 and interprets(),
    }  # fmt: skip
    return Arguments(named, query)


def _precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied: in TF32 where torch may, else in three products of TF32 parts.

    Three products have the accuracy of float32 to a few eps (as torch's memory-efficient attention
    computes them). Multiplied one by one ("ieee"), numbers do not fit into registers.
    """
    # the setting behind 'allow_tf32' and 'set_float32_matmul_precision' alike
    if dtype != torch.float32:
        return "half"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else in_memory(x).contiguous()
