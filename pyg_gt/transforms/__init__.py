"""Positional and structural encodings, drop-ins for those of `torch_geometric.transforms`."""

from ._collate import EncodeAndCollate
from ._precompute import precompute
from ._precomputed import PrecomputedDataset
from .add_laplacian import AddLaplacianEigenvectorPE
from .add_random_walk import AddRandomWalkPE

__all__ = [
    "AddLaplacianEigenvectorPE",
    "AddRandomWalkPE",
    "EncodeAndCollate",
    "PrecomputedDataset",
    "precompute",
]
