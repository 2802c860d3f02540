# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""What the kernels along edges have in common. Importing this file imports triton.

A program has ``BT`` nodes, ``BE`` edges of each at a time, ``HB`` heads and ``D`` channels.
"""

import triton
import triton.language as tl


@triton.jit
def nodes_of(programs, count, H: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr):
    """The places of this program's nodes in the table, what stands there, and its first head."""
    blocks: tl.constexpr = (H + HB - 1) // HB
    place = (tl.program_id(0) // blocks).to(tl.int64) * BT + tl.arange(0, BT)
    here = place < count
    row = programs + place * 3
    node = tl.load(row, mask=here, other=0).to(tl.int64)
    begin = tl.load(row + 1, mask=here, other=0)
    end = tl.load(row + 2, mask=here, other=0)
    return place, here, node, begin, end, (tl.program_id(0) % blocks) * HB


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
def beside(
    there, head, head_stride, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    """Where the numbers of a row lie, ``[1, 1, HB * D]``, and which of them there are.

    Heads and channels are one axis while they are read: the compiler gives neighbours on the last
    axis to neighbouring threads, and no more than that.
    """
    channel = tl.arange(0, HB * D)
    at = (head + channel // D).to(tl.int64) * head_stride + channel % D
    mask = there[:, :, None]
    if H % HB != 0:
        mask = mask & (head + channel // D < H)[None, None, :]
    if D != C:
        mask = mask & (channel % D < C)[None, None, :]
    return at[None, None, :], mask


@triton.jit
def load_rows(
    base, rows, there, row_stride, head_stride, head, H: tl.constexpr, HB: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """``[BT, BE, HB, D]`` float32: whole rows, zero where there are none; ``rows [BT, BE]``."""
    at, mask = beside(there, head, head_stride, H, HB, C, D)
    tile = tl.load(base + (rows * row_stride)[:, :, None] + at, mask=mask, other=0.0)
    return tl.reshape(tile.to(tl.float32), [rows.shape[0], rows.shape[1], HB, D])


@triton.jit
def store_rows(
    base, rows, there, head, tile, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """The counterpart of :func:`load_rows`, into ``base [*, H, C]``."""
    at, mask = beside(there, head, C, H, HB, C, D)
    tile = tl.reshape(tile, [rows.shape[0], rows.shape[1], HB * D])
    tl.store(base + (rows * (H * C))[:, :, None] + at, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def each_head(rows, there, head, H: tl.constexpr, HB: tl.constexpr):
    """``[BT, BE, HB]``: places in ``[*, H]``, and which of them there are."""
    heads = (head + tl.arange(0, HB))[None, None, :]
    return rows[:, :, None] * H + heads, there[:, :, None] & (heads < H)


@triton.jit
def scores_of(
    q, k, values, number, there, head, scale, H: tl.constexpr, HB: tl.constexpr
):  # fmt: skip
    """``[BT, BE, HB]``: with the values on edges, minus infinity where there is no edge."""
    scores = tl.sum(q * k, 3) * scale
    if values is not None:
        at, mask = each_head(number, there, head, H, HB)
        scores += tl.load(values + at, mask=mask, other=0.0).to(tl.float32)
    return tl.where(there[:, :, None], scores, float("-inf"))


@triton.jit
def kept(seed, number, head, threshold, HB: tl.constexpr):
    """``[BT, BE, HB]``: which weights dropout keeps (see ``_philox``).

    ``threshold`` is 2^31 less than the smallest word that is kept, so that it fits in 32 bits.
    """
    edge = number.to(tl.uint32)[:, :, None]
    if HB >= 4:
        quad = (head // 4 + tl.arange(0, HB // 4)).to(tl.uint32)[None, None, :]
        w0, w1, w2, w3 = tl.philox(tl.load(seed), edge, 0, quad, 1)
        words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    else:
        heads = (head + tl.arange(0, HB))[None, None, :]
        w0, w1, w2, w3 = tl.philox(tl.load(seed), edge, 0, (heads // 4).to(tl.uint32), 1)
        word = heads % 4
        words = tl.where(word < 2, tl.where(word == 0, w0, w1), tl.where(word == 2, w2, w3))
    return (words ^ 0x80000000).to(tl.int32, bitcast=True) >= threshold
