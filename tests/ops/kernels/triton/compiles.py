"""Compiles the kernels for compute capability 9.0, on a machine that need not have a GPU.

``python -m tests.ops.kernels.triton.compiles [--all] [full] [edges]`` prints what each takes of a
multiprocessor.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from pyg_gt import EdgeLayout
from pyg_gt.ops._kernels.problem import EdgeProblem, FullProblem, Saved
from pyg_gt.ops._kernels.triton import edges as along_edges
from pyg_gt.ops._kernels.triton import full
from pyg_gt.ops._kernels.triton.edges.programs import PART

from ...cases import layout_of
from .sass import loops_of, powers_of_two, usage_of

# what a thread block of any card since capability 8.6 can have, but for 1 KiB
SHARED = 99 * 1024
# bytes of a thread, along edges: a compiler may give up a few for another warp at a time
SPILLED = 32
CASES = [
    (torch.float32, 20, True), (torch.bfloat16, 64, False), (torch.bfloat16, 8, False),
    (torch.bfloat16, 16, False), (torch.float32, 16, False), (torch.bfloat16, 16, True),
    (torch.float32, 8, True),
]  # fmt: skip
# Instructions a score, of the tiles that were fastest. A multiprocessor issues eight in the time
# of the power of two that every score takes: with 16, they are computed at half of their rate.
MOST = {
    (torch.bfloat16, 16, "tiled_forward"): 8.5,
    (torch.bfloat16, 16, "tiled_backward_rows"): 8.5,
    (torch.bfloat16, 16, "tiled_backward_cols"): 12,
    (torch.float32, 16, "tiled_forward"): 26,
    (torch.float32, 16, "tiled_backward_rows"): 32,
    (torch.float32, 16, "tiled_backward_cols"): 45,
}
ALL = [
    (dtype, channels, with_everything)
    for dtype in (torch.float32, torch.bfloat16)
    for channels in (8, 16, 32, 64, 128, 256)
    for with_everything in (False, True)
]
EDGE_CASES = [
    (torch.float32, 4, 16, ""), (torch.bfloat16, 8, 32, "values dropout"),
    (torch.float32, 3, 20, "values features dropout"),
]  # fmt: skip
ALL_EDGES = [
    (dtype, heads, channels, extras)
    for dtype in (torch.float32, torch.bfloat16)
    for heads, channels in ((4, 16), (8, 8), (1, 64), (4, 32), (8, 16), (4, 64), (8, 32), (3, 20))
    for extras in ("", "dropout", "values features", "values features dropout")
]

# of all kernels so far
HASHES: set[str] = set()


class NoDevice:
    """What triton asks of a driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def compile_only(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
    """In place of ``kernel[grid]``, which would run it."""

    def launch(*args: object, **kwargs: Any) -> None:
        compiled = kernel.warmup(*args, grid=grid, **kwargs)
        HASHES.add(compiled.hash)
        shared = compiled.metadata.shared
        names = "B", "BQ", "BK", "BT", "BE", "HB", "D", "PARTS", "num_warps"
        sides = ", ".join(f"{name}={kwargs[name]}" for name in names if name in kwargs)
        usage = usage_of(compiled.asm["cubin"])
        # more than a small tile has to share: products of it would be wrong
        widths = re.findall(r"xb?f(16|32), #ttg.dot_op<[^>]*kWidth = (\d+)", compiled.asm["ttgir"])
        right = {("16", 2), ("32", 1), ("32", 2)}
        if kwargs.get("seed") is not None:  # so an H100 computed dropped weights, and rightly
            right.add(("16", 4))
        assert {(bits, int(width)) for bits, width in widths} <= right
        said = (
            f"  {kernel.fn.__name__}({sides}): {shared} bytes of shared memory, "
            f"{usage.registers} registers, {usage.spilled} bytes spilled"
        )
        assert shared <= SHARED, said
        if kernel.fn.__module__.startswith("pyg_gt.ops._kernels.triton.edges"):
            print(said, flush=True)
            assert usage.spilled <= SPILLED, "registers do not suffice"
            return
        scores = scores_of(compiled.asm["cubin"], kwargs)
        print(f"{said}, {scores.instructions:.1f} instructions a score", flush=True)
        if "BQ" in kwargs and kwargs["D"] <= 64:
            assert scores.repeated < 1.5, "scores are computed twice"
        dtype, channels = kwargs["query"].dtype, kwargs["C"]
        if all(kwargs[name] is None for name in ("pairs", "table", "seed", "query_order")):
            bound = MOST.get((dtype, channels, kernel.fn.__name__), math.inf)
            # what these compilers made of the kernels; of others nothing is known
            if triton.__version__.startswith(("3.6.", "3.7.")):
                assert scores.instructions <= bound
        if dtype == torch.bfloat16 and channels % 8 == 0:
            narrow = re.findall(r"ld\.global\S*\.b16", compiled.asm["ptx"])
            assert not narrow, f"{len(narrow)} numbers are read one by one"

    return launch


class Scores(NamedTuple):
    """Of the loop over whole tiles, or of a graph in one tile.

    Attributes:
        instructions: that a thread spends on each of its scores.
        repeated: how many times one is computed.
    """

    instructions: float
    repeated: float


def scores_of(cubin: bytes, kwargs: dict[str, Any]) -> Scores:
    whole, *loops = (lines for lines in loops_of(cubin) if powers_of_two(lines))
    rows, cols = (kwargs["B"],) * 2 if "B" in kwargs else (kwargs["BQ"], kwargs["BK"])
    lines = whole if "B" in kwargs else max(loops, key=len)
    of_thread = rows * cols / (32 * kwargs["num_warps"])
    # a forward loop computes one more for each row, of its largest score
    more = 2 * rows / (16 * kwargs["num_warps"]) if "BQ" in kwargs else 0
    return Scores(len(lines) / of_thread, (powers_of_two(lines) - more) / of_thread)


def compile_all(dtype: torch.dtype, channels: int, with_everything: bool) -> None:
    """All kernels, forward and backward, plain or with biases and dropout in an odd order."""
    layout = layout_of([5, 20, 40, 100], "unsorted" if with_everything else "sorted")
    heads, pairs = 4, layout.num_pairs
    query, key, value = torch.randn(layout.num_nodes, 3, heads, channels, dtype=dtype).unbind(1)
    values = table = index = seed = None
    if with_everything:
        values, table = (torch.randn(n, heads) for n in (pairs, 20))
        index, seed = torch.zeros(pairs, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    problem = FullProblem(
        layout, layout, values, table, index, None, None, seed, 0.25, 0.3 * with_everything
    )
    out, stats = full.forward(problem, query, key, value)
    needs = with_everything, with_everything, False
    saved = Saved(query, key, value, out, stats)
    full.backward(problem, torch.randn_like(out), saved, needs)


def compile_edges(
    dtype: torch.dtype, heads: int, channels: int, extras: str, more: int = 0
) -> None:
    """All kernels along edges: nodes of few edges, of more, and hubs on either side."""
    degrees = torch.tensor([2 * PART, 20, 1, 2] + [1] * more)
    nodes, target = degrees.numel(), torch.repeat_interleave(degrees)
    source = torch.where(torch.arange(target.numel()) % 3 > 0, 0, target)
    edges = EdgeLayout.of(torch.stack([source, target]), nodes)
    assert isinstance(edges, EdgeLayout)
    query, key, value = torch.randn(nodes, 3, heads, channels, dtype=dtype).unbind(1)
    count = edges.num_edges
    problem = EdgeProblem(
        edges,
        torch.randn(count, heads) if "values" in extras else None,
        torch.randn(count, heads, channels, dtype=dtype) if "features" in extras else None,
        torch.zeros(1, dtype=torch.int64) if "dropout" in extras else None,
        0.25,
        0.3 if "dropout" in extras else 0.0,
    )
    out, stats = along_edges.forward(problem, query, key, value)
    grad = torch.randn_like(out)
    along_edges.backward(problem, grad, Saved(query, key, value, out, stats), (True,) * 5)


def main() -> None:
    driver.set_active(NoDevice())
    JITFunction.__getitem__ = compile_only
    everything = "--all" in sys.argv[1:]
    wanted = [name for name in ("full", "edges") if name in sys.argv[1:]] or ["full", "edges"]
    if "full" in wanted:
        for case in ALL if everything else CASES:
            print(*case)
            compile_all(*case)
    if "edges" in wanted:
        for of_edges in ALL_EDGES if everything else EDGE_CASES:
            print(*of_edges)
            compile_edges(*of_edges)
        known = set(HASHES)
        for more in (15, 14):
            compile_edges(*EDGE_CASES[0], more)
        assert HASHES == known, "another number of nodes needs another kernel"


if __name__ == "__main__":
    main()
