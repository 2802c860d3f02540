"""Shortest paths: their lengths, their edges, and the pairs of nodes that are near."""
