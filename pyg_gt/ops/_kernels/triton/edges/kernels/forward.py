# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""Attention along edges: some nodes and all edges of each a program, no atomics.

Kernels are compiled anew for numbers that are divisible by 16 and for those that are not. How many
nodes there are, and where their table begins, differ from batch to batch: they are left out of it.
"""

import triton
import triton.language as tl

from .device_functions import each_head, edges_of, kept, load_rows, nodes_of, scores_of, store_rows


@triton.jit(do_not_specialize=["count", "threshold"], do_not_specialize_on_alignment=["programs"])
def edge_forward(
    programs, count, others, numbers, query, key, value, features, values, seed, out, stats,
    query_row, query_head, key_row, key_head, value_row, value_head, features_row, features_head,
    scale, threshold, factor, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, HB: tl.constexpr,
    BT: tl.constexpr, BE: tl.constexpr, ALIGN: tl.constexpr, NUMBERED: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """``out [Nq, H, C]``, and in ``stats [Nq, H, 2]`` largest score and 1 / sum of each query.

    With ``PARTS`` there is a row a part, not yet divided by the sum, which stands in ``stats``.
    """
    place, here, node, begin, end, head = nodes_of(programs, count, H, HB, BT)
    own = here[:, None]
    q = load_rows(
        query, node[:, None], own, query_row * ALIGN, query_head * ALIGN, head, H, HB, C, D
    )

    top = tl.full([BT, HB], float("-inf"), tl.float32)
    total = tl.zeros([BT, HB], tl.float32)
    result = tl.zeros([BT, HB, D], tl.float32)
    there, other, number = edges_of(others, numbers, begin, end, 0, BE, NUMBERED)
    for start in range(0, tl.max(end - begin, 0), BE):
        k = load_rows(key, other, there, key_row * ALIGN, key_head * ALIGN, head, H, HB, C, D)
        v = load_rows(
            value, other, there, value_row * ALIGN, value_head * ALIGN, head, H, HB, C, D
        )
        # on their way while these are computed
        next_there, next_other, next_number = edges_of(
            others, numbers, begin, end, start + BE, BE, NUMBERED
        )
        if features is not None:
            f = load_rows(
                features, number, there, features_row * ALIGN, features_head * ALIGN, head,
                H, HB, C, D,
            )  # fmt: skip
            k += f
            v += f
        scores = scores_of(q, k, values, number, there, head, scale, H, HB)
        higher = tl.maximum(top, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - safe[:, None, :])
        shrink = tl.exp(top - safe)
        total = total * shrink + tl.sum(weights, 1)
        if seed is not None:
            weights = tl.where(kept(seed, number, head, threshold, HB), weights * factor, 0.0)
        result = result * shrink[:, :, None] + tl.sum(weights[:, :, :, None] * v, 1)
        top = higher
        there, other, number = next_there, next_other, next_number
    top = tl.where(top == float("-inf"), 0.0, top)
    if PARTS:
        node = place
    else:
        # not 'total > 0', which would turn NaN into zeros
        total = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
        result = result * total[:, :, None]
    store_rows(out, node[:, None], own, head, result[:, None, :, :], H, HB, C, D)
    at, mask = each_head(node[:, None], own, head, H, HB)
    tl.store(stats + at * 2, top[:, None, :], mask=mask)
    tl.store(stats + at * 2 + 1, total[:, None, :], mask=mask)


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["programs"])
def combine_weighted(
    programs, count, parts, part_stats, out, stats, H: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, HB: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """``out`` and ``stats`` of heavy nodes from those of their parts, in order."""
    place, here, node, begin, end, head = nodes_of(programs, count, H, HB, 1)
    own = here[:, None]
    top = tl.full([1, HB], float("-inf"), tl.float32)
    total = tl.zeros([1, HB], tl.float32)
    result = tl.zeros([1, HB, D], tl.float32)
    for start in range(0, tl.max(end - begin, 0), BE):
        part = (begin[:, None] + start + tl.arange(0, BE)[None, :]).to(tl.int64)
        there = part < end[:, None]
        rows = load_rows(parts, part, there, H * C, C, head, H, HB, C, D)
        at, mask = each_head(part, there, head, H, HB)
        tops = tl.load(part_stats + at * 2, mask=mask, other=0.0)
        totals = tl.load(part_stats + at * 2 + 1, mask=mask, other=0.0)
        # a part without a weight has no largest score
        tops = tl.where(totals == 0.0, float("-inf"), tops)
        higher = tl.maximum(top, tl.max(tops, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(tops - safe[:, None, :])
        shrink = tl.exp(top - safe)
        total = total * shrink + tl.sum(weights * totals, 1)
        result = result * shrink[:, :, None] + tl.sum(weights[:, :, :, None] * rows, 1)
        top = higher
    top = tl.where(top == float("-inf"), 0.0, top)
    inverse = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
    result = result * inverse[:, :, None]
    store_rows(out, node[:, None], own, head, result[:, None, :, :], H, HB, C, D)
    at, mask = each_head(node[:, None], own, head, H, HB)
    tl.store(stats + at * 2, top[:, None, :], mask=mask)
    tl.store(stats + at * 2 + 1, inverse[:, None, :], mask=mask)


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["programs"])
def combine_sums(
    programs, count, parts, out, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    HB: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Rows of heavy nodes: the sums of their parts, in order."""
    place, here, node, begin, end, head = nodes_of(programs, count, H, HB, 1)
    result = tl.zeros([1, HB, D], tl.float32)
    for start in range(0, tl.max(end - begin, 0), BE):
        part = (begin[:, None] + start + tl.arange(0, BE)[None, :]).to(tl.int64)
        there = part < end[:, None]
        result += tl.sum(load_rows(parts, part, there, H * C, C, head, H, HB, C, D), 1)
    store_rows(out, node[:, None], here[:, None], head, result[:, None, :, :], H, HB, C, D)
