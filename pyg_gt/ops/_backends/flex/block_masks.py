"""Block masks of FlexAttention, made from where graphs lie or from edges, never from N x N."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from .packing import PackedAxes
from .placement import BLOCK

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def graph_mask(axes: PackedAxes, compact: bool) -> BlockMask:
    """All pairs of one graph. The blocks of a row are one interval, so this is O(rows) work.

    Args:
        axes: the packed axes.
        compact: as wide as the longest row of blocks, in place of all of them.
    """
    low, high = axes.low, axes.high

    def same_graph(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv >= low[q]) & (kv < high[q])

    has_pairs = high > low
    low_of, high_of = (x.long().view(-1, BLOCK) for x in (low, high))
    first = torch.where(has_pairs, low, axes.cols).long().view(-1, BLOCK).amin(1) // BLOCK
    last = torch.where(has_pairs, high - 1, -1).long().view(-1, BLOCK).amax(1)
    last = torch.where(last < 0, -1, last // BLOCK)
    counts = (last - first + 1).clamp(min=0)
    row = torch.repeat_interleave(torch.arange(counts.numel(), device=low.device), counts)
    col = first[row] + torch.arange(row.numel(), device=low.device)
    col -= (counts.cumsum(0) - counts)[row]
    # keys of two graphs do not overlap, so what all rows share belongs to one graph
    begin, end = low_of.amax(1), high_of.amin(1)
    full = (begin[row] <= col * BLOCK) & ((col + 1) * BLOCK <= end[row])
    return block_mask(axes, row, col, full, same_graph, compact)


def block_mask(
    axes: PackedAxes, row: Tensor, col: Tensor, full: Tensor, mask_mod: MaskMod, compact: bool
) -> BlockMask:
    """From the blocks to visit, sorted by row, and which of them need no mask."""
    num_rows, num_cols = axes.rows // BLOCK, axes.cols // BLOCK
    by_col = (col * num_rows + row).argsort()
    widths = (None, None) if compact else (num_cols, num_rows)
    kv = _block_tables(row, col, full, num_rows, widths[0])
    q = _block_tables(col[by_col], row[by_col], full[by_col], num_cols, widths[1])
    # tables of full blocks are always given: kernels with and without them are two compilations
    return BlockMask((axes.rows, axes.cols), *kv, *q, (BLOCK, BLOCK), mask_mod)


def _block_tables(
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
