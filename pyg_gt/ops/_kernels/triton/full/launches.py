"""Launches of the kernels of full attention: their arguments, and which of them a batch takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .....layout.comparison import same_numbers
from .....layout.tensor_cache import IdentityCache
from ....memory import aligned_strides, materialized, with_dense_channels
from ...problem import FullProblem
from ..availability import interprets
from ..launch import Launch, dropout_arguments, launch_all
from ..rounding import next_power_of_two
from .programs import Programs, programs_of
from .tiles import Tiles, small_warps, tiles_of


def tiles_for(problem: FullProblem, query: Tensor) -> Tiles:
    """Tiles for the head width, the type, the biases and the dropout of a problem."""
    biases = (problem.pairs is not None) + (problem.table is not None)
    return tiles_of(query.size(2), query.dtype, biases, problem.seed is not None)


def launch_forward(
    problem: FullProblem,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    written: Mapping[str, Tensor],
) -> None:
    """Runs the forward kernels.

    Args:
        problem: the attention, with values of edges among those of pairs, and no negative scale.
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        written: contiguous ``out [Nq, H, C]`` and ``stats [Nq, H, 2]``, by name.
    """
    from .kernels.small import small_forward
    from .kernels.tiled import tiled_forward

    tiles, heads = tiles_for(problem, query), query.size(1)
    programs = programs_of(problem.query_layout, problem.layout, tiles)
    rows = {"query": query, "key": key, "value": value}
    launches = [
        *_of_small_graphs(small_forward, programs, heads),
        _of_query_tiles(tiled_forward, programs, tiles, heads),
    ]
    launch_all(launches, {**_arguments(problem, tiles, rows), **written}, query)


def launch_backward(
    problem: FullProblem,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    given: Mapping[str, Tensor | None],
) -> None:
    """Runs the backward kernels.

    Args:
        problem: that of :func:`launch_forward`.
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        grad: ``[Nq, H, C]``, the gradient of the output.
        given: by name: contiguous ``out`` and ``stats`` of the forward kernels; and what is
            written, ``query_grad``, ``key_grad`` and ``value_grad``, ``scores_grad [P, H]`` or
            None, ``table_partials [T, K, H]`` or None, and ``deltas [Nq, H]``, or None where
            no graph is tiled.
    """
    from .kernels.small import small_backward
    from .kernels.tiled_backward import tiled_backward_cols, tiled_backward_rows

    tiles, heads = tiles_for(problem, query), query.size(1)
    programs = programs_of(problem.query_layout, problem.layout, tiles)
    rows = {"query": query, "key": key, "value": value, "grad": grad}
    launches = [
        *_of_small_graphs(small_backward, programs, heads),
        _of_query_tiles(tiled_backward_rows, programs, tiles, heads),
        Launch(
            tiled_backward_cols, programs.key_tiles.size(0) * heads,
            {"programs": programs.key_tiles, "BQ": tiles.queries, "BK": tiles.cols},
            {"num_warps": tiles.col_warps, "num_stages": tiles.col_stages},
        ),
    ]  # fmt: skip
    scores_grad, query_grad, partials = map(
        given.get, ("scores_grad", "query_grad", "table_partials")
    )
    assert query_grad is not None
    # a vector of a kernel has a power of two of elements
    table_rows = 1 if partials is None else partials.size(1)
    arguments = {
        **_arguments(problem, tiles, rows), **given, "K": table_rows,
        "KP": max(16, next_power_of_two(table_rows)), "GRADS_ROW": query_grad.stride(0),
        "scores_grad_head": 0 if scores_grad is None else scores_grad.stride(1),
    }  # fmt: skip
    launch_all(launches, arguments, query)


def _of_small_graphs(kernel: Any, programs: Programs, heads: int) -> list[Launch]:
    return [
        Launch(
            kernel, table.size(0) * heads, {"programs": table, "B": side},
            {"num_warps": small_warps(side)},
        )
        for side, table in programs.small
    ]  # fmt: skip


def _of_query_tiles(kernel: Any, programs: Programs, tiles: Tiles, heads: int) -> Launch:
    table = programs.query_tiles
    arguments = {"programs": table, "BQ": tiles.rows, "BK": tiles.keys}
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch(kernel, table.size(0) * heads, arguments, options)


def _arguments(problem: FullProblem, tiles: Tiles, rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """What forward and backward kernels are given alike, and ``rows [N, H, C]`` with strides."""
    rows = {name: with_dense_channels(x) for name, x in rows.items()}
    strides, align = aligned_strides(rows)
    query, pairs, table = rows["query"], problem.pairs, problem.table
    heads = query.size(1)
    if pairs is not None:
        pairs = _pair_by_pair_or_head_by_head(pairs)
    pair_stride, head_stride = (0, 0) if pairs is None else pairs.stride()
    return {
        **rows, **strides, **dropout_arguments(problem.dropout_p), "seed": problem.seed,
        "pairs": pairs, "PAIR_STRIDE": pair_stride, "pairs_head": head_stride,
        "table": None if table is None else materialized(table).contiguous(),
        "table_index": _widened_index(problem.table_index),
        "query_order": problem.query_layout.order, "key_order": problem.layout.order,
        "scale": float(problem.scale), "H": heads, "C": query.size(2), "D": tiles.width,
        "ALIGN": align, "INT64": _passes_32_bits(problem, tiles, heads),
        "PRECISION": _precision(query.dtype),
        # numpy, in which the interpreter computes, has no bfloat16
        "UPCAST": query.dtype == torch.bfloat16 and interprets(),
    }  # fmt: skip


def _passes_32_bits(problem: FullProblem, tiles: Tiles, heads: int) -> bool:
    """Whether pairs counted from the first row of a tile, times heads, pass 2^31."""
    return max(tiles.rows, tiles.queries) * problem.layout.max_nodes * heads >= 2**31


def _pair_by_pair_or_head_by_head(pairs: Tensor) -> Tensor:
    """``pairs [P, H]``, or a copy if they lie in memory in neither order."""
    pairs = materialized(pairs)
    return pairs if pairs.stride(0) == 1 else pairs.contiguous()


def _precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied: in TF32 where torch may, else in three products of TF32 parts.

    Three products have the accuracy of float32 to a few eps (as torch's memory-efficient attention
    computes them). Multiplied one by one ("ieee"), numbers do not fit into registers.
    """
    # the setting behind 'allow_tf32' and 'set_float32_matmul_precision' alike
    if dtype != torch.float32:
        return "half"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def _widened_index(index: Tensor | None) -> Tensor | None:
    """Rows of a table in integers of 32 bits or more, made once for each tensor.

    From narrower ones, scores come out wrong on small graphs: triton (3.6) takes the narrowest
    number among all that a factor of a product is made from for its width, and then gives threads
    more of the product's inner dimension than a small tile has (compute capability 9.0).
    """
    if index is None:
        return None
    if index.dtype not in (torch.uint8, torch.int16):
        return materialized(index).contiguous()
    widened = _WIDENED.get(index, None, lambda known: same_numbers(known, index))
    if widened is None:
        widened = index.int()
        _WIDENED.put(index, widened)
    return widened


_WIDENED: IdentityCache[Tensor] = IdentityCache()
