"""Edge sets in PyG's forms, read as PyG reads them and left as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_edge_index


def as_separate_tensor(edge_index: Any) -> Any:
    """``edge_index``; of an uncoalesced COO matrix, another tensor around the same numbers.

    A PyG layer may mark it as coalesced, which on the caller's own tensor would make later
    operations of torch wrong.
    """
    if (
        not isinstance(edge_index, Tensor)
        or edge_index.layout is not torch.sparse_coo
        or edge_index.is_coalesced()
        or edge_index.requires_grad
    ):
        return edge_index
    return torch.sparse_coo_tensor(
        edge_index._indices(), edge_index._values(), edge_index.shape, is_coalesced=False
    )


def for_pyg(edge_index: Any) -> Any:
    """``edge_index`` in a form on which PyG's message passing changes nothing and errs nowhere.

    A COO matrix comes marked as coalesced, as PyG marks it to read the entries as they stand, but
    not the caller's own. And torch 2.13 gives wrong gradients of the sums over messages where
    indices are not int64.
    """
    if not isinstance(edge_index, Tensor):
        return edge_index
    if edge_index.layout is torch.strided:
        return edge_index if edge_index.dtype is torch.int64 else edge_index.long()
    if edge_index.layout is not torch.sparse_coo or edge_index.is_coalesced():
        return edge_index
    if edge_index.requires_grad:
        raise ValueError(
            "a sparse COO adjacency that requires gradients must be coalesced: call '.coalesce()' "
            "first, or give its values as 'edge_attr'"
        )
    return torch.sparse_coo_tensor(
        edge_index._indices(), edge_index._values(), edge_index.shape, is_coalesced=True
    )


def values_of(edge_index: Any) -> Tensor | None:
    """``[E, D]`` of a sparse adjacency, which stand in for missing edge features as in PyG.

    A number for each edge is a weight, which PyG's ``TransformerConv`` does not read.
    """
    values: Tensor | None = None
    if isinstance(edge_index, SparseTensor):
        values = edge_index.storage.value()
    elif isinstance(edge_index, Tensor) and is_torch_sparse_tensor(edge_index):
        values = for_pyg(edge_index).values()
    return None if values is None or values.dim() == 1 else values


def edge_index_of(adjacency: Any) -> Tensor:
    """``[2, E]``, sources and targets of a transposed adjacency, in PyG's order of its entries."""
    if isinstance(adjacency, Tensor) and adjacency.layout is torch.sparse_coo:
        return adjacency._indices().flip(0)
    edge_index: Tensor = to_edge_index(adjacency)[0].flip(0)
    return edge_index
