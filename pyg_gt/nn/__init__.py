"""Layers: convolutions, a Transformer block, encoders of nodes and of pairs."""

from .block import TransformerBlock
from .conv import (
    EGTConv,
    FullTransformerConv,
    GatedGCNConv,
    GCNEConv,
    GPSConv,
    GRITConv,
    MaskedTransformerConv,
)
from .gnn_plus_block import GNNPlusBlock
from .node_encoding import (
    DegreeEncoder,
    LaplacianEncoder,
    RandomWalkEncoder,
    SignNetEncoder,
    StableEncoder,
)
from .pair_encoding import EdgePathBias, RelativeWalkBias, RelativeWalkEncoder, ShortestPathBias

TransformerConv = MaskedTransformerConv  # by PyG's name, so that changing an import is enough

__all__ = [
    "DegreeEncoder",
    "EGTConv",
    "EdgePathBias",
    "FullTransformerConv",
    "GCNEConv",
    "GNNPlusBlock",
    "GPSConv",
    "GRITConv",
    "GatedGCNConv",
    "LaplacianEncoder",
    "MaskedTransformerConv",
    "RandomWalkEncoder",
    "RelativeWalkBias",
    "RelativeWalkEncoder",
    "ShortestPathBias",
    "SignNetEncoder",
    "StableEncoder",
    "TransformerBlock",
    "TransformerConv",
]
