"""Positional and structural encodings, drop-ins for those of `torch_geometric.transforms`."""

from .add_laplacian import AddLaplacianEigenvectorPE
from .add_random_walk import AddRandomWalkPE

__all__ = ["AddLaplacianEigenvectorPE", "AddRandomWalkPE"]
