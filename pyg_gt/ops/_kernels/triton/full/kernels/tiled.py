"""Full attention of larger graphs, tile by tile: one program a tile and head, no atomics."""

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
    node_ids,
    pair_offsets,
    permute_columns,
    query_tile,
    split_tf32,
    store_rows,
    store_stats,
)


@triton.jit(do_not_specialize=["pairs_head"])
def tiled_forward(
    programs, query, key, value, pairs, table, table_index, seed, query_order, key_order, out,
    stats, query_row, query_head, key_row, key_head, value_row, value_head, pairs_head, scale,
    threshold, factor, H: tl.constexpr, PAIR_STRIDE: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, INT64: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """As ``small_forward``, one tile of queries a program (Dao et al. 2022, online softmax)."""
    head, first_key, num_keys, tile_pair, positions, query_nodes, query_mask = query_tile(
        programs, query_order, H, BQ
    )
    if pairs is not None:
        pairs += head * pairs_head
    query += head * query_head * ALIGN
    q = load_rows(query, query_nodes, query_mask, query_row * ALIGN, C, D, UPCAST)
    q, q_low = split_tf32(q, PRECISION)
    key += head * key_head * ALIGN
    value += head * value_head * ALIGN

    row_max = tl.full([BQ], float("-inf"), tl.float32)
    row_sum = tl.zeros([BQ], tl.float32)
    acc = tl.zeros([BQ, D], tl.float32)
    full_end = num_keys.to(tl.int32) // BK * BK
    for start in range(0, full_end, BK):
        row_max, row_sum, acc = _add_keys(
            row_max, row_sum, acc, q, q_low, positions, query_mask, head, tile_pair, start,
            first_key, num_keys, True, key, value, pairs, table, table_index, seed, key_order,
            key_row, value_row, scale, threshold, H, PAIR_STRIDE, C, D, BQ, BK, INT64, ALIGN,
            PRECISION, UPCAST,
        )  # fmt: skip
    if full_end < num_keys:
        row_max, row_sum, acc = _add_keys(
            row_max, row_sum, acc, q, q_low, positions, query_mask, head, tile_pair, full_end,
            first_key, num_keys, False, key, value, pairs, table, table_index, seed, key_order,
            key_row, value_row, scale, threshold, H, PAIR_STRIDE, C, D, BQ, BK, INT64, ALIGN,
            PRECISION, UPCAST,
        )  # fmt: skip
    row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    inverse_sum = inverse_or_zero(row_sum)
    store_rows(
        out + head * C, query_nodes, query_mask, H * C, acc * (inverse_sum * factor)[:, None], C, D
    )
    store_stats(stats, positions, head, query_mask, row_max, inverse_sum, H)


@triton.jit
def _add_keys(
    row_max, row_sum, acc, q, q_low, positions, query_mask, head, tile_pair, start, first_key,
    num_keys, IS_FULL: tl.constexpr, key, value, pairs, table, table_index, seed, key_order,
    key_row, value_row, scale, threshold, H: tl.constexpr, PAIR_STRIDE: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, INT64: tl.constexpr,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The state of an online softmax after one more tile of keys."""
    key_index = start + tl.arange(0, BK)
    if IS_FULL:
        key_mask = None
        mask = query_mask[:, None]
    else:
        key_mask = key_index < num_keys
        mask = query_mask[:, None] & key_mask[None, :]
    key_nodes = node_ids(key_order, first_key + key_index, key_mask)
    k = load_rows(key, key_nodes, key_mask, key_row * ALIGN, C, D, UPCAST)
    if PRECISION == "half":
        v = load_rows(value, key_nodes, key_mask, value_row * ALIGN, C, D, UPCAST)
    else:
        v = load_permuted_rows(
            value,
            key_order,
            first_key,
            start,
            num_keys,
            value_row * ALIGN,
            BK,
            IS_FULL,
            C,
            D,
            UPCAST,
        )
    k, k_low = split_tf32(k, PRECISION)
    v, v_low = split_tf32(v, PRECISION)
    offsets = pair_offsets(tl.arange(0, BQ), key_index, num_keys, INT64)
    scores, exponent = compute_scores(
        q, q_low, k, k_low, tile_pair, offsets, pairs, table, table_index, mask, key_mask, head,
        scale, H, PAIR_STRIDE, PRECISION,
    )  # fmt: skip
    new_max = tl.maximum(row_max, tl.max(scores, 1) * exponent)
    finite_max = tl.where(new_max == float("-inf"), 0.0, new_max)
    weights = exponentials(scores, exponent, finite_max)
    rescale = tl.exp2(row_max - finite_max)
    row_sum = row_sum * rescale + tl.sum(weights, 1)
    if seed is not None:
        weights = tl.where(dropout_mask(seed, positions, start, head, threshold, BK), weights, 0.0)
    if PRECISION != "half":
        weights = permute_columns(weights, BQ, BK)
    weights, weights_low = split_tf32(weights.to(v.dtype), PRECISION)
    acc = dot(weights, weights_low, v, v_low, acc * rescale[:, None], PRECISION)
    return new_max, row_sum, acc
