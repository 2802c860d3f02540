"""The edges along a shortest path between any two nodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..graphs.graphs import Graphs, offsets
from ..graphs.pairs import pair_starts

# Pairs at once; what is computed of them fits a cache.
_PAIRS = 2**15


def path_edges(
    graphs: Graphs, distance: NDArray[np.uint8], max_distance: int, path_length: int
) -> NDArray[np.int32]:
    """``[P, path_length]``, the first edges of a path from ``i`` to ``j``; -1 where there is none.

    Args:
        graphs: ``P`` ordered pairs of nodes.
        distance: ``[P]``, the number of hops.
        max_distance: number of edges of the longest path that is followed, at most 254.
        path_length: number of columns.
    """
    start, width = pair_starts(graphs)
    # Backwards, since of several numbers written to one place the last one stays.
    order = np.lexsort((graphs.col, graphs.row))[::-1]
    row, col = graphs.row[order], graphs.col[order]
    number = np.append(graphs.edge[order], -1).astype(np.int32)
    # From the pair (i, j) to the pair (k, j), for the edge from i to k.
    ahead = np.append(start[col] - start[row], 0)
    P = len(distance)
    next_edge = np.full(P, -1, dtype=np.int32)
    num_targets = width[row]
    ptr = offsets(num_targets)  # of the pairs (edge, target)
    shift = start[row] - ptr[:-1]
    first = 0
    while first < len(row):
        last = max(first + 1, int(np.searchsorted(ptr, ptr[first] + _PAIRS, side="right")) - 1)
        count = num_targets[first:last]
        pair = np.arange(ptr[first], ptr[last]) + np.repeat(shift[first:last], count)
        hops = distance.take(pair)
        after = distance.take(pair + np.repeat(ahead[first:last], count))
        # Modulo 256, where 0 - 1 is more than max_distance, so that i = j does not count.
        nearer = np.flatnonzero((hops - 1 == after) & (hops - 1 < max_distance))
        edge = np.repeat(np.arange(first, last), count)
        next_edge[pair.take(nearer)] = edge.take(nearer)
        first = last
    result = np.empty((P, path_length), dtype=np.int32)
    for first in range(0, P, _PAIRS):
        pair = np.arange(first, min(P, first + _PAIRS))
        for place in range(path_length):
            step = next_edge.take(pair)
            result[first : first + _PAIRS, place] = number.take(step)
            pair += ahead.take(step)
    return result
