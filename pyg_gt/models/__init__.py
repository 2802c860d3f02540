"""Models by the names of their papers, with presets: published settings and encoders."""

from .egt import EGT
from .encoders import CategoryEncoder, CatEncoder, FeatureEncoder, SumEncoder
from .exphormer import Exphormer, ExphormerLayer
from .gnn_plus import GNNPlus
from .gps import GPS
from .graphormer import Graphormer
from .grit import GRIT
from .heads import CodeHead, GraphHead, NodeHead
from .joint_table import JointTableEncoder
from .ogb_encoders import ASTNodeEncoder, AtomEncoder, BondEncoder, SharedVector
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
    "Exphormer",
    "ExphormerLayer",
    "FeatureEncoder",
    "GNNPlus",
    "GPS",
    "GRIT",
    "GraphHead",
    "Graphormer",
    "JointTableEncoder",
    "NodeHead",
    "Recipe",
    "SharedVector",
    "SumEncoder",
    "Transformer",
    "TunedGNN",
]
