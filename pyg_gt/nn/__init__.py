"""Layers: convolutions, a Transformer block, encoders of nodes and of pairs."""

from .block import TransformerBlock
from .conv import (
    EGTConv,
    ExphormerConv,
    FullTransformerConv,
    GatedGCNConv,
    GCNEConv,
    GPSConv,
    GRITConv,
    LatentTransformerConv,
    MaskedTransformerConv,
)
from .gnn_plus_block import GNNPlusBlock
from .graph_token import GraphToken
from .interaction_graph import InteractionGraph
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
    "ExphormerConv",
    "FullTransformerConv",
    "GCNEConv",
    "GNNPlusBlock",
    "GPSConv",
    "GRITConv",
    "GatedGCNConv",
    "InteractionGraph",
    "GraphToken",
    "LaplacianEncoder",
    "LatentTransformerConv",
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
