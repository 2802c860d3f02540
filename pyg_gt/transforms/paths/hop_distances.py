"""How many edges lie between any two nodes of a graph: breadth-first from all nodes at once.

The nodes that node ``i`` reaches with ``t`` edges at most are a row of bits: its own bit and the
bits of what its neighbours reach with ``t - 1``. So a step takes one machine word for 64 targets
of an edge, and the graphs of a run need no padding but that to whole words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..graphs.components import Components, runs
from ..graphs.graphs import Graphs
from ..graphs.pairs import local_numbers, put

# (nodes) x (nodes of the largest component) of components followed together, and words that one
# step takes from the neighbours: both fit a cache.
_RUN_ENTRIES, _WORDS = 2**17, 2**18


def hops(graphs: Graphs, most: int) -> NDArray[np.uint8]:
    """``[P]``: edges of a shortest path from ``i`` to ``j``; ``most + 1`` for more, or no path.

    ``most`` is at most 254.
    """
    result = np.full(graphs.pair_ptr[-1], most + 1, dtype=np.uint8)
    for run in runs(graphs, 0, _RUN_ENTRIES):
        words = max(1, _WORDS // (run.nodes.size + run.row.size))
        for first in range(0, run.width, 64 * words):
            last = min(run.width, first + 64 * words)
            put(result, graphs, run, first, _hops_to(run, first, last, most))
    return result


def _hops_to(run: Components, first: int, last: int, most: int) -> NDArray[np.uint8]:
    """``[R, m]``, ``m >= last - first``: hops to nodes ``first`` to ``last`` of the component."""
    own = local_numbers(run)[:, None] == np.arange(first, first + -(-(last - first) // 64) * 64)
    reached = np.packbits(own, axis=1, bitorder="little").view(np.uint64)  # [R, words]
    begin = np.searchsorted(run.row, np.arange(len(reached)))
    col = np.insert(run.col, begin, np.arange(len(reached)))  # each node itself, then its targets
    begin += np.arange(len(reached))
    # Bit b of the number of hops, for all pairs.
    digits = np.zeros(((most + 1).bit_length(), *reached.shape), dtype=np.uint64)
    for step in range(1, most + 1):
        further = np.bitwise_or.reduceat(reached.take(col, axis=0), begin, axis=0)
        new = further ^ reached
        if not new.any():
            break
        _write_number(digits, step, new)
        reached = further
    _write_number(digits, most + 1, ~reached)
    result = np.zeros((len(reached), own.shape[1]), dtype=np.uint8)
    for place, digit in enumerate(digits):
        result |= np.unpackbits(digit.view(np.uint8), axis=1, bitorder="little") << place
    return result


def _write_number(digits: NDArray[np.uint64], number: int, where: NDArray[np.uint64]) -> None:
    for place in range(len(digits)):
        if number >> place & 1:
            digits[place] |= where
