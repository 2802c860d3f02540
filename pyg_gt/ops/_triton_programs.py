"""Which program of a kernel computes which part of which graph."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..layout import GraphLayout
from ._triton_tiles import SMALL, Tiles

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
    return query_layout.once(key, lambda: _make(query_layout, layout, tiles))


def _make(query_layout: GraphLayout, layout: GraphLayout, tiles: Tiles) -> Programs:
    # in numpy, whose operations on a hundred graphs take a fifth of the time of torch's
    queries, keys = (np.array(x.sizes, np.int64) for x in (query_layout, layout))
    starts = (x.cumsum() - x for x in (queries, keys, queries * keys))
    first_query, first_key, first_pair = starts
    none = np.zeros_like(keys)
    graphs = np.stack(
        [first_query, queries, first_key, keys, first_pair, none, none, none], 1
    )  # [B, 8]
    side = np.maximum(queries, keys)
    sides, tables = [], []
    below = 0
    for block in (b for b in SMALL if b <= tiles.small):
        some = graphs[(side > below) & (side <= block)]
        if len(some):
            sides.append(block)
            tables.append(some)
        below = block
    large = graphs[side > below]
    tables.append(_tiled(large, large[:, 1], large[:, 3], tiles.rows))
    tables.append(_tiled(large, large[:, 3], large[:, 1], tiles.cols))
    rows = np.concatenate(tables)
    rows[:, 6] = np.arange(len(rows))
    rows[len(rows) - len(tables[-1]) :, 6] = np.arange(len(tables[-1]))
    # one copy to the device; rows of 64 bytes leave every table at a multiple of 16
    joined = torch.from_numpy(rows).to(layout.device, non_blocking=True)
    *small, query_tiles, key_tiles = joined.split([len(table) for table in tables])
    return Programs(tuple(zip(sides, small, strict=True)), query_tiles, key_tiles)


def _tiled(graphs: Table, sizes: Table, work: Table, side: int) -> Table:
    """Rows of graphs repeated for each tile of their ``sizes``; most work first."""
    order = np.argsort(-work, kind="stable")
    counts = (sizes[order] + side - 1) // side
    rows = graphs[order].repeat(counts, 0)
    number = np.arange(len(rows)) - (counts.cumsum() - counts).repeat(counts)
    rows[:, 5] = number * side
    return rows
