"""Encoders of a node's position in its graph, from what the transforms store."""

from .degree_encoder import DegreeEncoder
from .laplacian_encoder import LaplacianEncoder
from .random_walk_encoder import RandomWalkEncoder
from .sign_net_encoder import SignNetEncoder
from .stable_encoder import StableEncoder

__all__ = [
    "DegreeEncoder",
    "LaplacianEncoder",
    "RandomWalkEncoder",
    "SignNetEncoder",
    "StableEncoder",
]
