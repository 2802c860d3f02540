"""How what was computed of many graphs is written to each of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.storage import GlobalStorage

from ._graphs import Ints, held_by

_HOST = torch.device("cpu")


class Attribute(NamedTuple):
    """One attribute of all graphs of a :class:`Graphs`.

    Attributes:
        name: what it is called on a `Data`; None appends it to ``x``.
        values: its rows, graph by graph; of an edge index ``[2, rows]`` in the numbering of the
            :class:`Graphs`. Floats are stored as float32, all else as it is.
        ptr: ``[B + 1]``, where the rows of each graph begin.
        is_edge_index: whether PyG renumbers it when it batches graphs.
    """

    name: str | None
    values: NDArray[Any]
    ptr: Ints
    is_edge_index: bool = False


def write(data: Data, attributes: Sequence[Attribute]) -> None:
    """Stores whole attributes on ``data``, the `Data` or `Batch` they were computed of.

    Raises:
        ValueError: if one is to be appended to an ``x`` that is no floating-point tensor.
    """
    for attribute in attributes:
        put(data, attribute.name, as_tensor(attribute.values), device_of(data))


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
    values: Tensor
    ptr: Ints
    dim: int
    per_node: bool

    def part(self, graph: int) -> Tensor:
        """What the graph of that number gets, a view."""
        start, stop = int(self.ptr[graph]), int(self.ptr[graph + 1])
        return self.values.narrow(self.dim, start, stop - start)

    def parts(self) -> tuple[Tensor, ...]:
        """What each graph gets, views."""
        parts: tuple[Tensor, ...] = self.values.split(np.diff(self.ptr).tolist(), self.dim)
        return parts


def column(attribute: Attribute, node_ptr: Ints) -> Column:
    """``attribute`` told apart by graphs, whose nodes begin at ``node_ptr [B + 1]``."""
    values = attribute.values
    if attribute.is_edge_index:
        values = values - np.repeat(node_ptr[:-1], np.diff(attribute.ptr))
    dim = 1 if attribute.is_edge_index else 0
    per_node = dim == 0 and np.array_equal(attribute.ptr, node_ptr)
    return Column(attribute.name, as_tensor(values), attribute.ptr, dim, per_node)


def attach(datas: Sequence[Data], columns: Sequence[Column]) -> list[Data]:
    """Shallow copies of ``datas``, the graphs that ``columns`` are of, with their parts."""
    copies = [shallow_copy(data) for data in datas]
    held = [held_by(data) for data in copies]
    beside = [_beside(attributes) for attributes in held]
    on_host = all(tensor is None or tensor.is_cpu for tensor in beside)
    for each in columns:
        if each.name is None or not on_host:
            for data, value in zip(copies, each.parts(), strict=True):
                put(data, each.name, value, device_of(data))
        else:
            for attributes, value in zip(held, each.parts(), strict=True):
                attributes[each.name] = value
    return copies


def shallow_copy(data: Data) -> Data:
    """`copy.copy(data)`, which for a plain `Data` makes a dozen calls, in a third of the time."""
    store = data.__dict__.get("_store") if type(data) is Data else None
    if type(store) is not GlobalStorage:
        return copy.copy(data)
    copied, held = object.__new__(Data), object.__new__(GlobalStorage)
    copied.__dict__.update(data.__dict__, _store=held)
    fields = store.__dict__
    held.__dict__.update(fields, _mapping=copy.copy(fields["_mapping"]), _parent=ref(copied))
    held.__dict__.pop("_cached_attr", None)  # PyG's own list of what is of nodes and of edges
    return copied


def put(data: Data, name: str | None, value: Tensor, device: torch.device) -> None:
    """Stores ``value`` beside what ``data`` has."""
    if name is None:
        append_to_x(data, value)
    else:
        data[name] = value if device.type == "cpu" else value.to(device)


def append_to_x(data: Data, value: Tensor) -> None:
    """Appends ``value [N, k]`` to ``data.x``, or makes it that if there is none."""
    x = data.x
    if x is None:
        data.x = value.to(device_of(data))
        return
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(
            f"cannot append an encoding to data.x of {getattr(x, 'dtype', type(x))}: it would "
            "be rounded to whole numbers; convert data.x to float or give an attr_name"
        )
    x = x.view(-1, 1) if x.dim() == 1 else x
    data.x = torch.cat([x, value.to(x.device, x.dtype)], dim=-1)


def as_tensor(values: NDArray[Any]) -> Tensor:
    """As it is stored: floats as float32."""
    if np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float32, copy=False)
    return torch.from_numpy(values)


def device_of(data: Data) -> torch.device:
    """Where encodings of ``data`` belong: beside its ``edge_index``, else beside its ``x``."""
    beside = _beside(held_by(data))
    return _HOST if beside is None else beside.device


def _beside(attributes: Mapping[str, Any]) -> Tensor | None:
    here = attributes.get("edge_index")
    if not isinstance(here, Tensor):
        here = attributes.get("x")
    return here if isinstance(here, Tensor) else None
