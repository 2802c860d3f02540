"""Message-passing layers."""

from .egt_conv import EGTConv
from .exphormer_conv import ExphormerConv
from .full_transformer_conv import FullTransformerConv
from .gated_gcn_conv import GatedGCNConv
from .gcne_conv import GCNEConv
from .gps_conv import GPSConv
from .grit_conv import GRITConv
from .latent_transformer_conv import LatentTransformerConv
from .masked_transformer_conv import MaskedTransformerConv

__all__ = [
    "EGTConv",
    "ExphormerConv",
    "FullTransformerConv",
    "GCNEConv",
    "GPSConv",
    "GRITConv",
    "GatedGCNConv",
    "LatentTransformerConv",
    "MaskedTransformerConv",
]
