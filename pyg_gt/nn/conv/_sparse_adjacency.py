"""Sparse adjacency matrices, read as PyG reads them and left as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor


def for_pyg(edge_index: Any) -> Any:
    """``edge_index``, or another tensor around its numbers where PyG would change it.

    PyG marks a COO matrix as coalesced before it reads the entries as they stand. On the caller's
    own tensor that would make later operations of torch wrong.
    """
    if (
        not isinstance(edge_index, Tensor)
        or edge_index.layout is not torch.sparse_coo
        or edge_index.is_coalesced()
    ):
        return edge_index
    return edge_index.clone() if edge_index.requires_grad else edge_index.detach()


def values_of(edge_index: Any) -> Tensor | None:
    """The values of a sparse adjacency, which stand in for missing edge features as in PyG."""
    if isinstance(edge_index, SparseTensor):
        values: Tensor | None = edge_index.storage.value()
        return values
    if isinstance(edge_index, Tensor) and is_torch_sparse_tensor(edge_index):
        if edge_index.layout is torch.sparse_coo:
            values = for_pyg(edge_index)._coalesced_(True).values()
        else:
            values = edge_index.values()
        return None if values.dim() == 1 else values
    return None


def num_entries_of(adjacency: Any) -> int:
    """``E`` of a sparse adjacency."""
    sparse = isinstance(adjacency, SparseTensor)
    number: int = adjacency.nnz() if sparse else adjacency._nnz()
    return number
