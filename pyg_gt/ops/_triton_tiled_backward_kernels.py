# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""The gradients of larger graphs, tile by tile: one program a tile and head, no atomics."""

import triton
import triton.language as tl

from ._triton_part_kernels import (
    by_table_row,
    kept,
    load_rows,
    masked_scores,
    nodes_of,
    offsets_of,
    program_of,
    store_part,
    store_rows,
    store_slopes,
)


@triton.jit
def tiled_backward_rows(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, out, stats,
    grad, query_grad, deltas, slopes_out, table_parts, query_row, query_head, key_row, key_head,
    value_row, value_head, grad_row, grad_head, scale, threshold, factor, H: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, K: tl.constexpr,
    KP: tl.constexpr, WIDE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """The gradients of queries and biases, and ``deltas [Nq, H]`` for the other kernel."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    local = first + tl.arange(0, BQ)
    corner = first_pair + first * keys
    in_rows = local < queries
    numbers = first_query + local
    rows = nodes_of(query_order, numbers, in_rows)
    query += head * query_head * ALIGN
    grad += head * grad_head * ALIGN
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    g = load_rows(grad, rows, in_rows, grad_row * ALIGN, C, D, UPCAST)
    o = load_rows(out + head * C, rows, in_rows, H * C, C, D, UPCAST)
    delta = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
    tl.store(deltas + numbers * H + head, delta, mask=in_rows)
    at = stats + (numbers * H + head) * 2
    top = tl.load(at, mask=in_rows, other=0.0)
    inverse = tl.load(at + 1, mask=in_rows, other=0.0)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN

    dq = tl.zeros([BQ, D], tl.float32)
    part = tl.zeros([KP], tl.float32)
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
        weights = tl.exp(scores - top[:, None]) * inverse[:, None]
        slopes = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        if seed is not None:
            keep = kept(seed, numbers, start, head, threshold, BK)
            slopes = tl.where(keep, slopes * factor, 0.0)
        slopes = weights * (slopes - delta[:, None])
        if slopes_out is not None:
            store_slopes(slopes_out, slopes, corner, offsets, there, head, H)
        if table_parts is not None:
            which = tl.load(index + corner + offsets, mask=there, other=0).to(tl.int32)
            part += by_table_row(which, tl.where(there, slopes, 0.0), K, KP)
        dq += tl.dot(slopes.to(k.dtype), k, input_precision=PRECISION)
    store_rows(query_grad + head * C, rows, in_rows, H * C, dq * scale, C, D)
    if table_parts is not None:
        store_part(table_parts, part, head, H, K, KP)


@triton.jit
def tiled_backward_cols(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, stats, grad,
    deltas, key_grad, value_grad, query_row, query_head, key_row, key_head, value_row,
    value_head, grad_row, grad_head, scale, threshold, factor, H: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
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
    query += head * query_head * ALIGN
    grad += head * grad_head * ALIGN

    dk = tl.zeros([BK, D], tl.float32)
    dv = tl.zeros([BK, D], tl.float32)
    for start in range(0, queries.to(tl.int32), BQ):
        local = start + tl.arange(0, BQ)
        in_rows = local < queries
        numbers = first_query + local
        rows = nodes_of(query_order, numbers, in_rows)
        q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
        g = load_rows(grad, rows, in_rows, grad_row * ALIGN, C, D, UPCAST)
        at = stats + (numbers * H + head) * 2
        top = tl.load(at, mask=in_rows, other=0.0)
        inverse = tl.load(at + 1, mask=in_rows, other=0.0)
        corner = first_pair + start * keys
        delta = tl.load(deltas + numbers * H + head, mask=in_rows, other=0.0)
        offsets = offsets_of(tl.arange(0, BQ), other, keys, WIDE)
        there = in_rows[:, None] & in_cols[None, :]
        scores = masked_scores(
            q, k, corner, offsets, pairs, table, index, there, head, scale, H, PRECISION
        )
        weights = tl.exp(scores - top[:, None]) * inverse[:, None]
        slopes = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        dropped = weights
        if seed is not None:
            keep = kept(seed, numbers, first.to(tl.int32), head, threshold, BK)
            dropped = tl.where(keep, weights * factor, 0.0)
            slopes = tl.where(keep, slopes * factor, 0.0)
        dv += tl.dot(tl.trans(dropped.to(g.dtype)), g, input_precision=PRECISION)
        slopes = (weights * (slopes - delta[:, None])).to(q.dtype)
        dk += tl.dot(tl.trans(slopes), q, input_precision=PRECISION)
    store_rows(key_grad + head * C, cols, in_cols, H * C, dk * scale, C, D)
    store_rows(value_grad + head * C, cols, in_cols, H * C, dv, C, D)
