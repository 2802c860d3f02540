"""Datasets: OGB's own, read safely, and a generated one that needs long-range attention."""

from .long_range import LongRange
from .ogb import OGBTask, load_ogb

__all__ = ["LongRange", "OGBTask", "load_ogb"]
