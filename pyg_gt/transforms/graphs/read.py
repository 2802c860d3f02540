"""Reading of graphs: `Data` objects, whole batches among them, as one :class:`Graphs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batch import boundaries, division_of
from .data import edge_index_of, edge_weight_of, num_nodes_of
from .graphs import Graphs, Ints, offsets


def read_graphs(
    datas: Sequence[Any],
    shared: frozenset[str | None] = frozenset(),
    *,
    reads_weights: bool = True,
) -> Graphs:
    """The edges of ``datas``, checked, with ``edge_weight`` (one where there is none).

    A `Data` or a `Batch` is divided into graphs by its ``batch``, or else by its ``ptr``. Edges of
    weight zero are left out. A `Data` without ``edge_index`` is a graph without edges if it states
    its ``num_nodes``.

    Args:
        datas: read once each and copied: nothing in the result is memory of theirs.
        shared: see :class:`Graphs`.
        reads_weights: whether weights are read as numbers, not only to know whether there is an
            edge. If not, they may have any sign, and are one in the result.

    Raises:
        ValueError: if one is no `Data`, has no usable ``edge_index`` or number of nodes; if its
            ``batch``, ``ptr`` and number of nodes contradict each other, or an edge joins two
            graphs; if its ``edge_weight`` has the wrong length, or entries that are NaN, or
            infinite or negative where weights are read.
        IndexError: if an ``edge_index`` holds a node that is not in ``[0, N)``.
    """
    edge_indices = [edge_index_of(data) for data in datas]
    sizes = [num_nodes_of(data) for data in datas]
    divisions = [division_of(data, size) for data, size in zip(datas, sizes, strict=True)]
    num_edges = np.array([each.size(1) for each in edge_indices], dtype=np.int64)
    weights = [
        edge_weight_of(data, count, reads_weights)
        for data, count in zip(datas, num_edges.tolist(), strict=True)
    ]
    node_ptr = offsets(np.array(sizes, dtype=np.int64))
    row, col = _concatenated(edge_indices)
    _check_range(row, col, np.repeat(np.diff(node_ptr), num_edges))
    if len(datas) > 1:
        start = np.repeat(node_ptr[:-1], num_edges)
        row, col = row + start, col + start
    N = int(node_ptr[-1])
    ptr, order = node_ptr, None
    if any(division is not None for division in divisions):
        ptr, order = boundaries(divisions, node_ptr)
        if order is not None:
            rank = np.empty_like(order)
            rank[order] = np.arange(N)
            row, col = rank[row], rank[col]
        edge = _numbers_in_graphs(row, ptr)
    else:
        edge = np.arange(row.size) - np.repeat(offsets(num_edges)[:-1], num_edges)
    weight = np.ones(row.size)
    if any(each is not None for each in weights):
        given = np.concatenate(
            [
                np.ones(count) if each is None else each
                for each, count in zip(weights, num_edges.tolist(), strict=True)
            ]
        )
        # What is smaller loses its digits when it is divided by a degree of that size.
        kept = np.abs(given) > np.finfo(np.float64).tiny
        row, col, edge = row[kept], col[kept], edge[kept]
        weight = (given if reads_weights else weight)[kept]
    graphs = Graphs(row, col, weight, N, ptr, edge, shared, order)
    if ptr is not node_ptr:
        _check_edges_inside_graphs(graphs)
    return graphs


def _concatenated(edge_indices: Sequence[Tensor]) -> tuple[Ints, Ints]:
    """``row [E]`` and ``col [E]`` of all edges, on the host."""
    if not edge_indices:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if len({edge_index.device for edge_index in edge_indices}) > 1:
        edge_indices = [edge_index.cpu() for edge_index in edge_indices]
    row, col = torch.cat(list(edge_indices), dim=1).detach().to("cpu", torch.int64).numpy()
    return row, col


def _check_range(row: Ints, col: Ints, size: Ints) -> None:
    """Raises ``IndexError`` for an edge that is outside of its graph of ``size [E]`` nodes."""
    outside = (row < 0) | (row >= size) | (col < 0) | (col >= size)
    if not outside.any():
        return
    edge = int(outside.argmax())
    a, b, n = int(row[edge]), int(col[edge]), int(size[edge])
    bad = a if not 0 <= a < n else b
    raise IndexError(
        f"edge_index holds node {bad}, but the graph has {n} nodes; check data.num_nodes and "
        "edge_index"
    )


def _numbers_in_graphs(row: Ints, ptr: Ints) -> Ints:
    """``[E]``, the number of each edge among those of its graph."""
    graph = np.searchsorted(ptr, row, side="right") - 1
    order = np.argsort(graph, kind="stable")  # what was added to a Batch stands behind the rest
    num_edges = np.bincount(graph, minlength=len(ptr) - 1)
    number = np.empty_like(row)
    number[order] = np.arange(row.size) - np.repeat(offsets(num_edges)[:-1], num_edges)
    return number


def _check_edges_inside_graphs(graphs: Graphs) -> None:
    """Raises ``ValueError`` for an edge between two graphs."""
    graph = np.repeat(np.arange(graphs.num_graphs), graphs.sizes)
    across = graph[graphs.row] != graph[graphs.col]
    if across.any():
        edge = int(across.argmax())
        a, b = (
            int(end[edge] if graphs.order is None else graphs.order[end[edge]])
            for end in (graphs.row, graphs.col)
        )
        raise ValueError(
            f"there is an edge between nodes {a} and {b} of the batch, which belong to different "
            "graphs, but each graph is encoded as if it were alone: check data.batch and "
            "data.edge_index (and the __inc__ of your Data, which says how they are joined)"
        )
