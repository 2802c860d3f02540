"""Graph Transformers as PyTorch Geometric layers: message passing on the complete graph, fast."""

from ._swap import swap
from ._version import __version__
from .layout.edge_layout import EdgeLayout
from .layout.graph_layout import GraphLayout
from .nn.explanation import explain
from .ops import (
    EdgeBias,
    EdgeMask,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
    explain_choice,
    qkv_attention,
)

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
    "explain",
    "explain_choice",
    "qkv_attention",
    "swap",
]
