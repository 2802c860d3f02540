"""The door of the transforms: what is read from a `Data`, and how an encoding is written to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WeightedGraph:
    """A graph, or the disjoint union of many, as arrays on the host.

    Attributes:
        row: ``[E]``, the source of each edge, in ``[0, N)``.
        col: ``[E]``, its target.
        weight: ``[E]``, positive and finite; a repeated edge counts with the sum of its weights.
        num_nodes: ``N``.
    """

    row: Ints
    col: Ints
    weight: Floats
    num_nodes: int


def check_count(owner: object, name: str, value: Any) -> int:
    """``value`` as an int, if it is a whole number of at least one; else ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(
            f"{type(owner).__name__} got {name}={value!r}; expected a whole number of at least 1"
        )
    return int(value)


def check_attr_name(owner: object, attr_name: Any) -> str | None:
    """``attr_name``, if PyG can store and batch an encoding under it; else ``ValueError``."""
    if attr_name is None:
        return None
    if not isinstance(attr_name, str) or not attr_name:
        raise ValueError(
            f"{type(owner).__name__} got attr_name={attr_name!r}; expected a name, or None to "
            "append the encoding to data.x"
        )
    if "index" in attr_name or "batch" in attr_name or attr_name == "face":
        raise ValueError(
            f"{type(owner).__name__} got attr_name={attr_name!r}; PyG renumbers attributes with "
            "'index' or 'batch' in their name when it batches graphs, which would change the "
            "encoding: choose another name"
        )
    return attr_name


def read_graph(data: Any) -> WeightedGraph:
    """The edges of ``data``, checked, with ``edge_weight`` (one where there is none).

    A `Batch` is read as one graph: its graphs are components of it. Edges of weight zero are
    left out. A `Data` without ``edge_index`` is a graph without edges if it states its
    ``num_nodes``.

    Raises:
        ValueError: if ``data`` is no `Data`, has no usable ``edge_index`` or number of nodes, or
            ``edge_weight`` has the wrong length, or a negative, NaN or infinite entry.
        IndexError: if ``edge_index`` holds a node that is not in ``[0, N)``.
    """
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a torch_geometric.data.Data or a Batch of them, got {type(data).__name__}; "
            "a HeteroData can be converted with its to_homogeneous()"
        )
    edge_index = _edge_index(data)
    num_nodes = data.num_nodes
    if num_nodes is None:
        raise ValueError("the number of nodes is unknown; set data.num_nodes")
    row, col = edge_index.detach().to("cpu", torch.int64).numpy()
    if row.size:
        low, high = int(min(row.min(), col.min())), int(max(row.max(), col.max()))
        if low < 0 or high >= num_nodes:
            raise IndexError(
                f"edge_index holds node {low if low < 0 else high}, but the graph has "
                f"{num_nodes} nodes; check data.num_nodes and edge_index"
            )
    if data.edge_weight is None:
        return WeightedGraph(row, col, np.ones(row.size), num_nodes)
    weight = _edge_weight(data.edge_weight, row.size)
    # What is smaller loses its digits when it is divided by a degree of that size.
    kept = weight > np.finfo(np.float64).tiny
    if not kept.all():
        row, col, weight = row[kept], col[kept], weight[kept]
    return WeightedGraph(row, col, weight, num_nodes)


def write_encoding(data: Data, attr_name: str | None, value: NDArray[Any]) -> None:
    """Stores ``value [N, k]`` as ``attr_name``, or appends it to ``data.x`` if that is None.

    Floats become float32 (or the dtype of the ``data.x`` they are appended to), and the result
    lies where ``edge_index`` does.

    Raises:
        ValueError: if it is to be appended to an ``x`` that is no floating-point tensor.
    """
    encoding = torch.from_numpy(value)
    if encoding.is_floating_point():
        encoding = encoding.to(torch.float32)
    x = data.x
    if attr_name is None and x is not None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(
                f"cannot append an encoding to data.x of {getattr(x, 'dtype', type(x))}: it would "
                "be rounded to whole numbers; convert data.x to float or give an attr_name"
            )
        x = x.view(-1, 1) if x.dim() == 1 else x
        data.x = torch.cat([x, encoding.to(x.device, x.dtype)], dim=-1)
        return
    here = data.edge_index if data.edge_index is not None else x
    if isinstance(here, Tensor):
        encoding = encoding.to(here.device)
    data["x" if attr_name is None else attr_name] = encoding


def _edge_index(data: Data) -> Tensor:
    edge_index = data.edge_index
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
