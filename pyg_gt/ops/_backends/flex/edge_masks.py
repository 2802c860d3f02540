"""Block masks of attention along edges: a map of pairs, which a kernel reads with one load."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from ....layout.edge_layout import EdgeLayout
from ....layout.graph_layout import GraphLayout
from ...pairs import num_pairs, pair_of_edge
from .block_masks import block_mask
from .packing import PackedAxes, nearest
from .placement import BLOCK

# What a map of edges may take: 4 GiB.
MAX_BYTES = 2**32


class EdgeMaps(NamedTuple):
    """Attention along edges.

    Attributes:
        mask: the block tables and the function of the mask.
        slot: ``[at least P]`` int32: for each flat pair the number of what is added to its score,
            or a negative number where no edge is; None where nothing is added.
        slot_of_edge: ``[E]`` int64, the slot of each edge; None if that is its own number.
        log_counts: ``[slots]``, the logarithm of how often an edge stands; None if it is 0.
    """

    mask: BlockMask
    slot: Tensor | None
    slot_of_edge: Tensor | None
    log_counts: Tensor | None


def too_large(
    edges: EdgeLayout, query_layout: GraphLayout, layout: GraphLayout, has_values: bool
) -> str | None:
    """Why no map of these edges is made: its size; None if it is."""
    bits = 4 * _num_words(query_layout, layout)
    whole = 4 * num_pairs(query_layout, layout)
    if bits <= MAX_BYTES and (whole <= MAX_BYTES or not (has_values or edges.has_repeats)):
        return None
    size, what = (bits, "a bit") if bits > MAX_BYTES else (whole, "an int32")
    return (
        f"its map of edges has {what} for each pair, and {size:,} bytes are more than "
        f"{MAX_BYTES:,}; 'sparse' walks along the edges instead"
    )


def edge_mask(
    axes: PackedAxes,
    edges: EdgeLayout,
    query_layout: GraphLayout,
    layout: GraphLayout,
    has_values: bool,
    compact: bool,
) -> EdgeMaps:
    """Only the pairs that an edge joins.

    Args:
        axes: the packed axes.
        edges: inside graphs.
        query_layout: how the queries are split into graphs.
        layout: how the keys are.
        has_values: whether each edge has a number of its own that is added to the score.
        compact: as for the mask of all pairs.
    """
    source, target = edges.ends.long()
    slot_of_edge = log_counts = None
    if edges.has_repeats:
        pairs, slot_of_edge, counts = torch.unique(
            pair_of_edge(edges, query_layout, layout), return_inverse=True, return_counts=True
        )
        log_counts = counts.float().log()
        # one of the edges that join a pair, whichever
        edge_of_pair = torch.zeros_like(pairs)
        edge_of_pair[slot_of_edge] = torch.arange(edges.num_edges, device=pairs.device)
        source, target = source[edge_of_pair], target[edge_of_pair]
    slot = None
    if has_values or log_counts is not None:
        if log_counts is None:
            pairs = pair_of_edge(edges, query_layout, layout)
        slot = _slots(pairs, num_pairs(query_layout, layout))
    cols = axes.cols // BLOCK
    blocks = axes.query_row[target] // BLOCK * cols + axes.key_col[source] // BLOCK
    blocks, inside = torch.unique(blocks, return_counts=True)
    low, high, pair = axes.low, axes.high, axes.pair

    if slot is not None:
        slots = slot

        def has_slot(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            near = nearest(kv, low[q], high[q]) - low[q]
            return (kv >= low[q]) & (kv < high[q]) & (slots[pair[q] + near] >= 0)

        mod = has_slot
    else:
        first, words = _bits(axes, source, target, query_layout, layout)

        def has_bit(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            near = nearest(kv, low[q], high[q]) - low[q]
            bit = (words[first[q] + (near >> 5)] >> (near & 31)) & 1
            return (kv >= low[q]) & (kv < high[q]) & (bit > 0)

        mod = has_bit
    mask = block_mask(axes, blocks // cols, blocks % cols, inside == BLOCK**2, mod, compact)
    return EdgeMaps(mask, slot, slot_of_edge, log_counts)


def _slots(pairs: Tensor, total: int) -> Tensor:
    """``[max(P, 2)]`` int32 from the distinct pairs.

    Where no edge is, the slot is negative, and spread over all: a kernel adds zeros to the
    gradients of what it names, with atomics that should not meet at one address.
    """
    numbers = torch.arange(max(total, 2), dtype=torch.int32, device=pairs.device)
    slot = numbers.remainder_(max(pairs.numel(), 1)).neg_().sub_(1)
    slot[pairs] = torch.arange(pairs.numel(), dtype=torch.int32, device=pairs.device)
    return slot


def _num_words(query_layout: GraphLayout, layout: GraphLayout) -> int:
    """Words of 32 bits that hold a bit for each pair, each query's in words of its own."""
    sizes = zip(query_layout.sizes, layout.sizes, strict=True)
    return sum(n * ((m + 31) // 32) for n, m in sizes)


def _bits(
    axes: PackedAxes,
    source: Tensor,
    target: Tensor,
    query_layout: GraphLayout,
    layout: GraphLayout,
) -> tuple[Tensor, Tensor]:
    """The first word of each row ``[rows]``, and all words, both int32, from distinct edges.

    Each query has a bit for each key of its graph, in words of 32: flex gathers no narrower type.
    """
    width = (layout.ptr.diff() + 31) // 32  # [B], words of a query
    start = width * query_layout.ptr.diff()
    start = start.cumsum(0) - start
    batch = query_layout.batch
    first = start[batch] + query_layout.pos * width[batch]  # [Nq]
    # a query without keys has no words, but the function of the mask reads some
    first = torch.where(width[batch] > 0, first, 0)
    place = layout.pos[source]
    size = max(_num_words(query_layout, layout), 2)
    words = torch.zeros(size, dtype=torch.int32, device=first.device)
    # no bit is set twice, so that a sum is a union
    words.index_add_(0, first[target] + place // 32, (1 << (place % 32)).int())
    rows = first.new_zeros(axes.rows).index_copy_(0, axes.query_row, first)
    return rows.int(), words
