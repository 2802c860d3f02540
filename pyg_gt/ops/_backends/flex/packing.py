"""The packed axes of queries and keys: where each node stands, and which pairs a row has."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ....layout.graph_layout import GraphLayout
from ...pairs import num_pairs, pair_ptr
from .placement import place


class PackedAxes(NamedTuple):
    """The axes of one call, for masks and functions of scores.

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


def packed_axes(query_layout: GraphLayout, layout: GraphLayout) -> PackedAxes:
    """The axes of two layouts that have a pair in common."""
    placement = place(query_layout.sizes, layout.sizes)
    starts = torch.tensor([placement.row_start, placement.col_start], device="cpu")
    starts = starts.to(layout.device)
    row_start, col_start = starts
    query_row = row_start[query_layout.batch] + query_layout.pos
    key_col = col_start[layout.batch] + layout.pos
    if query_layout is layout and placement.row_start == placement.col_start:
        key_col = query_row

    sizes = zip(query_layout.sizes, layout.sizes, strict=True)
    # rows without a pair show one of this graph
    shown = next(graph for graph, (n, m) in enumerate(sizes) if n and m)
    width = layout.ptr.diff()[query_layout.batch]  # [Nq], keys of each query
    graph = torch.where(width > 0, query_layout.batch, shown)
    low = col_start[graph]
    first_pairs = pair_ptr(query_layout, layout)
    pair = first_pairs[graph] + torch.where(width > 0, query_layout.pos * width, 0)
    queries = torch.arange(query_layout.num_nodes, device=layout.device)
    shown_query = (query_layout.batch == shown).to(torch.uint8).argmax()
    queries = torch.where(width > 0, queries, shown_query)

    def rowwise(values: Tensor, fill: Tensor) -> Tensor:
        return fill.expand(placement.rows).index_copy(0, query_row, values)

    fits = num_pairs(query_layout, layout) < 2**31
    return PackedAxes(
        placement.rows,
        placement.cols,
        query_row,
        key_col,
        rowwise(low, col_start[shown]).int(),
        rowwise(low + width, col_start[shown]).int(),
        rowwise(pair, first_pairs[shown]).to(torch.int32 if fits else torch.int64),
        rowwise(graph, torch.full_like(shown_query, shown)),
        rowwise(queries, shown_query),
        key_col.new_zeros(placement.cols).index_copy_(
            0, key_col, torch.arange(layout.num_nodes, device=layout.device)
        ),
    )
