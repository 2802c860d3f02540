"""Device functions of the kernels along edges: loads, scores, dropout and stores.

A program has ``BT`` nodes, ``BE`` edges of each at a time, ``HB`` heads and ``D`` channels.
"""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def load_nodes(programs, count, H: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr):
    """``[BT]``: rows of the table, their mask, node and range of edges; and the first head."""
    blocks: tl.constexpr = (H + HB - 1) // HB
    row = (tl.program_id(0) // blocks).to(tl.int64) * BT + tl.arange(0, BT)
    row_mask = row < count
    table = programs + row * 3
    node = tl.load(table, mask=row_mask, other=0).to(tl.int64)
    begin = tl.load(table + 1, mask=row_mask, other=0)
    end = tl.load(table + 2, mask=row_mask, other=0)
    return row, row_mask, node, begin, end, (tl.program_id(0) % blocks) * HB


@triton.jit
def load_edges(neighbors, edge_ids, begin, end, start, BE: tl.constexpr, NUMBERED: tl.constexpr):
    """``[BT, BE]``: mask, the node at the other end, and the caller's number of each edge."""
    at = begin[:, None] + start + tl.arange(0, BE)[None, :]
    mask = at < end[:, None]
    neighbor = tl.load(neighbors + at, mask=mask, other=0)
    edge = neighbor
    if NUMBERED:
        edge = tl.load(edge_ids + at, mask=mask, other=0)
    # 64 bits, for they are multiplied by strides
    return mask, neighbor.to(tl.int64), edge.to(tl.int64)


@triton.jit
def row_offsets(
    mask, head, head_stride, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    """Offsets of the numbers of a row, ``[1, 1, HB * D]``, and which of them there are.

    Heads and channels are one axis while they are read: the compiler gives neighbours on the last
    axis to neighbouring threads, and no more than that.
    """
    channel = tl.arange(0, HB * D)
    at = (head + channel // D).to(tl.int64) * head_stride + channel % D
    mask = mask[:, :, None]
    if H % HB != 0:
        mask = mask & (head + channel // D < H)[None, None, :]
    if D != C:
        mask = mask & (channel % D < C)[None, None, :]
    return at[None, None, :], mask


@triton.jit
def load_rows(
    base, rows, mask, row_stride, head_stride, head, H: tl.constexpr, HB: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """``[BT, BE, HB, D]`` float32: whole rows, zero where there are none; ``rows [BT, BE]``."""
    at, mask = row_offsets(mask, head, head_stride, H, HB, C, D)
    tile = tl.load(base + (rows * row_stride)[:, :, None] + at, mask=mask, other=0.0)
    return tl.reshape(tile.to(tl.float32), [rows.shape[0], rows.shape[1], HB, D])


@triton.jit
def store_rows(
    base, rows, mask, head, tile, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """The counterpart of :func:`load_rows`, into ``base [*, H, C]``."""
    at, mask = row_offsets(mask, head, C, H, HB, C, D)
    tile = tl.reshape(tile, [rows.shape[0], rows.shape[1], HB * D])
    tl.store(base + (rows * (H * C))[:, :, None] + at, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def head_offsets(rows, mask, head, H: tl.constexpr, HB: tl.constexpr):
    """``[BT, BE, HB]``: offsets in ``[*, H]``, and which of them there are."""
    heads = (head + tl.arange(0, HB))[None, None, :]
    return rows[:, :, None] * H + heads, mask[:, :, None] & (heads < H)


@triton.jit
def load_keys_values(
    key, value, features, neighbors, edge_ids, mask, neighbor, edge, begin, end, start, key_row,
    key_head, value_row, value_head, features_row, features_head, head, H: tl.constexpr,
    HB: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BE: tl.constexpr, ALIGN: tl.constexpr,
    NUMBERED: tl.constexpr,
):  # fmt: skip
    """Keys and values ``[BT, BE, HB, D]`` with features, and the next of :func:`load_edges`."""
    k = load_rows(key, neighbor, mask, key_row * ALIGN, key_head * ALIGN, head, H, HB, C, D)
    v = load_rows(value, neighbor, mask, value_row * ALIGN, value_head * ALIGN, head, H, HB, C, D)
    # on their way while these are computed
    next_mask, next_neighbor, next_edge = load_edges(
        neighbors, edge_ids, begin, end, start + BE, BE, NUMBERED
    )
    if features is not None:
        f = load_rows(
            features, edge, mask, features_row * ALIGN, features_head * ALIGN, head, H, HB, C, D
        )
        k += f
        v += f
    return k, v, next_mask, next_neighbor, next_edge


@triton.jit
def inverse_or_zero(row_sum):
    """``1 / row_sum``, 0 for a node without weights."""
    # not 'row_sum > 0', which would turn NaN into zeros
    return tl.where(row_sum == 0.0, 0.0, 1.0 / tl.where(row_sum == 0.0, 1.0, row_sum))


@triton.jit
def store_output(
    out, stats, rows, mask, head, acc, row_max, inverse_sum, H: tl.constexpr, HB: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """``acc [BT, HB, D]`` into ``out``, largest score and 1 / sum into ``stats [*, H, 2]``."""
    store_rows(out, rows, mask, head, acc[:, None, :, :], H, HB, C, D)
    at, head_mask = head_offsets(rows, mask, head, H, HB)
    tl.store(stats + at * 2, row_max[:, None, :], mask=head_mask)
    tl.store(stats + at * 2 + 1, inverse_sum[:, None, :], mask=head_mask)


@triton.jit
def compute_scores(
    q, k, values, edge, mask, head, scale, H: tl.constexpr, HB: tl.constexpr
):  # fmt: skip
    """``[BT, BE, HB]``: with the values on edges, minus infinity where there is no edge."""
    scores = tl.sum(q * k, 3) * scale
    if values is not None:
        at, head_mask = head_offsets(edge, mask, head, H, HB)
        scores += tl.load(values + at, mask=head_mask, other=0.0).to(tl.float32)
    return tl.where(mask[:, :, None], scores, float("-inf"))


@triton.jit
def dropout_mask(seed, edge, head, threshold, HB: tl.constexpr):
    """``[BT, BE, HB]``: which weights dropout keeps (see :mod:`pyg_gt.ops.dropout`).

    ``threshold`` is 2^31 less than the smallest word that is kept, so that it fits in 32 bits.
    """
    edge = edge.to(tl.uint32)[:, :, None]
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
