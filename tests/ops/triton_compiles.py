"""Compiles the kernels for compute capability 9.0, on a machine that need not have a GPU.

``python -m tests.ops.triton_compiles [--all]`` prints what each takes of a multiprocessor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from pyg_gt.ops import _triton_full
from pyg_gt.ops._triton_full import Problem

from .cases import layout_of

# what a thread block of any card since capability 8.6 can have, but for 1 KiB
SHARED = 99 * 1024
CASES = [(torch.float32, 20, True), (torch.bfloat16, 64, False)]
ALL = [
    (dtype, channels, with_everything)
    for dtype in (torch.float32, torch.bfloat16)
    for channels in (16, 32, 64, 128, 256)
    for with_everything in (False, True)
]


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
        shared = compiled.metadata.shared
        sides = {name: kwargs[name] for name in ("B", "BQ", "BK", "num_warps") if name in kwargs}
        print(f"  {kernel.fn.__name__} {sides}: {shared} bytes of shared memory", flush=True)
        assert "cubin" in compiled.asm
        assert shared <= SHARED, f"{shared} bytes of shared memory"

    return launch


def compile_all(dtype: torch.dtype, channels: int, with_everything: bool) -> None:
    """All kernels, forward and backward, plain or with biases and dropout in an odd order."""
    layout = layout_of([5, 20, 40, 100], "unsorted" if with_everything else "sorted")
    heads, pairs = 4, layout.num_pairs
    query, key, value = torch.randn(layout.num_nodes, 3, heads, channels, dtype=dtype).unbind(1)
    values = table = index = seed = slopes = None
    if with_everything:
        values, slopes, table = (torch.randn(n, heads) for n in (pairs, pairs, 20))
        index, seed = torch.zeros(pairs, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    problem = Problem(layout, layout, values, table, index, seed, 0.25, 0.3 * with_everything)
    out, stats = _triton_full.forward(problem, query, key, value)
    grad = torch.randn_like(out)
    _triton_full.backward(problem, grad, query, key, value, out, stats, slopes, table is not None)


def main() -> None:
    driver.set_active(NoDevice())
    JITFunction.__getitem__ = compile_only
    for case in ALL if "--all" in sys.argv[1:] else CASES:
        print(*case)
        compile_all(*case)


if __name__ == "__main__":
    main()
