"""How large the tiles of a kernel are, and how many warps work on one."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

# Sides of a tile that holds a whole graph. The smallest one is decided by the graph's own size, so
# that what it gets does not depend on its companions.
SMALL = (16, 32, 64)


class Tiles(NamedTuple):
    """Tiles of one kind of attention.

    Attributes:
        small: the largest graph that one program computes.
        rows: queries of a tile of a larger one.
        cols: its keys.
        width: channels of a head, rounded up to a power of two.
        bytes: size of the channels of a head.
        plain: whether scores have no bias and weights no dropout.
    """

    small: int
    rows: int
    cols: int
    width: int
    bytes: int
    plain: bool

    def warps(self, side: int) -> int:
        """Warps of a program that computes ``side`` queries at a time."""
        if side == 16:
            return 1 if self.bytes <= 128 else 2 if self.bytes <= 256 else 4
        easy = self.plain and self.bytes <= 128
        if side == 32:
            return 2 if easy else 4
        return 4 if easy else 8

    @property
    def stages(self) -> int:
        """Tiles that are on their way from memory at a time."""
        return 2 if self.bytes <= 256 else 1


@cache
def tiles_of(channels: int, dtype: torch.dtype, plain: bool) -> Tiles:
    """The largest tiles that stay in registers and take at most 99 KiB of shared memory.

    Found by compiling for compute capability 9.0 with triton 3.6, not by timing. The gradients of
    float32 heads of 64 channels and more spill some registers at any size.
    """
    width = max(16, power_of_two(channels))
    size = width * dtype.itemsize
    if size <= 128:
        small, rows, cols = 64, 64, 64 if plain else 32
    elif size <= 256:
        small, rows, cols = 64, 64, 32
    elif size <= 512:
        small, rows, cols = 32, 32, 32
    else:
        small, rows, cols = 16, 16, 16
    return Tiles(small, rows, cols, width, size, plain)


def power_of_two(x: int) -> int:
    """The first one that is not below ``x``."""
    return 1 << (x - 1).bit_length()
