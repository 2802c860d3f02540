"""PyG's forms of an edge set, read into rows of key and query nodes; their order by node."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_edge_index

from .checks import check_integer_type
from .values import out_of_range


class EdgeRows(NamedTuple):
    """An edge set as a caller holds it.

    Attributes:
        keys: the caller's tensors by whose identity it is looked up.
        rows: ``[E]`` each, the key and the query node of each edge.
        joined: both in one tensor ``[2, E]``, if they lie so.
    """

    keys: tuple[Tensor, ...]
    rows: tuple[Tensor, Tensor]
    joined: Tensor | None = None


def rows_of(edges: Any, flow: str, shape: list[int]) -> EdgeRows:
    """The rows of an edge set in any of PyG's forms.

    Args:
        edges: ``edge_index [2, E]``, ``SparseTensor`` or ``torch.sparse`` tensor.
        flow: as in PyG.
        shape: ``[num_dst, num_src]``, which an adjacency must have.
    """
    if isinstance(edges, SparseTensor) or is_torch_sparse_tensor(edges):
        if flow != "source_to_target":
            raise ValueError(
                f"a sparse adjacency holds targets as rows, so the flow must be "
                f"'source_to_target' (got '{flow}'); pass the transposed adjacency instead"
            )
        got = list(edges.sizes() if isinstance(edges, SparseTensor) else edges.shape)
        if got[:2] != shape:
            raise ValueError(
                f"the transposed adjacency must have shape [num_dst, num_src] = {shape} "
                f"(got {got})"
            )
        if isinstance(edges, SparseTensor):
            # '.set_value()' gives a new object around the same rows and columns
            col, row = edges.storage.col(), edges.storage.row()
            return EdgeRows((col, row), (col, row))
        if edges.layout == torch.sparse_coo:
            # PyG's 'to_edge_index' would mark the caller's matrix as coalesced
            row, col = edges._indices().detach()
        else:
            row, col = to_edge_index(edges)[0]
        # the parts of a torch.sparse tensor are made anew at each access; the tensor is not
        return EdgeRows((edges,), (col, row))
    if not isinstance(edges, Tensor) or edges.is_nested:
        raise ValueError(
            f"edges must be an 'edge_index' tensor, a 'SparseTensor' or a 'torch.sparse' tensor "
            f"(got '{type(edges).__name__}')"
        )
    check_integer_type("edge_index", edges)
    if edges.dim() != 2 or edges.size(0) != 2:
        raise ValueError(f"'edge_index' must have shape [2, E] (got {list(edges.shape)})")
    if flow not in ("source_to_target", "target_to_source"):
        raise ValueError(f"'flow' must be 'source_to_target' or 'target_to_source' (got '{flow}')")
    plain = (edges.as_tensor() if isinstance(edges, EdgeIndex) else edges).detach()
    if flow == "source_to_target":
        return EdgeRows((edges,), (plain[0], plain[1]), plain)
    return EdgeRows((edges,), (plain[1], plain[0]))


def check_range(index: Tensor, size: int, name: str) -> None:
    """Raises ``IndexError`` unless all numbers of ``index [E]`` lie in ``[0, size)``."""
    if (wrong := out_of_range(index, size, name)) is not None:
        raise IndexError(
            f"Found {name} index {wrong} in 'edge_index', but there are {size} {name} nodes: "
            f"indices must lie in [0, {size})"
        )


def csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """CSR by ``index [E]``: ``ptr [size + 1]`` and the edge numbers ``[E]``, sorted stably."""
    counts = index.new_zeros(size + 1).index_add_(0, index + 1, torch.ones_like(index))
    return counts.cumsum(0), index.argsort(stable=True)
