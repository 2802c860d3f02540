"""The Laplacians of components: stacks of small dense ones, and large sparse ones."""

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
    no_loop = component.row != component.col
    row, col = component.row[no_loop], component.col[no_loop]
    row, col = np.concatenate([row, col]), np.concatenate([col, row])
    weight = np.tile(component.weight[no_loop] / 2, 2)
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


def symmetrized(stack: Components) -> tuple[Floats, bool]:
    """``(W + W^T) / 2 [G, n, n]`` without the diagonal, and whether all ``W`` are so already."""
    adjacency = stack.dense()
    back = adjacency.swapaxes(1, 2)
    loops = adjacency.reshape(len(adjacency), -1)[:, :: adjacency.shape[-1] + 1]
    simple = not loops.any() and bool((adjacency == back).all())
    if not simple:
        adjacency = adjacency + back
        adjacency /= 2
        adjacency.reshape(len(adjacency), -1)[:, :: adjacency.shape[-1] + 1] = 0
    return adjacency, simple


def deflated_laplacian(
    adjacency: Floats, normalization: Normalization
) -> tuple[Floats, Floats, Floats]:
    """The Laplacian ``[G, n, n]`` with its null vector deflated, that vector, and the scale.

    The trivial vector is known, so it is moved to the far end of the spectrum: leaving out "the
    first one" would mix it with a nearly disconnected component's.
    """
    n = adjacency.shape[-1]
    degree = adjacency.sum(axis=-1)
    root, trivial, bound = _trivial_vector(degree, normalization)
    laplacian = ((1.5 * bound)[:, None] * trivial)[:, :, None] * trivial[:, None, :]
    if normalization is None:
        laplacian -= adjacency
        laplacian.reshape(-1, n * n)[:, :: n + 1] += degree  # [G, n]
    else:
        scaled = adjacency / root[:, :, None]
        scaled /= root[:, None, :]
        laplacian -= scaled
        laplacian.reshape(-1, n * n)[:, :: n + 1] += 1
    return laplacian, trivial, root


def _trivial_vector(degree: Floats, normalization: Normalization) -> tuple[Floats, Floats, Floats]:
    """``D^{1/2}`` or ones, the null vector, both ``[G, n]``, and the bound ``[G]``."""
    if normalization is None:
        one = np.ones_like(degree)
        return one, one / np.sqrt(degree.shape[-1]), 2 * degree.max(axis=-1)
    root = np.sqrt(degree)
    return root, root / np.linalg.norm(root, axis=-1, keepdims=True), np.full(len(degree), 2.0)


def random_walk_eigenvectors(
    vectors: Floats, root: Floats, normalization: Normalization
) -> Floats:
    """Turns eigenvectors of the symmetric Laplacian into those of ``I - D^-1 W``, if asked."""
    if normalization != "rw":
        return vectors
    vectors = vectors * (root.min(axis=1, keepdims=True) / root)[:, :, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _difference(diagonal: Floats, matrix: csr_array) -> csr_array:
    """``diag(diagonal) - matrix [n, n]``, of a matrix without diagonal entries."""
    n = diagonal.size
    row, every = np.repeat(np.arange(n), np.diff(matrix.indptr)), np.arange(n)
    entries = np.concatenate([-matrix.data, diagonal])
    places = np.concatenate([row, every]), np.concatenate([matrix.indices, every])
    return csr_array((entries, places), shape=(n, n))
