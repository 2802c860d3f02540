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

from .graphs import Graphs, Ints, held_by, offsets

_HOST = torch.device("cpu")


class Attribute(NamedTuple):
    """One attribute of all graphs of a :class:`Graphs`.

    Attributes:
        name: what it is called on a `Data`; None appends it to ``x``.
        values: its rows, graph by graph; of an edge index ``[2, rows]`` in the numbering of the
            :class:`Graphs`. Floats are stored as float32, all else as it is.
        ptr: ``[B + 1]``, where the rows of each graph begin; of nodes ``graphs.ptr`` itself.
        is_edge_index: whether PyG renumbers it when it batches graphs.
    """

    name: str | None
    values: NDArray[Any]
    ptr: Ints
    is_edge_index: bool = False


def write(data: Data, attributes: Sequence[Attribute], graphs: Graphs) -> None:
    """Stores whole attributes of ``graphs`` on ``data``, the `Data` or `Batch` that they are.

    Raises:
        ValueError: if one is to be appended to an ``x`` that is no floating-point tensor.
    """
    for attribute in attributes:
        values = torch.from_numpy(as_stored(_as_given(attribute, graphs)))
        put(data, attribute.name, values, device_of(data))


def _as_given(attribute: Attribute, graphs: Graphs) -> NDArray[Any]:
    """The values for the nodes as the caller has numbered them; pairs stay graph by graph."""
    values, order = attribute.values, graphs.order
    if order is None:
        return values
    if attribute.is_edge_index:
        renumbered: Ints = order[values]
        return renumbered
    if not _is_per_node(attribute, graphs.ptr):
        return values
    given = np.empty_like(values)
    given[order] = values
    return given


def _is_per_node(attribute: Attribute, node_ptr: Ints) -> bool:
    """Whether there is a row a node, which neither its name nor the numbers of rows can tell."""
    return attribute.ptr is node_ptr and not attribute.is_edge_index


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

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Reads also what was pickled when values were tensors."""
        if isinstance(state["values"], Tensor):
            state = {**state, "values": state["values"].numpy()}
        vars(self).update(state)

    def part(self, graph: int) -> Tensor:
        """What the graph of that number gets."""
        return self._between(int(self.ptr[graph]), int(self.ptr[graph + 1]))

    def parts(self) -> list[Tensor]:
        """What each graph gets."""
        ends = self.ptr.tolist()
        return [self._between(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]

    def _between(self, start: int, stop: int) -> Tensor:
        """Memory of all graphs' that holds, for torch, this graph's numbers and no others.

        A view would be pickled with all that it is a view of.
        """
        part = self.values[start:stop] if self.dim == 0 else self.values[:, start:stop]
        return torch.from_numpy(part if part.flags.c_contiguous else np.ascontiguousarray(part))


def column(attribute: Attribute, node_ptr: Ints) -> Column:
    """``attribute`` told apart by graphs, whose nodes begin at ``node_ptr [B + 1]``."""
    values = attribute.values
    if attribute.is_edge_index:
        values = values - np.repeat(node_ptr[:-1], np.diff(attribute.ptr))
    dim = 1 if attribute.is_edge_index else 0
    per_node = _is_per_node(attribute, node_ptr)
    return Column(attribute.name, as_stored(values), attribute.ptr, dim, per_node)


def gathered(columns: Sequence[Column], graphs: Sequence[int]) -> Column:
    """One attribute of chosen graphs: of each the number in the column beside it."""
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
    held = [held_by(data) for data in copies]
    beside = [_beside(attributes) for attributes in held]
    on_host = all(tensor is None or tensor.is_cpu for tensor in beside)
    for each in columns:
        if each.name is None or not on_host:
            for i, (data, value) in enumerate(zip(copies, each.parts(), strict=True)):
                try:
                    put(data, each.name, value, device_of(data))
                except ValueError as error:
                    raise ValueError(f"graph {first + i}: {error}") from error
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
    if x.dim() != 2:
        raise ValueError(
            f"cannot append an encoding to data.x of shape {list(x.shape)}: it must be [N, F]; "
            f"give an attr_name"
        )
    data.x = torch.cat([x, value.to(x.device, x.dtype)], dim=-1)


def as_stored(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as float32."""
    if np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float32, copy=False)
    return values


def device_of(data: Data) -> torch.device:
    """Where encodings of ``data`` belong: beside its ``edge_index``, else beside its ``x``."""
    beside = _beside(held_by(data))
    return _HOST if beside is None else beside.device


def _beside(attributes: Mapping[str, Any]) -> Tensor | None:
    here = attributes.get("edge_index")
    if not isinstance(here, Tensor):
        here = attributes.get("x")
    return here if isinstance(here, Tensor) else None
