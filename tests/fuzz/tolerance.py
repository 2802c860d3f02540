"""How far rounding may take a result of attention from the definition: a bound, not a guess.

A score is a sum of ``C + a`` terms, so it is off by at most their sizes times ``C + a`` units of
the type that computes; a weight by twice that, as a ratio; an output by that share of the largest
value. Gradients are weights times differences of products of values and slopes. A result is
rounded once more to its own type. The bounds are loose by small factors, not by orders.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from .definition import Sizes

UNIT = {
    torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}  # fmt: skip


class Scales(NamedTuple):
    """The largest sizes of what a call was given."""

    query: float
    key: float
    value: float
    slope: float
    scale: float
    channels: int
    num_queries: int
    wide: bool  # float64 throughout


def tolerance(name: str, dtype: torch.dtype, sizes: Sizes, s: Scales, p: float) -> float:
    """Of the output (``name = ""``) or of the gradient of a leaf, before its last rounding."""
    unit = UNIT[torch.float64 if s.wide else torch.float32]
    factor = 1.0 if p in (0.0, 1.0) else 1 / (1 - p)
    weight = min(2.0, math.expm1(min(8 * unit * (s.channels + 8) * sizes.score, 1.0)))
    weight += 4 * unit * (sizes.row + 16)
    if dtype in (torch.bfloat16, torch.float16):  # in which biases of that type may be added up
        weight += 2 * UNIT[dtype] * sizes.added
    if name == "":
        return min(weight, 2.0) * s.value * factor + 1e-30
    # of a product of a value and a slope
    product = s.channels * s.slope * s.value * factor
    # what the sum of a row's products loses where the rounded output stands for it
    rounded = UNIT[dtype] * product if dtype in (torch.bfloat16, torch.float16) else 0.0
    score = product * 2 * (weight + unit * (s.channels + 8)) + rounded
    by_key = max(1.0, sizes.column)
    whole = {
        "query": s.scale * s.key * score,
        "key": s.scale * s.query * score * by_key,
        "value": factor * weight * s.slope * by_key,
    }
    if name in whole:
        return whole[name]
    if name == "qkv":
        return max(whole.values())
    if "features" in name:
        return whole["value"] + s.scale * s.query * score
    if "mod" in name:
        return score * s.num_queries * (1 + sizes.score)
    return score * (s.num_queries if "table" in name else 1.0)
