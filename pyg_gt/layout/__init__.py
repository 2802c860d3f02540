"""The shape of a batch: how nodes fall into graphs, and which edges attention follows."""

from .edge_layout import EdgeLayout
from .graph_layout import GraphLayout

__all__ = ["EdgeLayout", "GraphLayout"]
