"""A new order of the nodes of a `Data`, applied to all attributes that depend on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric import EdgeIndex, Index
from torch_geometric.data import Batch, Data

from ..graphs.data import attributes_of
from ..graphs.graphs import Graphs, Ints

#: The old number of each node. PyG adds N to names with ``index`` when it batches graphs.
ORDER = "node_order_index"

#: Names PyG takes the number of nodes from: they have one row a node.
NODE_ATTRS = frozenset({"x", "feat", "pos", "batch", "node_type", "n_id", ORDER})

_PLAIN = (str, bytes, bool, int, float, complex, np.generic, torch.dtype, torch.device, type(None))


def in_caller_order(graphs: Graphs, order: Ints) -> Ints:
    """``order [N]`` of the nodes graph by graph, in the caller's numbers and places."""
    if graphs.order is None:
        return order
    renumbered = np.empty_like(order)
    renumbered[graphs.order] = graphs.order[order]
    return renumbered


def permute(data: Data, graphs: Graphs, order: Ints, node_attrs: frozenset[str] | None) -> None:
    """Puts the nodes of ``data`` into the order ``order [N]``; each graph keeps its places.

    :class:`pyg_gt.transforms.ReorderNodes` says which attributes are changed.

    Args:
        data: changed in place.
        graphs: what was read of it.
        order: the old number of each new node, of the nodes graph by graph.
        node_attrs: names of all attributes with a row a node; None to go by their lengths.

    Raises:
        ValueError: for an attribute for which that cannot be decided.
        IndexError: if one holds a node that is not there.
    """
    attributes = attributes_of(data)
    for name in sorted((node_attrs or frozenset()) - attributes.keys()):
        raise ValueError(f"node_attrs names {name!r}, which data does not have")
    permutation = _Permutation(data, graphs, order, node_attrs)
    attributes.update({name: permutation.apply(name, value) for name, value in attributes.items()})


class _Permutation:
    """A new order of the nodes, applied to one attribute at a time."""

    def __init__(
        self, data: Data, graphs: Graphs, order: Ints, node_attrs: frozenset[str] | None
    ) -> None:
        self.data, self.graphs, self.node_attrs = data, graphs, node_attrs
        self.by_graph, self.order = order, in_caller_order(graphs, order)
        self.node_names = NODE_ATTRS | (node_attrs or frozenset())
        self.rank = np.empty_like(order)  # the new number of each old node
        self.rank[self.order] = np.arange(order.size)
        self.batched = isinstance(data, Batch)
        # columns that other attributes may belong to
        self.edge_sets = {
            name: self._starts(name, value.shape[-1])
            for name, value in attributes_of(data).items()
            if ("index" in name or name == "face")
            and isinstance(value, Tensor)
            and value.dim() > 1
        }

    def apply(self, name: str, value: Any) -> Any:
        """The attribute in the new order."""
        if type(value) is int and self._holds_node_numbers(name, value):
            return self._renumbered(name, np.array(value)).item()
        if name == "batch_size":
            raise self._refusal(name, "says that the first nodes are the sampled; reorder first")
        if isinstance(value, _PLAIN) or name == "batch":  # graphs keep their places
            return value
        if name == "ptr" or name.endswith("_ptr"):
            if self.batched or (name == "ptr" and "batch" in attributes_of(self.data)):
                return value
            raise self._refusal(name, "tells graphs apart, but data is no Batch; make it one")
        if isinstance(value, (list, tuple)):
            return self._apply_to_list(name, value)
        if isinstance(value, (EdgeIndex, Index)):
            return self._apply_to_index(name, value)
        if not isinstance(value, np.ndarray) and not (
            isinstance(value, Tensor) and value.layout == torch.strided
        ):
            kind = value.layout if isinstance(value, Tensor) else type(value).__name__
            raise self._refusal(name, f"is a {kind}; make it after the nodes are in order")
        if name not in self.node_names and self._holds_node_numbers(name, value):
            return self._renumbered(name, value)
        if name not in self.node_names and name.startswith("pair_"):
            return self._apply_to_pairs(name, value)
        dim = self.data.__cat_dim__(name, value) if value.ndim else None
        if self._has_a_row_a_node(name, value, dim):
            return _select(value, self.order, dim)
        return value

    def _apply_to_list(self, name: str, value: Any) -> Any:
        inner = [type(each).__name__ for each in value if not isinstance(each, _PLAIN)]
        if inner or "index" in name:
            what = f"of {inner[0]}" if inner else "with a name of nodes"
            raise self._refusal(name, f"is a {type(value).__name__} {what}; make it a tensor")
        if self.batched and name not in self.node_names:  # one entry a graph
            return value
        if not self._has_a_row_a_node(name, np.empty(len(value)), 0):
            return value
        return type(value)(value[i] for i in self.order.tolist())

    def _apply_to_index(self, name: str, value: EdgeIndex | Index) -> Any:
        """Of `EdgeIndex` and `Index`, which PyG may know to be sorted: they no longer are."""
        changed = self.apply(name, value.as_tensor())
        if not isinstance(value, EdgeIndex):
            return changed
        return EdgeIndex(
            changed, sparse_size=value.sparse_size(), is_undirected=value.is_undirected
        )

    def _holds_node_numbers(self, name: str, value: Any) -> bool:
        """By PyG's own rule: N is added to it when graphs are batched."""
        if "batch" in name:
            return False
        step = self.data.__inc__(name, value)
        if isinstance(step, Tensor) and step.numel() > 1:
            raise self._refusal(name, "has nodes of several kinds; reordering is for one kind")
        if name == "edge_index" and int(step) != len(self.order):
            raise self._refusal(name, f"counts on by {step}, not by the {len(self.order)} nodes")
        return int(step) == len(self.order)

    def _renumbered(self, name: str, value: Any) -> Any:
        is_array = isinstance(value, np.ndarray)
        empty = value if is_array else torch.empty(0, dtype=value.dtype, device="cpu").numpy()
        cure = "rename it, or name it in node_attrs if it has one row a node and holds none"
        if empty.dtype.kind not in "iu":
            raise self._refusal(name, f"should hold nodes by its name, not {value.dtype}; {cure}")
        if "edge" not in name and name != "face" and self.node_attrs is None and value.ndim:
            dim = self.data.__cat_dim__(name, value)
            if self._one_per_node(self._starts(name, value.shape[dim])):
                raise self._refusal(name, f"has one entry a node and a name of nodes; {cure}")
        if 0 in value.shape:
            return value
        low, high = int(value.min()), int(value.max())
        if low < 0 or high >= len(self.order):
            raise IndexError(
                f"data.{name} holds node {low if low < 0 else high}, but there are "
                f"{len(self.order)} nodes"
            )
        if is_array:
            return self.rank[value].astype(value.dtype)
        return torch.from_numpy(self.rank).to(value.device)[value.long()].to(value.dtype)

    def _apply_to_pairs(self, name: str, value: Any) -> Any:
        size = self.graphs.sizes
        P = int((size**2).sum())
        if value.ndim == 0 or value.shape[0] != P:
            raise self._refusal(name, f"has shape {[*value.shape]}; expected one row a pair, {P}")
        width = np.repeat(size, size)  # [N], pairs that begin at a node
        first = np.cumsum(width) - width
        start = np.repeat(self.graphs.ptr[:-1], size)
        within = np.arange(P) - np.repeat(first, width)
        target = self.by_graph[np.repeat(start, width) + within]
        return _select(value, np.repeat(first[self.by_graph] - start, width) + target, 0)

    def _has_a_row_a_node(self, name: str, value: Any, dim: int | None) -> bool:
        """Whether it has one row a node along ``dim``."""
        starts = None if dim is None else self._starts(name, value.shape[dim])
        one_per_node = starts is not None and self._one_per_node(starts)
        if name in self.node_names:
            if not one_per_node:
                raise self._refusal(
                    name, f"has shape {[*value.shape]}; expected one row for each of the nodes"
                )
            return True
        if self.node_attrs is not None or starts is None:
            return False
        sets = [key for key, edges in self.edge_sets.items() if np.array_equal(edges, starts)]
        stems = [key.removesuffix("index").removesuffix("edge_") for key in sets]
        of_edges = "edge" in name or any(stem and name.startswith(stem) for stem in stems)
        if sets and (of_edges or not one_per_node):
            return False
        cure = "say which attributes have one row a node in node_attrs"
        if list(value.shape).count(len(self.order)) > 1:
            raise self._refusal(name, f"has N twice in its shape {[*value.shape]}; {cure}")
        if one_per_node and sets:
            raise self._refusal(
                name, f"has as many rows as there are nodes and columns of {sets[0]}; {cure}"
            )
        return one_per_node

    def _starts(self, name: str, rows: int) -> Ints:
        """``[B + 1]``, where the rows of each graph begin, if PyG knows; else ``[0, rows]``."""
        slices = getattr(self.data, "_slice_dict", {}).get(name) if self.batched else None
        starts: Ints = np.array([0, rows]) if slices is None else np.asarray(slices)
        return starts if starts[-1] == rows else np.array([0, rows])  # it was replaced

    def _one_per_node(self, starts: Ints) -> bool:
        ptr = self.graphs.ptr
        if len(starts) != len(ptr):  # what is known is where all end
            starts, ptr = starts[[0, -1]], ptr[[0, -1]]
        return np.array_equal(starts, ptr)

    def _refusal(self, name: str, why: str) -> ValueError:
        return ValueError(f"ReorderNodes cannot tell what to do with data.{name}: it {why}")


def _select(value: Tensor | NDArray[Any], index: Ints, dim: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.take(index, axis=dim)
    return value.index_select(dim, torch.from_numpy(index).to(value.device))
