"""The former place of :class:`EdgeLayout`, kept for imports and pickles."""

from .layout.deferred import DeferredEdges as DeferredEdges
from .layout.edge_layout import EdgeLayout as EdgeLayout
