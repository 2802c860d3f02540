"""The shape of a batch: how nodes fall into graphs, and which edges attention follows."""

from .deferred import DeferredLayout as DeferredLayout  # what layers are given in traced code
from .edge_layout import EdgeLayout
from .graph_layout import GraphLayout
from .graph_layout import _unflatten as _unflatten  # of pickles made when this was a module

__all__ = ["EdgeLayout", "GraphLayout"]
