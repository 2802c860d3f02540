"""Graphs as the transforms see them, and how they are read from a `Data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Graphs:
    """One graph or many side by side, as arrays on the host, and what was computed of them.

    Attributes:
        row: ``[E]``, the source of each edge, in ``[0, N)``.
        col: ``[E]``, its target, in the same graph.
        weight: ``[E]``, positive and finite; a repeated edge counts with the sum of its weights.
        num_nodes: ``N``.
        ptr: ``[B + 1]``, where the nodes of each graph begin.
        edge: ``[E]``, the number of each edge among those of its graph, as they stand in
            ``edge_index``, where edges of weight zero count too.
        shared: normalisations (``"sym"``, None) of the Laplacians whose spectra are kept, since
            several encodings read them.
    """

    row: Ints
    col: Ints
    weight: Floats
    num_nodes: int
    ptr: Ints
    edge: Ints
    shared: frozenset[str | None] = frozenset()
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """``make()``, kept under ``key``, so that several encodings share it."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def has(self, key: Any) -> bool:
        """Whether something is kept under ``key``."""
        return key in self._made

    @property
    def num_graphs(self) -> int:
        """``B``."""
        return len(self.ptr) - 1

    @property
    def pair_ptr(self) -> Ints:
        """``[B + 1]``, where the ordered pairs of nodes of each graph begin."""
        return offsets(np.diff(self.ptr) ** 2)


def offsets(sizes: Ints) -> Ints:
    """``[B + 1]``: zero and the sums of the first 1, 2, ... of ``sizes [B]``."""
    ptr = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=ptr[1:])
    return ptr


def held_by(data: Data) -> dict[str, Any]:
    """The attributes of ``data`` by name: its properties take ten times as long to look there."""
    held: dict[str, Any] = data._store._mapping
    return held


def read_graphs(datas: Sequence[Any], shared: frozenset[str | None] = frozenset()) -> Graphs:
    """The edges of ``datas``, checked, with ``edge_weight`` (one where there is none).

    A `Batch` is read as the graphs it holds. Edges of weight zero are left out. A `Data` without
    ``edge_index`` is a graph without edges if it states its ``num_nodes``.

    Raises:
        ValueError: if one is no `Data`, has no usable ``edge_index`` or number of nodes, or its
            ``edge_weight`` has the wrong length, or a negative, NaN or infinite entry.
        IndexError: if an ``edge_index`` holds a node that is not in ``[0, N)``.
    """
    edge_indices: list[Tensor] = []
    sizes: list[int] = []
    edge_weights: list[Floats | None] = []
    for data in datas:
        edge_indices.append(_edge_index(data))
        num_nodes = held_by(data).get("num_nodes")
        if num_nodes is None:
            num_nodes = data.num_nodes
        if num_nodes is None:
            raise ValueError("the number of nodes is unknown; set data.num_nodes")
        sizes.append(num_nodes)
        weight = held_by(data).get("edge_weight")
        edge_weights.append(
            None if weight is None else _edge_weight(weight, edge_indices[-1].size(1))
        )
    node_ptr = offsets(np.array(sizes, dtype=np.int64))
    num_edges = np.array([edge_index.size(1) for edge_index in edge_indices], dtype=np.int64)
    row, col = _joined(edge_indices)
    size = np.repeat(np.array(sizes, dtype=np.int64), num_edges)
    if row.size:
        outside = (row < 0) | (row >= size) | (col < 0) | (col >= size)
        if outside.any():
            raise IndexError(_outside(row, col, size, int(outside.argmax())))
    if len(datas) > 1:
        start = np.repeat(node_ptr[:-1], num_edges)
        row, col = row + start, col + start
    ptr = _graph_ptr(datas, node_ptr)
    edge = _numbers(datas, row, num_edges, ptr)
    if all(weight is None for weight in edge_weights):
        return Graphs(row, col, np.ones(row.size), int(node_ptr[-1]), ptr, edge, shared)
    weight = np.concatenate(
        [
            np.ones(count) if weight is None else weight
            for weight, count in zip(edge_weights, num_edges.tolist(), strict=True)
        ]
    )
    # What is smaller loses its digits when it is divided by a degree of that size.
    kept = weight > np.finfo(np.float64).tiny
    if not kept.all():
        row, col, weight, edge = row[kept], col[kept], weight[kept], edge[kept]
    return Graphs(row, col, weight, int(node_ptr[-1]), ptr, edge, shared)


def _joined(edge_indices: Sequence[Tensor]) -> tuple[Ints, Ints]:
    if not edge_indices:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if len({edge_index.device for edge_index in edge_indices}) > 1:
        edge_indices = [edge_index.cpu() for edge_index in edge_indices]
    row, col = torch.cat(list(edge_indices), dim=1).detach().to("cpu", torch.int64).numpy()
    return row, col


def _outside(row: Ints, col: Ints, size: Ints, edge: int) -> str:
    a, b, n = int(row[edge]), int(col[edge]), int(size[edge])
    bad = a if not 0 <= a < n else b
    return (
        f"edge_index holds node {bad}, but the graph has {n} nodes; check data.num_nodes and "
        "edge_index"
    )


def _graph_ptr(datas: Sequence[Any], node_ptr: Ints) -> Ints:
    """``node_ptr`` of the data objects, with the graphs inside each `Batch` told apart."""
    if not any(isinstance(data, Batch) for data in datas):
        return node_ptr
    parts = [np.zeros(1, dtype=np.int64)]
    for data, start, stop in zip(datas, node_ptr[:-1], node_ptr[1:], strict=True):
        inner = getattr(data, "ptr", None) if isinstance(data, Batch) else None
        if inner is None:
            parts.append(np.array([stop]))
            continue
        ends = inner.detach().to("cpu", torch.int64).numpy()
        if not (ends[0] == 0 and (np.diff(ends) >= 0).all() and ends[-1] == stop - start):
            raise ValueError(
                f"expected batch.ptr to rise from 0 to its {stop - start} nodes, got {ends}"
            )
        parts.append(start + ends[1:])
    return np.concatenate(parts)


def _numbers(datas: Sequence[Any], row: Ints, num_edges: Ints, ptr: Ints) -> Ints:
    """``[E]``, the number of each edge among those of its graph; ``num_edges`` of each `Data`."""
    if not any(isinstance(data, Batch) for data in datas):
        return np.arange(row.size) - np.repeat(offsets(num_edges)[:-1], num_edges)
    graph = np.searchsorted(ptr, row, side="right") - 1
    order = np.argsort(graph, kind="stable")  # what was added to a Batch stands behind the rest
    num_edges = np.bincount(graph, minlength=len(ptr) - 1)
    number = np.empty_like(row)
    number[order] = np.arange(row.size) - np.repeat(offsets(num_edges)[:-1], num_edges)
    return number


def _edge_index(data: Any) -> Tensor:
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a torch_geometric.data.Data or a Batch of them, got {type(data).__name__}; "
            "a HeteroData can be converted with its to_homogeneous()"
        )
    edge_index = held_by(data).get("edge_index")
    if edge_index is None and "num_nodes" in data and not {"adj", "adj_t"} & set(data.keys()):
        return torch.empty(2, 0, dtype=torch.int64)
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
        raise ValueError(
            "expected data.edge_index as a tensor [2, E], got "
            f"{'none' if edge_index is None else type(edge_index).__name__}; apply this before "
            "ToSparseTensor, and give a graph without edges torch.empty(2, 0, dtype=torch.long)"
        )
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"expected data.edge_index of shape [2, E], got {[*edge_index.shape]}")
    if edge_index.is_floating_point() or edge_index.is_complex():
        raise ValueError(
            f"expected data.edge_index of whole numbers, got {edge_index.dtype}; "
            "convert it with .long()"
        )
    return edge_index


def _edge_weight(edge_weight: Any, num_edges: int) -> Floats:
    if not isinstance(edge_weight, Tensor) or edge_weight.is_complex():
        kind = getattr(edge_weight, "dtype", type(edge_weight).__name__)
        raise ValueError(f"expected data.edge_weight as a tensor of real numbers, got {kind}")
    if edge_weight.shape not in ((num_edges,), (num_edges, 1)):
        raise ValueError(
            f"expected data.edge_weight of shape [{num_edges}], one number an edge, got "
            f"{[*edge_weight.shape]}; edge features of more than one number belong in edge_attr"
        )
    weight: Floats = edge_weight.detach().to("cpu", torch.float64).reshape(-1).numpy()
    # The sum finds NaN and infinity, and bounds every degree and eigenvalue in float32.
    with np.errstate(over="ignore"):
        total = weight.sum()
    if weight.size and not (weight.min() >= 0 and total <= np.finfo(np.float32).max):
        bad = weight[~((weight >= 0) & np.isfinite(weight))]
        raise ValueError(
            f"expected weights in data.edge_weight that are finite and not negative, got {bad[0]}"
            if bad.size
            else "the sum of data.edge_weight is beyond the range of float32; scale it down"
        )
    return weight
