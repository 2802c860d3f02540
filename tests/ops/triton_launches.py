"""Launches choose the compilation that triton would choose, on a machine that need not have a GPU.

``python -m tests.ops.triton_launches`` runs no kernel, but all that comes before.
"""

# mypy: ignore-errors
from __future__ import annotations

import gc
import itertools
import random
import weakref
from collections.abc import Callable
from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver

from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.ops import _triton_again, _triton_edges, _triton_full, _triton_launch
from pyg_gt.ops._triton_launch import Arguments

from .triton_compiles import NoDevice

RUN: list[tuple[str, tuple[int, ...], tuple]] = []
# addresses of the tensors of a call
GIVEN: set[int] = set()
LAYOUTS = {
    "layout": GraphLayout.from_sizes([5, 20, 40, 100, 70]),
    "query layout": GraphLayout.from_sizes([4, 30, 7, 70, 9]),
}
NODES = torch.arange(40)
EDGES = EdgeLayout.of(torch.stack([NODES.repeat(3), NODES.repeat_interleave(3)]), 40)
HEAVY = EdgeLayout.of(torch.stack([NODES.repeat(99), torch.zeros(99 * 40, dtype=torch.long)]), 40)


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


class Attention:
    """With tensors of its own."""

    def __init__(self, names: str) -> None:
        layout = LAYOUTS["layout"]
        query_layout = LAYOUTS["query layout"] if "cross" in names else layout
        dtype = torch.bfloat16 if "half" in names else torch.float32
        self.query = torch.randn(query_layout.num_nodes, 4, 16, dtype=dtype)
        self.key, self.value = torch.randn(2, layout.num_nodes, 4, 16, dtype=dtype)
        if "joined" in names:
            joined = torch.randn(layout.num_nodes, 3, 4, 16, dtype=dtype)
            self.query, self.key, self.value = joined.unbind(1)
        if "unaligned" in names:
            self.value = torch.randn(self.value.numel() + 1)[1:].view_as(self.value)
        self.grad, self.out = torch.randn_like(self.query), torch.randn_like(self.query)
        self.stats = torch.zeros(query_layout.num_nodes, 4, 2)
        pairs = sum(a * b for a, b in zip(query_layout.sizes, layout.sizes, strict=True))
        self.pairs = self.table = self.index = self.seed = self.slopes = None
        if "pairs" in names:
            self.pairs, self.slopes = torch.randn(2, pairs, 4)
        if "table" in names:
            self.table, self.index = torch.randn(20, 4), torch.zeros(pairs, dtype=torch.uint8)
        if "dropout" in names:
            self.seed = torch.zeros(1, dtype=torch.int64)
        self.problem = _triton_full.Problem(
            query_layout, layout, self.pairs, self.table, self.index, self.seed,
            -0.3 if "negative" in names else 0.3, 0.5 if "dropout" in names else 0.0,
        )  # fmt: skip

    def tensors(self) -> list[Tensor]:
        return [x for x in vars(self).values() if isinstance(x, Tensor)]

    def forward(self) -> None:
        _triton_full.forward(self.problem, self.query, self.key, self.value)

    def backward(self) -> None:
        _triton_full.backward(
            self.problem, self.grad, self.query, self.key, self.value, self.out, self.stats,
            self.slopes, self.table is not None,
        )  # fmt: skip


class AlongEdges:
    """Attention with tensors of its own."""

    def __init__(self, names: str) -> None:
        edges = HEAVY if "heavy" in names else EDGES
        nodes, count = edges.num_src, edges.num_edges
        self.query, self.key, self.value = torch.randn(3, nodes, 4, 16)
        if "joined" in names:
            self.query, self.key, self.value = torch.randn(nodes, 3, 4, 16).unbind(1)
        self.grad, self.out = torch.randn_like(self.query), torch.randn_like(self.query)
        self.stats, self.seed = torch.zeros(nodes, 4, 2), torch.zeros(1, dtype=torch.int64)
        self.values = torch.randn(count, 4) if "values" in names else None
        self.features = torch.randn(count, 4, 16) if "features" in names else None
        self.needs = ["keys" not in names, True, "keys" not in names, True, True]
        seed, p = (self.seed, 0.5) if "dropout" in names else (None, 0.0)
        self.problem = _triton_edges.Problem(edges, self.values, self.features, seed, 0.3, p)

    def tensors(self) -> list[Tensor]:
        return [x for x in vars(self).values() if isinstance(x, Tensor)]

    def forward(self) -> None:
        _triton_edges.forward(self.problem, self.query, self.key, self.value)

    def backward(self) -> None:
        _triton_edges.backward(
            self.problem, self.grad, self.query, self.key, self.value, self.out, self.stats,
            self.needs,
        )  # fmt: skip


def launches_of(call: Callable[[], object]) -> list[tuple]:
    known = len(RUN)
    call()
    return [(hash_, grid, [of_call(x) for x in given]) for hash_, grid, given in RUN[known:]]


def of_call(x: object) -> object:
    """What must be the same if a call is made twice: results lie elsewhere."""
    if not isinstance(x, Tensor):
        return x
    known = x.shape, x.stride(), x.dtype
    return (*known, x.data_ptr()) if x.data_ptr() in GIVEN else known


def check_again(kind: type[Attention] | type[AlongEdges], names: str) -> None:
    """What is launched again is what would be launched anew, with the tensors of the call."""
    first, second = kind(names), kind(names)
    GIVEN.clear()
    GIVEN.update(x.data_ptr() for x in second.tensors())
    usual = _triton_again.Launches.done_again
    for name in ("forward", "backward"):
        getattr(first, name)()
        again = launches_of(getattr(second, name))
        _triton_again.Launches.done_again = lambda self, tensors: False
        anew = launches_of(getattr(second, name))
        _triton_again.Launches.done_again = usual
        assert again == anew, (names, name)
        assert again


def check_that_no_tensor_stays(kind: type[Attention] | type[AlongEdges]) -> None:
    attention = kind("pairs values features dropout")
    attention.forward()
    attention.backward()
    alive = [weakref.ref(x) for x in attention.tensors()]
    RUN.clear()
    del attention
    gc.collect()
    assert not any(x() is not None for x in alive)


def check_that_not_all_are_known() -> None:
    attention = Attention("")
    for scale in range(1, 3 * _triton_again.MAX_KNOWN):
        attention.problem = replace(attention.problem, scale=float(scale))
        attention.forward()
    made = attention.problem.layout._made
    (known,) = (x for key, x in made.items() if key == ("triton launches", None))
    assert 0 < len(known) <= _triton_again.MAX_KNOWN


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

    for names in (
        "", "unaligned", "joined", "half joined", "pairs dropout", "table", "cross negative",
        "joined pairs",
    ):  # fmt: skip
        check_again(Attention, names)
    for names in ("", "joined", "values dropout", "features", "keys", "heavy values", "values"):
        check_again(AlongEdges, names)
    for kind in (Attention, AlongEdges):
        check_that_no_tensor_stays(kind)
    check_that_not_all_are_known()


if __name__ == "__main__":
    main()
