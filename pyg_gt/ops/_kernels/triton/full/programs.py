"""Which program of a kernel computes which part of which graph."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .....layout.graph_layout import GraphLayout
from .tiles import SMALL, Tiles

Table = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Programs:
    """Tables with a row a program, ``[T, 8]`` int64.

    A row is: first query, number of queries, first key, number of keys, first pair of its graph,
    where nodes are counted graph by graph; then the first query (or key) of its tile in the graph;
    then the number of the program, among those that compute queries or among the others; and 0.

    Attributes:
        small: tables of graphs computed whole, with the side of the tile.
        query_tiles: tiles of queries of the other graphs, those with most keys first.
        key_tiles: tiles of keys of them, those with most queries first.
    """

    small: tuple[tuple[int, Tensor], ...]
    query_tiles: Tensor
    key_tiles: Tensor

    @property
    def count(self) -> int:
        """``T``: programs that compute queries, for each head."""
        return self.query_tiles.size(0) + sum(table.size(0) for _, table in self.small)


def programs_of(query_layout: GraphLayout, layout: GraphLayout, tiles: Tiles) -> Programs:
    """The programs of a pair of layouts, made once."""
    other = None if query_layout is layout else weakref.ref(layout)
    key = ("triton", other, tiles.small, tiles.rows, tiles.cols)
    return query_layout.cached(key, lambda: _make(query_layout, layout, tiles))


def _make(query_layout: GraphLayout, layout: GraphLayout, tiles: Tiles) -> Programs:
    # in numpy, whose operations on a hundred graphs take a fifth of the time of torch's
    keys = queries = most = np.array(layout.sizes, np.int64)
    if query_layout is not layout:
        queries = np.array(query_layout.sizes, np.int64)
        most = np.maximum(queries, keys)
    graphs = np.zeros((len(keys), 8), np.int64)
    for place, x in ((0, queries), (2, keys), (4, queries * keys)):
        x[:-1].cumsum(out=graphs[1:, place])
    graphs[:, 1], graphs[:, 3] = queries, keys
    sides = [side for side in SMALL if side <= tiles.small]
    # graphs of no nodes are of kind 0, and need no program
    kind = np.array([0, *sides]).searchsorted(most)
    empty, *lengths, _ = np.bincount(kind, minlength=len(sides) + 2).tolist()
    graphs = graphs[kind.argsort(kind="stable")]
    first = empty + sum(lengths)
    small, large = graphs[empty:first], graphs[first:]
    of_queries = _tiled(large, large[:, 1], large[:, 3], tiles.rows)
    of_keys = _tiled(large, large[:, 3], large[:, 1], tiles.cols)
    rows = np.concatenate([small, of_queries, of_keys])
    own = len(rows) - len(of_keys)
    rows[:own, 6], rows[own:, 6] = np.arange(own), np.arange(len(of_keys))
    # one copy to the device; rows of 64 bytes leave every table at a multiple of 16
    joined = torch.from_numpy(rows).to(layout.device, non_blocking=True)
    ends = list(accumulate([0, *lengths]))
    tables = [
        (side, joined[start:end])
        for side, start, end in zip(sides, ends, ends[1:], strict=False)
        if start < end
    ]
    return Programs(tuple(tables), joined[ends[-1] : own], joined[own:])


def _tiled(graphs: Table, sizes: Table, work: Table, side: int) -> Table:
    """Rows of graphs repeated for each tile of their ``sizes``; most work first."""
    if not len(graphs):
        return graphs
    order = np.argsort(-work, kind="stable")
    counts = (sizes[order] + side - 1) // side
    rows = graphs[order].repeat(counts, 0)
    number = np.arange(len(rows)) - (counts.cumsum() - counts).repeat(counts)
    rows[:, 5] = number * side
    return rows
