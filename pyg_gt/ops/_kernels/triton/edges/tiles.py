"""How many nodes, edges, heads and channels one program of attention along edges works on."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from ..rounding import next_power_of_two

# numbers of a gathered row that lie side by side; more heads go to further programs
_ROW_NUMBERS = 256
# Numbers of a gathered tile for each thread: keys and values stay in registers, and beside them
# what belongs to each of several nodes, or a tile of features.
_NUMBERS = 32
_NUMBERS_AND_MORE = 16


class EdgeTiles(NamedTuple):
    """Tiles of ``[nodes, edges, heads, width]``.

    Attributes:
        heads: heads of a program, a power of two.
        width: channels of a head, rounded up to a power of two.
        few: nodes and edges of each of a program for nodes of few edges.
        many: the same for the others.
        warps: that work on one tile.
    """

    heads: int
    width: int
    few: tuple[int, int]
    many: tuple[int, int]
    warps: int


@cache
def edge_tiles(heads: int, channels: int, dtype: torch.dtype, with_features: bool) -> EdgeTiles:
    """Tiles that stay in registers (found by compiling for compute capability 9.0, not by timing).

    A warp reads 512 bytes at a time. Where it reads whole rows, edges lie in its threads and lanes
    and sums over them cross no warps.
    """
    width = next_power_of_two(channels)
    heads_of_program = min(next_power_of_two(max(heads, 1)), max(_ROW_NUMBERS // width, 1))
    row = heads_of_program * width
    warps = 2 if row * dtype.itemsize > 512 else 1
    few = min(32 * warps * _NUMBERS_AND_MORE // row, 64)
    many = few if with_features else min(32 * warps * _NUMBERS // row, 64)
    return EdgeTiles(
        heads_of_program, width, _split(max(few, 4), 4), _split(max(many, 4), 16), warps
    )


def _split(edges: int, each: int) -> tuple[int, int]:
    """Nodes, and edges of each of them."""
    each = min(edges, each)
    return edges // each, each
