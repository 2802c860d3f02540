"""The first Laplacian eigenvectors of each component, equally large components in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..graphs.arguments import Normalization
from ..graphs.components import Components, component_stacks
from ..graphs.graphs import Floats, Graphs
from .lanczos import NotConvergedError, smallest_sparse_eigenpairs
from .laplacian import deflated_laplacian, random_walk_eigenvectors, sparse_laplacian, symmetrized
from .spectrum import SMALL, full_spectrum, has_spectrum


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
    for stack in component_stacks(graphs):
        n = stack.width
        count = min(k, n - 1)
        if count == 0:
            continue
        nodes = stack.stacked_nodes()
        known = has_spectrum(graphs, stack, normalization)
        if n > dense_up_to and not known:
            found = [
                _sparse_eigenpairs(component, count, normalization, dense_limit, options)
                for component in stack.each()
            ]
            values, vectors = (np.concatenate(parts) for parts in zip(*found, strict=True))
        elif n > SMALL and 8 * count <= n and not known:
            # LAPACK's syevr computes only the wanted ones; it pays from about here on.
            values, vectors = _some_eigenpairs(symmetrized(stack)[0], count, normalization)
        else:
            spectrum = full_spectrum(graphs, stack, normalization)
            values, vectors = spectrum.values[:, :count], spectrum.vectors[:, :, :count]
            vectors = random_walk_eigenvectors(vectors, spectrum.root, normalization)
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


def _some_eigenpairs(
    adjacency: Floats, count: int, normalization: Normalization
) -> tuple[Floats, Floats]:
    """``values [G, count]`` and ``vectors [G, n, count]`` of ``adjacency [G, n, n]``."""
    laplacian, _, root = deflated_laplacian(adjacency, normalization)
    found = [
        scipy.linalg.eigh(
            matrix, subset_by_index=(0, count - 1), check_finite=False, overwrite_a=True
        )
        for matrix in laplacian
    ]
    values, vectors = (np.stack(parts) for parts in zip(*found, strict=True))
    return np.maximum(values, 0), random_walk_eigenvectors(vectors, root, normalization)


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
    vectors = random_walk_eigenvectors(vectors[None], laplacian.trivial[None], normalization)
    return np.maximum(values, 0)[None], vectors
