"""The weakly connected components of graphs as matrices: stacked, or block-diagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from .graphs import Floats, Graphs, Ints, offsets

# Entries of the largest stack of dense matrices made at once: 4 MiB, which a cache can hold.
_STACK_ENTRIES = 2**19


@dataclass(frozen=True, eq=False)
class Components:
    """Weakly connected components: of one size ``n``, or, in :func:`component_blocks`, of several.

    Attributes:
        nodes: ``[R]``, their nodes, one component after the other, each one's ascending.
        ptr: ``[G + 1]``, where each component begins in ``nodes``.
        row: ``[E]``, sources of their edges as places in ``nodes``, ascending.
        col: ``[E]``, their targets likewise.
        weight: ``[E]``; repeated edges stand apart.
    """

    nodes: Ints
    ptr: Ints
    row: Ints
    col: Ints
    weight: Floats

    @property
    def num_components(self) -> int:
        """``G``."""
        return len(self.ptr) - 1

    @property
    def width(self) -> int:
        """``n``, the number of nodes of the largest component."""
        return int(np.diff(self.ptr).max())

    def each(self) -> Iterator[Components]:
        """The components one by one."""
        return (_slice(self, i, i + 1) for i in range(self.num_components))

    def local_nodes(self) -> Ints:
        """``[R]``, the number of each node in its component."""
        return np.arange(self.nodes.size) - np.repeat(self.ptr[:-1], np.diff(self.ptr))

    def stacked_nodes(self) -> Ints:
        """``[G, n]``, of components of one size."""
        return self.nodes.reshape(self.num_components, -1)

    def dense(self) -> Floats:
        """``[G, n, n]``, of components of one size; repeated edges are added up."""
        return dense_stack(self.row, self.col, self.weight, self.num_components, self.width)

    def sparse(self) -> csr_array:
        """``[R, R]``, block-diagonal; repeated edges are added up."""
        R = self.nodes.size
        ptr = offsets(np.bincount(self.row, minlength=R))
        matrix = csr_array((self.weight, self.col, ptr), shape=(R, R))
        matrix.sum_duplicates()
        return matrix


def component_stacks(graphs: Graphs) -> Iterator[Components]:
    """The weakly connected components, smallest first, equally large ones in one stack."""
    whole = _sorted_by_size(graphs)
    size = np.diff(whole.ptr)
    first = 0
    while first < len(size):
        n = int(size[first])
        equal = int(np.searchsorted(size, n, side="right"))
        last = min(equal, first + max(1, _STACK_ENTRIES // n**2))
        yield _slice(whole, first, last)
        first = last


def component_blocks(graphs: Graphs, larger_than: int, entries: int = 1) -> Iterator[Components]:
    """The components of more than ``larger_than`` nodes, several at a time, smallest first.

    Each yields a block-diagonal matrix. It has at most ``entries`` of (its nodes) x (nodes of its
    largest component), or is one component.
    """
    whole = _sorted_by_size(graphs)
    size = np.diff(whole.ptr)
    first = int(np.searchsorted(size, larger_than, side="right"))
    while first < len(size):
        last = first + 1
        while (
            last < len(size) and (whole.ptr[last + 1] - whole.ptr[first]) * size[last] <= entries
        ):
            last += 1
        yield _slice(whole, first, last)
        first = last


def dense_stack(row: Ints, col: Ints, weight: Floats, G: int, n: int) -> Floats:
    """``[G, n, n]``, from the edges of ``G`` graphs with ``n`` nodes each, numbered in a row."""
    entries = np.bincount(row * n + col % n, weight, minlength=G * n * n)
    return entries.astype(np.float64, copy=False).reshape(G, n, n)  # [G, n, n]


def is_symmetric(graphs: Graphs) -> bool:
    """Whether ``W`` and ``W^T`` agree, to the rounding of float32 weights."""
    forth = graphs.row * graphs.num_nodes + graphs.col
    back = graphs.col * graphs.num_nodes + graphs.row
    _, pair = np.unique(np.concatenate([forth, back]), return_inverse=True)
    difference = np.bincount(pair, np.concatenate([graphs.weight, -graphs.weight]))
    total = np.bincount(pair, np.concatenate([graphs.weight, graphs.weight]))
    return bool((np.abs(difference) <= 1e-5 * total).all())


def _sorted_by_size(graphs: Graphs) -> Components:
    """All components, smallest first."""
    return graphs.cached("components", lambda: _sort_by_size(graphs))


def _sort_by_size(graphs: Graphs) -> Components:
    N = graphs.num_nodes
    label = _component_labels(graphs)
    size = np.bincount(label) if N else np.empty(0, dtype=np.int64)
    if size.size and size.max() == N:
        nodes, ptr = np.arange(N), np.array([0, N])
        row, col = graphs.row, graphs.col
    else:
        nodes = np.lexsort((label, size[label]))
        ptr = offsets(np.sort(size[size > 0]))
        place = np.empty(N, dtype=np.int64)
        place[nodes] = np.arange(N)
        row, col = place[graphs.row], place[graphs.col]
    by_row = np.argsort(row, kind="stable")
    return Components(nodes, ptr, row[by_row], col[by_row], graphs.weight[by_row])


def _slice(whole: Components, first: int, last: int) -> Components:
    """Components ``first`` to ``last - 1``."""
    start, stop = whole.ptr[first], whole.ptr[last]
    a, b = np.searchsorted(whole.row, [start, stop])
    return Components(
        whole.nodes[start:stop],
        whole.ptr[first : last + 1] - start,
        whole.row[a:b] - start,
        whole.col[a:b] - start,
        whole.weight[a:b],
    )


def _component_labels(graphs: Graphs) -> Ints:
    """``[N]``, one number a weakly connected component."""
    N = graphs.num_nodes
    if N + graphs.row.size > 512:
        adjacency = csr_array((graphs.weight, (graphs.row, graphs.col)), shape=(N, N))
        _, label = connected_components(adjacency, directed=False)
        return np.asarray(label, dtype=np.int64)
    # On a molecule this takes a tenth of the time that SciPy takes to check its input:
    # eigenvectors of 1,500 molecules, one by one, take 1.4 s and not 2.5.
    parent = list(range(N))
    for a, b in zip(graphs.row.tolist(), graphs.col.tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        parent[max(a, b)] = min(a, b)
    for node in range(N):
        parent[node] = parent[parent[node]]  # parents have smaller numbers
    return np.array(parent, dtype=np.int64)
