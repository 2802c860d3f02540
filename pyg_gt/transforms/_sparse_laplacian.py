"""The Laplacian of one large component."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array

from ._arguments import Normalization
from ._components import Components
from ._graphs import Floats


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
    adjacency = component.sparse()
    adjacency = csr_array((adjacency + adjacency.T) / 2)
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    degree = adjacency.sum(axis=1)
    laplacian = csr_array(diags_array(degree) - adjacency)
    if normalization is None:
        n = degree.size
        trivial = np.full(n, 1 / np.sqrt(n))
        return SparseLaplacian(laplacian, adjacency, trivial, float(2 * degree.max()))
    root = np.sqrt(degree)
    scale = diags_array(1 / root)
    laplacian = csr_array(scale @ laplacian @ scale)
    return SparseLaplacian(laplacian, adjacency, root / np.linalg.norm(root), 2.0)
