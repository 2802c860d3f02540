"""Attention along edges: forward, backward and their limits."""

from .attention import MAX_CHANNELS, TYPES, backward, forward

__all__ = ["MAX_CHANNELS", "TYPES", "backward", "forward"]
