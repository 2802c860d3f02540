"""The forward kernel along edges: some nodes and all edges of each a program, no atomics.

Kernels are compiled anew for numbers that are divisible by 16 and for those that are not. How many
nodes there are, and where their table begins, differ from batch to batch: they are left out of it.
"""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl

from .device_functions import (
    compute_scores,
    dropout_mask,
    inverse_or_zero,
    load_edges,
    load_keys_values,
    load_nodes,
    load_rows,
    store_output,
)


@triton.jit(do_not_specialize=["count", "threshold"], do_not_specialize_on_alignment=["programs"])
def edge_forward(
    programs, count, neighbors, edge_ids, query, key, value, features, values, seed, out, stats,
    query_row, query_head, key_row, key_head, value_row, value_head, features_row, features_head,
    scale, threshold, factor, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, HB: tl.constexpr,
    BT: tl.constexpr, BE: tl.constexpr, ALIGN: tl.constexpr, NUMBERED: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """``out [Nq, H, C]``, and in ``stats [Nq, H, 2]`` largest score and 1 / sum of each query.

    With ``PARTS`` there is a row a part, not yet divided by the sum, which stands in ``stats``.
    """
    row, row_mask, node, begin, end, head = load_nodes(programs, count, H, HB, BT)
    node_mask = row_mask[:, None]
    q = load_rows(
        query, node[:, None], node_mask, query_row * ALIGN, query_head * ALIGN, head, H, HB, C, D
    )

    row_max = tl.full([BT, HB], float("-inf"), tl.float32)
    row_sum = tl.zeros([BT, HB], tl.float32)
    acc = tl.zeros([BT, HB, D], tl.float32)
    mask, neighbor, edge = load_edges(neighbors, edge_ids, begin, end, 0, BE, NUMBERED)
    for start in range(0, tl.max(end - begin, 0), BE):
        k, v, next_mask, next_neighbor, next_edge = load_keys_values(
            key, value, features, neighbors, edge_ids, mask, neighbor, edge, begin, end, start,
            key_row, key_head, value_row, value_head, features_row, features_head, head, H, HB, C,
            D, BE, ALIGN, NUMBERED,
        )  # fmt: skip
        scores = compute_scores(q, k, values, edge, mask, head, scale, H, HB)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        finite_max = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.exp(scores - finite_max[:, None, :])
        rescale = tl.exp(row_max - finite_max)
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        if seed is not None:
            keep = dropout_mask(seed, edge, head, threshold, HB)
            weights = tl.where(keep, weights * factor, 0.0)
        acc = acc * rescale[:, :, None] + tl.sum(weights[:, :, :, None] * v, 1)
        row_max = new_max
        mask, neighbor, edge = next_mask, next_neighbor, next_edge
    row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    if PARTS:
        node = row
    else:
        row_sum = inverse_or_zero(row_sum)
        acc = acc * row_sum[:, :, None]
    store_output(out, stats, node[:, None], node_mask, head, acc, row_max, row_sum, H, HB, C, D)
