"""Models by the names of their papers, with presets: published settings and encoders."""

from .egt import EGT
from .encoders import (
    ASTNodeEncoder,
    AtomEncoder,
    BondEncoder,
    CategoryEncoder,
    CatEncoder,
    FeatureEncoder,
    SharedVector,
    SumEncoder,
)
from .gnn_plus import GNNPlus
from .gps import GPS
from .grit import GRIT
from .heads import CodeHead, GraphHead, NodeHead
from .recipe import Recipe
from .transformer import Transformer
from .tuned_gnn import TunedGNN

__all__ = [
    "ASTNodeEncoder",
    "AtomEncoder",
    "BondEncoder",
    "CatEncoder",
    "CategoryEncoder",
    "CodeHead",
    "EGT",
    "FeatureEncoder",
    "GNNPlus",
    "GPS",
    "GRIT",
    "GraphHead",
    "NodeHead",
    "Recipe",
    "SharedVector",
    "SumEncoder",
    "Transformer",
    "TunedGNN",
]
