"""Attention along edges."""
