"""Several edge sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, scatter

from .deferred import DeferredEdges
from .edge_forms import rows_of
from .edge_layout import EdgeLayout


class EdgePart(NamedTuple):
    """An edge set and what its edges carry.

    Attributes:
        edges: ``[2, E]``, or any other form of an edge set that attention takes.
        values: ``[E, H]``, or None.
        features: ``[E, H, C]``, or None.
    """

    edges: Any
    values: Tensor | None
    features: Tensor | None


def union_of(parts: Sequence[EdgePart], coalesce: bool) -> EdgePart:
    """The edges of all parts, with zeros where a part lacks what others carry.

    Args:
        parts: The edge sets, at least one.
        coalesce: Whether an edge that stands several times becomes one, with the sums.

    Raises:
        ValueError: If the parts do not fit together.
    """
    _check_sizes(parts)
    edges = [_edge_index(part.edges) for part in parts]
    counts = [each.size(1) for each in edges]
    if len({each.device for each in edges}) > 1:
        raise ValueError(
            f"edge sets of a union must lie on one device (got "
            f"{', '.join(str(each.device) for each in edges)}); move them with '.to()'"
        )
    values = _joined("values", [part.values for part in parts], counts, ("H",))
    features = _joined("features", [part.features for part in parts], counts, ("H", "C"))
    joined = torch.cat(edges, dim=1)
    if not coalesce:
        return EdgePart(joined, values, features)
    once, place = _unique(joined.long())
    size = once.size(1)
    return EdgePart(once, *(_summed(x, place, size) for x in (values, features)))


def _unique(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """``[2, E']`` without repeats, sorted by source and target; and ``[E]``, where each went."""
    if edge_index.numel() == 0:
        return edge_index, edge_index[0]
    # a number below 0 stays one, for attention to refuse
    low, high = (int(x) for x in edge_index.aminmax())
    span = high - low + 1
    source, target = edge_index - low
    pairs, place = (source * span + target).unique(return_inverse=True)
    return torch.stack([pairs // span, pairs % span]) + low, place


def _summed(x: Tensor | None, place: Tensor, size: int) -> Tensor | None:
    if x is None:
        return None
    out: Tensor = scatter(x, place, 0, size, reduce="sum")
    return out


def _check_sizes(parts: Sequence[EdgePart]) -> None:
    known = [part.edges for part in parts if isinstance(part.edges, (EdgeLayout, DeferredEdges))]
    sizes = list(dict.fromkeys((edges.num_src, edges.num_dst) for edges in known))
    if len(sizes) > 1:
        raise ValueError(
            f"edge sets of a union must join the same nodes (got layouts of {sizes[0]} and "
            f"{sizes[1]} key and query nodes); extra nodes are counted by all of them"
        )


def _edge_index(edges: Any) -> Tensor:
    """``[2, E]``, key nodes above query nodes."""
    if isinstance(edges, (EdgeLayout, DeferredEdges)):
        return edges.edge_index
    shape: list[int] = []
    if isinstance(edges, SparseTensor):
        shape = list(edges.sizes())[:2]
    elif isinstance(edges, Tensor) and is_torch_sparse_tensor(edges):
        shape = list(edges.shape)[:2]
    rows = rows_of(edges, "source_to_target", shape)
    return torch.stack(rows.rows) if rows.joined is None else rows.joined


def _joined(
    name: str, given: list[Tensor | None], counts: list[int], columns: tuple[str, ...]
) -> Tensor | None:
    """What the edges of all parts carry under this name; None if no part has it."""
    shape: torch.Size | None = None
    for number, (tensor, count) in enumerate(zip(given, counts, strict=True)):
        if tensor is None:
            continue
        fits = isinstance(tensor, Tensor) and tensor.dim() == 1 + len(columns)
        if not fits or tensor.size(0) != count:
            got = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(
                f"'{name}' of edge set {number} must have shape [{count}, {', '.join(columns)}] "
                f"(got {got})"
            )
        shape = tensor.shape[1:] if shape is None else shape
        if tensor.shape[1:] != shape:
            raise ValueError(
                f"'{name}' of the edge sets of a union must have the same {' and '.join(columns)} "
                f"(got {list(shape)}, and {list(tensor.shape[1:])} in edge set {number})"
            )
    if shape is None:
        return None
    like = next(tensor for tensor in given if tensor is not None)
    return torch.cat(
        [
            like.new_zeros(count, *shape) if tensor is None else tensor
            for tensor, count in zip(given, counts, strict=True)
        ]
    )
