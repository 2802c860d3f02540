"""Comparison of backends and of a ``ScoreMod`` with the definition, for who writes one."""

from ._same_attention import assert_same_attention

__all__ = ["assert_same_attention"]
