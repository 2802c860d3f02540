"""The pseudoinverses of Laplacians, ``G = (D - W)^+``, of small graphs and large ones.

Column ``j`` of ``G`` is the electric potential of a unit charge on node ``j``, with the opposite
charge spread over the whole component, along edges of conductance ``W``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import splu

from ..graphs.graphs import Floats
from .lanczos import has_small_cuts

# A matrix whose condition number is beyond this is not inverted as it stands.
_WORST_CONDITION = 1e9
# Where conjugate gradients end, relative to the charge, and after how many steps in vain.
_RESIDUAL, _MAX_STEPS = 1e-12, 1000
# What rounding may do to a number that should be one.
_ACCURACY = 1e-7


def green_functions(adjacency: Floats) -> Floats:
    """``G [B, n, n]`` of connected graphs with symmetric ``adjacency [B, n, n]``."""
    n = adjacency.shape[-1]
    degree = adjacency.sum(axis=-1)
    # A multiple of 11^T lifts the null vector to the other eigenvalues and leaves those alone.
    regular = degree.mean(axis=1)[:, None, None] / n - adjacency
    regular.reshape(-1, n * n)[:, :: n + 1] += degree
    try:
        inverse = np.linalg.inv(regular)
    except np.linalg.LinAlgError:
        return _centred(_grounded_inverses(adjacency))
    condition = np.abs(regular).sum(axis=1).max(axis=1) * np.abs(inverse).sum(axis=1).max(axis=1)
    doubtful = ~(condition < _WORST_CONDITION)
    if doubtful.any():
        inverse[doubtful] = _grounded_inverses(adjacency[doubtful])
    return _centred(inverse)


def green_columns(laplacian: csr_array, at_once: int) -> Iterator[tuple[int, Floats]]:
    """``G [n, n]`` of a connected graph, as some columns ``[n, c]`` and where they begin.

    Factors are sparse where a graph has small cuts; where it has none, conjugate gradients
    converge in a few steps.
    """
    n = laplacian.shape[0]
    solve = None if has_small_cuts(laplacian) else _with_conjugate_gradients(laplacian)
    for start in range(0, n, at_once):
        stop = min(n, start + at_once)
        charge = np.full((n, stop - start), -1 / n)
        charge[np.arange(start, stop), np.arange(stop - start)] += 1
        columns = None if solve is None else solve(charge)
        if columns is None:
            solve = _with_factors(laplacian)
            columns = solve(charge)
        yield start, columns - columns.mean(axis=0)


def _with_factors(laplacian: csr_array) -> Callable[[Floats], Floats]:
    """With the last node grounded, which makes the matrix positive definite."""
    grounded, to_ground = laplacian[:-1, :-1].tocsc(), -laplacian[:-1, [-1]].toarray()
    try:
        factors = splu(
            grounded,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        ones = factors.solve(to_ground)
    except RuntimeError:  # singular
        ones = np.zeros_like(to_ground)
    if not (np.abs(ones - 1) <= _ACCURACY).all():
        raise ValueError(
            f"cannot compute the potentials on a component of {laplacian.shape[0]} nodes: entries "
            "of data.edge_weight differ by too many orders of magnitude; leave out the least ones"
        )

    def solve(charge: Floats) -> Floats:
        potential = np.zeros_like(charge)
        potential[:-1] = factors.solve(charge[:-1])
        return potential

    return solve


def _with_conjugate_gradients(laplacian: csr_array) -> Callable[[Floats], Floats | None]:
    """Preconditioned with the degrees; None where they do not converge."""
    degree = laplacian.diagonal()[:, None]

    def solve(charge: Floats) -> Floats | None:
        potential = np.zeros_like(charge)
        residual = charge.copy()
        direction = residual / degree
        size = np.einsum("ij,ij->j", residual, direction)
        enough = _RESIDUAL**2 * size
        for _ in range(_MAX_STEPS):
            flow = laplacian @ direction
            step = _ratio(size, np.einsum("ij,ij->j", direction, flow))
            potential += step * direction
            flow *= step
            residual -= flow
            scaled = residual / degree
            before, size = size, np.einsum("ij,ij->j", residual, scaled)
            if (size <= enough).all():
                error = np.abs(charge - laplacian @ potential).max()
                return potential if error <= _ACCURACY else None
            direction *= _ratio(size, before)
            direction += scaled
        return None

    return solve


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _centred(inverses: Floats) -> Floats:
    """``C X C`` with ``C = I - 11^T / n``, which is ``G`` for any generalised inverse ``X``."""
    inverses -= inverses.mean(axis=1, keepdims=True)
    inverses -= inverses.mean(axis=2, keepdims=True)
    return inverses


def _grounded_inverses(adjacency: Floats) -> Floats:
    """``[B, n, n]``: the inverse of the Laplacian without the first node, padded with zeros.

    Gaussian elimination, last node first. The degree of a node in what is left is the sum of its
    weights there, so nothing is subtracted and no digit is lost, however different the weights
    are (`Grassmann, Taksar and Heyman 1985 <https://doi.org/10.1287/opre.33.5.1107>`_).
    """
    n = adjacency.shape[-1]
    left = adjacency.copy()
    for k in range(n - 1, 0, -1):
        weight = left[:, k, :k]
        share = weight / weight.sum(axis=1, keepdims=True)
        left[:, :k, :k] += weight[:, :, None] * share[:, None, :]
    inverses = np.zeros_like(left)
    for k in range(1, n):
        weight = left[:, k, :k]
        degree = weight.sum(axis=1, keepdims=True)
        share = weight / degree
        column = np.einsum("bij,bj->bi", inverses[:, :k, :k], share)
        inverses[:, :k, k] = inverses[:, k, :k] = column
        inverses[:, k, k] = np.einsum("bi,bi->b", share, column) + 1 / degree[:, 0]
    return inverses
