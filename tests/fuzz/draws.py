"""What a draw is: one random input, made from a seed and a number, run through a comparison."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

Random = np.random.Generator


class Fault(AssertionError):
    """What a draw has shown to be wrong, the shortest statement of it first."""


class Part(NamedTuple):
    """A kind of draws.

    Attributes:
        draw: runs draw ``number`` of ``seed``; raises where something is wrong, returns what was
            compared, by name.
        size: number of draws that there are; None: as many as are asked for.
    """

    draw: Callable[[int, int], Counter[str]]
    size: Callable[[], int] | None = None


def random_of(seed: int, part: str, number: int) -> Random:
    """The random numbers of one draw; torch's own are set to a place that depends on it too."""
    rng = np.random.default_rng([seed, zlib.crc32(part.encode()), number])
    torch.manual_seed(int(rng.integers(2**62)))
    return rng
