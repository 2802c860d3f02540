"""Device functions of the kernels of full attention: loads, scores, dropout, sums and stores.

A query or key has a position, counted graph by graph, and a node, the caller's number.
"""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl

# The hardware has powers of two. 'tl.exp' multiplies every score first, and scales those with tiny
# weights, in five instructions: scores are kept as exponents of two, which take one.
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_program(programs, H: tl.constexpr):
    """The head of this program, and its row of the table (see ``Programs``)."""
    row = programs + (tl.program_id(0) // H).to(tl.int64) * 8
    first_query, num_queries = tl.load(row), tl.load(row + 1)
    first_key, num_keys = tl.load(row + 2), tl.load(row + 3)
    # 64 bits, for it is multiplied by strides
    head = (tl.program_id(0) % H).to(tl.int64)
    return head, first_query, num_queries, first_key, num_keys, tl.load(row + 4), tl.load(row + 5)


@triton.jit
def whole_graph(programs, query_order, key_order, H: tl.constexpr, B: tl.constexpr):
    """A graph in one tile: head, first key and pair, places ``[B]``, positions, nodes, masks."""
    head, first_query, num_queries, first_key, num_keys, first_pair, _ = load_program(programs, H)
    local = tl.arange(0, B)
    query_mask, key_mask = local < num_queries, local < num_keys
    positions = first_query + local
    query_nodes = node_ids(query_order, positions, query_mask)
    key_nodes = node_ids(key_order, first_key + local, key_mask)
    return (
        head, first_key, num_keys, first_pair, local, positions, query_nodes, key_nodes,
        query_mask, key_mask,
    )  # fmt: skip


@triton.jit
def query_tile(programs, query_order, H: tl.constexpr, BQ: tl.constexpr):
    """A tile of queries: head, first key, keys, first pair of the tile, positions, nodes, mask."""
    head, first_query, num_queries, first_key, num_keys, first_pair, first = load_program(
        programs, H
    )
    query_index = first + tl.arange(0, BQ)
    tile_pair = first_pair + first * num_keys
    query_mask = query_index < num_queries
    positions = first_query + query_index
    query_nodes = node_ids(query_order, positions, query_mask)
    return head, first_key, num_keys, tile_pair, positions, query_nodes, query_mask


@triton.jit
def node_ids(order, positions, mask):
    """``[B]``: the node at each position."""
    if order is not None:
        if mask is None:
            positions = tl.load(order + positions)
        else:
            positions = tl.load(order + positions, mask=mask, other=0)
    return positions


@triton.jit
def load_rows(base, nodes, mask, stride, C: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr):
    """``[B, D]``: channels of one head, zero where ``mask`` is not set; None: it is everywhere."""
    channel = tl.arange(0, D)
    at = base + (nodes * stride)[:, None] + channel[None, :]
    if mask is None:
        if D == C:
            rows = tl.load(at)
        else:
            rows = tl.load(at, mask=(channel < C)[None, :], other=0.0)
    elif D == C:
        rows = tl.load(at, mask=mask[:, None], other=0.0)
    else:
        rows = tl.load(at, mask=mask[:, None] & (channel < C)[None, :], other=0.0)
    if UPCAST:
        rows = rows.to(tl.float32)
    return rows


@triton.jit
def permute_columns(x, BQ: tl.constexpr, BK: tl.constexpr):
    """``x [BQ, BK]`` with columns 0 2 4 6 1 3 5 7, and so on in each group of eight.

    A thread has two neighbours of a row of a product. As the first factor of the next one, in
    TF32, it must have two that are four apart: these. So nothing moves, and the other factor comes
    by :func:`load_permuted_rows`. In half precision products and factors are alike.
    """
    return tl.reshape(tl.permute(tl.reshape(x, (BQ, BK // 8, 4, 2)), (0, 1, 3, 2)), (BQ, BK))


@triton.jit
def load_permuted_rows(
    base, order, first, start, count, stride, B: tl.constexpr, IS_FULL: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``[B, D]``: the rows that belong to the columns of :func:`permute_columns`."""
    x = tl.arange(0, B)
    local = start + (x // 8 * 8 + x % 4 * 2 + x // 4 % 2)
    mask = None
    if not IS_FULL:
        mask = local < count
    return load_rows(base, node_ids(order, first + local, mask), mask, stride, C, D, UPCAST)


@triton.jit
def store_rows(base, nodes, mask, stride, rows, C: tl.constexpr, D: tl.constexpr):
    """The counterpart of :func:`load_rows`."""
    channel = tl.arange(0, D)
    mask = mask[:, None]
    if D != C:
        mask = mask & (channel < C)[None, :]
    at = base + (nodes * stride)[:, None] + channel[None, :]
    tl.store(at, rows.to(base.dtype.element_ty), mask=mask)


@triton.jit
def load_stats(stats, positions, head, mask, H: tl.constexpr):
    """``[BQ]``: largest score and 1 / sum of each query; zeros where ``mask`` is not set."""
    at = stats + (positions * H + head) * 2
    row_max = tl.load(at, mask=mask, other=0.0)
    inverse_sum = tl.load(at + 1, mask=mask, other=0.0)
    return row_max, inverse_sum


@triton.jit
def store_stats(stats, positions, head, mask, row_max, inverse_sum, H: tl.constexpr):
    """The counterpart of :func:`load_stats`."""
    at = stats + (positions * H + head) * 2
    tl.store(at, row_max, mask=mask)
    tl.store(at + 1, inverse_sum, mask=mask)


@triton.jit
def inverse_or_zero(row_sum):
    """``1 / row_sum``, 0 for a row without weights."""
    # not 'row_sum > 0', which would turn NaN into zeros
    return tl.where(row_sum == 0.0, 0.0, 1.0 / tl.where(row_sum == 0.0, 1.0, row_sum))


@triton.jit
def pair_offsets(rows, cols, num_keys, INT64: tl.constexpr):
    """``[BQ, BK]``: pairs counted from the first row of a tile; ``INT64`` where they pass 2^31."""
    if INT64:
        rows = rows.to(tl.int64)
    else:
        num_keys = num_keys.to(tl.int32)
    return (rows * num_keys)[:, None] + cols[None, :]


@triton.jit
def split_tf32(x, PRECISION: tl.constexpr):
    """``x`` as the sum of two TF32 numbers; twice itself where one product is enough."""
    low = x
    if PRECISION == "tf32x3":
        # half of the last bit that stays is added, what is below it is cut off
        x = ((low.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)
        low -= x
    return x, low


@triton.jit
def dot(a, a_low, b, b_low, total, PRECISION: tl.constexpr):
    """``total + (a + a_low) @ (b + b_low)``, of split factors; None is no total.

    Triton's own "tf32x3" looks for NaN in every number of the product, which takes longer than the
    product of heads this narrow. Here, an infinite number may give NaN.
    """
    if PRECISION == "tf32x3":
        total = tl.dot(a_low, b, total, input_precision="tf32")
        total = tl.dot(a, b_low, total, input_precision="tf32")
    return tl.dot(a, b, total, input_precision="tf32")


@triton.jit
def compute_scores(
    q, q_low, k, k_low, first, offsets, pairs, table, table_index, mask, key_mask, head, scale,
    H: tl.constexpr, PAIR_STRIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``[BQ, BK]``, and a factor: weights are powers of two of scores times it.

    They are minus infinity where ``key_mask`` says that there is no key. A row without a query
    has zeros, which nothing reads. ``pairs`` are those of the head, ``PAIR_STRIDE`` numbers apart.
    """
    scores = dot(q, q_low, tl.trans(k), tl.trans(k_low), None, PRECISION)
    # times minus infinity, zero would be no number
    exponent = tl.maximum(scale * LOG2E, 1e-37)
    if pairs is not None:
        at = pairs + first * PAIR_STRIDE + offsets * PAIR_STRIDE
        bias = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        if table is not None:
            bias += _table_values(first, offsets, table, table_index, mask, head, H)
        scores = tl.fma(scores, exponent, bias * LOG2E)
        exponent = 1.0
    elif table is not None:
        bias = _table_values(first, offsets, table, table_index, mask, head, H)
        scores = tl.fma(scores, exponent, bias * LOG2E)
        exponent = 1.0
    if key_mask is not None:
        scores = tl.where(key_mask[None, :], scores, float("-inf"))
    return scores, exponent


@triton.jit
def _table_values(first, offsets, table, table_index, mask, head, H: tl.constexpr):
    table_rows = tl.load(table_index + first + offsets, mask=mask, other=0).to(tl.int32)
    return tl.load(table + head + table_rows * H, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def exponentials(scores, exponent, row_max):
    """Weights before the division by their sum, at most one where ``row_max`` is the maximum."""
    # rounded once: what one rounding does to 'row_max', it does to all of a row
    return tl.exp2(tl.fma(scores, exponent, -row_max[:, None]))


@triton.jit
def dropout_mask(seed, positions, first_key, head, threshold, BK: tl.constexpr):
    """``[BQ, BK]``: which weights dropout keeps (see :mod:`pyg_gt.ops.dropout`).

    ``first_key`` is a multiple of 4, and ``threshold`` 2^31 less than the smallest word that is
    kept, so that it fits in 32 bits.
    """
    quad = (first_key // 4 + tl.arange(0, BK // 4)).to(tl.uint32)[None, :]
    row = positions.to(tl.uint32)[:, None]
    w0, w1, w2, w3 = tl.philox(tl.load(seed), quad, row, head.to(tl.uint32), 0)
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    return (words ^ 0x80000000).to(tl.int32, bitcast=True) >= threshold


@triton.jit
def sum_by_table_row(total, table_rows, grad_scores, K: tl.constexpr, KP: tl.constexpr):
    """``total [BQ, KP]`` and, for each query, sums of ``grad_scores`` at each row of the table."""
    # As 'grad_scores' decides about it, 'table_rows' comes to its threads here, and not once more
    # for each row of the table. Sums over keys stay inside a warp; those over queries are taken
    # once, by 'store_table_partial'.
    table_rows = tl.where(grad_scores != 0.0, table_rows, -1)
    slot = tl.arange(0, KP)[None, :]
    for k in range(K):
        found = tl.sum(tl.where(table_rows == k, grad_scores, 0.0), 1)
        total += tl.where(slot == k, found[:, None], 0.0)
    return total


@triton.jit
def store_table_partial(
    table_partials, programs, partial, head, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr
):
    """The sum of ``partial [BQ, KP]`` over queries: a row of ``table_partials [T, K, H]``."""
    slot = tl.arange(0, KP)
    first = tl.load(programs + (tl.program_id(0) // H).to(tl.int64) * 8 + 6) * K
    tl.store(table_partials + (first + slot) * H + head, tl.sum(partial, 0), mask=slot < K)


@triton.jit
def store_grad_scores(scores_grad, scores_grad_head, grad_scores, first, offsets, mask, head):
    """The gradients of a tile's scores; those of a head lie side by side."""
    at = scores_grad + (head * scores_grad_head + first) + offsets
    tl.store(at, grad_scores.to(scores_grad.dtype.element_ty), mask=mask)
