# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""Full attention of graphs that fit into one tile: one program a graph and head, no atomics."""

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
def small_forward(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, out, stats,
    query_row, query_head, key_row, key_head, value_row, value_head, pairs_head, scale, threshold,
    factor, H: tl.constexpr, PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    B: tl.constexpr, WIDE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """``out [Nq, H, C]``, and in ``stats [Nq, H, 2]`` largest score and 1 / sum of each row."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    local = tl.arange(0, B)
    in_rows, in_cols = local < queries, local < keys
    numbers = first_query + local
    rows = nodes_of(query_order, numbers, in_rows)
    cols = nodes_of(key_order, first_key + local, in_cols)
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    q, q_rest = parts_of(q, PRECISION)
    k = load_rows(key, cols, in_cols, key_row * ALIGN, C, D, UPCAST)
    k, k_rest = parts_of(k, PRECISION)
    if PRECISION == "half":
        v = load_rows(value, cols, in_cols, value_row * ALIGN, C, D, UPCAST)
    else:
        v = load_shuffled(
            value, key_order, first_key, 0, keys, value_row * ALIGN, B, False, C, D, UPCAST
        )
    v, v_rest = parts_of(v, PRECISION)

    offsets = offsets_of(local, local, keys, WIDE)
    there = in_rows[:, None] & in_cols[None, :]
    scores, unit = scores_of(
        q, q_rest, k, k_rest, first_pair, offsets, pairs, table, index, there, in_cols, head,
        scale, H, PAIR, PRECISION,
    )  # fmt: skip
    top = tl.max(scores, 1) * unit
    top = tl.where(top == float("-inf"), 0.0, top)
    weights = weights_of(scores, unit, top)
    total = tl.sum(weights, 1)
    # not 'total > 0', which would turn NaN into zeros
    inverse = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
    if seed is not None:
        weights = tl.where(kept(seed, numbers, 0, head, threshold, B), weights, 0.0)
    if PRECISION != "half":
        weights = shuffled(weights, B, B)
    weights, weights_rest = parts_of(weights.to(v.dtype), PRECISION)
    result = product(weights, weights_rest, v, v_rest, None, PRECISION)
    result *= (inverse * factor)[:, None]
    store_rows(out + head * C, rows, in_rows, H * C, result, C, D)
    at = stats + (numbers * H + head) * 2
    tl.store(at, top, mask=in_rows)
    tl.store(at + 1, inverse, mask=in_rows)


@triton.jit(do_not_specialize=["pairs_head"])
def small_backward(
    programs, query, key, value, pairs, table, index, seed, query_order, key_order, stats, grad,
    query_grad, key_grad, value_grad, slopes_out, table_parts, query_row, query_head, key_row,
    key_head, value_row, value_head, grad_row, grad_head, pairs_head, slopes_head, scale,
    threshold, factor, H: tl.constexpr, PAIR: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    B: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, GRADS: tl.constexpr, WIDE: tl.constexpr,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """All gradients of a graph and head; a part of the table's, ``table_parts [T, K, H]``."""
    head, first_query, queries, first_key, keys, first_pair, first = program_of(programs, H)
    local = tl.arange(0, B)
    in_rows, in_cols = local < queries, local < keys
    numbers = first_query + local
    rows = nodes_of(query_order, numbers, in_rows)
    cols = nodes_of(key_order, first_key + local, in_cols)
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN
    grad += head * grad_head * ALIGN
    q = load_rows(query, rows, in_rows, query_row * ALIGN, C, D, UPCAST)
    q, q_rest = parts_of(q, PRECISION)
    k = load_rows(key, cols, in_cols, key_row * ALIGN, C, D, UPCAST)
    k, k_rest = parts_of(k, PRECISION)
    v = load_rows(value, cols, in_cols, value_row * ALIGN, C, D, UPCAST)
    v, v_rest = parts_of(v, PRECISION)
    g = load_rows(grad, rows, in_rows, grad_row * ALIGN, C, D, UPCAST)
    g, g_rest = parts_of(g, PRECISION)
    at = stats + (numbers * H + head) * 2
    top = tl.load(at, mask=in_rows, other=0.0)
    inverse = tl.load(at + 1, mask=in_rows, other=0.0)

    offsets = offsets_of(local, local, keys, WIDE)
    there = in_rows[:, None] & in_cols[None, :]
    scores, unit = scores_of(
        q, q_rest, k, k_rest, first_pair, offsets, pairs, table, index, there, in_cols, head,
        scale, H, PAIR, PRECISION,
    )  # fmt: skip
    weights = weights_of(scores, unit, top) * inverse[:, None]
    slopes = product(g, g_rest, tl.trans(v), tl.trans(v_rest), None, PRECISION)
    dropped = weights
    if seed is not None:
        keep = kept(seed, numbers, 0, head, threshold, B)
        dropped = tl.where(keep, weights, 0.0)
        slopes = tl.where(keep, slopes * factor, 0.0)
    dropped, dropped_rest = parts_of(dropped.to(g.dtype), PRECISION)
    dv = product(tl.trans(dropped), tl.trans(dropped_rest), g, g_rest, None, PRECISION) * factor
    store_rows(value_grad + head * C, cols, in_cols, GRADS, dv, C, D)
    slopes = weights * (slopes - tl.sum(weights * slopes, 1)[:, None])
    if slopes_out is not None:
        store_slopes(slopes_out, slopes_head, slopes, first_pair, offsets, there, head)
    if table_parts is not None:
        which = tl.load(index + first_pair + offsets, mask=there, other=0).to(tl.int32)
        part = tl.zeros([B, KP], tl.float32)
        part = by_table_row(part, which, tl.where(there, slopes, 0.0), K, KP)
        store_part(table_parts, programs, part, head, H, K, KP)
    slopes = slopes.to(q.dtype)
    of_keys, rest = parts_of(slopes, PRECISION)
    dk = product(tl.trans(of_keys), tl.trans(rest), q, q_rest, None, PRECISION) * scale
    store_rows(key_grad + head * C, cols, in_cols, GRADS, dk, C, D)
    if PRECISION != "half":
        slopes = shuffled(slopes, B, B)
        k = load_shuffled(
            key, key_order, first_key, 0, keys, key_row * ALIGN, B, False, C, D, UPCAST
        )
        k, k_rest = parts_of(k, PRECISION)
    slopes, rest = parts_of(slopes, PRECISION)
    dq = product(slopes, rest, k, k_rest, None, PRECISION) * scale
    store_rows(query_grad + head * C, rows, in_rows, GRADS, dq, C, D)
