"""Block tables for FlexAttention, made from ``ptr`` or from edges, never from N x N."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from ....layout.graph_layout import GraphLayout
from ...pairs import num_pairs, pair_ptr
from .packing import BLOCK, place

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Packed(NamedTuple):
    """What a kernel needs to know of the packed and padded axes.

    A row without a pair (padding, or a query without keys) attends to nothing, but shows a
    function of scores a pair that exists, like the other rows.

    Attributes:
        rows: length of the queries' axis, a multiple of ``BLOCK``.
        cols: length of the keys' axis, likewise.
        query_row: ``[Nq]`` int64, where each of the caller's queries stands.
        key_col: ``[Nk]`` int64, where each key does.
        low: ``[rows]`` int32, the column of the first key of the query's graph.
        high: ``[rows]`` int32, one past the last; ``low == high`` where there is no pair.
        pair: ``[rows]``, the flat pair of the query and its first key; int32 if P allows.
        graph: ``[rows]`` int64, the graph of the query.
        query_node: ``[rows]`` int64, the caller's number of the query.
        key_node: ``[cols]`` int64, the caller's number of the key.
    """

    rows: int
    cols: int
    query_row: Tensor
    key_col: Tensor
    low: Tensor
    high: Tensor
    pair: Tensor
    graph: Tensor
    query_node: Tensor
    key_node: Tensor


def nearest(kv: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The column ``kv``, or the nearest to it in ``[low, high)``; ``low`` if that is empty."""
    return torch.maximum(torch.minimum(kv, high - 1), low)


def packed(query_layout: GraphLayout, layout: GraphLayout) -> Packed:
    """The tables of a pair of layouts that have a pair of nodes in common."""
    placement = place(query_layout.sizes, layout.sizes)
    starts = torch.tensor([placement.row_start, placement.col_start], device="cpu")
    starts = starts.to(layout.device)
    row_start, col_start = starts
    query_row = row_start[query_layout.batch] + query_layout.pos
    key_col = col_start[layout.batch] + layout.pos
    if query_layout is layout and placement.row_start == placement.col_start:
        key_col = query_row

    sizes = zip(query_layout.sizes, layout.sizes, strict=True)
    some = next(graph for graph, (n, m) in enumerate(sizes) if n and m)
    width = layout.ptr.diff()[query_layout.batch]  # [Nq], keys of each query
    graph = torch.where(width > 0, query_layout.batch, some)
    low = col_start[graph]
    first_pairs = pair_ptr(query_layout, layout)
    pair = first_pairs[graph] + torch.where(width > 0, query_layout.pos * width, 0)
    queries = torch.arange(query_layout.num_nodes, device=layout.device)
    a_query = (query_layout.batch == some).to(torch.uint8).argmax()
    queries = torch.where(width > 0, queries, a_query)

    def rowwise(values: Tensor, fill: Tensor) -> Tensor:
        full = values.new_empty(placement.rows)
        full.copy_(fill)
        return full.index_copy_(0, query_row, values)

    every_pair = num_pairs(query_layout, layout)
    return Packed(
        placement.rows,
        placement.cols,
        query_row,
        key_col,
        rowwise(low, col_start[some]).int(),
        rowwise(low + width, col_start[some]).int(),
        rowwise(pair, first_pairs[some]).to(torch.int32 if every_pair < 2**31 else torch.int64),
        rowwise(graph, torch.full_like(a_query, some)),
        rowwise(queries, a_query),
        key_col.new_zeros(placement.cols).index_copy_(
            0, key_col, torch.arange(layout.num_nodes, device=layout.device)
        ),
    )


def full_mask(table: Packed, compact: bool) -> BlockMask:
    """Every pair of one graph. The blocks of a row are one interval, so this is O(rows) work.

    Args:
        table: the packed axes.
        compact: as wide as the longest row of blocks, in place of all of them.
    """
    low, high = table.low, table.high

    def same_graph(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv >= low[q]) & (kv < high[q])

    live = high > low
    low_of, high_of = (x.long().view(-1, BLOCK) for x in (low, high))
    first = torch.where(live, low, table.cols).long().view(-1, BLOCK).amin(1) // BLOCK
    last = torch.where(live, high - 1, -1).long().view(-1, BLOCK).amax(1)
    last = torch.where(last < 0, -1, last // BLOCK)
    counts = (last - first + 1).clamp(min=0)
    row = torch.repeat_interleave(torch.arange(counts.numel(), device=low.device), counts)
    col = first[row] + torch.arange(row.numel(), device=low.device)
    col -= (counts.cumsum(0) - counts)[row]
    # keys of two graphs do not overlap, so what all rows share belongs to one graph
    begin, end = low_of.amax(1), high_of.amin(1)
    full = (begin[row] <= col * BLOCK) & ((col + 1) * BLOCK <= end[row])
    return block_mask(table, row, col, full, same_graph, compact)


def block_mask(
    table: Packed, row: Tensor, col: Tensor, full: Tensor, mask_mod: MaskMod, compact: bool
) -> BlockMask:
    """From the blocks to visit, sorted by row, and which of them need no mask."""
    num_rows, num_cols = table.rows // BLOCK, table.cols // BLOCK
    by_col = (col * num_rows + row).argsort()
    kv = _both(row, col, full, num_rows, None if compact else num_cols)
    q = _both(col[by_col], row[by_col], full[by_col], num_cols, None if compact else num_rows)
    # tables of full blocks are always given: kernels with and without them are two compilations
    return BlockMask((table.rows, table.cols), *kv, *q, (BLOCK, BLOCK), mask_mod)


def _both(
    row: Tensor, col: Tensor, full: Tensor, num_rows: int, width: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts ``[1, 1, num_rows]`` and indices ``[1, 1, num_rows, width]``, all int32.

    First of the blocks that need a mask, then of those that do not. Both tables have one width:
    torch 2.11 steps through the second by the strides of the first.
    """
    parts = [(row[chosen], col[chosen]) for chosen in (~full, full)]
    counts = [torch.bincount(part, minlength=num_rows) for part, _ in parts]
    if width is None:  # reads the device once, when the tables are made
        width = max(2, int(torch.stack(counts).max()))
    tables = []
    for (rows, cols), count in zip(parts, counts, strict=True):
        place = torch.arange(rows.numel(), device=row.device) - (count.cumsum(0) - count)[rows]
        indices = torch.zeros(num_rows, width, dtype=torch.int32, device=row.device)
        indices[rows, place] = cols.int()
        tables += [count.int()[None, None], indices[None, None]]
    return tables[0], tables[1], tables[2], tables[3]
