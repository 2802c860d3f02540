"""The matrix of a random walk."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from ..graphs.graphs import Floats


def sparse_walk_matrix(adjacency: csr_array) -> tuple[csr_array, bool]:
    """The matrix ``[R, R]`` of a walk along ``adjacency``, and whether it is symmetric.

    Where the walk is reversible, that is ``S = D^{-1/2} W D^{-1/2}``, which has the powers of
    ``P = D^{-1} W`` up to a scaling; else it is ``P``.
    """
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


def transition_matrix(adjacency: Floats) -> Floats:
    """``P = D^{-1} W [G, n, n]``; a row of zeros stays one."""
    degree = adjacency.sum(axis=-1, keepdims=True)
    transition = np.zeros_like(adjacency)
    np.divide(adjacency, degree, out=transition, where=degree > 0)
    return transition
