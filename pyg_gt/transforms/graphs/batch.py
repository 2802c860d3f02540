"""The graphs inside one `Data`, as ``batch`` or ``ptr`` divide its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from .data import attributes_of, check_has_values
from .graphs import Ints, offsets

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Division(NamedTuple):
    """How the nodes of one `Data` are divided into graphs.

    Attributes:
        sizes: ``[B]``, the number of nodes of each graph.
        order: ``[N]``, the nodes graph by graph; None if they stand in that order.
    """

    sizes: Ints
    order: Ints | None


def division_of(data: Data, num_nodes: int) -> Division | None:
    """The division by ``data.batch``, or else by ``data.ptr``; None where there is neither.

    Raises:
        ValueError: if they cannot be used, or contradict each other or the number of nodes.
    """
    attributes = attributes_of(data)
    batch, ptr = attributes.get("batch"), attributes.get("ptr")
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
    sizes = None if ptr is None else np.diff(_checked_ptr(ptr))
    if batch is None:
        assert sizes is not None
        if sizes.sum() != num_nodes:
            raise ValueError(
                f"data.ptr ends at {sizes.sum()}, but the graph has {num_nodes} nodes; delete "
                "data.ptr, or set it to where the nodes of each graph begin, and where they end"
            )
        return Division(sizes, None)
    graph = _checked_batch(data, batch, num_nodes)
    order = None
    if (graph[1:] < graph[:-1]).any():
        order = np.argsort(graph, kind="stable")
        graph = graph[order]
    # numbers between those that occur belong to empty graphs, which have no attributes
    first = np.flatnonzero(np.diff(graph, prepend=-1))
    counted = np.diff(np.append(first, num_nodes))
    if sizes is None:
        return Division(counted if counted.size else np.zeros(1, dtype=np.int64), order)
    number = graph[first]
    if not number.size or number[-1] < sizes.size:
        by_graph = np.zeros_like(sizes)
        by_graph[number] = counted
        if np.array_equal(by_graph, sizes):
            return Division(sizes, order)
        # `Batch.subgraph` takes nodes away and leaves ptr as it was
        left = sizes.sum() > num_nodes and bool((by_graph <= sizes).all())
        if isinstance(data, Batch) and left:
            return Division(by_graph, order)
    raise ValueError(
        f"data.batch and data.ptr contradict each other: by batch there are {_shown(counted)} "
        f"nodes in graphs {_shown(number)}, by ptr {_shown(sizes)} nodes; delete the one that is "
        "wrong (of data.batch alone everything else is known)"
    )


def _checked_batch(data: Data, batch: Any, num_nodes: int) -> Ints:
    """A copy of ``batch [N]``, checked."""
    graph = _checked_integers("batch", batch)
    rows = {"data.batch": graph.size, "the graph": num_nodes}
    x = attributes_of(data).get("x")
    if isinstance(x, Tensor) and x.dim():
        rows["data.x"] = x.size(data.__cat_dim__("x", x))
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise ValueError(f"expected one number a node in data.batch: of nodes {counts}")
    if graph.size and graph.min() < 0:
        raise ValueError(f"data.batch must not hold negative numbers, got {graph.min()}")
    return graph


def _checked_ptr(ptr: Any) -> Ints:
    """A copy of ``ptr [B + 1]``, checked."""
    ends = _checked_integers("ptr", ptr)
    if not ends.size or ends[0] != 0 or (ends[1:] < ends[:-1]).any():
        raise ValueError(
            f"expected data.ptr to rise from 0 to the number of nodes, got {_shown(ends)}; delete "
            "it, or set it to where the nodes of each graph begin, and where they end"
        )
    return ends


def _checked_integers(name: str, value: Any) -> Ints:
    """A copy of ``data.{name}``, if it is a vector of whole numbers."""
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
    copied: Ints = value.detach().to("cpu", torch.int64, copy=True).numpy()
    return copied


def boundaries(divisions: Sequence[Division | None], node_ptr: Ints) -> tuple[Ints, Ints | None]:
    """``ptr [B + 1]`` and ``order [N]`` of the graphs in several `Data`.

    Args:
        divisions: of each `Data`; None for one graph.
        node_ptr: where the nodes of each `Data` begin.
    """
    sizes = np.split(np.diff(node_ptr), len(divisions))
    if all(each is None or each.order is None for each in divisions):
        order = None
    else:
        order = np.arange(node_ptr[-1])
    for i, division in enumerate(divisions):
        if division is None:
            continue
        sizes[i] = division.sizes
        if division.order is not None:
            assert order is not None
            order[node_ptr[i] : node_ptr[i + 1]] = node_ptr[i] + division.order
    return offsets(np.concatenate(sizes)), order


def _shown(numbers: Ints) -> str:
    """``numbers``, at most eight of them, for a message."""
    listed = ", ".join(map(str, numbers[:8].tolist()))
    return f"[{listed}, ...]" if numbers.size > 8 else f"[{listed}]"
