"""Encoders of pairs of nodes as biases of attention."""

from .edge_path_bias import EdgePathBias
from .relative_walk_bias import RelativeWalkBias
from .shortest_path_bias import ShortestPathBias

__all__ = ["EdgePathBias", "RelativeWalkBias", "ShortestPathBias"]
