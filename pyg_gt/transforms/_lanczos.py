"""The smallest eigenpairs of a large sparse Laplacian, repeated ones included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh, splu

from ._graphs import Floats

# From SciPy 1.17 on ARPACK draws from this generator when a Krylov space is exhausted.
SEED: dict[str, Any] = {"rng": 0} if "rng" in signature(eigsh).parameters else {}


class NotConvergedError(Exception):
    """ARPACK did not find the eigenpairs, or they are not exact enough."""


def smallest_sparse_eigenpairs(
    laplacian: csr_array, trivial: Floats, k: int, bound: float, options: Mapping[str, Any]
) -> tuple[Floats, Floats]:
    """The ``k`` smallest eigenpairs orthogonal to the null vector.

    Lanczos either on the shifted inverse or on the matrix itself. The second converges where the
    spectral gap is large, just where factors would be large too, since such a graph has no small
    cuts. So the likelier one is tried first, the other when it does not converge.

    Args:
        laplacian: ``[n, n]``, symmetric, with eigenvalues in ``[0, bound]``.
        trivial: ``[n]``, its null vector, of length one.
        k: how many, fewer than half of ``n``.
        bound: see above.
        options: keyword arguments of `scipy.sparse.linalg.eigsh`: ``tol``, ``maxiter``, ``ncv``.

    Returns:
        ``values [k]``, ascending, and orthonormal ``vectors [n, k]``.

    Raises:
        NotConvergedError: if neither converges, or ``k`` is too large for ARPACK.
    """
    n = laplacian.shape[0]
    if 2 * k + 1 > n:
        raise NotConvergedError(f"ARPACK finds fewer than half of {n} eigenvectors")
    likelier = has_small_cuts(laplacian)
    failure: Exception | None = None
    for inverse in (likelier, not likelier):
        try:
            if inverse:
                transform = _shift_inverted(laplacian, bound)
                usual: dict[str, Any] = {"ncv": max(2 * k + 1, 20)}
            else:
                transform = _flipped(laplacian, bound)
                usual = {"ncv": max(2 * k + 1, 40), "maxiter": 100}
            usual["tol"] = 1e-11
            usual["ncv"] = min(n, usual["ncv"])
            return _checked(laplacian, trivial, k, bound, transform, {**usual, **options})
        except (ArpackError, MemoryError, NotConvergedError) as error:
            failure = error
    raise NotConvergedError(str(failure)) from failure


def has_small_cuts(laplacian: csr_array) -> bool:
    """Whether the graph is nearly a tree or nearly planar, so that its factors stay sparse.

    The columns that Cuthill and McKee's order puts between a node and its first neighbour are a
    cut. In a planar graph one of a few ``sqrt(n)`` nodes exists (Lipton and Tarjan, 1979), in an
    expander each has a share of ``n``.
    """
    n = laplacian.shape[0]
    if laplacian.nnz <= 3.2 * n:  # 3 n - 2 in a tree
        return True
    place = np.empty(n, dtype=np.int64)
    place[reverse_cuthill_mckee(laplacian, symmetric_mode=True)] = np.arange(n)
    row, col = laplacian.nonzero()
    first = np.arange(n)
    np.minimum.at(first, place[row], place[col])
    return bool((np.arange(n) - first).mean() <= 4 * np.sqrt(n))


def _flipped(laplacian: csr_array, bound: float) -> Callable[[Floats], Floats]:
    def transform(x: Floats) -> Floats:
        y: Floats = bound * x - laplacian @ x
        return y

    return transform


def _shift_inverted(laplacian: csr_array, bound: float) -> Callable[[Floats], Floats]:
    """Solves with ``L + shift``, which is positive definite, so that no pivoting is needed.

    The shift is far below the smallest non-trivial eigenvalue of most graphs, which keeps the
    wanted ones apart. The solution is inexact along the null vector only, which is projected out.
    """
    shifted = (laplacian + 5e-9 * bound * eye_array(laplacian.shape[0])).tocsc()
    factors = splu(
        shifted,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    solve: Callable[[Floats], Floats] = factors.solve
    return solve


def _checked(
    laplacian: csr_array,
    trivial: Floats,
    k: int,
    bound: float,
    transform: Callable[[Floats], Floats],
    options: Mapping[str, Any],
) -> tuple[Floats, Floats]:
    """Runs Lanczos for the largest eigenvalues of ``transform(L)`` until none can be missing.

    One start vector sees one vector of each eigenspace, so a repeated eigenvalue is found only
    through rounding. Hence another run, orthogonal to all that was found: it ends the search if
    what it finds lies above the k-th value.
    """
    n = trivial.size
    draw = np.random.default_rng(0)
    found = trivial[:, None]  # [n, 1 + number of eigenvectors]
    values = np.empty(0)
    while True:
        locked = found

        def deflated(x: Floats, locked: Floats = locked) -> Floats:
            x = x.ravel()
            y = transform(x - locked @ (locked.T @ x))
            return y - locked @ (locked.T @ y)

        operator = LinearOperator((n, n), matvec=deflated, dtype=np.float64)
        if values.size:
            kth = found[:, 1 + np.argsort(values)[k - 1]]
            if _all_are_below(operator, float(kth @ transform(kth)), draw.standard_normal(n)):
                break
        _, vectors = eigsh(
            operator,
            k=1 if values.size else k,
            which="LA",
            v0=draw.standard_normal(n),
            **SEED,
            **options,
        )
        new = np.einsum("ij,ij->j", vectors, laplacian @ vectors)
        found = np.concatenate([found, vectors], axis=1)
        last = np.sort(values)[k - 1] if values.size else np.inf
        values = np.concatenate([values, new])
        if new.min() > last - max(1e-6, options.get("tol", 0)) * last - 1e-13 * bound:
            break
    found = found[:, 1:]
    values, rotation = np.linalg.eigh(found.T @ (laplacian @ found))
    values, vectors = values[:k], found @ rotation[:, :k]
    residual = np.linalg.norm(laplacian @ vectors - vectors * values, axis=0).max()
    if residual > max(1e-8, 10 * options.get("tol", 0)) * bound:
        raise NotConvergedError(f"a residual of {residual:.1e}")
    return values, vectors


def _all_are_below(operator: LinearOperator, limit: float, start: Floats) -> bool:
    """Whether a few steps show that the eigenvalues of ``operator`` are clearly below ``limit``.

    On the shifted inverse the next eigenvalue mostly is, and then a hundredth of it is exact
    enough. If not, it has to be computed.
    """
    try:
        values, vectors = eigsh(
            operator,
            k=1,
            which="LA",
            v0=start,
            ncv=min(start.size, 8),
            tol=1e-2,
            maxiter=8,
            **SEED,
        )
    except ArpackError:
        return False
    error = np.linalg.norm(operator @ vectors[:, 0] - values[0] * vectors[:, 0])
    return bool(values[0] + error < 0.99 * limit)
