"""Return probabilities of random walks, by the way that suits the size of a component."""

from __future__ import annotations

import numpy as np

from ..compiled.library import COMPILED
from ..graphs.components import Components, component_blocks, component_stacks, dense_stack
from ..graphs.graphs import Floats, Graphs
from ..spectra.spectrum import SMALL, full_spectrum, has_spectrum
from .power_diagonals import (
    BLOCK_ENTRIES,
    block_diagonals,
    compiled_diagonals,
    dense_diagonals,
    sparse_diagonals,
    spectral_diagonals,
)
from .transition_matrix import sparse_walk_matrix, transition_matrix

# Up to here a dense product is cheaper than looking for zeros, or for components.
_TINY = 100
# Compiled code reads places of entries as int32.
_MOST_ENTRIES = 2**31


def return_probabilities(graphs: Graphs, walk_length: int, *, dense_limit: int) -> Floats:
    """``[N, walk_length]``: the diagonals of ``P, P^2, ...``."""
    N = graphs.num_nodes
    if N <= _TINY and "sym" not in graphs.shared:
        whole = dense_stack(graphs.row, graphs.col, graphs.weight, 1, N)
        return dense_diagonals(transition_matrix(whole), walk_length).reshape(N, walk_length)
    result = np.empty((N, walk_length))
    small = min(SMALL, dense_limit)
    for stack in component_stacks(graphs):
        if stack.width > small:
            break
        known = has_spectrum(graphs, stack, "sym")
        if known and (spectrum := full_spectrum(graphs, stack, "sym")).simple:
            found = spectral_diagonals(spectrum, walk_length)
        else:
            found = dense_diagonals(transition_matrix(stack.dense()), walk_length)
        result[stack.stacked_nodes()] = found
    for block in component_blocks(graphs, small, BLOCK_ENTRIES):
        result[block.nodes] = exact_diagonals(block, walk_length, dense_limit)
    np.clip(result, 0, 1, out=result)
    return result


def exact_diagonals(block: Components, walk_length: int, dense_limit: int) -> Floats:
    """``[R, walk_length]`` of a block of components of any size."""
    n = block.width
    walk, reversible = sparse_walk_matrix(block.sparse())
    if n > dense_limit:
        return sparse_diagonals(walk, reversible, walk_length)
    if block.num_components == 1 and 16 * walk.nnz >= n * n:
        diagonals: Floats = dense_diagonals(walk.toarray()[None], walk_length)[0]
        return diagonals
    if reversible and walk.nnz < _MOST_ENTRIES and COMPILED.why_not() is None:
        return compiled_diagonals(walk, block.ptr, walk_length)
    return block_diagonals(walk, block.local_nodes(), n, reversible, walk_length)
