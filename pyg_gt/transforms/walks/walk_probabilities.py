"""Probabilities of random walks between all pairs of nodes: the powers of the walk's matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..graphs.components import Components, component_blocks
from ..graphs.graphs import Graphs, offsets
from ..graphs.pairs import write_pairs

# Probabilities that are followed at once and then written in their order: they fit a cache. Of a
# large component, more if need be, so that a row of them is a few cache lines.
_ENTRIES, _COLUMNS = 2**19, 32


def walk_probabilities(graphs: Graphs, walk_length: int) -> NDArray[np.float32]:
    """``[P, walk_length]``: entries ``(i, j)`` of ``I, P, P^2, ...``."""
    result = np.zeros((graphs.pair_ptr[-1], walk_length), dtype=np.float32)
    for block in component_blocks(graphs, 0, _ENTRIES // walk_length):
        walk = _walk_matrix(block)
        columns = max(_COLUMNS, _ENTRIES // walk_length // block.nodes.size)
        for first in range(0, block.width, columns):
            last = min(block.width, first + columns)
            walks = _walks_to(block, walk, first, last, walk_length)
            write_pairs(result, graphs, block, first, walks)
    return result


def _walk_matrix(block: Components) -> Any:
    """``P = D^{-1} W [R, R]``, sparse, or dense where most entries of one component are edges."""
    R = block.nodes.size
    degree = np.bincount(block.row, block.weight, minlength=R)
    ptr = offsets(np.bincount(block.row, minlength=R))
    walk = csr_array((block.weight / degree[block.row], block.col, ptr), shape=(R, R))
    return walk.toarray() if block.num_components == 1 and 16 * walk.nnz >= R * R else walk


def _walks_to(
    block: Components, walk: Any, first: int, last: int, walk_length: int
) -> NDArray[np.float32]:
    """``[R, last - first, walk_length]``, to the nodes ``first`` to ``last`` of the component."""
    power = (block.local_nodes()[:, None] == np.arange(first, last)).astype(np.float64)
    result = np.empty((walk_length, *power.shape), dtype=np.float32)
    result[0] = power
    for t in range(1, walk_length):
        power = walk @ power
        result[t] = power
    return np.moveaxis(result, 0, -1)
