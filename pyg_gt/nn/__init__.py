"""Layers: convolutions, a Transformer block, encoders of nodes and of pairs."""

from .block import TransformerBlock
from .conv import (
    ExphormerConv,
    FullTransformerConv,
    GatedGCNConv,
    GCNEConv,
    GPSConv,
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
from .pair_encoding import EdgePathBias, RelativeWalkBias, ShortestPathBias

TransformerConv = MaskedTransformerConv  # by PyG's name, so that changing an import is enough

__all__ = [
    "DegreeEncoder",
    "EdgePathBias",
    "ExphormerConv",
    "FullTransformerConv",
    "GCNEConv",
    "GNNPlusBlock",
    "GPSConv",
    "GatedGCNConv",
    "InteractionGraph",
    "GraphToken",
    "LaplacianEncoder",
    "LatentTransformerConv",
    "MaskedTransformerConv",
    "RandomWalkEncoder",
    "RelativeWalkBias",
    "ShortestPathBias",
    "SignNetEncoder",
    "StableEncoder",
    "TransformerBlock",
    "TransformerConv",
]
