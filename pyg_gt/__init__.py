"""Graph Transformers as PyTorch Geometric layers: message passing on the complete graph, fast."""

from ._swap import swap
from .edge_layout import EdgeLayout
from .layout import GraphLayout
from .ops import (
    EdgeBias,
    EdgeMask,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
    explain_choice,
)

__version__ = "0.1.0"

__all__ = [
    "EdgeBias",
    "EdgeLayout",
    "EdgeMask",
    "GraphLayout",
    "PairBias",
    "ScoreMod",
    "TableBias",
    "__version__",
    "attention",
    "explain_choice",
    "swap",
]
