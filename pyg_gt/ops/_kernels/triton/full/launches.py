"""Full attention by Triton: the kernels' launches, below autograd and ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .....layout.comparison import same_numbers
from .....layout.identity import IdentityCache
from ....dropout import threshold
from ....memory import aligned_strides, empty_like, in_memory, with_dense_channels
from ..again import Again, key_of
from ..launch import Arguments, Call, likeness, number_kind
from .problem import Problem, interprets
from .programs import programs_of
from .tiles import Tiles, power_of_two, small_warps

# names of what the kernels read of a call, and of what they write
_READ = "query", "key", "value", "pairs", "table", "index", "seed"
_FORWARD = *_READ, "out", "stats"
_BACKWARD = (
    *_READ, "grad", "out", "stats", "slopes_out", "table_parts", "query_grad", "key_grad",
    "value_grad", "deltas",
)  # fmt: skip


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]``, and ``[Nq, H, 2]`` by which the backward finds the weights again."""
    scale = problem.scale
    if scale < 0:
        return forward(problem._replace(scale=-scale), -query, key, value)
    out = empty_like(query)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    index = _in_words(problem.table_index)
    reads = query, key, value, problem.pairs, problem.table, index, problem.seed
    tensors = *reads, out, stats
    precision = _precision(query.dtype)
    kind = key_of("forward", scale, problem.dropout_p, precision, reads=reads)
    known = problem.known()
    if not known.done(kind, tensors, query):
        tiles = problem.tiles(query)
        call, as_given = _call("forward", problem, tiles, precision, _FORWARD, tensors)
        made = _launch_forward(problem, tiles, call.arguments())
        if as_given:
            known.keep(kind, made, tensors)
    return out, stats


def _launch_forward(problem: Problem, tiles: Tiles, arguments: Arguments) -> Again | None:
    from .small import small_forward
    from .tiled import tiled_forward

    programs = programs_of(problem.query_layout, problem.layout, tiles)
    for side, table in programs.small:
        _launch_small(small_forward, side, table, arguments)
    sides = {"BQ": tiles.rows, "BK": tiles.keys}
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    _launch_tiled(tiled_forward, programs.query_tiles, arguments, sides, options)
    return arguments.end()


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


def room_for_slopes(query: Tensor, pairs: int, dtype: torch.dtype) -> Tensor:
    """``[P, H]``; the numbers of a head lie side by side, as a program writes them."""
    # how many lie between heads is always a multiple of 16, of which one kernel is made
    room = query.new_empty((query.size(1), (pairs + 15) // 16 * 16), dtype=dtype)
    return room[:, :pairs].t()


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
    joined: Tensor | None = None,
) -> Gradients:
    """The gradients.

    Args:
        problem: the attention.
        grad: ``[Nq, H, C]``.
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        out: ``[Nq, H, C]``.
        stats: ``[Nq, H, 2]``.
        slopes: room for those of the scores, of :func:`room_for_slopes`, or None.
        needs_table: whether the gradient of the table is wanted.
        joined: room for those of query, key and value, ``[N, 3, H, C]``; None: one for each.
    """
    scale = problem.scale
    if scale < 0:
        problem = problem._replace(scale=-scale)
        rest = key, value, out, stats, slopes, needs_table, joined
        made = backward(problem, grad, -query, *rest)
        made.query.neg_()
        return made
    if joined is None:
        dq, dk, dv = empty_like(query), empty_like(key), empty_like(value)
    else:
        dq, dk, dv = joined.unbind(1)
    tiles = problem.tiles(query)
    deltas = None
    if max(problem.query_layout.max_nodes, problem.layout.max_nodes) > tiles.small:
        deltas = query.new_empty(query.shape[:2], dtype=torch.float32)
    table, parts = problem.table, None
    sizes = {"K": 1, "KP": 16, "GRADS": dq.stride(0)}
    if needs_table and table is not None:
        # a vector of a kernel has a power of two of elements
        sizes |= {"K": table.size(0), "KP": max(16, power_of_two(table.size(0)))}
        count = programs_of(problem.query_layout, problem.layout, tiles).count
        parts = table.new_empty((count, *table.shape), dtype=torch.float32)
    reads = (
        query, key, value, problem.pairs, table, _in_words(problem.table_index), problem.seed,
        grad if grad.dtype == query.dtype else grad.to(query.dtype), out, stats,
    )  # fmt: skip
    tensors = *reads, slopes, parts, dq, dk, dv, deltas
    precision = _precision(query.dtype)
    kind = key_of(
        "backward", scale, problem.dropout_p, precision, parts is None, joined is None,
        None if slopes is None else slopes.dtype, reads=reads,
    )  # fmt: skip
    known = problem.known()
    if not known.done(kind, tensors, query):
        call, as_given = _call(
            "backward", problem, tiles, precision, _BACKWARD, tensors, **sizes
        )  # fmt: skip
        launched = _launch_backward(problem, tiles, call.arguments())
        if as_given:
            known.keep(kind, launched, tensors)
    return Gradients(dq, dk, dv, slopes, None if parts is None else parts.sum(0))


def _launch_backward(problem: Problem, tiles: Tiles, arguments: Arguments) -> Again | None:
    from .small import small_backward
    from .tiled_backward import tiled_backward_cols, tiled_backward_rows

    programs = programs_of(problem.query_layout, problem.layout, tiles)
    for side, table in programs.small:
        _launch_small(small_backward, side, table, arguments)
    sides = {"BQ": tiles.rows, "BK": tiles.keys}
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    _launch_tiled(tiled_backward_rows, programs.query_tiles, arguments, sides, options)
    sides = {"BQ": tiles.queries, "BK": tiles.cols}
    options = {"num_warps": tiles.col_warps, "num_stages": tiles.col_stages}
    _launch_tiled(tiled_backward_cols, programs.key_tiles, arguments, sides, options)
    return arguments.end()


def _launch_small(kernel: Any, side: int, table: Tensor, given: Arguments) -> None:
    own = {"programs": table, "B": side}
    given.launch(kernel, table.size(0) * given["H"], own, num_warps=small_warps(side))


def _launch_tiled(
    kernel: Any,
    table: Tensor,
    given: Arguments,
    own: Mapping[str, Any],
    options: Mapping[str, int],
) -> None:
    own = {**own, "programs": table}
    given.launch(kernel, table.size(0) * given["H"], own, **options)


def _call(
    of: str,
    problem: Problem,
    tiles: Tiles,
    precision: str,
    names: Sequence[str],
    tensors: Sequence[Tensor | None],
    **more: int,
) -> tuple[Call, bool]:
    """All that kernels are given by name, and whether they read the tensors as they came.

    Args:
        of: name of the kind of call.
        problem: the attention.
        tiles: how it is cut.
        precision: how numbers are multiplied.
        names: of the tensors.
        tensors: what kernels read and write.
        **more: constants.
    """
    given = dict(zip(names, tensors, strict=True))
    for name in ("query", "key", "value", "grad"):
        if (x := given.get(name)) is not None:
            given[name] = with_dense_channels(x)
    if (table := given["table"]) is not None:
        given["table"] = in_memory(table).contiguous()
    if (pairs := given["pairs"]) is not None:
        given["pairs"] = pairs = _pair_by_pair_or_head_by_head(pairs)
    as_given = all(x is given[name] for name, x in zip(names, tensors, strict=True))
    p, query = problem.dropout_p, given["query"]
    assert query is not None
    heads = query.size(1)
    wide = max(tiles.rows, tiles.queries) * problem.layout.max_nodes * heads >= 2**31
    orders = {"query_order": problem.query_layout.order, "key_order": problem.layout.order}
    smallest = threshold(p) - 2**31
    apart, head_of_pairs = (0, 0) if pairs is None else pairs.stride()
    slopes = given.get("slopes_out")
    head_of_slopes = 0 if slopes is None else slopes.stride(1)
    numbers = {
        "scale": float(problem.scale), "threshold": smallest,
        "factor": 0.0 if p >= 1 else 1 / (1 - p), "slopes_head": head_of_slopes,
        "pairs_head": head_of_pairs,
    }  # fmt: skip

    def fixed() -> dict[str, Any]:
        rows = {name: given.get(name) for name in ("query", "key", "value", "grad")}
        strides, align = aligned_strides({k: x for k, x in rows.items() if x is not None})
        return {
            **strides, **more, "H": heads, "PAIR": apart, "C": query.size(2), "D": tiles.width,
            "WIDE": wide, "ALIGN": align, "PRECISION": precision,
            # numpy, in which the interpreter computes, has no bfloat16
            "UPCAST": query.dtype == torch.bfloat16 and interprets(),
        }  # fmt: skip

    key = (
        of, precision, wide, number_kind(smallest), number_kind(head_of_slopes),
        number_kind(head_of_pairs), *more.values(),
        *map(likeness, given.values()), *map(likeness, orders.values()),
    )  # fmt: skip
    return Call(key, {**given, **orders, **numbers}, names, fixed, query), as_given


def _pair_by_pair_or_head_by_head(pairs: Tensor) -> Tensor:
    """``pairs [P, H]``, or a copy if they lie in memory in neither order."""
    pairs = in_memory(pairs)
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


def _in_words(index: Tensor | None) -> Tensor | None:
    """Rows of a table in integers of 32 bits or more, made once.

    From narrower ones, scores come out wrong on small graphs: triton (3.6) takes the narrowest
    number among all that a factor of a product is made from for its width, and then gives threads
    more of the product's inner dimension than a small tile has (compute capability 9.0).
    """
    if index is None:
        return None
    if index.dtype not in (torch.uint8, torch.int16):
        return in_memory(index).contiguous()
    words = _WORDS.get(index, None, lambda known: same_numbers(known, index))
    if words is None:
        words = index.int()
        _WORDS.put(index, words)
    return words


_WORDS: IdentityCache[Tensor] = IdentityCache()
