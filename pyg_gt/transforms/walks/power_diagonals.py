"""The diagonals of the powers of a walk's matrix, from small graphs to large ones.

Where the walk is reversible, ``P = D^{-1/2} S D^{1/2}`` with the symmetric
``S = D^{-1/2} W D^{-1/2}``, and the powers of both have the same diagonal. Then half of the powers
are enough: ``(S^{a + b})_ii`` is the product of the rows ``i`` of ``S^a`` and of ``S^b``.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from ..compiled.library import COMPILED, call
from ..graphs.graphs import Floats, Ints
from ..spectra.spectrum import Spectrum

# Entries of the dense matrix that follows the walks of several components at once, 1 MiB: it
# stays in a cache.
BLOCK_ENTRIES = 2**17
# Numbers of terms up to which sums of float32 are as exact as what is stored.
_SHORT_SUM = 32
# The walks of a large component start at so many nodes at once: as many as give at most so many
# probabilities while they are few, and then, once walks have spread out, a cache line or more.
_SPARSE_ENTRIES, _DENSE_COLUMNS = 2**25, 32


def spectral_diagonals(spectrum: Spectrum, walk_length: int) -> Floats:
    """``[G, n, walk_length]`` of the eigenpairs: ``diag(S^t) = (U * U) (1 - lambda)^t``."""
    power = np.repeat((1 - spectrum.values)[:, :, None], walk_length, axis=2)
    np.multiply.accumulate(power, axis=2, out=power)  # [G, n - 1, walk_length]
    # the null vector of the Laplacian is the one vector that S leaves as it is
    diagonals: Floats = spectrum.vectors**2 @ power + spectrum.trivial[:, :, None] ** 2
    return diagonals


def dense_diagonals(transition: Floats, walk_length: int) -> Floats:
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


def compiled_diagonals(walk: csr_array, ptr: Ints, walk_length: int) -> Floats:
    """What :func:`block_diagonals` gives of a reversible walk with blocks at ``ptr [G + 1]``."""
    result = np.zeros((walk.shape[0], walk_length))
    csr = (*(part.astype(np.int32, copy=False) for part in (walk.indptr, walk.indices)), walk.data)
    blocks, length = (ptr, len(ptr) - 1), walk_length
    call(COMPILED.get(), "diagonals_of_powers", *blocks, *csr, length, _SHORT_SUM, result)
    return result


def block_diagonals(
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
    columns = max(_DENSE_COLUMNS, BLOCK_ENTRIES // R)
    for first in range(0, width, columns):
        last = min(width, first + columns)
        edge = (col >= first) & (col < last)
        starts = np.flatnonzero((local >= first) & (local < last))
        power = np.zeros((R, last - first), dtype=walk.dtype)
        power[row[edge], col[edge] - first] = walk.data[edge]
        result[starts, 0] = power[starts, local[starts] - first]
        for t in range(2, walk_length + 1):
            previous = power
            if t % 2 or not reversible:
                power = walk @ power
            if reversible:
                result[:, t - 1] += np.einsum("ij,ij->i", power, previous)
            else:
                result[starts, t - 1] = power[starts, local[starts] - first]
    return result


def sparse_diagonals(walk: csr_array, reversible: bool, walk_length: int) -> Floats:
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
        rows = slice(start + first, start + min(first + _DENSE_COLUMNS, power.shape[0]))
        columns = np.ascontiguousarray(power[first : first + _DENSE_COLUMNS].toarray().T)
        diagonal = np.arange(rows.start, rows.stop), np.arange(columns.shape[1])
        for t in range(step, walk_length + 1):
            previous = columns
            if t % 2 or not reversible:
                columns = back @ columns  # [n, rows]
            if reversible:
                result[rows, t - 1] = np.einsum("ij,ij->j", columns, previous)
            else:
                result[rows, t - 1] = columns[diagonal]
