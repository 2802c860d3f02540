"""How many nodes, edges, heads and channels one program of attention along edges works on."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ._triton_tiles import power_of_two

# numbers of a gathered row that lie side by side; more heads go to further programs
_ROW = 256
# numbers of a gathered tile for each thread: keys and values stay in registers
_EACH = 32


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


def edge_tiles(heads: int, channels: int, dtype: torch.dtype) -> EdgeTiles:
    """Tiles that stay in registers (found by compiling for compute capability 9.0, not by timing).

    A warp reads 512 bytes at a time. Where it reads whole rows, edges lie in its threads and lanes
    and sums over them cross no warps.
    """
    width = power_of_two(channels)
    beside = min(power_of_two(max(heads, 1)), max(_ROW // width, 1))
    row = beside * width
    warps = 2 if row * dtype.itemsize > 512 else 1
    edges = min(32 * warps * _EACH // row, 128)
    few, many = min(edges, 4), min(edges, 16)
    return EdgeTiles(beside, width, (edges // few, few), (edges // many, many), warps)
