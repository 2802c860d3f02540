"""Eigenvalues and eigenvectors of stacks of symmetric matrices."""

from __future__ import annotations

import numpy as np

from ..compiled.library import COMPILED, call
from ..graphs.graphs import Floats

# Up to here matrices are solved by compiled code, several at a time; LAPACK is made for larger
# ones.
MOST_ROWS = 96


def symmetric_eigenpairs(matrices: Floats) -> tuple[Floats, Floats]:
    """``values [G, n]``, ascending, and ``vectors [G, n, n]``, as columns: `numpy.linalg.eigh`.

    What a matrix ``[n, n]`` gets does not depend on those it shares a call with.

    Raises:
        numpy.linalg.LinAlgError: if there are none, as of a matrix with a NaN.
    """
    G, n, _ = matrices.shape
    if n > MOST_ROWS or COMPILED.why_not() is not None:
        found = np.linalg.eigh(matrices)
        return found.eigenvalues, found.eigenvectors
    matrices = np.ascontiguousarray(matrices)
    values, vectors, failed = np.empty((G, n)), np.empty((G, n, n)), np.empty(G, dtype=np.bool_)
    call(COMPILED.get(), "symmetric_eigenpairs", matrices, G, n, values, vectors, failed)
    for i in np.flatnonzero(failed):
        values[i], vectors[i] = np.linalg.eigh(matrices[i])
    return values, vectors
