"""The Laplacian of one large component."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ..graphs.arguments import Normalization
from ..graphs.components import Components
from ..graphs.graphs import Floats


class SparseLaplacian(NamedTuple):
    """A symmetric Laplacian with what is known of its spectrum.

    Attributes:
        matrix: ``[n, n]``, ``D - W`` or ``I - D^(-1/2) W D^(-1/2)``.
        adjacency: ``[n, n]``, ``W``.
        trivial: ``[n]``, its null vector, of length one.
        bound: at least its largest eigenvalue.
    """

    matrix: csr_array
    adjacency: csr_array
    trivial: Floats
    bound: float


def sparse_laplacian(component: Components, normalization: Normalization) -> SparseLaplacian:
    """That of one component of at least two nodes, read as ``(W + W^T) / 2`` without diagonal."""
    n = component.width
    other = component.row != component.col
    row, col = component.row[other], component.col[other]
    row, col = np.concatenate([row, col]), np.concatenate([col, row])
    weight = np.tile(component.weight[other] / 2, 2)
    adjacency = csr_array((weight, (row, col)), shape=(n, n))
    degree: Floats = np.bincount(row, weight, minlength=n).astype(np.float64, copy=False)
    if normalization is None:
        laplacian = _difference(degree, adjacency)
        return SparseLaplacian(
            laplacian, adjacency, np.full(n, 1 / np.sqrt(n)), float(2 * degree.max())
        )
    root = np.sqrt(degree)
    scaled = adjacency.copy()
    scaled.data /= np.repeat(root, np.diff(scaled.indptr))
    scaled.data /= root[scaled.indices]
    laplacian = _difference(np.ones(n), scaled)
    return SparseLaplacian(laplacian, adjacency, root / np.linalg.norm(root), 2.0)


def _difference(diagonal: Floats, matrix: csr_array) -> csr_array:
    """``diag(diagonal) - matrix [n, n]``, of a matrix without diagonal entries."""
    n = diagonal.size
    row, every = np.repeat(np.arange(n), np.diff(matrix.indptr)), np.arange(n)
    entries = np.concatenate([-matrix.data, diagonal])
    places = np.concatenate([row, every]), np.concatenate([matrix.indices, every])
    return csr_array((entries, places), shape=(n, n))
