# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""What the kernels of full attention have in common. Importing this file imports triton.

Queries and keys have two numbers: one graph by graph, and the caller's, their node.
"""

import triton
import triton.language as tl

# The hardware has powers of two. 'tl.exp' multiplies every score first, and scales those with tiny
# weights, in five instructions: scores are kept as exponents of two, which take one.
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def program_of(programs, H: tl.constexpr):
    """The head of this program, and its row of the table (see ``_triton_programs``)."""
    row = programs + (tl.program_id(0) // H).to(tl.int64) * 8
    first_query, queries = tl.load(row), tl.load(row + 1)
    first_key, keys = tl.load(row + 2), tl.load(row + 3)
    # 64 bits, for it is multiplied by strides
    head = (tl.program_id(0) % H).to(tl.int64)
    return head, first_query, queries, first_key, keys, tl.load(row + 4), tl.load(row + 5)


@triton.jit
def nodes_of(order, numbers, there):
    """``[B]``: the node behind each number."""
    if order is not None:
        if there is None:
            numbers = tl.load(order + numbers)
        else:
            numbers = tl.load(order + numbers, mask=there, other=0)
    return numbers


@triton.jit
def load_rows(base, nodes, there, stride, C: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr):
    """``[B, D]``: channels of one head, zero where there are none; None: all are ``there``."""
    channel = tl.arange(0, D)
    at = base + (nodes * stride)[:, None] + channel[None, :]
    if there is None:
        if D == C:
            rows = tl.load(at)
        else:
            rows = tl.load(at, mask=(channel < C)[None, :], other=0.0)
    elif D == C:
        rows = tl.load(at, mask=there[:, None], other=0.0)
    else:
        rows = tl.load(at, mask=there[:, None] & (channel < C)[None, :], other=0.0)
    if UPCAST:
        rows = rows.to(tl.float32)
    return rows


@triton.jit
def shuffled(x, BQ: tl.constexpr, BK: tl.constexpr):
    """``x [BQ, BK]`` with columns 0 2 4 6 1 3 5 7, and so on in each group of eight.

    A thread has two neighbours of a row of a product. As the first factor of the next one, in
    TF32, it must have two that are four apart: these. So nothing moves, and the other factor comes
    by :func:`load_shuffled`. In half precision products and factors are alike.
    """
    return tl.reshape(tl.permute(tl.reshape(x, (BQ, BK // 8, 4, 2)), (0, 1, 3, 2)), (BQ, BK))


@triton.jit
def load_shuffled(
    base, order, first, start, count, stride, B: tl.constexpr, WHOLE: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``[B, D]``: the rows that belong to the columns of :func:`shuffled`."""
    x = tl.arange(0, B)
    local = start + (x // 8 * 8 + x % 4 * 2 + x // 4 % 2)
    there = None
    if not WHOLE:
        there = local < count
    return load_rows(base, nodes_of(order, first + local, there), there, stride, C, D, UPCAST)


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
def parts_of(x, PRECISION: tl.constexpr):
    """``x`` as a sum of two numbers of 11 bits, TF32; twice itself where one product is enough."""
    rest = x
    if PRECISION == "tf32x3":
        # half of the last bit that stays is added, what is below it is cut off
        x = ((rest.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)
        rest -= x
    return x, rest


@triton.jit
def product(a, a_rest, b, b_rest, total, PRECISION: tl.constexpr):
    """``total + (a + a_rest) @ (b + b_rest)``, of parts; None is no total.

    Triton's own "tf32x3" looks for NaN in every number of the product, which takes longer than the
    product of heads this narrow. Here, an infinite number may give NaN.
    """
    if PRECISION == "tf32x3":
        total = tl.dot(a_rest, b, total, input_precision="tf32")
        total = tl.dot(a, b_rest, total, input_precision="tf32")
    return tl.dot(a, b, total, input_precision="tf32")


@triton.jit
def scores_of(
    q, q_rest, k, k_rest, first, offsets, pairs, table, index, there, in_cols, head, scale,
    H: tl.constexpr, PAIR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``[BQ, BK]``, and their unit: weights are powers of two of scores times it.

    They are minus infinity where ``in_cols`` says that there is no key. A row without a query has
    zeros: nothing looks at it. ``pairs`` are those of the head, ``PAIR`` numbers apart.
    """
    scores = product(q, q_rest, tl.trans(k), tl.trans(k_rest), None, PRECISION)
    # times minus infinity, zero would be no number
    unit = tl.maximum(scale * LOG2E, 1e-37)
    if pairs is not None:
        at = pairs + first * PAIR + offsets * PAIR
        bias = tl.load(at, mask=there, other=0.0).to(tl.float32)
        if table is not None:
            bias += _of_table(first, offsets, table, index, there, head, H)
        scores = tl.fma(scores, unit, bias * LOG2E)
        unit = 1.0
    elif table is not None:
        bias = _of_table(first, offsets, table, index, there, head, H)
        scores = tl.fma(scores, unit, bias * LOG2E)
        unit = 1.0
    if in_cols is not None:
        scores = tl.where(in_cols[None, :], scores, float("-inf"))
    return scores, unit


@triton.jit
def _of_table(first, offsets, table, index, there, head, H: tl.constexpr):
    which = tl.load(index + first + offsets, mask=there, other=0).to(tl.int32)
    return tl.load(table + head + which * H, mask=there, other=0.0).to(tl.float32)


@triton.jit
def weights_of(scores, unit, top):
    """Powers of two, at most one where ``top`` is the largest of a row, in units of one."""
    # rounded once: what one rounding does to 'top', it does to all of a row
    return tl.exp2(tl.fma(scores, unit, -top[:, None]))


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
def by_table_row(total, which, slopes, K: tl.constexpr, KP: tl.constexpr):
    """``total [BQ, KP]`` and, query by query, the sums of the slopes at each row of the table."""
    # As the slopes decide about it, 'which' comes to the threads of the slopes here, and not once
    # more for each row of the table. Sums over keys stay inside a warp; those over queries are
    # taken once, by 'store_part'.
    which = tl.where(slopes != 0.0, which, -1)
    slot = tl.arange(0, KP)[None, :]
    for k in range(K):
        found = tl.sum(tl.where(which == k, slopes, 0.0), 1)
        total += tl.where(slot == k, found[:, None], 0.0)
    return total


@triton.jit
def store_part(parts, programs, part, head, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr):
    """Of ``part [BQ, KP]``, what a program adds to a table's gradient: ``parts [T, K, H]``."""
    slot = tl.arange(0, KP)
    first = tl.load(programs + (tl.program_id(0) // H).to(tl.int64) * 8 + 6) * K
    tl.store(parts + (first + slot) * H + head, tl.sum(part, 0), mask=slot < K)


@triton.jit
def store_slopes(slopes_out, slopes_head, slopes, first, offsets, there, head):
    """The gradients of a tile's scores; those of a head lie side by side."""
    at = slopes_out + (head * slopes_head + first) + offsets
    tl.store(at, slopes.to(slopes_out.dtype.element_ty), mask=there)
