# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""Full attention of larger graphs, tile by tile: one program a tile and head, no atomics."""

import triton
import triton.language as tl

from ._triton_part_kernels import (
    kept,
    load_rows,
    masked_scores,
    nodes_of,
    offsets_of,
    program_of,
    store_rows,
)


@triton.jit
def tiled_forward(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, out, stats,
    query_row, query_head, key_row, key_head, value_row, value_head, scale, threshold, factor,
    H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    WIDE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """As ``small_forward``, one tile of queries a program (Dao et al. 2022, online softmax)."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    local = first + tl.arange(0, BQ)
    corner = first_pair + first * keys
    in_rows = local < queries
    numbers = first_query + local
    rows = nodes_of(query_order, numbers, in_rows)
    query += head * query_head * ALIGN
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN

    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    result = tl.zeros([BQ, D], tl.float32)
    for start in range(0, keys.to(tl.int32), BK):
        other = start + tl.arange(0, BK)
        in_cols = other < keys
        cols = nodes_of(key_order, first_key + other, in_cols)
        k = load_rows(key, cols, in_cols, key_row * ALIGN, C, D, UPCAST)
        v = load_rows(value, cols, in_cols, value_row * ALIGN, C, D, UPCAST)
        offsets = offsets_of(tl.arange(0, BQ), other, keys, WIDE)
        there = in_rows[:, None] & in_cols[None, :]
        scores = masked_scores(
            q, k, corner, offsets, pairs, table, index, there, head, scale, H, PRECISION
        )
        higher = tl.maximum(top, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - safe[:, None])
        shrink = tl.exp(top - safe)
        total = total * shrink + tl.sum(weights, 1)
        if seed is not None:
            keep = kept(seed, numbers, start, head, threshold, BK)
            weights = tl.where(keep, weights * factor, 0.0)
        result = result * shrink[:, None]
        result += tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    top = tl.where(top == float("-inf"), 0.0, top)
    inverse = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
    store_rows(out + head * C, rows, in_rows, H * C, result * inverse[:, None], C, D)
    at = stats + (numbers * H + head) * 2
    tl.store(at, top, mask=in_rows)
    tl.store(at + 1, inverse, mask=in_rows)
