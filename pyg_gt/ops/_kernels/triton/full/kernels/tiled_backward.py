"""The gradients of larger graphs, tile by tile: one program a tile and head, no atomics."""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl

from .device_functions import (
    compute_scores,
    dot,
    dropout_mask,
    exponentials,
    load_permuted_rows,
    load_program,
    load_rows,
    load_stats,
    node_ids,
    pair_offsets,
    permute_columns,
    query_tile,
    split_tf32,
    store_grad_scores,
    store_rows,
    store_table_partial,
    sum_by_table_row,
)


@triton.jit(do_not_specialize=["pairs_head"])
def tiled_backward_rows(
    programs, query, key, value, pairs, table, table_index, seed, query_order, key_order, out,
    stats, grad, query_grad, deltas, scores_grad, table_partials, query_row, query_head, key_row,
    key_head, value_row, value_head, grad_row, grad_head, pairs_head, scores_grad_head, scale,
    threshold, factor, H: tl.constexpr, PAIR_STRIDE: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, K: tl.constexpr, KP: tl.constexpr,
    GRADS_ROW: tl.constexpr, INT64: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """The gradients of queries and biases, and ``deltas [Nq, H]`` for the other kernel."""
    head, first_key, num_keys, tile_pair, positions, query_nodes, query_mask = query_tile(
        programs, query_order, H, BQ
    )
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    grad += head * grad_head * ALIGN
    q = load_rows(query, query_nodes, query_mask, query_row * ALIGN, C, D, UPCAST)
    g = load_rows(grad, query_nodes, query_mask, grad_row * ALIGN, C, D, UPCAST)
    o = load_rows(out + head * C, query_nodes, query_mask, H * C, C, D, UPCAST)
    delta = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
    q, q_low = split_tf32(q, PRECISION)
    g, g_low = split_tf32(g, PRECISION)
    tl.store(deltas + positions * H + head, delta, mask=query_mask)
    row_max, inverse_sum = load_stats(stats, positions, head, query_mask, H)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN

    dq = tl.zeros([BQ, D], tl.float32)
    partial = tl.zeros([BQ, KP], tl.float32)
    full_end = num_keys.to(tl.int32) // BK * BK
    for start in range(0, full_end, BK):
        dq, partial = _add_keys(
            dq, partial, q, q_low, g, g_low, delta, row_max, inverse_sum, positions, query_mask,
            head, tile_pair, start, first_key, num_keys, True, key, value, pairs, table,
            table_index, seed, key_order, scores_grad, scores_grad_head, table_partials, key_row,
            value_row, scale, threshold, factor, H, PAIR_STRIDE, C, D, BQ, BK, K, KP, INT64, ALIGN,
            PRECISION, UPCAST,
        )  # fmt: skip
    if full_end < num_keys:
        dq, partial = _add_keys(
            dq, partial, q, q_low, g, g_low, delta, row_max, inverse_sum, positions, query_mask,
            head, tile_pair, full_end, first_key, num_keys, False, key, value, pairs, table,
            table_index, seed, key_order, scores_grad, scores_grad_head, table_partials, key_row,
            value_row, scale, threshold, factor, H, PAIR_STRIDE, C, D, BQ, BK, K, KP, INT64, ALIGN,
            PRECISION, UPCAST,
        )  # fmt: skip
    store_rows(query_grad + head * C, query_nodes, query_mask, GRADS_ROW, dq * scale, C, D)
    if table_partials is not None:
        store_table_partial(table_partials, programs, partial, head, H, K, KP)


@triton.jit
def _add_keys(
    dq, partial, q, q_low, g, g_low, delta, row_max, inverse_sum, positions, query_mask, head,
    tile_pair, start, first_key, num_keys, IS_FULL: tl.constexpr, key, value, pairs, table,
    table_index, seed, key_order, scores_grad, scores_grad_head, table_partials, key_row,
    value_row, scale, threshold, factor, H: tl.constexpr, PAIR_STRIDE: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, K: tl.constexpr,
    KP: tl.constexpr, INT64: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """The sums of ``tiled_backward_rows`` after one more tile of keys."""
    key_index = start + tl.arange(0, BK)
    if IS_FULL:
        key_mask = None
        mask = query_mask[:, None]
    else:
        key_mask = key_index < num_keys
        mask = query_mask[:, None] & key_mask[None, :]
    key_nodes = node_ids(key_order, first_key + key_index, key_mask)
    k = load_rows(key, key_nodes, key_mask, key_row * ALIGN, C, D, UPCAST)
    v = load_rows(value, key_nodes, key_mask, value_row * ALIGN, C, D, UPCAST)
    k, k_low = split_tf32(k, PRECISION)
    v, v_low = split_tf32(v, PRECISION)
    permuted_k, permuted_k_low = k, k_low
    if PRECISION != "half":
        permuted_k = load_permuted_rows(
            key, key_order, first_key, start, num_keys, key_row * ALIGN, BK, IS_FULL, C, D, UPCAST
        )
        permuted_k, permuted_k_low = split_tf32(permuted_k, PRECISION)
    offsets = pair_offsets(tl.arange(0, BQ), key_index, num_keys, INT64)
    scores, exponent = compute_scores(
        q, q_low, k, k_low, tile_pair, offsets, pairs, table, table_index, mask, key_mask, head,
        scale, H, PAIR_STRIDE, PRECISION,
    )  # fmt: skip
    weights = exponentials(scores, exponent, row_max) * inverse_sum[:, None]
    grad_scores = dot(g, g_low, tl.trans(v), tl.trans(v_low), None, PRECISION)
    if seed is not None:
        keep = dropout_mask(seed, positions, start, head, threshold, BK)
        grad_scores = tl.where(keep, grad_scores * factor, 0.0)
    grad_scores = weights * (grad_scores - delta[:, None])
    if scores_grad is not None:
        store_grad_scores(
            scores_grad, scores_grad_head, grad_scores, tile_pair, offsets, mask, head
        )
    if table_partials is not None:
        table_rows = tl.load(table_index + tile_pair + offsets, mask=mask, other=0).to(tl.int32)
        partial = sum_by_table_row(partial, table_rows, tl.where(mask, grad_scores, 0.0), K, KP)
    if PRECISION != "half":
        grad_scores = permute_columns(grad_scores, BQ, BK)
    grad_scores, grad_scores_low = split_tf32(grad_scores.to(k.dtype), PRECISION)
    dq = dot(grad_scores, grad_scores_low, permuted_k, permuted_k_low, dq, PRECISION)
    return dq, partial


@triton.jit(do_not_specialize=["pairs_head"])
def tiled_backward_cols(
    programs, query, key, value, pairs, table, table_index, seed, query_order, key_order, stats,
    grad, deltas, key_grad, value_grad, query_row, query_head, key_row, key_head, value_row,
    value_head, grad_row, grad_head, pairs_head, scale, threshold, factor, H: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, GRADS_ROW: tl.constexpr, INT64: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values, one tile of keys a program."""
    head, first_query, num_queries, first_key, num_keys, first_pair, first = load_program(
        programs, H
    )
    key_index = first + tl.arange(0, BK)
    key_mask = key_index < num_keys
    key_nodes = node_ids(key_order, first_key + key_index, key_mask)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN
    k = load_rows(key, key_nodes, key_mask, key_row * ALIGN, C, D, UPCAST)
    v = load_rows(value, key_nodes, key_mask, value_row * ALIGN, C, D, UPCAST)
    k, k_low = split_tf32(k, PRECISION)
    v, v_low = split_tf32(v, PRECISION)
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    grad += head * grad_head * ALIGN

    dk = tl.zeros([BK, D], tl.float32)
    dv = tl.zeros([BK, D], tl.float32)
    full_end = num_queries.to(tl.int32) // BQ * BQ
    for start in range(0, full_end, BQ):
        dk, dv = _add_queries(
            dk, dv, k, k_low, v, v_low, key_mask, key_index, head, first, start, first_query,
            num_queries, num_keys, first_pair, True, query, grad, stats, deltas, pairs, table,
            table_index, seed, query_order, query_row, grad_row, scale, threshold, factor, H,
            PAIR_STRIDE, C, D, BQ, BK, INT64, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    if full_end < num_queries:
        dk, dv = _add_queries(
            dk, dv, k, k_low, v, v_low, key_mask, key_index, head, first, full_end, first_query,
            num_queries, num_keys, first_pair, False, query, grad, stats, deltas, pairs, table,
            table_index, seed, query_order, query_row, grad_row, scale, threshold, factor, H,
            PAIR_STRIDE, C, D, BQ, BK, INT64, ALIGN, PRECISION, UPCAST,
        )  # fmt: skip
    store_rows(key_grad + head * C, key_nodes, key_mask, GRADS_ROW, dk * scale, C, D)
    store_rows(value_grad + head * C, key_nodes, key_mask, GRADS_ROW, dv * factor, C, D)


@triton.jit
def _add_queries(
    dk, dv, k, k_low, v, v_low, key_mask, key_index, head, first, start, first_query, num_queries,
    num_keys, first_pair, IS_FULL: tl.constexpr, query, grad, stats, deltas, pairs, table,
    table_index, seed, query_order, query_row, grad_row, scale, threshold, factor, H: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, INT64: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """The sums of ``tiled_backward_cols`` after one more tile of queries."""
    query_index = start + tl.arange(0, BQ)
    positions = first_query + query_index
    at = stats + (positions * H + head) * 2
    if IS_FULL:
        query_mask = None
        mask = key_mask[None, :]
        row_max, inverse_sum = tl.load(at), tl.load(at + 1)
        delta = tl.load(deltas + positions * H + head)
    else:
        query_mask = query_index < num_queries
        mask = query_mask[:, None] & key_mask[None, :]
        row_max = tl.load(at, mask=query_mask, other=0.0)
        # weights of a row without a query are zero
        inverse_sum = tl.load(at + 1, mask=query_mask, other=0.0)
        delta = tl.load(deltas + positions * H + head, mask=query_mask, other=0.0)
    query_nodes = node_ids(query_order, positions, query_mask)
    q = load_rows(query, query_nodes, query_mask, query_row * ALIGN, C, D, UPCAST)
    g = load_rows(grad, query_nodes, query_mask, grad_row * ALIGN, C, D, UPCAST)
    q, q_low = split_tf32(q, PRECISION)
    g, g_low = split_tf32(g, PRECISION)
    tile_pair = first_pair + start * num_keys
    offsets = pair_offsets(tl.arange(0, BQ), key_index, num_keys, INT64)
    # a column without a key is not stored
    scores, exponent = compute_scores(
        q, q_low, k, k_low, tile_pair, offsets, pairs, table, table_index, mask, None, head, scale,
        H, PAIR_STRIDE, PRECISION,
    )  # fmt: skip
    weights = exponentials(scores, exponent, row_max) * inverse_sum[:, None]
    grad_scores = dot(g, g_low, tl.trans(v), tl.trans(v_low), None, PRECISION)
    dropped = weights
    if seed is not None:
        keep = dropout_mask(seed, positions, first.to(tl.int32), head, threshold, BK)
        dropped = tl.where(keep, weights, 0.0)
        grad_scores = tl.where(keep, grad_scores * factor, 0.0)
    dropped, dropped_low = split_tf32(dropped.to(g.dtype), PRECISION)
    dv = dot(tl.trans(dropped), tl.trans(dropped_low), g, g_low, dv, PRECISION)
    grad_scores = (weights * (grad_scores - delta[:, None])).to(q.dtype)
    grad_scores, grad_scores_low = split_tf32(grad_scores, PRECISION)
    dk = dot(tl.trans(grad_scores), tl.trans(grad_scores_low), q, q_low, dk, PRECISION)
    return dk, dv
