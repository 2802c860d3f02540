"""Laplacian eigenvectors, component by component, equally large components in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..graphs.arguments import Normalization
from ..graphs.components import Components, components
from ..graphs.graphs import Floats, Graphs
from .lanczos import NotConvergedError, smallest_sparse_eigenpairs
from .sparse_laplacian import sparse_laplacian
from .symmetric import symmetric_eigenpairs

# How an encoding reads a spectrum: of all components that are not too large, of small ones only,
# or only if another encoding has made it.
SpectrumUse = Literal["whole", "small", "reuse"]
# Up to here all eigenvectors of a component cost about as much as a few of them, and walks that
# are read off them nothing.
SMALL = 96


class Eigenpairs(NamedTuple):
    """The first non-trivial eigenpairs of each node's own component, padded with zeros.

    Attributes:
        vectors: ``[N, k]``, of length one over each component.
        values: ``[N, k]``, ascending; the same in all rows of a component.
        mask: ``[N, k]``, where there is an eigenpair.
    """

    vectors: Floats
    values: Floats
    mask: NDArray[np.bool_]


class Spectrum(NamedTuple):
    """All eigenpairs of the symmetric Laplacians of equally large components.

    Attributes:
        values: ``[G, n - 1]``, the non-trivial ones, ascending.
        vectors: ``[G, n, n - 1]``, orthonormal.
        trivial: ``[G, n]``, the null vector.
        root: ``[G, n]``, what scales the Laplacian: ``D^(1/2)``, or one without normalisation.
        simple: whether all components are undirected and without self-loops, so that walks have
            this spectrum too.
    """

    values: Floats
    vectors: Floats
    trivial: Floats
    root: Floats
    simple: bool


def laplacian_eigenpairs(
    graphs: Graphs,
    k: int,
    normalization: Normalization,
    *,
    sparse_threshold: int,
    dense_limit: int,
    options: Mapping[str, Any],
) -> Eigenpairs:
    """The first ``k`` non-trivial eigenpairs of each component's Laplacian.

    Args:
        graphs: read as ``(W + W^T) / 2`` without the diagonal.
        k: number of columns.
        normalization: as in `torch_geometric.utils.get_laplacian`.
        sparse_threshold: number of nodes of a component from which on it is treated as sparse,
            unless more than an eighth of its eigenvectors are asked for.
        dense_limit: number of nodes above which a component is never made dense.
        options: keyword arguments of `scipy.sparse.linalg.eigsh`.

    Raises:
        RuntimeError: if the sparse solver does not converge for a component above ``dense_limit``.
    """
    N = graphs.num_nodes
    pairs = Eigenpairs(np.zeros((N, k)), np.zeros((N, k)), np.zeros((N, k), dtype=np.bool_))
    dense_up_to = min(max(sparse_threshold - 1, 8 * k - 1), dense_limit)
    for group in components(graphs):
        n = group.width
        count = min(k, n - 1)
        if count == 0:
            continue
        nodes = group.stacked_nodes()
        known = has_spectrum(graphs, group, normalization)
        if n > dense_up_to and not known:
            found = [
                _sparse_eigenpairs(component, count, normalization, dense_limit, options)
                for component in group.each()
            ]
            values, vectors = (np.concatenate(parts) for parts in zip(*found, strict=True))
        elif n > SMALL and 8 * count <= n and not known:
            # LAPACK's syevr computes only the wanted ones; it pays from about here on.
            values, vectors = _some_eigenpairs(symmetrized(group)[0], count, normalization)
        else:
            spectrum = full_spectrum(graphs, group, normalization)
            values, vectors = spectrum.values[:, :count], spectrum.vectors[:, :, :count]
            vectors = _of_random_walk(vectors, spectrum.root, normalization)
        pairs.vectors[nodes, :count] = with_canonical_sign(vectors)
        pairs.values[nodes, :count] = values[:, None, :]
        pairs.mask[nodes, :count] = True
    return pairs


def full_spectrum(graphs: Graphs, group: Components, normalization: Normalization) -> Spectrum:
    """All eigenpairs of a group of ``components(graphs)``, shared if ``graphs`` says so.

    ``"sym"`` and ``"rw"`` are one matrix up to a scaling; this is the symmetric one.
    """
    key = _key(group, normalization)
    if key[1] not in graphs.shared:
        return _decompose(group, key[1])
    return graphs.once(key, lambda: _decompose(group, key[1]))


def has_spectrum(graphs: Graphs, group: Components, normalization: Normalization) -> bool:
    """Whether :func:`full_spectrum` is there already."""
    return graphs.has(_key(group, normalization))


def laplacian_kind(normalization: Normalization) -> Normalization:
    """``"sym"`` for ``"rw"``, whose eigenvectors are read off those of ``"sym"``."""
    return None if normalization is None else "sym"


def symmetrized(group: Components) -> tuple[Floats, bool]:
    """``(W + W^T) / 2 [G, n, n]`` without the diagonal, and whether all ``W`` are so already."""
    adjacency = group.dense()
    back = adjacency.swapaxes(1, 2)
    loops = adjacency.reshape(len(adjacency), -1)[:, :: adjacency.shape[-1] + 1]
    simple = not loops.any() and bool((adjacency == back).all())
    if not simple:
        adjacency = adjacency + back
        adjacency /= 2
        adjacency.reshape(len(adjacency), -1)[:, :: adjacency.shape[-1] + 1] = 0
    return adjacency, simple


def with_canonical_sign(vectors: Floats) -> Floats:
    """``vectors [G, n, k]`` with the largest entry of each column positive.

    Of entries that are equally large up to rounding, the first one decides.
    """
    size = np.abs(vectors)
    largest = size >= (1 - 1e-6) * size.max(axis=1, keepdims=True)
    decisive = np.take_along_axis(vectors, largest.argmax(axis=1)[:, None], axis=1)  # [G, 1, k]
    return vectors * np.copysign(1.0, decisive)


def _key(group: Components, normalization: Normalization) -> tuple[str, Normalization, int]:
    return "spectrum", laplacian_kind(normalization), int(group.nodes[0])


def _decompose(group: Components, normalization: Normalization) -> Spectrum:
    adjacency, simple = symmetrized(group)
    laplacian, trivial, root = _deflated_laplacian(adjacency, normalization)
    values, vectors = symmetric_eigenpairs(laplacian)
    return Spectrum(np.maximum(values[:, :-1], 0), vectors[:, :, :-1], trivial, root, simple)


def _some_eigenpairs(
    adjacency: Floats, count: int, normalization: Normalization
) -> tuple[Floats, Floats]:
    """``values [G, count]`` and ``vectors [G, n, count]`` of ``adjacency [G, n, n]``."""
    laplacian, _, root = _deflated_laplacian(adjacency, normalization)
    found = [
        scipy.linalg.eigh(
            matrix, subset_by_index=(0, count - 1), check_finite=False, overwrite_a=True
        )
        for matrix in laplacian
    ]
    values, vectors = (np.stack(parts) for parts in zip(*found, strict=True))
    return np.maximum(values, 0), _of_random_walk(vectors, root, normalization)


def _deflated_laplacian(
    adjacency: Floats, normalization: Normalization
) -> tuple[Floats, Floats, Floats]:
    """The Laplacian ``[G, n, n]`` with its null vector moved up, that vector, and the scale.

    The trivial vector is known, so it is moved to the far end of the spectrum: taking "the first
    one" away would mix it with a nearly disconnected component's.
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


def _sparse_eigenpairs(
    component: Components,
    count: int,
    normalization: Normalization,
    dense_limit: int,
    options: Mapping[str, Any],
) -> tuple[Floats, Floats]:
    """``values [1, count]`` and ``vectors [1, n, count]`` of one large component."""
    laplacian = sparse_laplacian(component, normalization)
    n = component.width
    try:
        values, vectors = smallest_sparse_eigenpairs(
            laplacian.matrix, laplacian.trivial, count, laplacian.bound, options
        )
    except NotConvergedError as error:
        if n <= dense_limit:
            return _some_eigenpairs(symmetrized(component)[0], count, normalization)
        raise RuntimeError(
            f"no {count} eigenvectors found for a component of {n} nodes ({error}); ask for a "
            f"smaller k, or give more room with ncv= or maxiter= (options of eigsh)"
        ) from error
    vectors = _of_random_walk(vectors[None], laplacian.trivial[None], normalization)
    return np.maximum(values, 0)[None], vectors


def _trivial_vector(degree: Floats, normalization: Normalization) -> tuple[Floats, Floats, Floats]:
    """What scales the Laplacian, its null vector, both ``[G, n]``, and its bound ``[G]``."""
    if normalization is None:
        one = np.ones_like(degree)
        return one, one / np.sqrt(degree.shape[-1]), 2 * degree.max(axis=-1)
    root = np.sqrt(degree)
    return root, root / np.linalg.norm(root, axis=-1, keepdims=True), np.full(len(degree), 2.0)


def _of_random_walk(vectors: Floats, root: Floats, normalization: Normalization) -> Floats:
    """Turns eigenvectors of the symmetric Laplacian into those of ``I - D^-1 W``, if asked."""
    if normalization != "rw":
        return vectors
    vectors = vectors * (root.min(axis=1, keepdims=True) / root)[:, :, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
