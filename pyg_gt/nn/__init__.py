"""Layers."""

from .block import TransformerBlock
from .conv import FullTransformerConv, GatedGCNConv, GPSConv, MaskedTransformerConv

__all__ = [
    "FullTransformerConv",
    "GPSConv",
    "GatedGCNConv",
    "MaskedTransformerConv",
    "TransformerBlock",
]
