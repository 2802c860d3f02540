# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""What the kernels along edges have in common. Importing this file imports triton.

A program has ``BT`` nodes, ``BE`` edges of each at a time, ``HB`` heads and ``D`` channels.
"""

import triton
import triton.language as tl


@triton.jit
def nodes_of(programs, count, H: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr):
    """The places of this program's nodes in the table, what stands there, and its heads."""
    blocks: tl.constexpr = (H + HB - 1) // HB
    place = (tl.program_id(0) // blocks).to(tl.int64) * BT + tl.arange(0, BT)
    here = place < count
    row = programs + place * 3
    node = tl.load(row, mask=here, other=0).to(tl.int64)
    begin = tl.load(row + 1, mask=here, other=0)
    end = tl.load(row + 2, mask=here, other=0)
    head = (tl.program_id(0) % blocks) * HB + tl.arange(0, HB)
    return place, here, node, begin, end, head


@triton.jit
def edges_of(others, numbers, begin, end, start, BE: tl.constexpr, NUMBERED: tl.constexpr):
    """``[BT, BE]``: whether there is an edge, the node at its other end, and its number."""
    at = begin[:, None] + start + tl.arange(0, BE)[None, :]
    there = at < end[:, None]
    other = tl.load(others + at, mask=there, other=0)
    number = other
    if NUMBERED:
        number = tl.load(numbers + at, mask=there, other=0)
    # 64 bits, for they are multiplied by strides
    return there, other.to(tl.int64), number.to(tl.int64)


@triton.jit
def channels_of(
    there, head, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    """Which numbers of a tile ``[BT, BE, HB, D]`` there are."""
    mask = there[:, :, None, None]
    if H % HB != 0:
        mask = mask & (head < H)[None, None, :, None]
    if D != C:
        mask = mask & (tl.arange(0, D) < C)[None, None, None, :]
    return mask


@triton.jit
def load_rows(
    base, rows, there, row_stride, head_stride, head, H: tl.constexpr, HB: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """``[BT, BE, HB, D]`` float32: whole rows, zero where there are none; ``rows [BT, BE]``."""
    beside = (head.to(tl.int64) * head_stride)[:, None] + tl.arange(0, D)[None, :]  # [HB, D]
    at = (rows * row_stride)[:, :, None, None] + beside[None, None, :, :]
    return tl.load(base + at, mask=channels_of(there, head, H, HB, C, D), other=0.0).to(tl.float32)


@triton.jit
def store_rows(
    base, rows, there, head, tile, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """The counterpart of :func:`load_rows`, into ``base [*, H, C]``."""
    beside = (head * C)[:, None] + tl.arange(0, D)[None, :]
    at = (rows * (H * C))[:, :, None, None] + beside[None, None, :, :]
    mask = channels_of(there, head, H, HB, C, D)
    tl.store(base + at, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def each_head(rows, there, head, H: tl.constexpr):
    """``[BT, BE, HB]``: places in ``[*, H]``, and which of them there are."""
    mask = there[:, :, None] & (head < H)[None, None, :]
    return rows[:, :, None] * H + head[None, None, :], mask


@triton.jit
def scores_of(q, k, values, number, there, head, scale, H: tl.constexpr):
    """``[BT, BE, HB]``: with the values on edges, minus infinity where there is no edge."""
    scores = tl.sum(q * k, 3) * scale
    if values is not None:
        at, mask = each_head(number, there, head, H)
        scores += tl.load(values + at, mask=mask, other=0.0).to(tl.float32)
    return tl.where(there[:, :, None], scores, float("-inf"))


@triton.jit
def kept(seed, number, head, threshold, H: tl.constexpr, HB: tl.constexpr):
    """``[BT, BE, HB]``: which weights dropout keeps (see ``_philox``).

    ``threshold`` is 2^31 less than the smallest word that is kept, so that it fits in 32 bits.
    """
    edge = number.to(tl.uint32)[:, :, None]
    if HB >= 4:
        blocks: tl.constexpr = (H + HB - 1) // HB
        quad = (tl.program_id(0) % blocks) * (HB // 4) + tl.arange(0, HB // 4)
        w0, w1, w2, w3 = tl.philox(tl.load(seed), edge, 0, quad.to(tl.uint32)[None, None, :], 1)
        words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    else:
        quad = (head // 4).to(tl.uint32)[None, None, :]
        w0, w1, w2, w3 = tl.philox(tl.load(seed), edge, 0, quad, 1)
        word = (head % 4)[None, None, :]
        words = tl.where(word < 2, tl.where(word == 0, w0, w1), tl.where(word == 2, w2, w3))
    return (words ^ 0x80000000).to(tl.int32, bitcast=True) >= threshold
