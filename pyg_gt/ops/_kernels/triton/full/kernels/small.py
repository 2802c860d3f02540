"""Full attention of graphs that fit into one tile: one program a graph and head, no atomics."""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl

from .device_functions import (
    compute_scores,
    dot,
    dropout_mask,
    exponentials,
    inverse_or_zero,
    load_permuted_rows,
    load_rows,
    load_stats,
    pair_offsets,
    permute_columns,
    split_tf32,
    store_grad_scores,
    store_rows,
    store_stats,
    store_table_partial,
    sum_by_table_row,
    whole_graph,
)


@triton.jit(do_not_specialize=["pairs_head"])
def small_forward(
    programs, query, key, value, pairs, table, table_index, seed, query_order, key_order, out,
    stats, query_row, query_head, key_row, key_head, value_row, value_head, pairs_head, scale,
    threshold, factor, H: tl.constexpr, PAIR_STRIDE: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, B: tl.constexpr, INT64: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``out [Nq, H, C]``, and in ``stats [Nq, H, 2]`` largest score and 1 / sum of each row."""
    (
        head, first_key, num_keys, first_pair, local, positions, query_nodes, key_nodes,
        query_mask, key_mask,
    ) = whole_graph(programs, query_order, key_order, H, B)  # fmt: skip
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN
    q = load_rows(query, query_nodes, query_mask, query_row * ALIGN, C, D, UPCAST)
    q, q_low = split_tf32(q, PRECISION)
    k = load_rows(key, key_nodes, key_mask, key_row * ALIGN, C, D, UPCAST)
    k, k_low = split_tf32(k, PRECISION)
    if PRECISION == "half":
        v = load_rows(value, key_nodes, key_mask, value_row * ALIGN, C, D, UPCAST)
    else:
        v = load_permuted_rows(
            value, key_order, first_key, 0, num_keys, value_row * ALIGN, B, False, C, D, UPCAST
        )
    v, v_low = split_tf32(v, PRECISION)

    offsets = pair_offsets(local, local, num_keys, INT64)
    mask = query_mask[:, None] & key_mask[None, :]
    scores, exponent = compute_scores(
        q, q_low, k, k_low, first_pair, offsets, pairs, table, table_index, mask, key_mask, head,
        scale, H, PAIR_STRIDE, PRECISION,
    )  # fmt: skip
    row_max = tl.max(scores, 1) * exponent
    row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    weights = exponentials(scores, exponent, row_max)
    row_sum = tl.sum(weights, 1)
    inverse_sum = inverse_or_zero(row_sum)
    if seed is not None:
        weights = tl.where(dropout_mask(seed, positions, 0, head, threshold, B), weights, 0.0)
    if PRECISION != "half":
        weights = permute_columns(weights, B, B)
    weights, weights_low = split_tf32(weights.to(v.dtype), PRECISION)
    acc = dot(weights, weights_low, v, v_low, None, PRECISION)
    acc *= (inverse_sum * factor)[:, None]
    store_rows(out + head * C, query_nodes, query_mask, H * C, acc, C, D)
    store_stats(stats, positions, head, query_mask, row_max, inverse_sum, H)


@triton.jit(do_not_specialize=["pairs_head"])
def small_backward(
    programs, query, key, value, pairs, table, table_index, seed, query_order, key_order, stats,
    grad, query_grad, key_grad, value_grad, scores_grad, table_partials, query_row, query_head,
    key_row, key_head, value_row, value_head, grad_row, grad_head, pairs_head, scores_grad_head,
    scale, threshold, factor, H: tl.constexpr, PAIR_STRIDE: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, B: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, GRADS_ROW: tl.constexpr,
    INT64: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """All gradients of a graph and head; a part of the table's, ``table_partials [T, K, H]``."""
    (
        head, first_key, num_keys, first_pair, local, positions, query_nodes, key_nodes,
        query_mask, key_mask,
    ) = whole_graph(programs, query_order, key_order, H, B)  # fmt: skip
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN
    grad += head * grad_head * ALIGN
    q = load_rows(query, query_nodes, query_mask, query_row * ALIGN, C, D, UPCAST)
    q, q_low = split_tf32(q, PRECISION)
    k = load_rows(key, key_nodes, key_mask, key_row * ALIGN, C, D, UPCAST)
    k, k_low = split_tf32(k, PRECISION)
    v = load_rows(value, key_nodes, key_mask, value_row * ALIGN, C, D, UPCAST)
    v, v_low = split_tf32(v, PRECISION)
    g = load_rows(grad, query_nodes, query_mask, grad_row * ALIGN, C, D, UPCAST)
    g, g_low = split_tf32(g, PRECISION)
    row_max, inverse_sum = load_stats(stats, positions, head, query_mask, H)

    offsets = pair_offsets(local, local, num_keys, INT64)
    mask = query_mask[:, None] & key_mask[None, :]
    scores, exponent = compute_scores(
        q, q_low, k, k_low, first_pair, offsets, pairs, table, table_index, mask, key_mask, head,
        scale, H, PAIR_STRIDE, PRECISION,
    )  # fmt: skip
    weights = exponentials(scores, exponent, row_max) * inverse_sum[:, None]
    grad_scores = dot(g, g_low, tl.trans(v), tl.trans(v_low), None, PRECISION)
    dropped = weights
    if seed is not None:
        keep = dropout_mask(seed, positions, 0, head, threshold, B)
        dropped = tl.where(keep, weights, 0.0)
        grad_scores = tl.where(keep, grad_scores * factor, 0.0)
    dropped, dropped_low = split_tf32(dropped.to(g.dtype), PRECISION)
    dv = dot(tl.trans(dropped), tl.trans(dropped_low), g, g_low, None, PRECISION) * factor
    store_rows(value_grad + head * C, key_nodes, key_mask, GRADS_ROW, dv, C, D)
    grad_scores = weights * (grad_scores - tl.sum(weights * grad_scores, 1)[:, None])
    if scores_grad is not None:
        store_grad_scores(
            scores_grad, scores_grad_head, grad_scores, first_pair, offsets, mask, head
        )
    if table_partials is not None:
        table_rows = tl.load(table_index + first_pair + offsets, mask=mask, other=0).to(tl.int32)
        partial = tl.zeros([B, KP], tl.float32)
        partial = sum_by_table_row(partial, table_rows, tl.where(mask, grad_scores, 0.0), K, KP)
        store_table_partial(table_partials, programs, partial, head, H, K, KP)
    grad_scores = grad_scores.to(q.dtype)
    high, low = split_tf32(grad_scores, PRECISION)
    dk = dot(tl.trans(high), tl.trans(low), q, q_low, None, PRECISION) * scale
    store_rows(key_grad + head * C, key_nodes, key_mask, GRADS_ROW, dk, C, D)
    if PRECISION != "half":
        grad_scores = permute_columns(grad_scores, B, B)
        k = load_permuted_rows(
            key, key_order, first_key, 0, num_keys, key_row * ALIGN, B, False, C, D, UPCAST
        )
        k, k_low = split_tf32(k, PRECISION)
    grad_scores, low = split_tf32(grad_scores, PRECISION)
    dq = dot(grad_scores, low, k, k_low, None, PRECISION) * scale
    store_rows(query_grad + head * C, query_nodes, query_mask, GRADS_ROW, dq, C, D)
