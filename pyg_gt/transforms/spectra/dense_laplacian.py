"""The Laplacians of small components, as stacks of dense matrices."""

from __future__ import annotations

import numpy as np

from ..graphs.arguments import Normalization
from ..graphs.components import Components
from ..graphs.graphs import Floats


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
