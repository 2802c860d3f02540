"""Layers."""

from .block import TransformerBlock
from .conv import FullTransformerConv, GatedGCNConv, GPSConv, MaskedTransformerConv
from .node_encoding import (
    DegreeEncoder,
    LaplacianEncoder,
    RandomWalkEncoder,
    SignNetEncoder,
    StableEncoder,
)
from .pair_encoding import EdgePathBias, RelativeWalkBias, ShortestPathBias

__all__ = [
    "DegreeEncoder",
    "EdgePathBias",
    "FullTransformerConv",
    "GPSConv",
    "GatedGCNConv",
    "LaplacianEncoder",
    "MaskedTransformerConv",
    "RandomWalkEncoder",
    "RelativeWalkBias",
    "ShortestPathBias",
    "SignNetEncoder",
    "StableEncoder",
    "TransformerBlock",
]
