"""Normalisation of nodes and edges."""
