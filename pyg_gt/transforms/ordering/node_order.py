"""Orders of the nodes of a graph in which neighbours stand close to each other."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from ..graphs.graphs import Graphs, Ints
from .metis import metis


def node_order(graphs: Graphs, method: str, block_size: int) -> Ints:
    """``[N]``, the old number of each new node; each graph is ordered as if it were alone.

    Edges count in both directions, however often they stand.
    """
    graph = np.searchsorted(graphs.ptr, graphs.row, side="right") - 1
    by_graph = np.argsort(graph, kind="stable")
    ends = np.cumsum(np.bincount(graph, minlength=graphs.num_graphs))
    orders = [np.empty(0, dtype=np.int64)]
    edges = np.split(by_graph, ends[:-1]) if graphs.num_graphs else []
    for start, n, own in zip(graphs.ptr[:-1], graphs.sizes, edges, strict=True):
        adjacency = neighbours(graphs.row[own] - start, graphs.col[own] - start, int(n))
        order = by_parts(adjacency, block_size) if method == "metis" else by_bandwidth(adjacency)
        orders.append(order + start)
    return np.concatenate(orders)


def neighbours(row: Ints, col: Ints, n: int) -> csr_array:
    """``[n, n]``, which nodes are joined: symmetric, without loops, sorted, each pair once."""
    apart = row != col
    row, col = row[apart], col[apart]
    # int32 as long as it goes: half the memory
    kind = np.int32 if max(n, 2 * row.size) < 2**31 else np.int64
    both = np.concatenate([row, col]).astype(kind), np.concatenate([col, row]).astype(kind)
    return coo_array((np.ones(both[0].size, dtype=bool), both), shape=(n, n)).tocsr()


def by_bandwidth(adjacency: csr_array) -> Ints:
    """``[n]``, reverse Cuthill-McKee: neighbours get numbers that differ little.

    From `"Reducing the Bandwidth of Sparse Symmetric Matrices"
    <https://doi.org/10.1145/800195.805928>`_. Components follow one another.
    """
    if not adjacency.shape[0]:
        return np.empty(0, dtype=np.int64)
    order: Ints = reverse_cuthill_mckee(adjacency, symmetric_mode=True).astype(np.int64)
    return order


def by_parts(adjacency: csr_array, block_size: int) -> Ints:
    """``[n]``, parts of about ``block_size`` nodes that few edges leave, one after another.

    Both the parts and the nodes of each come as in :func:`by_bandwidth`: METIS makes parts of
    slightly different sizes, so a block may hold the end of one and the start of the next.
    """
    n = adjacency.shape[0]
    num_parts = -(-n // block_size)
    if num_parts < 2 or not adjacency.nnz:
        return by_bandwidth(adjacency)
    part = metis(adjacency, num_parts)
    row = np.repeat(part, np.diff(adjacency.indptr))
    place = np.empty(num_parts, dtype=np.int64)
    place[by_bandwidth(neighbours(row, part[adjacency.indices], num_parts))] = np.arange(num_parts)
    order = by_bandwidth(adjacency)
    return order[np.argsort(place[part[order]], kind="stable")]
