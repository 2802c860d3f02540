"""Which weights of a tile are dropped, by Philox or by torch's generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...dropout import keep_rows
from ..problem import FullProblem
from .buckets import Tile


class Dropout(NamedTuple):
    """What weights are multiplied with.

    Attributes:
        factors: of a tile and its weights ``[b, H, rows, cols]``: 0 where a weight is dropped,
            else one and the same number. The backward pass draws them once more.
        rescale: what factors leave to multiply with, so that ``factors * rescale`` is 0 or
            ``1 / (1 - p)``.
    """

    factors: Callable[[Tile, Tensor], Tensor]
    rescale: float


def philox_dropout(problem: FullProblem) -> Dropout | None:
    """The mask of :mod:`pyg_gt.ops.dropout`, the same on every device; None without dropout."""
    seed, dropout_p = problem.seed, problem.dropout_p
    if seed is None:
        return None

    def factors(tile: Tile, weights: Tensor) -> Tensor:
        rows, heads = tile.query_rows(), weights.size(1)
        kept = keep_rows(seed, rows, tile.bucket.cols, heads, dropout_p, weights.dtype)
        return kept.permute(0, 3, 1, 2)  # [b, H, rows, cols]

    return Dropout(factors, 1.0)


def generator_dropout(problem: FullProblem) -> Dropout | None:
    """16 bits of torch's CPU generator for each weight; None without dropout.

    p is rounded to the nearest of 65,536 steps, and masks depend on how tiles are cut. With
    Philox a forward pass takes 5 times as long (60 ms against 12 on 128 graphs of 23 nodes, 113
    against 20 on 12 of 60 to 150; 4 heads of 16 channels, one thread, torch 2.13).
    """
    if problem.seed is None:
        return None
    generator = torch.Generator().manual_seed(int(problem.seed))
    dropout_p = problem.dropout_p
    # the 16-bit number below which a weight is dropped
    threshold = min(round(dropout_p * 2**16), 2**16 - 1) - 2**15

    def factors(tile: Tile, weights: Tensor) -> Tensor:
        if dropout_p >= 1:
            return torch.zeros_like(weights)
        draws = torch.empty((weights.numel() + 3) // 4, dtype=torch.int64, device="cpu")
        draws.random_(-(2**63), None, generator=generator)
        numbers = draws.view(torch.int16)[: weights.numel()].view(weights.shape)
        return torch.ge(numbers, threshold, out=torch.empty_like(weights))

    return Dropout(factors, 1.0 if dropout_p >= 1 else 1 / (1 - (threshold + 2**15) / 2**16))
