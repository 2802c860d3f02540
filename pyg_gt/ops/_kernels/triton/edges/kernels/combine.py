"""Rows of heavy nodes from those of their parts, which are added up in order: no atomics."""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl

from .device_functions import (
    head_offsets,
    inverse_or_zero,
    load_nodes,
    load_rows,
    store_output,
    store_rows,
)


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["programs"])
def combine_weighted(
    programs, count, partials, partial_stats, out, stats, H: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr, HB: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """``out`` and ``stats`` of heavy nodes from those of their parts, in order."""
    row, row_mask, node, begin, end, head = load_nodes(programs, count, H, HB, 1)
    node_mask = row_mask[:, None]
    row_max = tl.full([1, HB], float("-inf"), tl.float32)
    row_sum = tl.zeros([1, HB], tl.float32)
    acc = tl.zeros([1, HB, D], tl.float32)
    for start in range(0, tl.max(end - begin, 0), BE):
        part = (begin[:, None] + start + tl.arange(0, BE)[None, :]).to(tl.int64)
        mask = part < end[:, None]
        rows = load_rows(partials, part, mask, H * C, C, head, H, HB, C, D)
        at, head_mask = head_offsets(part, mask, head, H, HB)
        part_max = tl.load(partial_stats + at * 2, mask=head_mask, other=0.0)
        part_sum = tl.load(partial_stats + at * 2 + 1, mask=head_mask, other=0.0)
        # a part without a weight has no largest score
        part_max = tl.where(part_sum == 0.0, float("-inf"), part_max)
        new_max = tl.maximum(row_max, tl.max(part_max, 1))
        finite_max = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.exp(part_max - finite_max[:, None, :])
        rescale = tl.exp(row_max - finite_max)
        row_sum = row_sum * rescale + tl.sum(weights * part_sum, 1)
        acc = acc * rescale[:, :, None] + tl.sum(weights[:, :, :, None] * rows, 1)
        row_max = new_max
    row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    inverse_sum = inverse_or_zero(row_sum)
    acc = acc * inverse_sum[:, :, None]
    store_output(
        out, stats, node[:, None], node_mask, head, acc, row_max, inverse_sum, H, HB, C, D
    )


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["programs"])
def combine_sums(
    programs, count, partials, out, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    HB: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Rows of heavy nodes: the sums of their parts, in order."""
    row, row_mask, node, begin, end, head = load_nodes(programs, count, H, HB, 1)
    acc = tl.zeros([1, HB, D], tl.float32)
    for start in range(0, tl.max(end - begin, 0), BE):
        part = (begin[:, None] + start + tl.arange(0, BE)[None, :]).to(tl.int64)
        mask = part < end[:, None]
        acc += tl.sum(load_rows(partials, part, mask, H * C, C, head, H, HB, C, D), 1)
    store_rows(out, node[:, None], row_mask[:, None], head, acc[:, None, :, :], H, HB, C, D)
