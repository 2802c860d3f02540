"""Statistics of the electric potentials of charges on the nodes of a graph."""

from __future__ import annotations

import numpy as np

from ..graphs.components import Components, component_blocks, component_stacks
from ..graphs.graphs import Floats, Graphs
from .green_functions import green_columns, green_functions
from .laplacian import sparse_laplacian, symmetrized

#: How many there are.
NUM_STATISTICS = 8
# Entries of the columns that are computed together, 2 MiB, and how many columns at least.
_ENTRIES, _COLUMNS = 2**18, 16


def electrostatic_statistics(graphs: Graphs, *, dense_limit: int) -> Floats:
    """``[N, 8]``, over each node's own component: zeros where that is one node.

    With ``V_ij = G_ij - G_jj`` and ``P = D^{-1} W``, for node ``j``: minimum, mean and standard
    deviation of column ``j`` of ``V``, the same of its row ``j``, and the sums over column ``j``
    and over row ``j`` of ``P * V``.
    """
    result = np.zeros((graphs.num_nodes, NUM_STATISTICS))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for stack in component_stacks(graphs):
            if stack.width == 1:
                continue
            if stack.width > dense_limit:
                break
            result[stack.stacked_nodes()] = _dense_statistics(symmetrized(stack)[0])
        for component in component_blocks(graphs, max(1, dense_limit)):
            result[component.nodes] = _sparse_statistics(component)
    if not (np.abs(result) <= np.finfo(np.float32).max).all():
        raise ValueError(
            "the potentials are beyond the range of float32, since data.edge_weight has entries "
            "as small as its inverse; scale it up, or leave out the edges with the least weights"
        )
    return result


def _dense_statistics(adjacency: Floats) -> Floats:
    """``[B, n, 8]`` of connected graphs ``[B, n, n]``."""
    V = green_functions(adjacency)
    V -= np.einsum("bii->bi", V)[:, None, :]
    walk = adjacency / adjacency.sum(axis=2, keepdims=True)
    walk *= V
    columns = V.min(axis=1), V.mean(axis=1), V.std(axis=1, ddof=1)
    rows = V.min(axis=2), V.mean(axis=2), V.std(axis=2, ddof=1)
    return np.stack([*columns, *rows, walk.sum(axis=1), walk.sum(axis=2)], axis=-1)


def _sparse_statistics(component: Components) -> Floats:
    """``[n, 8]`` of one component, some columns of ``V`` at a time."""
    laplacian = sparse_laplacian(component, None)
    n = laplacian.adjacency.shape[0]
    walk = laplacian.adjacency.tocsc()  # its columns are those of V
    row, col = walk.indices, np.repeat(np.arange(n), np.diff(walk.indptr))
    share = walk.data / laplacian.matrix.diagonal()[row]
    result = np.zeros((n, NUM_STATISTICS))
    lowest, mean, squares, received = result[:, 3], result[:, 4], result[:, 5], result[:, 7]
    for start, V in green_columns(laplacian.matrix, max(_COLUMNS, _ENTRIES // n)):
        c = V.shape[1]
        V -= V[np.arange(start, start + c), np.arange(c)]
        result[start : start + c, 0] = V.min(axis=0)
        result[start : start + c, 1] = V.mean(axis=0)
        result[start : start + c, 2] = V.std(axis=0, ddof=1)
        edges = slice(walk.indptr[start], walk.indptr[start + c])
        made = share[edges] * V[row[edges], col[edges] - start]
        result[start : start + c, 6] = np.bincount(col[edges] - start, made, minlength=c)
        received += np.bincount(row[edges], made, minlength=n)
        np.minimum(lowest, V.min(axis=1), out=lowest)
        # Means and sums of squares are put together as Chan, Golub and LeVeque do (1979).
        new_mean = V.mean(axis=1)
        squares += ((V - new_mean[:, None]) ** 2).sum(axis=1)
        squares += (new_mean - mean) ** 2 * (start * c / (start + c))
        mean += (new_mean - mean) * (c / (start + c))
    squares[:] = np.sqrt(squares / (n - 1))
    return result
