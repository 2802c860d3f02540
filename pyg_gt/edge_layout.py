"""The former place of :class:`EdgeLayout`, kept for imports and pickles."""

from .layout.edge_layout import EdgeLayout as EdgeLayout
