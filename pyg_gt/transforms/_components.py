"""The components of a graph as matrices, equally large ones stacked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ._graph import Floats, Ints, WeightedGraph

# Entries of the largest stack of dense matrices made at once: 16 MiB.
_STACK_ENTRIES = 2**21


def symmetrized(graph: WeightedGraph) -> WeightedGraph:
    """``(W + W^T) / 2`` without the diagonal."""
    edge = graph.row != graph.col
    row, col, weight = graph.row[edge], graph.col[edge], graph.weight[edge] / 2
    return WeightedGraph(
        np.concatenate([row, col]),
        np.concatenate([col, row]),
        np.concatenate([weight, weight]),
        graph.num_nodes,
    )


def is_symmetric(graph: WeightedGraph) -> bool:
    """Whether ``W`` and ``W^T`` agree, to the rounding of float32 weights."""
    there = graph.row * graph.num_nodes + graph.col
    back = graph.col * graph.num_nodes + graph.row
    _, pair = np.unique(np.concatenate([there, back]), return_inverse=True)
    difference = np.bincount(pair, np.concatenate([graph.weight, -graph.weight]))
    total = np.bincount(pair, np.concatenate([graph.weight, graph.weight]))
    return bool((np.abs(difference) <= 1e-5 * total).all())


def split_components(
    graph: WeightedGraph, dense_up_to: int
) -> Iterator[tuple[Ints, Floats | csr_array]]:
    """The weakly connected components, those of one size side by side.

    Yields:
        ``(nodes [G, n], adjacency)``: ``G`` components of ``n`` nodes each, their nodes ascending.
        Up to ``dense_up_to`` nodes the adjacency is a stack ``[G, n, n]``, above that ``G`` is 1
        and it is a ``csr_array [n, n]``. Repeated edges are added up.
    """
    N = graph.num_nodes
    if N == 0:
        return
    label = _component_labels(graph)
    size = np.bincount(label)
    if size.max() == N:
        yield _piece(np.arange(N)[None], graph.row, graph.col, graph.weight, dense_up_to)
        return
    order = np.lexsort((label, size[label]))
    place = np.empty(N, dtype=np.int64)
    place[order] = np.arange(N)
    row, col = place[graph.row], place[graph.col]
    by_row = np.argsort(row, kind="stable")
    row, col, weight = row[by_row], col[by_row], graph.weight[by_row]
    sizes, counts = np.unique(size[size > 0], return_counts=True)
    start = 0
    for n, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        at_once = max(1, _STACK_ENTRIES // n**2) if n <= dense_up_to else 1
        for done in range(0, count, at_once):
            G = min(at_once, count - done)
            stop = start + G * n
            first, last = np.searchsorted(row, [start, stop])
            nodes = order[start:stop].reshape(G, n)  # [G, n]
            edges = row[first:last] - start, col[first:last] - start, weight[first:last]
            yield _piece(nodes, *edges, dense_up_to)
            start = stop


def dense_stack(row: Ints, col: Ints, weight: Floats, G: int, n: int) -> Floats:
    """``[G, n, n]``, from the edges of ``G`` graphs with ``n`` nodes each, numbered in a row."""
    entries = np.bincount(row * n + col % n, weight, minlength=G * n * n)
    return entries.astype(np.float64, copy=False).reshape(G, n, n)  # [G, n, n]


def _piece(
    nodes: Ints, row: Ints, col: Ints, weight: Floats, dense_up_to: int
) -> tuple[Ints, Floats | csr_array]:
    """A yield of :func:`split_components`, of edges between ``0`` and ``G * n``."""
    G, n = nodes.shape
    if n <= dense_up_to:
        return nodes, dense_stack(row, col, weight, G, n)
    adjacency = _csr(row, col, weight, n)
    adjacency.sum_duplicates()
    return nodes, adjacency


def _component_labels(graph: WeightedGraph) -> Ints:
    """``[N]``, one number a weakly connected component."""
    N = graph.num_nodes
    if N + graph.row.size > 512:
        adjacency = _csr(graph.row, graph.col, graph.weight, N)
        _, label = connected_components(adjacency, directed=False)
        return np.asarray(label, dtype=np.int64)
    # On a molecule this takes a tenth of the time that SciPy takes to check its input.
    parent = list(range(N))
    for a, b in zip(graph.row.tolist(), graph.col.tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        parent[max(a, b)] = min(a, b)
    for node in range(N):
        parent[node] = parent[parent[node]]  # parents have smaller numbers
    return np.array(parent)


def _csr(row: Ints, col: Ints, weight: Floats, num_nodes: int) -> csr_array:
    order = np.argsort(row, kind="stable")
    ptr = np.zeros(num_nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=num_nodes), out=ptr[1:])
    return csr_array((weight[order], col[order], ptr), shape=(num_nodes, num_nodes))
