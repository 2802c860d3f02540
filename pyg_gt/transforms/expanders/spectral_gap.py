"""Random regular graphs with a large spectral gap."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

from ..graphs.components import dense_stack
from ..graphs.graphs import Floats, Ints, offsets
from ..spectra.lanczos import SEED
from .random_numbers import Keys, split_mix
from .random_regular import random_regular_edges

# Number of nodes up to which all eigenvalues are computed, and entries of matrices at once.
_DENSE_LIMIT, _STACK_ENTRIES = 256, 2**19
# The relative error that is allowed for an eigenvalue of a larger graph.
_TOLERANCE = 1e-3


def expander_edges(
    size: Ints, degree: int, key: Keys, bound: float, max_tries: int
) -> tuple[Ints, Ints, Floats]:
    """Edges of random graphs as :func:`random_regular_edges` draws them, with a spectral gap.

    Args:
        size: ``[G]``, the numbers of nodes.
        degree: of the nodes.
        key: ``[G]``, all that the draws depend on besides.
        bound: of :func:`spectral_norms`; a graph above it is drawn again.
        max_tries: number of draws after which the best one is taken.

    Returns:
        Sources and targets ``[E]``, ascending, and the spectral norms ``[G]``.
    """
    ptr = offsets(size)
    best = np.full(size.size, np.inf)
    kept = np.empty((2, 0), dtype=np.int64)
    owner = np.repeat(np.arange(size.size), size)
    left = np.argsort(size, kind="stable")
    for attempt in range(max_tries):
        edges = np.stack(random_regular_edges(size[left], degree, split_mix(key[left], attempt)))
        norm = spectral_norms(size[left], *edges)
        better = norm < best[left]
        best[left[better]] = norm[better]
        # from the numbers that nodes have among those left to those among all
        drawn = np.repeat(np.arange(left.size), size[left])
        edges = edges + (ptr[left] - offsets(size[left])[:-1])[drawn[edges[0]]]
        replaced = np.zeros(size.size, dtype=np.bool_)
        replaced[left[better]] = True
        kept = np.concatenate(
            [kept[:, ~replaced[owner[kept[0]]]], edges[:, replaced[owner[edges[0]]]]], axis=1
        )
        left = left[best[left] > bound]
        if not left.size:
            break
    code = kept[0] * owner.size + kept[1]
    code.sort()
    return code // max(1, owner.size), code % max(1, owner.size), best


def spectral_norms(size: Ints, row: Ints, col: Ints) -> Floats:
    """``[G]``: the largest ``|eigenvalue|`` of ``A - c 11^T``, where ``c`` is the mean of ``A``.

    Of a regular graph it is the second largest of ``A``: ``11^T`` has the first one's eigenvector.
    Of any graph it is at least that.

    Args:
        size: ``[G]``, the numbers of nodes, ascending.
        row: ``[E]``, the sources of edges, ascending, in the numbering of all nodes in a row.
        col: ``[E]``, their targets.
    """
    ptr = offsets(size)
    norms = np.zeros(size.size)
    first = int(np.searchsorted(size, 2))  # one node has no edge
    while first < size.size:
        n = int(size[first])
        equal = int(np.searchsorted(size, n, side="right"))
        last = first + 1
        if n <= _DENSE_LIMIT:
            last = min(equal, first + max(1, _STACK_ENTRIES // n**2))
        edges = slice(*np.searchsorted(row, [ptr[first], ptr[last]]))
        a, b = row[edges] - ptr[first], col[edges] - ptr[first]
        if n > _DENSE_LIMIT:
            norms[first] = _norm_of_large(n, a, b)
        else:
            adjacency = dense_stack(a, b, np.ones(a.size), last - first, n)
            adjacency -= adjacency.mean(axis=(1, 2), keepdims=True)
            values = np.linalg.eigvalsh(adjacency)
            norms[first:last] = np.maximum(values[:, -1], -values[:, 0])
        first = last
    return norms


def _norm_of_large(n: int, row: Ints, col: Ints) -> float:
    adjacency = csr_array((np.ones(row.size), (row, col)), shape=(n, n))
    mean = row.size / n**2

    def centred(x: Floats) -> Floats:
        y: Floats = adjacency @ x - mean * x.sum()
        return y

    (value,) = eigsh(
        LinearOperator((n, n), matvec=centred, dtype=np.float64),
        k=1,
        which="LM",
        tol=_TOLERANCE,
        v0=np.random.default_rng(0).standard_normal(n),
        return_eigenvectors=False,
        **SEED,
    )
    return float(abs(value))
