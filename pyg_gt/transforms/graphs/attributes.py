"""Attributes of nodes, edges and pairs, and how they are written to one `Data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from .data import attributes_of
from .graphs import Graphs, Ints


class Attribute(NamedTuple):
    """One attribute of all graphs of a :class:`Graphs`: what an encoding computes.

    Attributes:
        name (str, optional): what it is called on a `Data`; :obj:`None` appends it to ``x``.
        values (numpy.ndarray): its rows, graph by graph; of an edge index ``[2, rows]`` in the
            numbering of the :class:`Graphs`. Floats are stored as float32, all else as it is.
        ptr (numpy.ndarray): ``[B + 1]``, where the rows of each graph begin; of nodes
            ``graphs.ptr`` itself.
        is_edge_index (bool): whether PyG renumbers it when it batches graphs.
            (default: :obj:`False`)
    """

    name: str | None
    values: NDArray[Any]
    ptr: Ints
    is_edge_index: bool = False

    def is_per_node(self, node_ptr: Ints) -> bool:
        """Whether there is a row a node, which neither name nor numbers of rows can tell."""
        return self.ptr is node_ptr and not self.is_edge_index


def checked_attributes(maker: str, made: object, graphs: Graphs) -> list[Attribute]:
    """What ``encode`` of the class ``maker`` has returned for ``graphs``.

    Raises:
        ValueError: if it is no list of attributes, or rows of one do not fit its ``ptr``.
    """
    known = isinstance(made, (list, tuple)) and not isinstance(made, Attribute)
    if not known or not all(isinstance(each, Attribute) for each in made):  # type: ignore[attr-defined]
        raise ValueError(f"'{maker}.encode' must return a list of 'Attribute's (got {made!r})")
    attributes: list[Attribute] = list(made)  # type: ignore[call-overload]
    for name, values, ptr, is_edge_index in attributes:
        if not isinstance(values, np.ndarray) or values.ndim == 0:
            raise ValueError(
                f"'{name}' of '{maker}.encode' must be a numpy array with a row for each node, "
                f"edge or pair (got '{type(values).__name__}')"
            )
        rows = values.shape[-1 if is_edge_index else 0]
        if len(ptr) != len(graphs.ptr) or int(ptr[-1]) != rows:
            raise ValueError(
                f"'{name}' of '{maker}.encode' has {rows} rows, but its 'ptr' of {len(ptr) - 1} "
                f"graphs ends at {int(ptr[-1])}, and there are {len(graphs.ptr) - 1} graphs"
            )
    return attributes


def write(data: Data, attributes: Sequence[Attribute], graphs: Graphs) -> None:
    """Stores ``attributes`` of ``graphs`` on ``data``, the `Data` or `Batch` they were read from.

    Raises:
        ValueError: if one is to be appended to an ``x`` that is no floating-point tensor.
    """
    for attribute in attributes:
        values = torch.from_numpy(as_stored(_in_caller_order(attribute, graphs)))
        put(data, attribute.name, values, device_of(data))


def _in_caller_order(attribute: Attribute, graphs: Graphs) -> NDArray[Any]:
    """The values for the nodes as the caller has numbered them; pairs stay graph by graph."""
    values, order = attribute.values, graphs.order
    if order is None:
        return values
    if attribute.is_edge_index:
        renumbered: Ints = order[values]
        return renumbered
    if not attribute.is_per_node(graphs.ptr):
        return values
    reordered = np.empty_like(values)
    reordered[order] = values
    return reordered


def put(data: Data, name: str | None, value: Tensor, device: torch.device) -> None:
    """Stores ``value`` on ``data`` under ``name``, or appends it to ``x``."""
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
    tensor = reference_tensor(attributes_of(data))
    return torch.device("cpu") if tensor is None else tensor.device


def reference_tensor(attributes: Mapping[str, Any]) -> Tensor | None:
    """The tensor on whose device encodings belong, if there is one."""
    tensor = attributes.get("edge_index")
    if not isinstance(tensor, Tensor):
        tensor = attributes.get("x")
    return tensor if isinstance(tensor, Tensor) else None
