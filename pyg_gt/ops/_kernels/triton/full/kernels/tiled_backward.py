# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""The gradients of larger graphs, tile by tile: one program a tile and head, no atomics."""

import triton
import triton.language as tl

from .device_functions import (
    by_table_row,
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
    store_part,
    store_rows,
    store_slopes,
    weights_of,
)


@triton.jit(do_not_specialize=["pairs_head"])
def tiled_backward_rows(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, out, stats,
    grad, query_grad, deltas, slopes_out, table_parts, query_row, query_head, key_row, key_head,
    value_row, value_head, grad_row, grad_head, pairs_head, slopes_head, scale, threshold, factor,
    H: tl.constexpr, PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, GRADS: tl.constexpr, WIDE: tl.constexpr,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The gradients of queries and biases, and ``deltas [Nq, H]`` for the other kernel."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    local = first + tl.arange(0, BQ)
    corner = first_pair + first * keys
    in_rows = local < queries
    numbers = first_query + local
    rows = nodes_of(query_order, numbers, in_rows)
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    grad += head * grad_head * ALIGN
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    g = load_rows(grad, rows, in_rows, grad_row * ALIGN, C, D, UPCAST)
    o = load_rows(out + head * C, rows, in_rows, H * C, C, D, UPCAST)
    delta = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
    q, q_rest = parts_of(q, PRECISION)
    g, g_rest = parts_of(g, PRECISION)
    tl.store(deltas + numbers * H + head, delta, mask=in_rows)
    at = stats + (numbers * H + head) * 2
    top = tl.load(at, mask=in_rows, other=0.0)
    inverse = tl.load(at + 1, mask=in_rows, other=0.0)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN

    dq = tl.zeros([BQ, D], tl.float32)
    part = tl.zeros([BQ, KP], tl.float32)
    whole = keys.to(tl.int32) // BK * BK
    for start in range(0, whole, BK):
        dq, part = _with_keys(
            dq, part, q, q_rest, g, g_rest, delta, top, inverse, numbers, in_rows, head, corner,
            start, first_key, keys, True, key, value, pairs, table, index, seed, key_order,
            slopes_out, slopes_head, table_parts, key_row, value_row, scale, threshold, factor, H,
            PAIR, C, D, BQ, BK, K, KP, WIDE, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    if whole < keys:
        dq, part = _with_keys(
            dq, part, q, q_rest, g, g_rest, delta, top, inverse, numbers, in_rows, head, corner,
            whole, first_key, keys, False, key, value, pairs, table, index, seed, key_order,
            slopes_out, slopes_head, table_parts, key_row, value_row, scale, threshold, factor, H,
            PAIR, C, D, BQ, BK, K, KP, WIDE, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    store_rows(query_grad + head * C, rows, in_rows, GRADS, dq * scale, C, D)
    if table_parts is not None:
        store_part(table_parts, programs, part, head, H, K, KP)


@triton.jit
def _with_keys(
    dq, part, q, q_rest, g, g_rest, delta, top, inverse, numbers, in_rows, head, corner, start,
    first_key, keys, WHOLE: tl.constexpr, key, value, pairs, table, index, seed, key_order,
    slopes_out, slopes_head, table_parts, key_row, value_row, scale, threshold, factor,
    H: tl.constexpr, PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, WIDE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The sums of ``tiled_backward_rows`` after one more tile of keys, ``WHOLE`` if it is full."""
    other = start + tl.arange(0, BK)
    if WHOLE:
        in_cols = None
        there = in_rows[:, None]
    else:
        in_cols = other < keys
        there = in_rows[:, None] & in_cols[None, :]
    cols = nodes_of(key_order, first_key + other, in_cols)
    k = load_rows(key, cols, in_cols, key_row * ALIGN, C, D, UPCAST)
    v = load_rows(value, cols, in_cols, value_row * ALIGN, C, D, UPCAST)
    k, k_rest = parts_of(k, PRECISION)
    v, v_rest = parts_of(v, PRECISION)
    then, then_rest = k, k_rest
    if PRECISION != "half":
        then = load_shuffled(
            key, key_order, first_key, start, keys, key_row * ALIGN, BK, WHOLE, C, D, UPCAST
        )
        then, then_rest = parts_of(then, PRECISION)
    offsets = offsets_of(tl.arange(0, BQ), other, keys, WIDE)
    scores, unit = scores_of(
        q, q_rest, k, k_rest, corner, offsets, pairs, table, index, there, in_cols, head, scale,
        H, PAIR, PRECISION,
    )  # fmt: skip
    weights = weights_of(scores, unit, top) * inverse[:, None]
    slopes = product(g, g_rest, tl.trans(v), tl.trans(v_rest), None, PRECISION)
    if seed is not None:
        keep = kept(seed, numbers, start, head, threshold, BK)
        slopes = tl.where(keep, slopes * factor, 0.0)
    slopes = weights * (slopes - delta[:, None])
    if slopes_out is not None:
        store_slopes(slopes_out, slopes_head, slopes, corner, offsets, there, head)
    if table_parts is not None:
        which = tl.load(index + corner + offsets, mask=there, other=0).to(tl.int32)
        part = by_table_row(part, which, tl.where(there, slopes, 0.0), K, KP)
    if PRECISION != "half":
        slopes = shuffled(slopes, BQ, BK)
    slopes, slopes_rest = parts_of(slopes.to(k.dtype), PRECISION)
    dq = product(slopes, slopes_rest, then, then_rest, dq, PRECISION)
    return dq, part


@triton.jit(do_not_specialize=["pairs_head"])
def tiled_backward_cols(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, stats, grad,
    deltas, key_grad, value_grad, query_row, query_head, key_row, key_head, value_row,
    value_head, grad_row, grad_head, pairs_head, scale, threshold, factor, H: tl.constexpr,
    PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    GRADS: tl.constexpr, WIDE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values, one tile of keys a program."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    other = first + tl.arange(0, BK)
    in_cols = other < keys
    cols = nodes_of(key_order, first_key + other, in_cols)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN
    k = load_rows(key, cols, in_cols, key_row * ALIGN, C, D, UPCAST)
    v = load_rows(value, cols, in_cols, value_row * ALIGN, C, D, UPCAST)
    k, k_rest = parts_of(k, PRECISION)
    v, v_rest = parts_of(v, PRECISION)
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    grad += head * grad_head * ALIGN

    dk = tl.zeros([BK, D], tl.float32)
    dv = tl.zeros([BK, D], tl.float32)
    whole = queries.to(tl.int32) // BQ * BQ
    for start in range(0, whole, BQ):
        dk, dv = _with_queries(
            dk, dv, k, k_rest, v, v_rest, in_cols, other, head, first, start, first_query,
            queries, keys, first_pair, True, query, grad, stats, deltas, pairs, table, index, seed,
            query_order, query_row, grad_row, scale, threshold, factor, H, PAIR, C, D, BQ, BK,
            WIDE, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    if whole < queries:
        dk, dv = _with_queries(
            dk, dv, k, k_rest, v, v_rest, in_cols, other, head, first, whole, first_query,
            queries, keys, first_pair, False, query, grad, stats, deltas, pairs, table, index,
            seed, query_order, query_row, grad_row, scale, threshold, factor, H, PAIR, C, D, BQ,
            BK, WIDE, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    store_rows(key_grad + head * C, cols, in_cols, GRADS, dk * scale, C, D)
    store_rows(value_grad + head * C, cols, in_cols, GRADS, dv * factor, C, D)


@triton.jit
def _with_queries(
    dk, dv, k, k_rest, v, v_rest, in_cols, other, head, first, start, first_query, queries, keys,
    first_pair, WHOLE: tl.constexpr, query, grad, stats, deltas, pairs, table, index, seed,
    query_order, query_row, grad_row, scale, threshold, factor, H: tl.constexpr,
    PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    WIDE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The sums of ``tiled_backward_cols`` after one more tile of queries."""
    local = start + tl.arange(0, BQ)
    numbers = first_query + local
    at = stats + (numbers * H + head) * 2
    if WHOLE:
        in_rows = None
        there = in_cols[None, :]
        top, inverse = tl.load(at), tl.load(at + 1)
        delta = tl.load(deltas + numbers * H + head)
    else:
        in_rows = local < queries
        there = in_rows[:, None] & in_cols[None, :]
        top = tl.load(at, mask=in_rows, other=0.0)
        # weights of a row without a query are zero
        inverse = tl.load(at + 1, mask=in_rows, other=0.0)
        delta = tl.load(deltas + numbers * H + head, mask=in_rows, other=0.0)
    rows = nodes_of(query_order, numbers, in_rows)
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    g = load_rows(grad, rows, in_rows, grad_row * ALIGN, C, D, UPCAST)
    q, q_rest = parts_of(q, PRECISION)
    g, g_rest = parts_of(g, PRECISION)
    corner = first_pair + start * keys
    offsets = offsets_of(tl.arange(0, BQ), other, keys, WIDE)
    # a column without a key is not stored
    scores, unit = scores_of(
        q, q_rest, k, k_rest, corner, offsets, pairs, table, index, there, None, head, scale, H,
        PAIR, PRECISION,
    )  # fmt: skip
    weights = weights_of(scores, unit, top) * inverse[:, None]
    slopes = product(g, g_rest, tl.trans(v), tl.trans(v_rest), None, PRECISION)
    dropped = weights
    if seed is not None:
        keep = kept(seed, numbers, first.to(tl.int32), head, threshold, BK)
        dropped = tl.where(keep, weights, 0.0)
        slopes = tl.where(keep, slopes * factor, 0.0)
    dropped, dropped_rest = parts_of(dropped.to(g.dtype), PRECISION)
    dv = product(tl.trans(dropped), tl.trans(dropped_rest), g, g_rest, dv, PRECISION)
    slopes = (weights * (slopes - delta[:, None])).to(q.dtype)
    slopes, slopes_rest = parts_of(slopes, PRECISION)
    dk = product(tl.trans(slopes), tl.trans(slopes_rest), q, q_rest, dk, PRECISION)
    return dk, dv
