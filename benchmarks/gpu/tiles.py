"""Tiles of Triton's full attention: ``python -m benchmarks.gpu.tiles --out FILE`` on a GPU.

The tables of tiles in the package were chosen by it. Each candidate's output and gradients are
compared with those of the tiles in use before its kernels are timed by torch's profiler.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.section import one_line
from benchmarks.record import card, environment, write
from benchmarks.timing import kernel_us
from pyg_gt import GraphLayout, attention
from pyg_gt.ops._kernels.triton.full import tiles as tile_tables

HEADS = 4
# one large graph, and a batch like that of PascalVOC-SP
BATCHES = {"1 x 16384": [16_384], "32 x 450": [395 + 7 * (i % 15) for i in range(32)]}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
HALF = [
    (64, 64, 64, 4, 2, 64, 64, 4, 2), (64, 64, 64, 4, 3, 64, 64, 4, 3),
    (64, 64, 64, 4, 4, 64, 64, 2, 3), (64, 64, 128, 4, 3, 64, 64, 2, 2),
    (64, 128, 64, 8, 3, 64, 64, 2, 4), (64, 64, 32, 4, 3, 64, 32, 4, 3),
]  # fmt: skip
FLOAT32 = [
    (32, 32, 32, 2, 2, 32, 32, 2, 2), (32, 32, 32, 2, 3, 32, 32, 2, 1),
    (32, 64, 32, 4, 2, 64, 32, 4, 2), (32, 64, 32, 4, 1, 64, 32, 4, 1),
    (32, 32, 16, 2, 1, 32, 16, 2, 1), (32, 64, 64, 4, 2, 64, 64, 4, 2),
    (32, 64, 64, 4, 1, 64, 64, 4, 1),
]  # fmt: skip


def main() -> int:
    """A line for each candidate; 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    args = parser.parse_args()
    rows = []
    for dtype in TOLERANCE:
        for channels in args.channels:
            for batch, sizes in BATCHES.items():
                for row in candidates(dtype, channels, sizes):
                    rows.append({"batch": batch, **row})
                    print(json.dumps(rows[-1]), flush=True)
    write(args.out, {"environment": environment(), "card": card(), "heads": HEADS, "rows": rows})
    return int(any("wrong" in row for row in rows))


def candidates(dtype: torch.dtype, channels: int, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """Kernel times in us of every tile; what cannot run says why."""
    table = tile_tables._FLOAT32 if dtype == torch.float32 else tile_tables._HALF
    usual = table[channels]
    first: list[Tensor] | None = None
    try:
        for tiles in [usual, *(FLOAT32 if dtype == torch.float32 else HALF)]:
            table[channels] = tiles
            tile_tables.tiles_of.cache_clear()
            row = {"dtype": str(dtype).removeprefix("torch."), "channels": channels,
                   "tiles": tiles}  # fmt: skip
            try:
                call = call_of(dtype, channels, sizes)
                results = call()
                first = first or results
                worst = max(difference(a, b) for a, b in zip(results, first, strict=True))
                row["difference"] = worst
                if not worst <= TOLERANCE[dtype]:
                    row["wrong"] = "it differs from the tiles in use"
                row |= {k: round(us, 1) for k, us in kernel_us(call, 3).items() if "tiled" in k}
            except Exception as error:
                row["error"] = one_line(error)
            yield row
    finally:
        table[channels] = usual
        tile_tables.tiles_of.cache_clear()


def call_of(dtype: torch.dtype, channels: int, sizes: list[int]) -> Callable[[], list[Tensor]]:
    """Forward and backward on a new layout, which holds nothing made for other tiles."""
    torch.manual_seed(0)
    layout = GraphLayout.from_sizes(sizes, "cuda")
    joined = torch.randn(layout.num_nodes, 3, HEADS, channels, device="cuda").to(dtype)
    leaves = [x.requires_grad_() for x in joined.unbind(1)]
    grad = torch.randn(joined[:, 0].shape, device="cuda", dtype=dtype)

    def call() -> list[Tensor]:
        out = attention(*leaves, layout, backend="triton")
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    return call


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest number of ``b``."""
    return float((a.float() - b.float()).abs().max() / b.float().abs().max())


if __name__ == "__main__":
    sys.exit(main())
