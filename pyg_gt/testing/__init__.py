"""For who writes a backend or a ``ScoreMod``: does it compute what the definition computes?

``python -m pyg_gt.testing.fuzz`` asks the same of the whole library, on random inputs.
"""

from ._same_attention import assert_same_attention

__all__ = ["assert_same_attention"]
