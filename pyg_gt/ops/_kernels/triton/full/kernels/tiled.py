# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""Full attention of larger graphs, tile by tile: one program a tile and head, no atomics."""

import triton
import triton.language as tl

from .device_functions import (
    kept,
    load_rows,
    load_shuffled,
    nodes_of,
    offsets_of,
    parts_of,
    product,
    program_of,
    scores_of,
    shuffled,
    store_rows,
    weights_of,
)


@triton.jit(do_not_specialize=["pairs_head"])
def tiled_forward(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, out, stats,
    query_row, query_head, key_row, key_head, value_row, value_head, pairs_head, scale, threshold,
    factor, H: tl.constexpr, PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """As ``small_forward``, one tile of queries a program (Dao et al. 2022, online softmax)."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    local = first + tl.arange(0, BQ)
    corner = first_pair + first * keys
    in_rows = local < queries
    numbers = first_query + local
    rows = nodes_of(query_order, numbers, in_rows)
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    q, q_rest = parts_of(q, PRECISION)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN

    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    result = tl.zeros([BQ, D], tl.float32)
    whole = keys.to(tl.int32) // BK * BK
    for start in range(0, whole, BK):
        top, total, result = _with_keys(
            top, total, result, q, q_rest, numbers, in_rows, head, corner, start, first_key, keys,
            True, key, value, pairs, table, index, seed, key_order, key_row, value_row, scale,
            threshold, H, PAIR, C, D, BQ, BK, WIDE, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    if whole < keys:
        top, total, result = _with_keys(
            top, total, result, q, q_rest, numbers, in_rows, head, corner, whole, first_key, keys,
            False, key, value, pairs, table, index, seed, key_order, key_row, value_row, scale,
            threshold, H, PAIR, C, D, BQ, BK, WIDE, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    top = tl.where(top == float("-inf"), 0.0, top)
    inverse = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
    store_rows(out + head * C, rows, in_rows, H * C, result * (inverse * factor)[:, None], C, D)
    at = stats + (numbers * H + head) * 2
    tl.store(at, top, mask=in_rows)
    tl.store(at + 1, inverse, mask=in_rows)


@triton.jit
def _with_keys(
    top, total, result, q, q_rest, numbers, in_rows, head, corner, start, first_key, keys,
    WHOLE: tl.constexpr, key, value, pairs, table, index, seed, key_order, key_row, value_row,
    scale, threshold, H: tl.constexpr, PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The state of an online softmax after one more tile of keys, ``WHOLE`` if it is full."""
    other = start + tl.arange(0, BK)
    if WHOLE:
        in_cols = None
        there = in_rows[:, None]
    else:
        in_cols = other < keys
        there = in_rows[:, None] & in_cols[None, :]
    cols = nodes_of(key_order, first_key + other, in_cols)
    k = load_rows(key, cols, in_cols, key_row * ALIGN, C, D, UPCAST)
    if PRECISION == "half":
        v = load_rows(value, cols, in_cols, value_row * ALIGN, C, D, UPCAST)
    else:
        v = load_shuffled(
            value, key_order, first_key, start, keys, value_row * ALIGN, BK, WHOLE, C, D, UPCAST
        )
    k, k_rest = parts_of(k, PRECISION)
    v, v_rest = parts_of(v, PRECISION)
    offsets = offsets_of(tl.arange(0, BQ), other, keys, WIDE)
    scores, unit = scores_of(
        q, q_rest, k, k_rest, corner, offsets, pairs, table, index, there, in_cols, head, scale,
        H, PAIR, PRECISION,
    )  # fmt: skip
    higher = tl.maximum(top, tl.max(scores, 1) * unit)
    safe = tl.where(higher == float("-inf"), 0.0, higher)
    weights = weights_of(scores, unit, safe)
    shrink = tl.exp2(top - safe)
    total = total * shrink + tl.sum(weights, 1)
    if seed is not None:
        weights = tl.where(kept(seed, numbers, start, head, threshold, BK), weights, 0.0)
    if PRECISION != "half":
        weights = shuffled(weights, BQ, BK)
    weights, weights_rest = parts_of(weights.to(v.dtype), PRECISION)
    result = product(weights, weights_rest, v, v_rest, result * shrink[:, None], PRECISION)
    return higher, total, result
