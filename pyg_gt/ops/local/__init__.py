"""Ops of what stands beside attention in a layer: local parts and norms."""
