"""Full attention by Triton: the kernels' launches, below autograd and ops."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import GraphLayout
from ._addresses import aligned_strides, in_memory, with_dense_channels
from ._philox import threshold
from ._triton_again import Again, Launches, launches_like
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

    def with_tensors(
        self, pairs: Tensor | None, table: Tensor | None, index: Tensor | None, seed: Tensor | None
    ) -> Problem:
        """The same with these in place of its own."""
        if pairs is self.pairs and table is self.table and index is self.index:
            if seed is self.seed:  # mostly, all are None
                return self
        return replace(self, pairs=pairs, table=table, index=index, seed=seed)

    def without_tensors(self) -> Problem:
        """The same, to be kept beside tensors that autograd keeps."""
        return self.with_tensors(None, None, None, None)

    def tensors(self) -> dict[str, Tensor | None]:
        """What the kernels read of it."""
        return {
            "pairs": _contiguous(self.pairs), "table": _contiguous(self.table),
            "index": _contiguous(self.index), "seed": self.seed,
        }  # fmt: skip

    def tiles(self, query: Tensor) -> Tiles:
        """Tiles that suit this problem."""
        biased = self.pairs is not None or self.table is not None
        return tiles_of(query.size(2), query.dtype, biased)

    def launches(self, of: str, query: Tensor, given: Mapping[str, Tensor | None]) -> Launches:
        """Those of an earlier call that was like this one, if there was one."""
        other = None if self.query_layout is self.layout else weakref.ref(self.layout)
        known: dict[Any, Again] = self.query_layout.once(("triton launches", other), dict)
        more = of, self.scale, self.dropout_p, _precision(query.dtype)
        return launches_like(known, query, given, *more)


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]``, and ``[Nq, H, 2]`` by which the backward finds the weights again."""
    if problem.scale < 0:
        return forward(replace(problem, scale=-problem.scale), -query, key, value)
    out = query.new_empty(query.shape)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    given: dict[str, Tensor | None] = {
        "query": with_dense_channels(query), "key": with_dense_channels(key),
        "value": with_dense_channels(value), **problem.tensors(),
    }  # fmt: skip
    tensors = given | {"out": out, "stats": stats}
    launches = problem.launches("forward", query, given)
    if not launches.done_again(tensors):
        launches.keep(_launch_forward(problem, tensors).again(tensors))
    return out, stats


def _launch_forward(problem: Problem, tensors: Mapping[str, Tensor | None]) -> Arguments:
    from ._triton_small_kernels import small_forward
    from ._triton_tiled_kernels import tiled_forward

    assert tensors["query"] is not None
    tiles = problem.tiles(tensors["query"])
    programs = programs_of(problem.query_layout, problem.layout, tiles)
    arguments = _arguments(problem, tiles, tensors)
    for side, table in programs.small:
        _launch_small(small_forward, side, table, arguments, {})
    sides = {"BQ": tiles.rows, "BK": tiles.keys}
    _launch_tiled(tiled_forward, programs.query_tiles, tiles, arguments, sides)
    return arguments


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
    if problem.scale < 0:
        problem = replace(problem, scale=-problem.scale)
        made = backward(problem, grad, -query, key, value, out, stats, slopes, needs_table)
        return made._replace(query=-made.query)
    dq, dk, dv = (x.new_empty(x.shape) for x in (query, key, value))
    given: dict[str, Tensor | None] = {
        "query": with_dense_channels(query), "key": with_dense_channels(key),
        "value": with_dense_channels(value),
        "grad": with_dense_channels(grad.to(query.dtype)), "out": out, "stats": stats,
        "slopes_out": slopes, **problem.tensors(),
    }  # fmt: skip
    tiles = problem.tiles(query)
    deltas = None
    if max(problem.query_layout.max_nodes, problem.layout.max_nodes) > tiles.small:
        deltas = query.new_empty(query.shape[:2], dtype=torch.float32)
    tensors = given | {"query_grad": dq, "key_grad": dk, "value_grad": dv, "deltas": deltas}
    if not needs_table or problem.table is None:
        launches = problem.launches("backward", query, given)
        if not launches.done_again(tensors):
            launches.keep(_launch_backward(problem, tiles, tensors, None).again(tensors))
        return Gradients(dq, dk, dv, slopes, None)
    count = programs_of(problem.query_layout, problem.layout, tiles).count
    parts = query.new_empty((count, *problem.table.shape), dtype=torch.float32)
    _launch_backward(problem, tiles, tensors, parts)
    return Gradients(dq, dk, dv, slopes, parts.sum(0))


def _launch_backward(
    problem: Problem, tiles: Tiles, tensors: Mapping[str, Tensor | None], parts: Tensor | None
) -> Arguments:
    from ._triton_small_kernels import small_backward
    from ._triton_tiled_backward_kernels import tiled_backward_cols, tiled_backward_rows

    programs = programs_of(problem.query_layout, problem.layout, tiles)
    rows = 1 if parts is None else parts.size(1)
    # a vector of a kernel has a power of two of elements
    more = {"K": rows, "KP": max(16, power_of_two(rows))}
    arguments = _arguments(problem, tiles, {**tensors, **more})
    first = 0
    for side, table in programs.small:
        own = {"table_parts": None if parts is None else parts[first:]}
        _launch_small(small_backward, side, table, arguments, own)
        first += table.size(0)
    own = {"table_parts": None if parts is None else parts[first:]}
    sides = {"BQ": tiles.rows, "BK": tiles.keys}
    _launch_tiled(tiled_backward_rows, programs.query_tiles, tiles, arguments, own | sides)
    sides = {"BQ": tiles.queries, "BK": tiles.cols}
    _launch_tiled(tiled_backward_cols, programs.key_tiles, tiles, arguments, sides)
    return arguments


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


def _arguments(problem: Problem, tiles: Tiles, tensors: Mapping[str, Any]) -> Arguments:
    """What all kernels read, by name: ``tensors``, and what follows from them."""
    p, query = problem.dropout_p, tensors["query"]
    names = [name for name in ("query", "key", "value", "grad") if name in tensors]
    strides, align = aligned_strides({name: tensors[name] for name in names})
    heads = query.size(1)
    named = {
        **tensors, **strides,
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
