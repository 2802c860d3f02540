"""The pairs of nodes at most k hops apart, in large sparse graphs too."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..graphs.graphs import Graphs, Ints

# Source nodes at once, so that what is in between is small beside the result.
_ROWS = 2**13


class KHopPairs(NamedTuple):
    """Ordered pairs ``(i, j)``, ``i != j``, ascending.

    Attributes:
        edge_index: ``[2, E_k]``, ``i`` and ``j``.
        hops: ``[E_k]``, edges of a shortest path from ``i`` to ``j``.
    """

    edge_index: Ints
    hops: NDArray[np.uint8]


def k_hop_pairs(graphs: Graphs, k: int) -> KHopPairs:
    """The pairs with a path of at most ``k`` edges; ``k`` is at most 254."""
    N = graphs.num_nodes
    # A step goes along an edge, or stays.
    row = np.concatenate([graphs.row, np.arange(N)])
    col = np.concatenate([graphs.col, np.arange(N)])
    step = csr_array((np.ones(row.size, dtype=bool), (row, col)), shape=(N, N))
    index = [np.empty((2, 0), dtype=np.int64)]
    hops = [np.empty(0, dtype=np.uint8)]
    for first in range(0, N, _ROWS):
        reached = step[first : first + _ROWS]
        within = reached.astype(np.uint8)  # for how many t <= k there is a path of t edges or less
        for _ in range(1, k):
            reached = reached @ step
            within = within + reached.astype(np.uint8)
        within.sort_indices()
        source = np.repeat(np.arange(first, first + within.shape[0]), np.diff(within.indptr))
        apart = source != within.indices
        index.append(np.stack([source, within.indices])[:, apart])
        hops.append(k + 1 - within.data[apart])
    return KHopPairs(np.concatenate(index, axis=1), np.concatenate(hops))
