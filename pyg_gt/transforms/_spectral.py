"""Laplacian eigenvectors, component by component, equally large components in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from ._components import split_components
from ._graph import Floats, WeightedGraph
from ._lanczos import NotConvergedError, smallest_sparse_eigenpairs

Normalization = Literal["sym", "rw"] | None


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


def laplacian_eigenpairs(
    graph: WeightedGraph,
    k: int,
    normalization: Normalization,
    *,
    sparse_threshold: int,
    dense_limit: int,
    options: Mapping[str, Any],
) -> Eigenpairs:
    """The first ``k`` non-trivial eigenpairs of each component's Laplacian.

    Args:
        graph: a symmetric graph without self-loops.
        k: number of columns.
        normalization: as in `torch_geometric.utils.get_laplacian`.
        sparse_threshold: number of nodes of a component from which on it is treated as sparse,
            unless more than an eighth of its eigenvectors are asked for.
        dense_limit: number of nodes above which a component is never made dense.
        options: keyword arguments of `scipy.sparse.linalg.eigsh`.

    Raises:
        RuntimeError: if the sparse solver does not converge for a component above ``dense_limit``.
    """
    N = graph.num_nodes
    pairs = Eigenpairs(np.zeros((N, k)), np.zeros((N, k)), np.zeros((N, k), dtype=np.bool_))
    dense_up_to = min(max(sparse_threshold - 1, 8 * k - 1), dense_limit)
    for nodes, adjacency in split_components(graph, dense_up_to):
        count = min(k, nodes.shape[1] - 1)
        if count == 0:
            continue
        if isinstance(adjacency, np.ndarray):
            values, vectors = _dense_eigenpairs(adjacency, count, normalization)
        else:
            values, vectors = _sparse_eigenpairs(
                adjacency, count, normalization, dense_limit, options
            )
        pairs.vectors[nodes, :count] = with_canonical_sign(vectors)
        pairs.values[nodes, :count] = values[:, None, :]
        pairs.mask[nodes, :count] = True
    return pairs


def with_canonical_sign(vectors: Floats) -> Floats:
    """``vectors [G, n, k]`` with the largest entry of each column positive.

    Of entries that are equally large up to rounding, the first one decides.
    """
    size = np.abs(vectors)
    largest = size >= (1 - 1e-6) * size.max(axis=1, keepdims=True)
    decisive = np.take_along_axis(vectors, largest.argmax(axis=1)[:, None], axis=1)  # [G, 1, k]
    return vectors * np.copysign(1.0, decisive)


def _dense_eigenpairs(
    adjacency: Floats, count: int, normalization: Normalization
) -> tuple[Floats, Floats]:
    """``values [G, count]`` and ``vectors [G, n, count]`` of ``adjacency [G, n, n]``."""
    n = adjacency.shape[-1]
    degree = adjacency.sum(axis=-1)
    root, trivial, bound = _trivial_vector(degree, normalization)
    laplacian = -adjacency
    laplacian.reshape(-1, n * n)[:, :: n + 1] += degree  # [G, n]
    laplacian /= root[:, :, None]
    laplacian /= root[:, None, :]
    # The trivial vector is known, so it is moved to the far end of the spectrum: taking "the
    # first one" away would mix it with a nearly disconnected component's.
    laplacian += (1.5 * bound)[:, None, None] * trivial[:, :, None] * trivial[:, None, :]
    if n > 64 and 8 * count <= n:
        # LAPACK's syevr computes only the wanted ones; it pays from about here on.
        found = [
            scipy.linalg.eigh(matrix, subset_by_index=(0, count - 1), check_finite=False)
            for matrix in laplacian
        ]
        values, vectors = (np.stack(parts) for parts in zip(*found, strict=True))
    else:
        values, vectors = np.linalg.eigh(laplacian)
    values, vectors = values[:, :count], vectors[:, :, :count]
    return np.maximum(values, 0), _of_random_walk(vectors, root, normalization)


def _sparse_eigenpairs(
    adjacency: csr_array,
    count: int,
    normalization: Normalization,
    dense_limit: int,
    options: Mapping[str, Any],
) -> tuple[Floats, Floats]:
    """``values [1, count]`` and ``vectors [1, n, count]`` of one large component."""
    n = adjacency.shape[0]
    degree = adjacency.sum(axis=1)[None]  # [1, n]
    root, trivial, bound = _trivial_vector(degree, normalization)
    scale = diags_array(1 / root[0])
    laplacian = csr_array(scale @ (diags_array(degree[0]) - adjacency) @ scale)
    try:
        values, vectors = smallest_sparse_eigenpairs(
            laplacian, trivial[0], count, float(bound[0]), options
        )
    except NotConvergedError as error:
        if n <= dense_limit:
            return _dense_eigenpairs(adjacency.toarray()[None], count, normalization)
        raise RuntimeError(
            f"no {count} eigenvectors found for a component of {n} nodes ({error}); ask for a "
            f"smaller k, or give more room with ncv= or maxiter= (options of eigsh)"
        ) from error
    return np.maximum(values, 0)[None], _of_random_walk(vectors[None], root, normalization)


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
