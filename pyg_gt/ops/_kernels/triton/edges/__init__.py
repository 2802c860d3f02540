"""Attention along edges: forward, backward and their limits."""

from ..limits import MAX_CHANNELS, TYPES
from .attention import backward, forward

__all__ = ["MAX_CHANNELS", "TYPES", "backward", "forward"]
