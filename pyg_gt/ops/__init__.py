"""Attention on ragged batches: the verb, its biases, its backends."""

from ._dispatch import attention, explain_choice, qkv_attention
from .bias import AttentionBias, EdgeBias, EdgeMask, PairBias, ScoreMod, TableBias

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
