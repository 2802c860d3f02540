"""How large the tiles of a kernel are, and how many warps work on one."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from ..rounding import next_power_of_two

# Sides of a tile that holds a whole graph. The smallest one is decided by the graph's own size, so
# that what it gets does not depend on its companions.
SMALL = (16, 32, 64)


class Tiles(NamedTuple):
    """Tiles of one kind of attention.

    Attributes:
        small: the largest graph that one program computes.
        rows: queries of a program of a larger graph.
        keys: how many keys it looks at at a time.
        warps: of that program.
        stages: tiles that are on their way from memory at a time.
        cols: keys of a program that computes gradients of keys.
        queries: how many queries that one looks at at a time.
        col_warps: of that one.
        col_stages: of that one.
        width: channels of a head, rounded up to a power of two.
    """

    small: int
    rows: int
    keys: int
    warps: int
    stages: int
    cols: int
    queries: int
    col_warps: int
    col_stages: int
    width: int


# By width, and without the width. A warp multiplies 16 rows; triton gives more warps the same rows
# once more, so that they only help where a row does not fit into the registers of one.
_HALF = {
    16: (64, 64, 64, 4, 4, 64, 64, 2, 3),
    32: (64, 64, 64, 4, 3, 64, 64, 4, 3),
    64: (64, 128, 64, 8, 3, 64, 64, 4, 3),
    128: (64, 64, 64, 4, 2, 64, 64, 4, 2),
    256: (32, 64, 16, 4, 1, 32, 32, 4, 1),
}
# with dropout, two warps for the gradients of keys take twice as long as four
_HALF_DROPPED = _HALF | {16: (64, 64, 64, 4, 4, 64, 64, 4, 2)}
_HALF_BIASED = _HALF | {width: (64, 64, 32, 4, 2, 64, 32, 4, 2) for width in (16, 32, 64)}
_FLOAT32 = {
    16: (64, 32, 32, 2, 3, 64, 64, 4, 3),
    32: (64, 32, 32, 2, 2, 64, 64, 4, 1),
    64: (32, 32, 32, 2, 2, 32, 32, 2, 1),
    128: (32, 32, 16, 2, 1, 32, 32, 4, 1),
    256: (16, 16, 16, 1, 1, 16, 16, 1, 1),
}

# a third tile on its way would not fit beside both
_FLOAT32_PAIRS_AND_TABLE = _FLOAT32 | {16: (64, 32, 32, 2, 3, 64, 64, 4, 2)}


@cache
def tiles_of(channels: int, dtype: torch.dtype, biases: int = 0, dropped: bool = False) -> Tiles:
    """The fastest tiles within 99 KiB of shared memory; ``biases`` of pairs and of a table.

    Timed on an H100 with triton 3.6, on a graph of 16,384 nodes and on 32 graphs of some 450, at
    up to 128 channels a head (``python -m benchmarks.gpu.tiles``); for 256 channels, instructions
    were counted (``python -m tests.ops.kernels.triton.compiles --all full``). The gradients of
    float32 heads of 64 channels and more, and of others of 256, spill registers at any size.
    """
    width = max(16, next_power_of_two(channels))
    if dtype == torch.float32:
        return Tiles(*(_FLOAT32_PAIRS_AND_TABLE if biases > 1 else _FLOAT32)[width], width)
    table = _HALF_BIASED if biases else _HALF_DROPPED if dropped else _HALF
    return Tiles(*table[width], width)


def small_warps(side: int) -> int:
    """Warps of a program that computes a graph of up to ``side`` nodes."""
    return side // 16
