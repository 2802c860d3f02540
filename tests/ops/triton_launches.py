"""Launches choose the compilation that triton would choose, on a machine that need not have a GPU.

``python -m tests.ops.triton_launches`` runs no kernel, but all that comes before.
"""

# mypy: ignore-errors
from __future__ import annotations

import itertools
import random

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver

from pyg_gt.ops import _triton_launch
from pyg_gt.ops._triton_launch import Arguments

from .triton_compiles import NoDevice

RUN: list[tuple[str, tuple[int, ...], tuple]] = []


@triton.jit
def probe(x, y, count, factor, C: tl.constexpr, NAMED: tl.constexpr):
    number = tl.load(x + count * C).to(tl.float32) * factor
    if y is not None:
        tl.store(y + count, number)
    if NAMED == "twice":
        tl.store(x + count, number)


@triton.jit
def other(x, y, C: tl.constexpr, NAMED: tl.constexpr):
    tl.store(x + C, tl.load(y))


def record(self: CompiledKernel) -> None:
    """In place of what hands a kernel to a GPU."""

    def run(x: int, y: int, z: int, *more: object) -> None:
        names = self.src.fn.arg_names
        RUN.append((self.hash, (x, y, z), more[-len(names) :]))

    return run


def at(x: Tensor, aligned: bool) -> Tensor:
    """A part of ``x`` that does, or does not, begin at a multiple of 16 bytes."""
    assert x.data_ptr() % 16 == 0
    return x[4 * 4 :] if aligned else x[1:]


def all_arguments() -> list[dict[str, object]]:
    numbers = torch.zeros(64)
    tensors = [
        at(numbers, True), at(numbers, False), at(numbers.half(), True),
        at(numbers.double(), True), at(numbers.long(), False), numbers[:0],
        torch.nn.Parameter(at(numbers, True)),
        torch.nn.Parameter(at(numbers.bfloat16(), False)),
    ]  # fmt: skip
    counts = [0, 1, 2, 16, 17, 32, 2**31 - 1, 2**31, 2**31 + 16, 2**40 + 1, -1, -16, -(2**31) - 1]
    found = []
    for x, y in itertools.product(tensors, [None, tensors[0], tensors[4]]):
        found.append({"x": x, "y": y, "count": 3, "factor": 0.5, "C": 4, "NAMED": "once"})
    for count, factor in itertools.product(counts, [1.0, 16.0]):
        found.append(found[0] | {"count": count, "factor": factor})
    for c, named in itertools.product((1, 4, 16), ("once", "twice")):
        found.append(found[0] | {"C": c, "NAMED": named})
    return found


def check(kernel: triton.JITFunction, named: dict[str, object], common: list[str], warps: int):
    """Some arguments are given to all launches, some to this one."""
    shared = {name: x if name in common else None for name, x in named.items()}
    own = {name: x for name, x in named.items() if name not in common}
    known = len(RUN)
    Arguments(shared, torch.empty(1)).launch(kernel, 7, own, num_warps=warps)
    ((chosen, grid, given),) = RUN[known:]
    expected = kernel.warmup(**named, grid=(7,), num_warps=warps)
    assert chosen == expected.hash, (kernel, named, warps)
    assert grid == (7, 1, 1)
    assert all(a is b for a, b in zip(given, named.values(), strict=True))


def main() -> None:
    driver.set_active(NoDevice())
    CompiledKernel._init_handles = lambda self: setattr(self, "function", 0)
    CompiledKernel.run = property(record)
    cases = [
        (probe, named, ["x", "factor", "C"], warps)
        for named in all_arguments()
        for warps in ((1, 4) if named["count"] == 17 else (1,))
    ]
    x = torch.zeros(1)
    cases += [
        (other, {"x": x, "y": y, "C": 4, "NAMED": ""}, [], 1) for y in (x.clone(), x.long())
    ]
    for seed in range(3):  # at first compiled, then found, beside whatever others
        random.Random(seed).shuffle(cases)
        for case in cases:
            check(*case)
    found = {id(kernel): _triton_launch._KERNELS[id(kernel)] for kernel in (probe, other)}
    kept = [len(known.compiled) for known in found.values()]
    different = len({chosen for chosen, _, _ in RUN})
    print(f"{len(RUN)} launches, {different} compilations, {sum(kept)} keys")
    assert different <= sum(kept) <= different + 10  # keys tell apart hardly more than triton does

    before = len(RUN)
    Arguments(cases[0][1], torch.empty(1)).launch(cases[0][0], 0, {}, num_warps=1)
    assert len(RUN) == before, "no programs, no launch"
    a_case = cases[0]
    for switched_on in (False, True, False):
        knobs.runtime.debug = switched_on
        check(*a_case)
    assert RUN[-1][0] == RUN[-3][0] != RUN[-2][0]


if __name__ == "__main__":
    main()
