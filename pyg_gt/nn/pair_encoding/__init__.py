"""Encoders of pairs of nodes as biases of attention."""

from .edge_path_bias import EdgePathBias
from .relative_walk_bias import RelativeWalkBias
from .relative_walk_encoder import RelativeWalkEncoder
from .shortest_path_bias import ShortestPathBias

__all__ = ["EdgePathBias", "RelativeWalkBias", "RelativeWalkEncoder", "ShortestPathBias"]
