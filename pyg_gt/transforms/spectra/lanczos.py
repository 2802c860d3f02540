"""The smallest eigenpairs of a large sparse Laplacian, repeated ones included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh, splu

from ..graphs.graphs import Floats

# From SciPy 1.17 on ARPACK draws from this generator when a Krylov space is exhausted.
SEED: dict[str, Any] = {"rng": 0} if "rng" in signature(eigsh).parameters else {}
# Eigenvalues that are so close, relatively, are one where columns end.
_SLACK = 1e-6


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
            return _checked(
                laplacian, trivial, k, bound, transform, {**usual, **options}, inverse=inverse
            )
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
    factors = _factors(laplacian, 5e-9 * bound)
    solve: Callable[[Floats], Floats] = factors.solve
    return solve


def _factors(laplacian: csr_array, shift: float) -> Any:
    """Those of ``L + shift``, with pivots on the diagonal."""
    return splu(
        (laplacian + shift * eye_array(laplacian.shape[0])).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _checked(
    laplacian: csr_array,
    trivial: Floats,
    k: int,
    bound: float,
    transform: Callable[[Floats], Floats],
    options: Mapping[str, Any],
    *,
    inverse: bool,
) -> tuple[Floats, Floats]:
    """Runs Lanczos for the largest eigenvalues of ``transform(L)`` until none can be missing.

    One start vector sees one vector of each eigenspace, so a repeated eigenvalue is found only
    through rounding. Hence eigenvalues are counted, if the matrix has sparse factors, as its
    ``inverse`` needs them. Otherwise there is another run, orthogonal to all that was found: it
    ends the search if what it finds lies above the k-th value.
    """
    n = trivial.size
    draw = np.random.default_rng(0)
    found = trivial[:, None]  # [n, 1 + number of eigenvectors]
    values = np.empty(0)
    while True:
        locked = found[:, 0] if values.size == 0 else found

        def deflated(x: Floats, locked: Floats = locked) -> Floats:
            # what ARPACK draws when a Krylov space is exhausted is not orthogonal
            return _orthogonal(transform(_orthogonal(x.ravel(), locked)), locked)

        operator = LinearOperator((n, n), matvec=deflated, dtype=np.float64)
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
        slack = max(_SLACK, options.get("tol", 0))
        if new.min() > last * (1 - slack) - 1e-13 * bound:
            break
        if inverse and _none_is_missing(laplacian, values, k, slack):
            break
    found = found[:, 1:]
    values, rotation = np.linalg.eigh(found.T @ (laplacian @ found))
    values, vectors = values[:k], found @ rotation[:, :k]
    residual = np.linalg.norm(laplacian @ vectors - vectors * values, axis=0).max()
    if residual > max(1e-8, 10 * options.get("tol", 0)) * bound:
        raise NotConvergedError(f"a residual of {residual:.1e}")
    return values, vectors


def _orthogonal(x: Floats, locked: Floats) -> Floats:
    """``x [n]`` without its part along ``locked``, one vector ``[n]`` or many ``[n, m]``."""
    overlap = locked.T @ x
    rest: Floats = x - (locked * overlap if locked.ndim == 1 else locked @ overlap)
    return rest


def _none_is_missing(laplacian: csr_array, values: Floats, k: int, slack: float) -> bool:
    """Whether all eigenvalues clearly below the k-th of ``values`` are among them.

    By Sylvester's law of inertia, as many pivots of ``L - limit`` are negative as eigenvalues are
    below the limit. That holds for a matrix that differs from it by the rounding of its factors,
    so nothing is said if they have grown.
    """
    kth = float(np.sort(values)[k - 1])
    limit = kth * (1 - slack)
    try:
        factors = _factors(laplacian, -limit)
    except (RuntimeError, MemoryError):  # a pivot of zero, or too many entries
        return False
    if not np.array_equal(factors.perm_r, factors.perm_c):
        return False
    upper = factors.U
    pivots = upper.diagonal()
    rows = abs(upper).max(axis=1).toarray().ravel()
    rounding = np.finfo(np.float64).eps * float((rows**2 / np.abs(pivots)).max())
    below = int((values < limit).sum())
    return bool(rounding < 0.1 * slack * kth and (pivots < 0).sum() == 1 + below)
