"""Hops between all pairs of nodes: a breadth-first search from all nodes at once.

The nodes that node ``i`` reaches with at most ``t`` edges are a row of bits: its own bit and the
bits of what its neighbours reach with ``t - 1``. So a step takes one machine word for 64 targets
of an edge, and the graphs of a block need no padding but that to whole words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..graphs.components import Components, component_blocks
from ..graphs.graphs import Graphs
from ..graphs.pairs import write_pairs

# (nodes) x (nodes of the largest component) of components followed together, and words that one
# step takes from the neighbours: both fit a cache.
_BLOCK_ENTRIES, _WORDS = 2**17, 2**18


def hop_distances(graphs: Graphs, max_distance: int) -> NDArray[np.uint8]:
    """``[P]``: edges of a shortest path from ``i`` to ``j``.

    It is ``max_distance + 1`` for longer ones and where there is no path. ``max_distance`` is at
    most 254.
    """
    result = np.full(graphs.pair_ptr[-1], max_distance + 1, dtype=np.uint8)
    for block in component_blocks(graphs, 0, _BLOCK_ENTRIES):
        words = max(1, _WORDS // (block.nodes.size + block.row.size))
        for first in range(0, block.width, 64 * words):
            last = min(block.width, first + 64 * words)
            distances = _distances_to(block, first, last, max_distance)
            write_pairs(result, graphs, block, first, distances)
    return result


def _distances_to(
    block: Components, first: int, last: int, max_distance: int
) -> NDArray[np.uint8]:
    """``[R, m]``, ``m >= last - first``: hops to nodes ``first`` to ``last`` of the component."""
    stop = first + -(-(last - first) // 64) * 64
    itself = block.local_nodes()[:, None] == np.arange(first, stop)
    reached = np.packbits(itself, axis=1, bitorder="little").view(np.uint64)  # [R, words]
    begin = np.searchsorted(block.row, np.arange(len(reached)))
    # each node itself, then its targets
    col = np.insert(block.col, begin, np.arange(len(reached)))
    begin += np.arange(len(reached))
    # Bit b of the number of hops, for all pairs.
    digits = np.zeros(((max_distance + 1).bit_length(), *reached.shape), dtype=np.uint64)
    for step in range(1, max_distance + 1):
        further = np.bitwise_or.reduceat(reached.take(col, axis=0), begin, axis=0)
        new = further ^ reached
        if not new.any():
            break
        _write_number(digits, step, new)
        reached = further
    _write_number(digits, max_distance + 1, ~reached)
    result = np.zeros((len(reached), stop - first), dtype=np.uint8)
    for place, digit in enumerate(digits):
        result |= np.unpackbits(digit.view(np.uint8), axis=1, bitorder="little") << place
    return result


def _write_number(digits: NDArray[np.uint64], number: int, where: NDArray[np.uint64]) -> None:
    """Sets the bits of ``number`` in ``digits`` for the pairs ``where``."""
    for place in range(len(digits)):
        if number >> place & 1:
            digits[place] |= where
