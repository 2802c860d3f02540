"""Graphs of like size side by side, so that attention becomes a few batched matrix products.

A graph of ``n`` nodes is padded by a rule of its own size alone: to the next multiple of an
eighth of the power of two below ``n``, at least of 8 (17 -> 24, 150 -> 160, 300 -> 320). Padded
work is then at most (9/8)^2 of the sum of n^2 from 64 nodes up, about 1.13 times it on average.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ....layout.graph_layout import GraphLayout
from ...pairs import pair_ptr

# Scores that one step may hold: larger buckets are computed in slices, so that memory stays flat.
# On a CPU a slice that stays in the cache is also faster: 16 graphs of 200 nodes train in 29.8 ms
# against 34.3 with 2^25 scores, 8 of 450 in 78 against 87, while 128 of 24 take 12.3 against 11.0
# ("slices" in benchmarks/results/attention_cpu.json; python -m benchmarks.cpu.attention).
_MAX_SCORES = {"cpu": 2**18, "other": 2**25}


class Bucket(NamedTuple):
    """Graphs padded to ``rows`` queries and ``cols`` keys.

    Attributes:
        num: number of graphs, ``b``.
        rows: queries of each after padding.
        cols: keys of each after padding.
        row_start: the first of its ``b * rows`` query slots.
        col_start: the first of its ``b * cols`` key slots.
        num_rows: ``[b]``, queries before padding.
        num_cols: ``[b]``, keys before padding.
        query_start: ``[b]``, the number of each graph's first query, graph by graph.
        pair_start: ``[b]``, the first flat pair of each graph.
        padding: ``[b, 1, 1, cols]``, minus infinity on padded keys; None where there are none.
        graphs: ``[b]``, which graphs these are.
    """

    num: int
    rows: int
    cols: int
    row_start: int
    col_start: int
    num_rows: Tensor
    num_cols: Tensor
    query_start: Tensor
    pair_start: Tensor
    padding: Tensor | None
    graphs: Tensor


class Slots(NamedTuple):
    """Where a node's heads lie in buckets laid out as ``[b, H, n, C]``.

    Attributes:
        start: ``[N]``, the first slot of the node's graph.
        width: ``[N]``, slots of the node's graph.
        used: slots of all buckets; those behind belong to nodes without a partner.
        total: slots of all graphs.
    """

    start: Tensor
    width: Tensor
    used: int
    total: int

    def of_heads(self, pos: Tensor, heads: int) -> Tensor:
        """``[N * H]``, the row of each (node, head) in a ``[total * H, C]`` buffer."""
        head = torch.arange(heads, device=pos.device)
        rows = (self.start * heads + pos).unsqueeze(1) + self.width.unsqueeze(1) * head
        return rows.flatten()


class Plan(NamedTuple):
    """Buckets of all graphs that have queries and keys, and the slots of their nodes."""

    buckets: tuple[Bucket, ...]
    row_slots: Slots
    col_slots: Slots
    row_pos: Tensor
    col_pos: Tensor

    def rows_of(self, heads: int) -> Tensor:
        """``[Nq * H]``: see :meth:`Slots.of_heads`."""
        return self.row_slots.of_heads(self.row_pos, heads)

    def cols_of(self, heads: int) -> Tensor:
        """``[Nk * H]``: see :meth:`Slots.of_heads`."""
        return self.col_slots.of_heads(self.col_pos, heads)


class Tile(NamedTuple):
    """A slice of a bucket that is computed in one step: some graphs, some of their queries."""

    bucket: Bucket
    graphs: slice
    rows: slice

    def query_rows(self) -> Tensor:
        """``[b, rows]``, the number of each query, graph by graph; padding runs into the next."""
        start = self.bucket.query_start[self.graphs, None]
        return start + torch.arange(self.rows.start, self.rows.stop, device=start.device)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Flat pair numbers ``[b, rows, cols]``, and a mask of those that are pairs.

        Padding repeats the first row or column of its own graph: nothing comes from another.
        """
        device = self.bucket.num_rows.device
        row = torch.arange(self.rows.start, self.rows.stop, device=device)[None, :, None]
        col = torch.arange(self.bucket.cols, device=device)[None, None, :]
        num_rows = self.bucket.num_rows[self.graphs, None, None]
        num_cols = self.bucket.num_cols[self.graphs, None, None]
        start = self.bucket.pair_start[self.graphs, None, None]
        is_pair = (row < num_rows) & (col < num_cols)
        row, col = row * (row < num_rows), col * (col < num_cols)
        return start + row * num_cols + col, is_pair


def padded(n: Tensor) -> Tensor:
    """The padded size of graphs of ``n`` nodes, by the rule above; 0 stays 0."""
    power = torch.bitwise_left_shift(torch.ones_like(n), n.clamp(min=1).log2().floor().long())
    step = (power // 8).clamp(min=8)
    return (n + step - 1) // step * step


def plan_of(query_layout: GraphLayout, layout: GraphLayout) -> Plan:
    """The buckets of a pair of layouts, made once."""
    key_side = None if query_layout is layout else weakref.ref(layout)
    return query_layout.cached(("buckets", key_side), lambda: _make_plan(query_layout, layout))


def tiles(bucket: Bucket, heads: int) -> Iterator[Tile]:
    """Slices of at most ``_MAX_SCORES`` scores (but at least one query row)."""
    max_scores = _MAX_SCORES["cpu" if bucket.num_rows.device.type == "cpu" else "other"]
    per_row = bucket.cols * heads
    if per_row * bucket.rows * bucket.num <= max_scores:
        yield Tile(bucket, slice(0, bucket.num), slice(0, bucket.rows))
        return
    graphs = max(1, max_scores // (per_row * bucket.rows))
    rows = bucket.rows if graphs > 1 else max(1, min(bucket.rows, max_scores // per_row))
    for graph in range(0, bucket.num, graphs):
        for row in range(0, bucket.rows, rows):
            graph_slice = slice(graph, min(graph + graphs, bucket.num))
            yield Tile(bucket, graph_slice, slice(row, min(row + rows, bucket.rows)))


def _make_plan(query_layout: GraphLayout, layout: GraphLayout) -> Plan:
    device = layout.device
    sizes = torch.tensor([query_layout.sizes, layout.sizes], dtype=torch.int64, device="cpu")
    padded_sizes = padded(sizes)
    with_pairs = (sizes.amin(0) > 0).nonzero().squeeze(1)
    shapes, shape = torch.unique(padded_sizes[:, with_pairs], dim=1, return_inverse=True)
    order = with_pairs[shape.argsort(stable=True)]
    counts = torch.bincount(shape, minlength=shapes.size(1)).tolist()

    # all small numbers of all buckets cross to the device in one copy
    host = torch.stack([*sizes[:, order], order])
    num_rows, num_cols, graphs = host.to(device, non_blocking=True)
    query_start = query_layout.ptr[graphs]
    pair_start = pair_ptr(query_layout, layout)[graphs]
    buckets = []
    first = row_start = col_start = 0
    starts = torch.zeros(2, layout.num_graphs, dtype=torch.int64, device="cpu")
    for count, (rows, cols) in zip(counts, shapes.t().tolist(), strict=True):
        members = slice(first, first + count)
        padding = None
        if bool((sizes[1, order[members]] < cols).any()):
            empty = torch.arange(cols, device=device) >= num_cols[members, None]
            padding = torch.zeros(empty.shape, device=device).masked_fill_(empty, float("-inf"))
            padding = padding[:, None, None, :]
        bucket = Bucket(
            count, rows, cols, row_start, col_start, num_rows[members], num_cols[members],
            query_start[members], pair_start[members], padding, graphs[members],
        )  # fmt: skip
        buckets.append(bucket)
        starts[0, order[members]] = row_start + rows * torch.arange(count, device="cpu")
        starts[1, order[members]] = col_start + cols * torch.arange(count, device="cpu")
        first += count
        row_start, col_start = row_start + count * rows, col_start + count * cols
    # nodes without a partner get slots behind all buckets, where nothing is computed
    used = row_start, col_start
    totals = [row_start, col_start]
    for side in (0, 1):
        without_pairs = torch.ones(layout.num_graphs, dtype=torch.bool, device="cpu")
        without_pairs[with_pairs] = False
        extra = padded_sizes[side] * without_pairs
        start = totals[side] + extra.cumsum(0) - extra
        starts[side] = torch.where(without_pairs, start, starts[side])
        totals[side] += int(extra.sum())
    starts, widths = (x.to(device, non_blocking=True) for x in (starts, padded_sizes))
    row_slots, col_slots = (
        Slots(starts[side][nodes.batch], widths[side][nodes.batch], used[side], totals[side])
        for side, nodes in enumerate((query_layout, layout))
    )
    return Plan(tuple(buckets), row_slots, col_slots, query_layout.pos, layout.pos)
