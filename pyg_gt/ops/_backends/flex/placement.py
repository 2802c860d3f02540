"""Where each graph stands on the packed axes of FlexAttention, so that few blocks are visited.

Behind one another, graphs of 24 nodes give a block of queries three blocks of keys: its own, and
one on either side. If no graph crosses the edge of a tile it needs one: graphs of 10 to 40 nodes
visit less than half of the blocks (tests/ops/backends/flex/test_placement.py). Not timed on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

# The backward of torch 2.11 has candidates only for this size at every width (sm90).
BLOCK = 128


class Placement(NamedTuple):
    """Where graphs begin.

    Attributes:
        rows: length of the queries' axis, a multiple of ``BLOCK``.
        cols: length of the keys' axis, likewise.
        row_start: the row of each graph's first query.
        col_start: the column of its first key.
        visited: blocks of scores that hold a pair, or lie between two that do.
    """

    rows: int
    cols: int
    row_start: list[int]
    col_start: list[int]
    visited: int

    @property
    def cost(self) -> int:
        """Blocks of scores, twice, and those of either axis, which are written and read.

        A model, not a measurement: copying a block of queries and one of keys is taken to cost
        as much as the scores between them.
        """
        return 2 * self.visited + (self.rows + self.cols) // BLOCK


def place(queries: Sequence[int], keys: Sequence[int]) -> Placement:
    """The cheaper of two packings, of graphs with these numbers of queries and keys."""
    plain, aligned = in_order(queries, keys), aligned_to_tiles(queries, keys)
    return aligned if aligned.cost < plain.cost else plain


def in_order(queries: Sequence[int], keys: Sequence[int]) -> Placement:
    """One graph behind the other."""
    row_start, col_start = [0, *accumulate(queries)], [0, *accumulate(keys)]
    return _placed(queries, keys, row_start.pop(), col_start.pop(), row_start, col_start)


def aligned_to_tiles(queries: Sequence[int], keys: Sequence[int]) -> Placement:
    """No graph of at most ``BLOCK`` queries and keys crosses a tile, on either axis.

    Best-fit decreasing. Larger graphs begin at a tile; the rest of their last one takes small
    graphs, which costs no further block. A small graph has its queries and its keys in one pair
    of tiles, so it needs as much room on either axis as the longer of the two.
    """
    need = [max(n, m) for n, m in zip(queries, keys, strict=True)]
    row_start, col_start = [0] * len(need), [0] * len(need)
    rooms: list[list[tuple[int, int]]] = [[] for _ in range(BLOCK)]  # where so much is left
    rows = cols = nonempty = 0  # bit r of 'nonempty': there is a room of r
    for graph in sorted(range(len(need)), key=need.__getitem__, reverse=True):
        if need[graph] == 0:
            continue
        fitting = nonempty >> need[graph]
        if fitting:
            left = need[graph] + (fitting & -fitting).bit_length() - 1  # the tightest
            row, col = rooms[left].pop()
            nonempty ^= (not rooms[left]) << left
        else:
            row, col = rows, cols
            rows += max(BLOCK, _up(queries[graph]))
            cols += max(BLOCK, _up(keys[graph]))
        row_start[graph], col_start[graph] = row, col
        row, col = row + queries[graph], col + keys[graph]
        left = min(-row % BLOCK, -col % BLOCK)
        rooms[left].append((row, col))
        nonempty |= (left > 0) << left
    return _placed(queries, keys, rows, cols, row_start, col_start)


def _placed(
    queries: Sequence[int],
    keys: Sequence[int],
    rows: int,
    cols: int,
    row_start: list[int],
    col_start: list[int],
) -> Placement:
    # one block would be a size of one, which torch.compile takes for a constant
    rows, cols = max(2 * BLOCK, _up(rows)), max(2 * BLOCK, _up(cols))
    first, last = [cols] * (rows // BLOCK), [-1] * (rows // BLOCK)
    for row, n, col, m in zip(row_start, queries, col_start, keys, strict=True):
        if n and m:
            for block in range(row // BLOCK, (row + n - 1) // BLOCK + 1):
                first[block] = min(first[block], col // BLOCK)
                last[block] = max(last[block], (col + m - 1) // BLOCK)
    visited = sum(b - a + 1 for a, b in zip(first, last, strict=True) if b >= 0)
    return Placement(rows, cols, row_start, col_start, visited)


def _up(n: int) -> int:
    return (n + BLOCK - 1) // BLOCK * BLOCK
