# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""What the kernels of full attention have in common. Importing this file imports triton.

Queries and keys have two numbers: one graph by graph, and the caller's, their node.
"""

import triton
import triton.language as tl


@triton.jit
def program_of(programs, H: tl.constexpr):
    """The head of this program, and its row of the table (see ``_triton_programs``)."""
    row = programs + (tl.program_id(0) // H).to(tl.int64) * 6
    first_query, queries = tl.load(row), tl.load(row + 1)
    first_key, keys = tl.load(row + 2), tl.load(row + 3)
    # 64 bits, for it is multiplied by strides
    head = (tl.program_id(0) % H).to(tl.int64)
    return head, first_query, queries, first_key, keys, tl.load(row + 4), tl.load(row + 5)


@triton.jit
def nodes_of(order, numbers, there):
    """``[B]``: the node behind each number."""
    if order is not None:
        numbers = tl.load(order + numbers, mask=there, other=0)
    return numbers


@triton.jit
def load_rows(base, nodes, there, stride, C: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr):
    """``[B, D]``: channels of one head, zero where there are none."""
    channel = tl.arange(0, D)
    mask = there[:, None]
    if D != C:
        mask = mask & (channel < C)[None, :]
    rows = tl.load(base + (nodes * stride)[:, None] + channel[None, :], mask=mask, other=0.0)
    if UPCAST:
        rows = rows.to(tl.float32)
    return rows


@triton.jit
def store_rows(base, nodes, there, stride, rows, C: tl.constexpr, D: tl.constexpr):
    """The counterpart of :func:`load_rows`."""
    channel = tl.arange(0, D)
    mask = there[:, None]
    if D != C:
        mask = mask & (channel < C)[None, :]
    at = base + (nodes * stride)[:, None] + channel[None, :]
    tl.store(at, rows.to(base.dtype.element_ty), mask=mask)


@triton.jit
def offsets_of(rows, cols, keys, WIDE: tl.constexpr):
    """``[BQ, BK]``: pairs counted from the first row of a tile; ``WIDE`` where they pass 2^31."""
    if WIDE:
        rows = rows.to(tl.int64)
    else:
        keys = keys.to(tl.int32)
    return (rows * keys)[:, None] + cols[None, :]


@triton.jit
def masked_scores(
    q, k, first, offsets, pairs, table, index, there, head, scale,
    H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``[BQ, BK]``: scores with their biases, minus infinity where there is no pair."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    if pairs is not None:
        at = pairs + (first * H + head) + offsets * H
        scores += tl.load(at, mask=there, other=0.0).to(tl.float32)
    if table is not None:
        which = tl.load(index + first + offsets, mask=there, other=0).to(tl.int32)
        scores += tl.load(table + head + which * H, mask=there, other=0.0).to(tl.float32)
    return tl.where(there, scores, float("-inf"))


@triton.jit
def kept(seed, numbers, first_key, head, threshold, BK: tl.constexpr):
    """``[BQ, BK]``: which weights dropout keeps (see ``_philox``); ``first_key % 4 == 0``.

    ``threshold`` is 2^31 less than the smallest word that is kept, so that it fits in 32 bits.
    """
    quad = (first_key // 4 + tl.arange(0, BK // 4)).to(tl.uint32)[None, :]
    row = numbers.to(tl.uint32)[:, None]
    w0, w1, w2, w3 = tl.philox(tl.load(seed), quad, row, head.to(tl.uint32), 0)
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    return (words ^ 0x80000000).to(tl.int32, bitcast=True) >= threshold


@triton.jit
def by_table_row(which, slopes, K: tl.constexpr, KP: tl.constexpr):
    """``[KP]``: the sum of the slopes at each row of the table, one row after the other."""
    slot = tl.arange(0, KP)
    total = tl.zeros([KP], tl.float32)
    for k in range(K):
        total += tl.where(slot == k, tl.sum(tl.where(which == k, slopes, 0.0)), 0.0)
    return total


@triton.jit
def store_part(parts, part, head, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr):
    """What this program adds to the gradient of the table, ``parts [T, K, H]``."""
    slot = tl.arange(0, KP)
    first = (tl.program_id(0) // H).to(tl.int64) * K
    tl.store(parts + (first + slot) * H + head, part, mask=slot < K)


@triton.jit
def store_slopes(slopes_out, slopes, first, offsets, there, head, H: tl.constexpr):
    """The gradients of a tile's scores."""
    at = slopes_out + (first * H + head) + offsets * H
    tl.store(at, slopes.to(slopes_out.dtype.element_ty), mask=there)
