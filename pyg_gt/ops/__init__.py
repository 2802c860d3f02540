"""Attention on ragged batches: the verb, its biases, its backends."""

from .bias import AttentionBias, EdgeBias, EdgeMask, PairBias, ScoreMod, TableBias
from .dispatch import attention, explain_choice, qkv_attention

__all__ = [
    "AttentionBias",
    "EdgeBias",
    "EdgeMask",
    "PairBias",
    "ScoreMod",
    "TableBias",
    "attention",
    "explain_choice",
    "qkv_attention",
]
