"""The old place of :class:`PairMessages`, which pickles of layers name (PyG keeps annotations)."""

from ..message_passing.pair_messages import PairMessages as Pairs

__all__ = ["Pairs"]
