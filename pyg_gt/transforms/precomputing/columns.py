"""Attributes of many graphs, as they are stored, and the part of each graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.storage import GlobalStorage

from ..graphs.attributes import Attribute, as_stored, device_of, put, reference_tensor
from ..graphs.data import attributes_of
from ..graphs.graphs import Ints, offsets


@dataclass(frozen=True, eq=False)
class Column:
    """One attribute of many graphs, as it is stored on each of them.

    Attributes:
        name: what it is called on a `Data`; None appends it to ``x``.
        values: its rows, graph by graph; of an edge index its columns, numbered graph by graph.
        ptr: ``[B + 1]``, where those of each graph begin.
        dim: the dimension along which graphs lie.
        per_node: whether a graph has as many as it has nodes.
    """

    name: str | None
    values: NDArray[Any]
    ptr: Ints
    dim: int
    per_node: bool

    def part(self, graph: int) -> Tensor:
        """The attribute of the graph of that number."""
        return self._between(int(self.ptr[graph]), int(self.ptr[graph + 1]))

    def parts(self) -> list[Tensor]:
        """The attribute of each graph."""
        ends = self.ptr.tolist()
        return [self._between(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]

    def _between(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop``, in a storage of their own in the memory of all graphs.

        A view would be pickled with all that it is a view of.
        """
        part = self.values[start:stop] if self.dim == 0 else self.values[:, start:stop]
        return torch.from_numpy(part if part.flags.c_contiguous else np.ascontiguousarray(part))


def column_of(attribute: Attribute, node_ptr: Ints) -> Column:
    """``attribute`` as it is stored on graphs whose nodes begin at ``node_ptr [B + 1]``."""
    values = attribute.values
    if attribute.is_edge_index:
        values = values - np.repeat(node_ptr[:-1], np.diff(attribute.ptr))
    dim = 1 if attribute.is_edge_index else 0
    per_node = attribute.is_per_node(node_ptr)
    return Column(attribute.name, as_stored(values), attribute.ptr, dim, per_node)


def gather(columns: Sequence[Column], graphs: Sequence[int]) -> Column:
    """One attribute of chosen graphs: graph ``graphs[i]`` of ``columns[i]``, for each ``i``."""
    first = columns[0]
    parts = [each.part(graph).numpy() for each, graph in zip(columns, graphs, strict=True)]
    ptr = offsets(np.array([part.shape[first.dim] for part in parts], dtype=np.int64))
    per_node = all(each.per_node for each in columns)
    return Column(first.name, np.concatenate(parts, axis=first.dim), ptr, first.dim, per_node)


def attach(datas: Sequence[Data], columns: Sequence[Column], first: int = 0) -> list[Data]:
    """Shallow copies of ``datas``, the graphs that ``columns`` are of, with their parts.

    Raises:
        ValueError: if one is to be appended to an ``x`` that is no floating-point tensor, with
            the graph's number, from ``first`` on.
    """
    copies = [shallow_copy(data) for data in datas]
    attributes = [attributes_of(data) for data in copies]
    tensors = [reference_tensor(each) for each in attributes]
    on_host = all(tensor is None or tensor.is_cpu for tensor in tensors)
    for column in columns:
        if column.name is None or not on_host:
            for i, (data, value) in enumerate(zip(copies, column.parts(), strict=True)):
                try:
                    put(data, column.name, value, device_of(data))
                except ValueError as error:
                    raise ValueError(f"graph {first + i}: {error}") from error
        else:
            for each, value in zip(attributes, column.parts(), strict=True):
                each[column.name] = value
    return copies


def shallow_copy(data: Data) -> Data:
    """`copy.copy(data)`, of a plain `Data` in a third of the time.

    Degrees of 20,000 molecules take 1.1 s so, and 1.5 s with `copy.copy`.
    """
    store = data.__dict__.get("_store") if type(data) is Data else None
    if type(store) is not GlobalStorage:
        return copy.copy(data)
    copied, copied_store = object.__new__(Data), object.__new__(GlobalStorage)
    copied.__dict__.update(data.__dict__, _store=copied_store)
    fields = dict(store.__dict__)
    fields.pop("_cached_attr", None)  # PyG's list of the attributes of nodes and of edges
    fields.update(_mapping=copy.copy(fields["_mapping"]), _parent=ref(copied))
    copied_store.__dict__.update(fields)
    return copied
