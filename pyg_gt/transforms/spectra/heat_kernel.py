"""Diagonals of the heat kernels of graphs, without their stationary part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.special import ive

from ..graphs.arguments import Normalization
from ..graphs.components import component_blocks, component_stacks
from ..graphs.graphs import Floats, Graphs
from .laplacian import sparse_laplacian
from .spectrum import full_spectrum

# The error that is allowed for each coefficient that is left out.
_TOLERANCE = 1e-13
# Entries of the columns that are computed together, 2 MiB, and how many columns at least.
_ENTRIES, _COLUMNS = 2**18, 16
# Polynomials of a higher degree are refused.
_MAX_ORDER = 1e5


def heat_kernel_diagonals(
    graphs: Graphs, times: Sequence[float], normalization: Normalization, *, dense_limit: int
) -> Floats:
    """``[N, T]``: the sums of ``exp(-t lambda) u_i^2`` over the non-trivial eigenpairs."""
    result = np.zeros((graphs.num_nodes, len(times)))
    for stack in component_stacks(graphs):
        if stack.width == 1:
            continue
        if stack.width > dense_limit:
            break
        spectrum = full_spectrum(graphs, stack, normalization)
        decay = np.exp(-spectrum.values[:, :, None] * np.array(times))  # [G, n - 1, T]
        result[stack.stacked_nodes()] = spectrum.vectors**2 @ decay
    for component in component_blocks(graphs, max(1, dense_limit)):
        laplacian = sparse_laplacian(component, normalization)
        weights = _chebyshev_coefficients(np.array(times), laplacian.bound)  # [K, T]
        found = _chebyshev_moments(laplacian.matrix, laplacian.bound, len(weights)) @ weights
        stationary = laplacian.trivial[:, None] ** 2
        result[component.nodes] = np.maximum(found - stationary, 0)
    return result


def _chebyshev_coefficients(times: Floats, bound: float) -> Floats:
    """``[K, T]``: ``exp(-t x)`` on ``[0, bound]`` in the polynomials ``T_k(2 x / bound - 1)``.

    They are modified Bessel functions, which fall off beyond about the root of ``t bound``
    (`Abramowitz and Stegun 9.6.34 <https://personal.math.ubc.ca/~cbm/aands/page_376.htm>`_).
    """
    z = times * bound / 2
    order = 8 * np.sqrt(z.max()) + 40
    if order > _MAX_ORDER:
        raise ValueError(
            f"the heat kernel at time {times.max():g} of a component of many nodes, with "
            f"eigenvalues up to {bound:g}, takes {order:.0e} products of sparse matrices; choose "
            "smaller times, or normalization='sym', whose eigenvalues are at most 2"
        )
    k = np.arange(int(order))[:, None]
    weights: Floats = 2 * (-1.0) ** k * ive(k, z)
    weights[0] /= 2
    needed = np.flatnonzero((np.abs(weights) > _TOLERANCE).any(axis=1))
    return weights[: needed[-1] + 1]


def _chebyshev_moments(laplacian: csr_array, bound: float, count: int) -> Floats:
    """``[n, count]``: the diagonals of ``T_0, T_1, ...`` of ``X = 2 L / bound - I``.

    Half as many products are enough, since ``T_{2 k} = 2 T_k T_k - T_0`` and
    ``T_{2 k + 1} = 2 T_k T_{k + 1} - T_1`` (`Weisse et al. 2006
    <https://arxiv.org/abs/cond-mat/0504627>`_).
    """
    n = laplacian.shape[0]
    X = csr_array(laplacian * (2 / bound) - eye_array(n))
    first = X.diagonal()
    moments = np.empty((n, max(3, count + 1)))
    columns = max(_COLUMNS, _ENTRIES // n)
    for start in range(0, n, columns):
        stop = min(n, start + columns)
        chebyshev = _chebyshev_columns(X, start, stop)
        current = next(chebyshev)
        moments[start:stop, 0] = 1
        for k in range(1, count, 2):
            previous, current = current, next(chebyshev)
            products = np.einsum("ij,ij->j", previous, current)
            moments[start:stop, k] = 2 * products - first[start:stop]
            moments[start:stop, k + 1] = 2 * np.einsum("ij,ij->j", current, current) - 1
    return moments[:, :count]


def _chebyshev_columns(X: csr_array, start: int, stop: int) -> Iterator[Floats]:
    """Columns ``start`` to ``stop`` of ``T_0, T_1, ...`` of ``X``."""
    previous = np.zeros((X.shape[0], stop - start))
    previous[np.arange(start, stop), np.arange(stop - start)] = 1
    yield previous
    current = X @ previous
    while True:
        yield current
        following = X @ current
        following *= 2
        following -= previous
        previous, current = current, following
