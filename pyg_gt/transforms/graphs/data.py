"""One `Data`: its attributes, number of nodes, edges and weights, checked."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from .arguments import check_memory
from .graphs import Floats

# Number of nodes from which on memory is checked before it is allocated.
_LARGE = 2**24


def attributes_of(data: Data) -> dict[str, Any]:
    """The attributes of ``data`` by name, read ten times as fast as its properties."""
    attributes: dict[str, Any] = data._store._mapping
    return attributes


def num_nodes_of(data: Any) -> int:
    """``data.num_nodes``.

    Raises:
        ValueError: if ``data`` is no `Data`, or its number of nodes is unknown or none.
    """
    _check_is_data(data)
    attributes = attributes_of(data)
    num_nodes = attributes.get("num_nodes")
    if num_nodes is None:
        x = attributes.get("x")
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


def _check_is_data(data: Any) -> None:
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a torch_geometric.data.Data or a Batch of them, got {type(data).__name__}; "
            "a HeteroData can be converted with its to_homogeneous()"
        )


def edge_index_of(data: Any) -> Tensor:
    """``data.edge_index [2, E]``, without edges where only ``num_nodes`` is stated.

    Raises:
        ValueError: if ``data`` is no `Data`, or its ``edge_index`` cannot be used.
    """
    _check_is_data(data)
    edge_index = attributes_of(data).get("edge_index")
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
    if not holds_integers(edge_index):
        raise ValueError(
            f"expected data.edge_index of whole numbers, got {edge_index.dtype}; "
            "convert it with .long()"
        )
    check_has_values("edge_index", edge_index)
    return edge_index


def holds_integers(tensor: Tensor) -> bool:
    """Whether ``tensor`` holds whole numbers; a bool tensor is a mask."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def check_has_values(name: str, tensor: Tensor) -> None:
    """Raises ``ValueError`` if ``data.{name}`` is on a device without memory."""
    if tensor.is_meta:
        raise ValueError(
            f"data.{name} lies on the device 'meta', where tensors have a shape and no values; "
            "make the graph on another device"
        )


def edge_weight_of(data: Data, num_edges: int, reads_weights: bool) -> Floats | None:
    """A copy of ``data.edge_weight [E]`` in float64; None where there is none.

    Raises:
        ValueError: if it is not as :func:`~.read.read_graphs` says.
    """
    edge_weight = attributes_of(data).get("edge_weight")
    if edge_weight is None:
        return None
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
