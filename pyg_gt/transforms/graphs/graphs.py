"""Graphs as the transforms see them, and how they are read from a `Data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from .arguments import check_memory

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Made = TypeVar("Made")

# Nodes of which the memory is asked for before it is taken.
_LARGE = 2**24
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Graphs:
    """One graph or many side by side, as arrays on the host, and what was computed of them.

    Attributes:
        row: ``[E]``, the source of each edge, in ``[0, N)``.
        col: ``[E]``, its target, in the same graph.
        weight: ``[E]``, positive and finite; a repeated edge counts with the sum of its weights.
            Ones where the encodings do not read weights.
        num_nodes: ``N``.
        ptr: ``[B + 1]``, where the nodes of each graph begin.
        edge: ``[E]``, the number of each edge among those of its graph, as they stand in
            ``edge_index``, where edges of weight zero count too.
        shared: normalisations (``"sym"``, None) of the Laplacians whose spectra are kept, since
            several encodings read them.
        order: ``[N]``, the caller's number of each node, where nodes are given that do not stand
            graph by graph; else None.
    """

    row: Ints
    col: Ints
    weight: Floats
    num_nodes: int
    ptr: Ints
    edge: Ints
    shared: frozenset[str | None] = frozenset()
    order: Ints | None = None
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


def size_of(data: Any) -> int:
    """``data.num_nodes``.

    Raises:
        ValueError: if ``data`` is no `Data`, or its number of nodes is unknown or none.
    """
    _check_is_data(data)
    held = held_by(data)
    num_nodes = held.get("num_nodes")
    if num_nodes is None:
        x = held.get("x")
        if type(data) is Data and isinstance(x, Tensor) and x.dim() and not x.is_sparse:
            return x.size(0)  # which PyG says too, after a look at everything else
        num_nodes = data.num_nodes
    if num_nodes is None:
        raise ValueError("the number of nodes is unknown; set data.num_nodes")
    try:
        size = -1 if isinstance(num_nodes, bool) else index(num_nodes)
    except TypeError:
        size = -1
    if size < 0:
        raise ValueError(
            f"expected data.num_nodes as a whole number of at least 0, got {num_nodes!r}"
        )
    if size > _LARGE:  # perhaps one huge number in edge_index, from which PyG takes it
        check_memory("data", "num_nodes", size, 8 * size)
    return size


def read_graphs(
    datas: Sequence[Any],
    shared: frozenset[str | None] = frozenset(),
    *,
    reads_weights: bool = True,
) -> Graphs:
    """The edges of ``datas``, checked, with ``edge_weight`` (one where there is none).

    Where a `Data` or a `Batch` has ``batch``, or else ``ptr``, it is read as the graphs that they
    tell apart. Edges of weight zero are left out. A `Data` without ``edge_index`` is a graph
    without edges if it states its ``num_nodes``.

    Args:
        datas: what is read, each once: nothing in the result is memory of theirs.
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
    edge_indices: list[Tensor] = []
    sizes: list[int] = []
    parts: list[_Parts | None] = []
    edge_weights: list[Floats | None] = []
    for data in datas:
        edge_indices.append(_edge_index(data))
        sizes.append(size_of(data))
        parts.append(_parts(data, sizes[-1]))
        weight = held_by(data).get("edge_weight")
        edge_weights.append(
            None
            if weight is None
            else _edge_weight(weight, edge_indices[-1].size(1), reads_weights)
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
    N = int(node_ptr[-1])
    if any(part is not None for part in parts):
        ptr, order = _told_apart(parts, node_ptr)
        if order is not None:
            rank = np.empty_like(order)
            rank[order] = np.arange(N)
            row, col = rank[row], rank[col]
        edge = _numbers(row, ptr)
    else:
        ptr, order = node_ptr, None
        edge = np.arange(row.size) - np.repeat(offsets(num_edges)[:-1], num_edges)
    weight = np.ones(row.size)
    if any(weight is not None for weight in edge_weights):
        weight = np.concatenate(
            [
                np.ones(count) if each is None else each
                for each, count in zip(edge_weights, num_edges.tolist(), strict=True)
            ]
        )
        # What is smaller loses its digits when it is divided by a degree of that size.
        kept = np.abs(weight) > np.finfo(np.float64).tiny
        if not reads_weights:
            weight = np.ones(row.size)
        if not kept.all():
            row, col, weight, edge = row[kept], col[kept], weight[kept], edge[kept]
    graphs = Graphs(row, col, weight, N, ptr, edge, shared, order)
    if ptr is not node_ptr:
        _check_edges_stay(graphs)
    return graphs


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


class _Parts(NamedTuple):
    """The graphs inside one `Data`.

    Attributes:
        sizes: ``[B]``, their numbers of nodes.
        order: ``[N]``, the nodes graph by graph; None if they stand so.
    """

    sizes: Ints
    order: Ints | None


def _parts(data: Data, num_nodes: int) -> _Parts | None:
    """What ``data.batch`` tells apart, or else ``data.ptr``; None where there is neither."""
    held = held_by(data)
    batch, ptr = held.get("batch"), held.get("ptr")
    if batch is None and ptr is None:
        if (
            type(data) is not Data
            and isinstance(data, Batch)
            and getattr(data, "_num_graphs", None) != 1
        ):
            raise ValueError(
                "expected a Batch with data.batch or data.ptr, which tell its graphs apart, got "
                "one with neither; set data.batch to the graph of each node"
            )
        return None
    sizes = None if ptr is None else np.diff(_ends(ptr))
    if batch is None:
        assert sizes is not None
        if sizes.sum() != num_nodes:
            raise ValueError(
                f"data.ptr ends at {sizes.sum()}, but the graph has {num_nodes} nodes; delete "
                "data.ptr, or set it to where the nodes of each graph begin, and where they end"
            )
        return _Parts(sizes, None)
    graph = _graph_of_nodes(data, batch, num_nodes)
    order = None
    if (graph[1:] < graph[:-1]).any():
        order = np.argsort(graph, kind="stable")
        graph = graph[order]
    # numbers between those that occur are of empty graphs, which get nothing
    first = np.flatnonzero(np.diff(graph, prepend=-1))
    counted = np.diff(np.append(first, num_nodes))
    if sizes is None:
        return _Parts(counted if counted.size else np.zeros(1, dtype=np.int64), order)
    number = graph[first]
    if not number.size or number[-1] < sizes.size:
        by_graph = np.zeros_like(sizes)
        by_graph[number] = counted
        if np.array_equal(by_graph, sizes):
            return _Parts(sizes, order)
        # `Batch.subgraph` takes nodes away and leaves ptr as it was
        left = sizes.sum() > num_nodes and bool((by_graph <= sizes).all())
        if isinstance(data, Batch) and left:
            return _Parts(by_graph, order)
    raise ValueError(
        f"data.batch and data.ptr contradict each other: by batch there are {_few(counted)} nodes "
        f"in graphs {_few(number)}, by ptr {_few(sizes)} nodes; delete the one that is wrong "
        "(of data.batch alone everything else is known)"
    )


def _graph_of_nodes(data: Data, batch: Any, num_nodes: int) -> Ints:
    """``batch [N]``, checked, in memory of its own."""
    graph = _whole_numbers("batch", batch)
    rows = {"data.batch": graph.size, "the graph": num_nodes}
    x = held_by(data).get("x")
    if isinstance(x, Tensor) and x.dim():
        rows["data.x"] = x.size(data.__cat_dim__("x", x))
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise ValueError(f"expected one number a node in data.batch: of nodes {told}")
    if graph.size and graph.min() < 0:
        raise ValueError(f"data.batch must not hold negative numbers, got {graph.min()}")
    return graph


def _ends(ptr: Any) -> Ints:
    """``ptr [B + 1]``, checked, in memory of its own."""
    ends = _whole_numbers("ptr", ptr)
    if not ends.size or ends[0] != 0 or (ends[1:] < ends[:-1]).any():
        raise ValueError(
            f"expected data.ptr to rise from 0 to the number of nodes, got {_few(ends)}; delete "
            "it, or set it to where the nodes of each graph begin, and where they end"
        )
    return ends


def _whole_numbers(name: str, value: Any) -> Ints:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.dim() != 1:
        got = [*value.shape] if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"expected data.{name} as a vector of whole numbers, got {got}; it tells graphs "
            "apart, so what is something else needs another name"
        )
    if value.dtype not in _INTEGERS:
        raise ValueError(
            f"expected data.{name} as a vector of whole numbers, got {value.dtype}; convert it "
            "with .long()"
        )
    check_has_values(name, value)
    found: Ints = value.detach().to("cpu", torch.int64, copy=True).numpy()
    return found


def _told_apart(parts: Sequence[_Parts | None], node_ptr: Ints) -> tuple[Ints, Ints | None]:
    """Where each graph inside of the data objects begins, and the order of all nodes."""
    sizes = np.diff(node_ptr)
    graph_sizes = [
        sizes[i : i + 1] if part is None else part.sizes for i, part in enumerate(parts)
    ]
    order = None
    if any(part is not None and part.order is not None for part in parts):
        order = np.arange(node_ptr[-1])
        for part, start, stop in zip(parts, node_ptr[:-1], node_ptr[1:], strict=True):
            if part is not None and part.order is not None:
                order[start:stop] = start + part.order
    return offsets(np.concatenate(graph_sizes)), order


def _numbers(row: Ints, ptr: Ints) -> Ints:
    """``[E]``, the number of each edge among those of its graph."""
    graph = np.searchsorted(ptr, row, side="right") - 1
    order = np.argsort(graph, kind="stable")  # what was added to a Batch stands behind the rest
    num_edges = np.bincount(graph, minlength=len(ptr) - 1)
    number = np.empty_like(row)
    number[order] = np.arange(row.size) - np.repeat(offsets(num_edges)[:-1], num_edges)
    return number


def _check_edges_stay(graphs: Graphs) -> None:
    graph = np.repeat(np.arange(graphs.num_graphs), np.diff(graphs.ptr))
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


def _few(numbers: Ints) -> str:
    listed = ", ".join(map(str, numbers[:8].tolist()))
    return f"[{listed}, ...]" if numbers.size > 8 else f"[{listed}]"


def _check_is_data(data: Any) -> None:
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a torch_geometric.data.Data or a Batch of them, got {type(data).__name__}; "
            "a HeteroData can be converted with its to_homogeneous()"
        )


def _edge_index(data: Any) -> Tensor:
    _check_is_data(data)
    edge_index = held_by(data).get("edge_index")
    if edge_index is None and "num_nodes" in data and not {"adj", "adj_t"} & set(data.keys()):
        return torch.empty(2, 0, dtype=torch.int64, device="cpu")
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
    if not is_whole_type(edge_index):
        raise ValueError(
            f"expected data.edge_index of whole numbers, got {edge_index.dtype}; "
            "convert it with .long()"
        )
    check_has_values("edge_index", edge_index)
    return edge_index


def is_whole_type(tensor: Tensor) -> bool:
    """Whether it holds whole numbers; bool is a mask."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def check_has_values(name: str, tensor: Tensor) -> None:
    """Raises ``ValueError`` if ``data.{name}`` is on a device without memory."""
    if tensor.is_meta:
        raise ValueError(
            f"data.{name} lies on the device 'meta', where tensors have a shape and no values; "
            "make the graph on another device"
        )


def _edge_weight(edge_weight: Any, num_edges: int, reads_weights: bool) -> Floats:
    """``[E]``, checked, in memory of its own."""
    if not isinstance(edge_weight, Tensor) or edge_weight.is_complex():
        kind = getattr(edge_weight, "dtype", type(edge_weight).__name__)
        raise ValueError(f"expected data.edge_weight as a tensor of real numbers, got {kind}")
    if edge_weight.shape not in ((num_edges,), (num_edges, 1)):
        raise ValueError(
            f"expected data.edge_weight of shape [{num_edges}], one number an edge, got "
            f"{[*edge_weight.shape]}; edge features of more than one number belong in edge_attr"
        )
    check_has_values("edge_weight", edge_weight)
    weight: Floats = edge_weight.detach().to("cpu", torch.float64, copy=True).reshape(-1).numpy()
    if not reads_weights:
        if np.isnan(weight).any():
            raise ValueError(
                "data.edge_weight has entries that are NaN, of which it cannot be told whether "
                "there is an edge"
            )
        return weight
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
