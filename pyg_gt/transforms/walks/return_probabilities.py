"""The diagonals of the powers of a walk's matrix, from small graphs to large ones.

Where the walk is reversible, ``P = D^{-1/2} S D^{1/2}`` with the symmetric
``S = D^{-1/2} W D^{-1/2}``, and the powers of both have the same diagonal. Then half of the powers
are enough: ``(S^{a + b})_ii`` is the product of the rows ``i`` of ``S^a`` and of ``S^b``.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from ..compiled.library import COMPILED, call
from ..graphs.components import Components, components, dense_stack, runs
from ..graphs.graphs import Floats, Graphs, Ints
from ..spectra.eigenvectors import SMALL, Spectrum, full_spectrum, has_spectrum

# Up to here a dense product is cheaper than looking for zeros, or for components.
_TINY = 100
# Entries of the dense matrix that follows the walks of several components at once, 1 MiB: it
# stays in a cache.
_RUN_ENTRIES = 2**17
_SHORT_SUM = 32
# Compiled code reads places of entries as int32.
_MOST_ENTRIES = 2**31
# The walks of a large component start at so many nodes at once: as many as give at most so many
# probabilities while they are few, and then, once walks have spread out, a cache line or more.
_SPARSE_ENTRIES, _DENSE_COLUMNS = 2**25, 32


def return_probabilities(graphs: Graphs, walk_length: int, *, dense_limit: int) -> Floats:
    """``[N, walk_length]``: the diagonals of ``P, P^2, ...``."""
    N = graphs.num_nodes
    if N <= _TINY and "sym" not in graphs.shared:
        whole = dense_stack(graphs.row, graphs.col, graphs.weight, 1, N)
        return _dense_diagonals(_transition(whole), walk_length).reshape(N, walk_length)
    result = np.empty((N, walk_length))
    small = min(SMALL, dense_limit)
    for group in components(graphs):
        if group.width > small:
            break
        known = has_spectrum(graphs, group, "sym")
        if known and (spectrum := full_spectrum(graphs, group, "sym")).simple:
            found = _from_spectrum(spectrum, walk_length)
        else:
            found = _dense_diagonals(_transition(group.dense()), walk_length)
        result[group.stacked_nodes()] = found
    for run in runs(graphs, small, _RUN_ENTRIES):
        result[run.nodes] = run_diagonals(run, walk_length, dense_limit)
    np.clip(result, 0, 1, out=result)
    return result


def run_diagonals(run: Components, walk_length: int, dense_limit: int) -> Floats:
    """``[R, walk_length]`` of components of any size."""
    n = run.width
    walk, reversible = walk_matrix(run.sparse())
    if n > dense_limit:
        return _large_diagonals(walk, reversible, walk_length)
    if run.num_components == 1 and 16 * walk.nnz >= n * n:
        diagonals: Floats = _dense_diagonals(walk.toarray()[None], walk_length)[0]
        return diagonals
    if reversible and walk.nnz < _MOST_ENTRIES and COMPILED.why_not() is None:
        return _compiled_diagonals(walk, run.ptr, walk_length)
    local = np.arange(run.nodes.size) - np.repeat(run.ptr[:-1], np.diff(run.ptr))
    return _block_diagonals(walk, local, n, reversible, walk_length)


def walk_matrix(adjacency: csr_array) -> tuple[csr_array, bool]:
    """``S`` and True where the walk is reversible, ``P`` and False where it is not."""
    degree = adjacency.sum(axis=1)
    back = csr_array(adjacency.T)
    difference = abs(adjacency - back)
    reversible = bool(difference.nnz == 0 or (difference - 1e-12 * adjacency).max() <= 0)
    scale = np.divide(1, degree, out=np.zeros_like(degree), where=degree > 0)
    row = np.repeat(np.arange(degree.size), np.diff(adjacency.indptr))
    if reversible:
        scale = np.sqrt(scale)
        weight = adjacency.data * scale[row] * scale[adjacency.indices]
    else:
        weight = adjacency.data * scale[row]
    walk = csr_array((weight, adjacency.indices, adjacency.indptr), shape=adjacency.shape)
    return walk, reversible


def _transition(adjacency: Floats) -> Floats:
    """``P = D^{-1} W [G, n, n]``; a row of zeros stays one."""
    degree = adjacency.sum(axis=-1, keepdims=True)
    transition = np.zeros_like(adjacency)
    np.divide(adjacency, degree, out=transition, where=degree > 0)
    return transition


def _from_spectrum(spectrum: Spectrum, walk_length: int) -> Floats:
    """``diag(S^t) = (U * U) (1 - lambda)^t`` ``[G, n, walk_length]``."""
    power = np.repeat((1 - spectrum.values)[:, :, None], walk_length, axis=2)
    np.multiply.accumulate(power, axis=2, out=power)  # [G, n - 1, walk_length]
    # the null vector of the Laplacian is the one vector that S leaves as it is
    diagonals: Floats = spectrum.vectors**2 @ power + spectrum.trivial[:, :, None] ** 2
    return diagonals


def _dense_diagonals(transition: Floats, walk_length: int) -> Floats:
    """``[G, n, walk_length]`` of ``transition [G, n, n]``, with half as many products as steps.

    ``diag(P^(a + b))_i = sum_j (P^a)_ij (P^b)_ji`` needs powers up to ``walk_length / 2`` only.
    """
    result = np.empty((*transition.shape[:2], walk_length))
    result[..., 0] = np.einsum("gii->gi", transition)
    power = transition
    for t in range(2, walk_length + 1):
        previous = power
        if t % 2:
            power = previous @ transition
        result[..., t - 1] = np.einsum("gij,gji->gi", power, previous)
    return result


def _compiled_diagonals(walk: csr_array, ptr: Ints, walk_length: int) -> Floats:
    """What :func:`_block_diagonals` gives of a reversible walk with blocks at ``ptr [G + 1]``."""
    result = np.zeros((walk.shape[0], walk_length))
    csr = (*(part.astype(np.int32, copy=False) for part in (walk.indptr, walk.indices)), walk.data)
    blocks, length = (ptr, len(ptr) - 1), walk_length
    call(COMPILED.get(), "diagonals_of_powers", *blocks, *csr, length, _SHORT_SUM, result)
    return result


def _block_diagonals(
    walk: csr_array, local: Ints, width: int, reversible: bool, walk_length: int
) -> Floats:
    """``[R, walk_length]`` of a block-diagonal ``walk [R, R]``.

    Args:
        walk: ``S`` or ``P``.
        local: ``[R]``, the number of each node in its block.
        width: of the largest block; each block's columns are numbered from zero.
        reversible: whether it is ``S``.
        walk_length: number of columns.
    """
    R = walk.shape[0]
    result = np.zeros((R, walk_length))
    # No entry is negative, so nothing cancels, and where sums are short a step costs about one
    # rounding: float32 is as exact as what is stored, and twice as fast.
    if np.diff(walk.indptr).max(initial=0) <= _SHORT_SUM:
        walk = walk.astype(np.float32)
    row = np.repeat(np.arange(R), np.diff(walk.indptr))
    col = local[walk.indices]
    columns = max(_DENSE_COLUMNS, _RUN_ENTRIES // R)
    for first in range(0, width, columns):
        last = min(width, first + columns)
        edge = (col >= first) & (col < last)
        own = np.flatnonzero((local >= first) & (local < last))
        power = np.zeros((R, last - first), dtype=walk.dtype)
        power[row[edge], col[edge] - first] = walk.data[edge]
        result[own, 0] = power[own, local[own] - first]
        for t in range(2, walk_length + 1):
            previous = power
            if t % 2 or not reversible:
                power = walk @ power
            if reversible:
                result[:, t - 1] += np.einsum("ij,ij->i", power, previous)
            else:
                result[own, t - 1] = power[own, local[own] - first]
    return result


def _large_diagonals(walk: csr_array, reversible: bool, walk_length: int) -> Floats:
    """``[n, walk_length]`` of one large component, some start nodes at a time."""
    n = walk.shape[0]
    result = np.empty((n, walk_length))
    back = walk if reversible else csr_array(walk.T)
    rows = max(_DENSE_COLUMNS, _SPARSE_ENTRIES // n)
    for start in range(0, n, rows):
        stop = min(n, start + rows)
        power = walk[start:stop]
        result[start:stop, 0] = power.diagonal(start)
        for t in range(2, walk_length + 1):
            previous = power
            if t % 2 or not reversible:
                # Short walks reach few nodes; once they reach many, zeros cost more than they
                # save.
                if 8 * power.nnz > power.shape[0] * n:
                    _spread_out(result, power, back, start, t, reversible)
                    break
                power = power @ walk
            if reversible:
                result[start:stop, t - 1] = power.multiply(previous).sum(axis=1)
            else:
                result[start:stop, t - 1] = power.diagonal(start)
    return result


def _spread_out(
    result: Floats, power: csr_array, back: csr_array, start: int, step: int, reversible: bool
) -> None:
    """Fills the columns from ``step`` on, of the rows that ``power [rows, n]`` has."""
    walk_length = result.shape[1]
    for first in range(0, power.shape[0], _DENSE_COLUMNS):
        here = slice(start + first, start + min(first + _DENSE_COLUMNS, power.shape[0]))
        columns = np.ascontiguousarray(power[first : first + _DENSE_COLUMNS].toarray().T)
        own = np.arange(here.start, here.stop), np.arange(columns.shape[1])
        for t in range(step, walk_length + 1):
            previous = columns
            if t % 2 or not reversible:
                columns = back @ columns  # [n, rows]
            if reversible:
                result[here, t - 1] = np.einsum("ij,ij->j", columns, previous)
            else:
                result[here, t - 1] = columns[own]
