"""What the card can do at best: copies, products, exponentials, launches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.section import Section
from benchmarks.timing import batched

# device, tiny -> value, unit, how
Measure = Callable[[str, bool], tuple[float, str, str]]


def run(section: Section) -> None:
    """A row for each ceiling."""
    measures: dict[str, Measure] = {
        "copy": copy, "matmul bfloat16": matmul("bfloat16"), "matmul float32": matmul("float32"),
        "exp": exp, "empty launch": launch,
    }  # fmt: skip
    if section.device == "cuda":
        measures |= {"matmul tf32": matmul("tf32"), "triton launch": triton_launch}
        measures |= {"graph replay": replay}  # last: it alone changes what the device does
    for name, measure in measures.items():
        if section.has_time(name):
            with section.guarded(name):
                value, unit, how = measure(section.device, section.tiny)
                section.add({"ceiling": name, "value": value, "unit": unit, "how": how})


def _seconds(call: Callable[[], Any], batch: float = 0.02) -> float:
    for _ in range(3):
        call()
    return statistics.median(batched({"it": call}, 0.5, batch)["it"])


def copy(device: str, tiny: bool) -> tuple[float, str, str]:
    """Bytes read and written."""
    size = 2**20 if tiny else 2**30
    source = torch.empty(size, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    seconds = _seconds(lambda: target.copy_(source))
    return 2 * size / seconds / 1e9, "GB/s", f"copy of {size} bytes, read and written"


def matmul(kind: str) -> Measure:
    """A square product."""

    def measure(device: str, tiny: bool) -> tuple[float, str, str]:
        n = 128 if tiny else 8192
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        try:
            seconds = _seconds(lambda: a @ b)
        finally:
            torch.set_float32_matmul_precision(before)
        return 2 * n**3 / seconds / 1e12, "TFLOP/s", f"{kind}, {n} x {n} x {n}"

    return measure


def exp(device: str, tiny: bool) -> tuple[float, str, str]:
    """Exponentials in registers; on a CPU torch's."""
    if device == "cpu":
        x = torch.rand(2**16)
        return x.numel() / _seconds(lambda: x.exp()), "exp/s", "torch.exp of 2^16 numbers"
    from benchmarks.gpu.ceiling_kernels import repeated_exp2

    block, rounds, programs = 1024, 512, 132 * 64
    x = torch.rand(programs * block, device=device)
    out = torch.empty_like(x)
    repeated_exp2[(programs,)](x, out, ROUNDS=2, BLOCK=block)
    torch.testing.assert_close(out, torch.exp2(-torch.exp2(-x)), rtol=1e-5, atol=1e-6)
    seconds = _seconds(lambda: repeated_exp2[(programs,)](x, out, ROUNDS=rounds, BLOCK=block))
    return x.numel() * rounds / seconds, "exp/s", f"exp2, {rounds} in a row on {x.numel()} numbers"


def launch(device: str, tiny: bool) -> tuple[float, str, str]:
    """What one small operation of torch costs in a row of them."""
    x = torch.zeros(1, device=device)
    return _seconds(lambda: x.add_(1)) * 1e6, "us", "x.add_(1) on one number"


def triton_launch(device: str, tiny: bool) -> tuple[float, str, str]:
    """What an empty kernel of Triton costs, its Python included."""
    from benchmarks.gpu.ceiling_kernels import nothing

    x = torch.zeros(1, device=device)
    return _seconds(lambda: nothing[(1,)](x)) * 1e6, "us", "an empty kernel"


def replay(device: str, tiny: bool) -> tuple[float, str, str]:
    """What a CUDA graph of one small operation costs."""
    x = torch.zeros(1, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x.add_(1)
    return _seconds(graph.replay) * 1e6, "us", "a CUDA graph of x.add_(1)"
