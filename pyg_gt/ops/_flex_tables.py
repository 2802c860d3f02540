"""Block tables for FlexAttention, made from ``ptr`` or from edges, never from N x N."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from ..edge_layout import EdgeLayout
from ..layout import GraphLayout
from .bias import num_pairs, pair_of_edge, pair_ptr

# The backward of torch 2.11 has candidates only for this size at every width (sm90).
BLOCK = 128

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Packed(NamedTuple):
    """Row by row, what a kernel needs to know of the packed and padded axes.

    Attributes:
        rows: packed queries, padded to a multiple of ``BLOCK`` (at least one block).
        cols: packed keys, likewise.
        low: ``[rows]`` int32, the first packed key of the query's graph.
        high: ``[rows]`` int32, one past the last; ``low == high`` on padding.
        pair: ``[rows]`` int64, the flat pair of the query and its first key.
        graph: ``[rows]`` int64, the graph of the query.
        query_node: ``[rows]`` int64, the caller's number of the query.
        key_node: ``[cols]`` int64, the caller's number of the key.
    """

    rows: int
    cols: int
    low: Tensor
    high: Tensor
    pair: Tensor
    graph: Tensor
    query_node: Tensor
    key_node: Tensor


def packed(query_layout: GraphLayout, layout: GraphLayout) -> Packed:
    """The row tables of a pair of layouts; one graph behind the other, in graph order."""
    query_node, key_node = _order(query_layout), _order(layout)
    graph = query_layout.batch[query_node]
    width = layout.ptr.diff()[graph]
    low = layout.ptr[graph]
    pair = pair_ptr(query_layout, layout)[graph] + query_layout.pos[query_node] * width
    rows, cols = _round_up(query_layout.num_nodes), _round_up(layout.num_nodes)
    return Packed(
        rows,
        cols,
        _pad(low, rows).int(),
        _pad(low + width, rows).int(),
        _pad(pair, rows),
        _pad(graph, rows),
        _pad(query_node, rows),
        _pad(key_node, cols),
    )


def full_mask(table: Packed, compact: bool) -> BlockMask:
    """Every pair of one graph. A block row needs an interval of block columns, so O(rows) work."""
    low, high = table.low, table.high

    def same_graph(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv >= low[q]) & (kv < high[q])

    live = table.high > table.low
    first = torch.where(live, table.low, table.cols).view(-1, BLOCK).amin(1) // BLOCK
    last = torch.where(live, table.high - 1, -1).view(-1, BLOCK).amax(1)
    last = torch.where(last < 0, -1, last // BLOCK)
    # graphs are packed in order, so the keys of a block row are one interval
    row = torch.arange(table.rows // BLOCK, device=low.device)
    counts = (last - first + 1).clamp(min=0)
    rows = torch.repeat_interleave(row, counts)
    offset = torch.arange(rows.numel(), device=low.device) - (counts.cumsum(0) - counts)[rows]
    return _block_mask(table, rows, first[rows] + offset, same_graph, compact)


def edge_mask(
    table: Packed, edges: EdgeLayout, query_layout: GraphLayout, layout: GraphLayout, compact: bool
) -> tuple[BlockMask, Tensor]:
    """Only the pairs that an edge joins.

    Returns:
        The block mask, and ``slot [P]`` int32: for each flat pair the number of its edge among
        the distinct ones plus one, or 0 where there is none.
    """
    pairs = pair_of_edge(edges, query_layout, layout)
    distinct = torch.unique(pairs)
    slot = torch.zeros(num_pairs(query_layout, layout), dtype=torch.int32, device=pairs.device)
    numbers = torch.arange(1, distinct.numel() + 1, device=pairs.device)
    slot[distinct] = numbers.int()
    low, high, pair = table.low, table.high, table.pair
    last = max(slot.numel() - 1, 0)
    if slot.numel() == 0:
        slot = slot.new_zeros(1)

    def joined(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        inside = (kv >= low[q]) & (kv < high[q])
        return inside & (slot[(pair[q] + kv - low[q]).clamp(0, last)] > 0)

    row_of, col_of = _inverse(query_layout), _inverse(layout)
    cols = table.cols // BLOCK
    blocks = row_of[edges.target] // BLOCK * cols + col_of[edges.source] // BLOCK
    blocks = torch.unique(blocks)
    return _block_mask(table, blocks // cols, blocks % cols, joined, compact), slot


def _block_mask(
    table: Packed, row: Tensor, col: Tensor, mask_mod: MaskMod, compact: bool
) -> BlockMask:
    """From the blocks to visit, sorted by row; both directions by the constructor."""
    num_rows, num_cols = table.rows // BLOCK, table.cols // BLOCK
    by_col = (col * num_rows + row).argsort()
    kv = _columns(row, col, num_rows, None if compact else num_cols)
    q = _columns(col[by_col], row[by_col], num_cols, None if compact else num_rows)
    return BlockMask(
        (table.rows, table.cols),
        *kv,
        full_kv_num_blocks=None,
        full_kv_indices=None,
        q_num_blocks=q[0],
        q_indices=q[1],
        full_q_num_blocks=None,
        full_q_indices=None,
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=mask_mod,
    )


def _columns(row: Tensor, col: Tensor, num_rows: int, width: int | None) -> tuple[Tensor, Tensor]:
    """Counts ``[1, 1, num_rows]`` and indices ``[1, 1, num_rows, width]``, both int32."""
    counts = torch.bincount(row, minlength=num_rows)
    if width is None:  # reads the device once, when the tables are made
        width = max(int(counts.max()), 1)
    place = torch.arange(row.numel(), device=row.device) - (counts.cumsum(0) - counts)[row]
    indices = torch.zeros(num_rows, width, dtype=torch.int32, device=row.device)
    indices[row, place] = col.int()
    return counts.int()[None, None], indices[None, None]


def _order(layout: GraphLayout) -> Tensor:
    if layout.order is not None:
        return layout.order
    return torch.arange(layout.num_nodes, device=layout.device)


def _inverse(layout: GraphLayout) -> Tensor:
    """``[N]``: where each of the caller's nodes stands when packed."""
    return layout.ptr[layout.batch] + layout.pos


def _pad(x: Tensor, size: int) -> Tensor:
    return torch.cat([x, x.new_zeros(size - x.numel())])


def _round_up(n: int) -> int:
    return max(BLOCK, (n + BLOCK - 1) // BLOCK * BLOCK)
