"""Launches are those that triton would make, on a machine that need not have a GPU.

``python -m tests.ops.triton_launches`` runs no kernel, but all that comes before: first as it is
by default, then where launches go without triton's launcher, if it was read for that.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
import gc
import itertools
import os
import random
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from pyg_gt.ops._fused.triton_full_eager import attend
from pyg_gt.ops._kernels.triton.again import Known, key_of
from pyg_gt.ops._kernels.triton.full.problem import Problem
from pyg_gt.ops._kernels.triton.replay import SWITCH, VERSIONS, replays
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver

from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.ops._kernels.triton import (
    again as _triton_again,
)
from pyg_gt.ops._kernels.triton import (
    direct as _triton_direct,
)
from pyg_gt.ops._kernels.triton import (
    launch as _triton_launch,
)
from pyg_gt.ops._kernels.triton.edges import launches as _triton_edges
from pyg_gt.ops._kernels.triton.full import launches as _triton_full
from pyg_gt.ops._kernels.triton.launch import Call, likeness, number_kind

from .triton_compiles import NoDevice


class Run(NamedTuple):
    """A launch: who made it, of what, and its arguments but for constants and None."""

    by: str
    hash: str
    grid: tuple[int, ...]
    given: dict[str, object]


RUN: list[Run] = []
# by the address of a function in the driver
LOADED: dict[int, CompiledKernel] = {}
TAKES = [True]
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


def load(self: CompiledKernel) -> None:
    """In place of what loads a kernel into a GPU."""
    if self.function is None:
        self.function = 16 * (len(LOADED) + 1)
        LOADED[self.function] = self


def record(self: CompiledKernel) -> Callable[..., None]:
    """In place of what hands a kernel to triton's launcher."""

    def run(x: int, y: int, z: int, *more: object) -> None:
        names = self.src.fn.arg_names
        given = dict(zip(names, more[-len(names) :], strict=True))
        RUN.append(Run("triton", self.hash, (x, y, z), values(self, given)))

    return run


def values(compiled: CompiledKernel, given: dict[str, object]) -> dict[str, object]:
    """What the driver would see."""
    kinds = compiled.src.signature
    seen = {name: given[name] for name, kind in kinds.items() if kind != "constexpr"}
    for name, x in seen.items():
        if isinstance(x, Tensor):
            seen[name] = x.data_ptr()
        elif kinds[name] == "fp32":
            seen[name] = ctypes.c_float(x).value
    return seen


def take(
    function: int, x: int, y: int, z: int, threads: int, one: int, another: int, shared: int,
    stream: int | None, addresses: ctypes.Array, extra: int | None,
) -> int:  # fmt: skip
    """In place of the driver's function."""
    compiled = LOADED[function]
    metadata, kinds = compiled.metadata, compiled.src.signature
    assert (threads, one, another) == (32 * metadata.num_warps, 1, 1)
    assert (shared, stream, extra) == (metadata.shared, None, None)
    names = [name for name, kind in kinds.items() if kind != "constexpr"]
    given = {}
    for place, name in enumerate(names):
        kind = kinds[name]
        cell = ctypes.c_uint64 if kind.startswith("*") else _triton_direct._CELLS[kind]
        given[name] = cell.from_address(addresses[place]).value
    for place in (len(names), len(names) + 1):  # memory that triton may ask for
        assert ctypes.c_uint64.from_address(addresses[place]).value == 0
    if not TAKES[0]:
        return 201
    RUN.append(Run("us", compiled.hash, (x, y, z), given))
    return 0


def take_or_note(*numbers: object) -> int:
    """An exception cannot go through a call in C."""
    try:
        return take(*numbers)
    except Exception as error:
        NOTED.append(error)
        raise


NOTED: list[Exception] = []
# as 'cuda.h' declares it, and as it is called: no types are given, so that none are converted
DECLARED = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint] * 7, ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p,
)(take_or_note)  # fmt: skip
CALLED = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.cast(DECLARED, ctypes.c_void_p).value)


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


def kind_of(x: object) -> object:
    if type(x) is int:
        return number_kind(x)
    return type(x) is float or likeness(x)


def check(kernel: triton.JITFunction, named: dict[str, object], common: list[str], warps: int):
    """Some arguments are given to all launches, some to this one."""
    constants = {each.name for each in kernel.params if each.is_constexpr}
    fixed = {name: x for name, x in named.items() if name in common and name in constants}
    varying = {name: x for name, x in named.items() if name in common and name not in constants}
    own = {name: x for name, x in named.items() if name not in common}
    key = (id(kernel), *common, *fixed.values(), *map(kind_of, varying.values()))
    tensors = [name for name, x in varying.items() if isinstance(x, Tensor)]
    call = Call(key, varying, tensors, lambda: fixed, torch.empty(1))
    expected = kernel.warmup(**named, grid=(7,), num_warps=warps)
    known = len(RUN)
    for _ in range(2):
        arguments = call.arguments()
        arguments.launch(kernel, 7, own, num_warps=warps)
        arguments.end()
    assert not NOTED
    assert len(RUN) == known + 2 and RUN[-1].by == "us", "the second one goes without triton"
    for run in RUN[known:]:
        assert run.hash == expected.hash, (kernel, named, warps)
        assert run.grid == (7, 1, 1)
        assert run.given == values(expected, named)


class Attention:
    """With tensors of its own."""

    def __init__(self, names: str, layout: GraphLayout | None = None) -> None:
        layout = LAYOUTS["layout"] if layout is None else layout
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
        self.room = torch.empty(layout.num_nodes, 3, 4, 16) if "one gradient" in names else None
        self.stats = torch.zeros(query_layout.num_nodes, 4, 2)
        pairs = sum(a * b for a, b in zip(query_layout.sizes, layout.sizes, strict=True))
        self.pairs = self.table = self.index = self.seed = self.slopes = None
        if "pairs" in names:
            self.pairs = torch.randn(pairs, 4)
            self.slopes = _triton_full.room_for_slopes(self.query, pairs, torch.float32)
        if "by head" in names:
            self.pairs = torch.randn(4, pairs).t()
        if "table" in names:
            self.table, self.index = torch.randn(20, 4), torch.zeros(pairs, dtype=torch.uint8)
        if "dropout" in names:
            self.seed = torch.zeros(1, dtype=torch.int64)
        self.problem = Problem(
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
            self.slopes, self.table is not None, self.room,
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


def launches_of(call: Callable[[], object]) -> list[Run]:
    known = len(RUN)
    call()
    assert not NOTED
    return RUN[known:]


def alike(runs: list[Run]) -> list[tuple]:
    """What must be the same if a call is made twice: results lie elsewhere."""
    tables = ("programs", "others", "numbers", "query_order", "key_order")
    return [
        (run.hash, run.grid, {
            name: x for name, x in run.given.items()
            if x in GIVEN or name in tables or not is_address(x)
        })
        for run in runs
    ]  # fmt: skip


def is_address(x: object) -> bool:
    return isinstance(x, int) and x >= 2**32


def only_again(call: Callable[[], object]) -> None:
    """Fails where a call is made by its arguments' names, and not by their addresses alone."""
    usual = Call.arguments
    Call.arguments = None
    call()
    Call.arguments = usual


def check_again(kind: type[Attention] | type[AlongEdges], names: str) -> None:
    """What is launched again is what triton would launch, with the tensors of the call."""
    first, second, third = (kind(names) for _ in range(3))
    for name in ("forward", "backward"):
        getattr(first, name)()
        for attention, is_again in ((second, True), (third, False)):
            GIVEN.clear()
            GIVEN.update(x.data_ptr() for x in attention.tensors())
            usual = Known.done
            if is_again and "unaligned" not in names:
                again = launches_of(partial(only_again, getattr(attention, name)))
            elif is_again:  # not by addresses alone, but without triton's launcher
                again = launches_of(getattr(attention, name))
            Known.done = lambda *_: False
            if not is_again:
                again = launches_of(getattr(attention, name))
            _triton_launch._KNOWN.__dict__.clear()
            anew = launches_of(getattr(attention, name))
            Known.done = usual
            assert {run.by for run in again} == {"us"}, (names, name)
            assert anew[0].by == "triton", (names, name)
            assert alike(again) == alike(anew), (names, name)
            getattr(first, name)()


def check_again_where_the_driver_refuses_or_somebody_watches() -> None:
    """Then triton's launcher does it, and says what is wrong."""
    attention = Attention("pairs")
    attention.forward()
    usual = launches_of(attention.forward)
    TAKES[0] = False
    refused = launches_of(attention.forward)
    TAKES[0] = True
    knobs.runtime.launch_enter_hook.add(print)
    watched = launches_of(attention.forward)
    knobs.runtime.launch_enter_hook.remove(print)
    GIVEN.clear()
    GIVEN.update(x.data_ptr() for x in attention.tensors())
    for runs in (refused, watched):
        assert {run.by for run in runs} == {"triton"} and alike(runs) == alike(usual)
    assert {run.by for run in launches_of(attention.forward)} == {"us"}


def check_that_threads_write_into_cells_of_their_own() -> None:
    """Amid a launch of one thread, another makes the same call."""
    mine, theirs = Attention("dropout"), Attention("dropout")
    mine.forward()
    usual = _triton_again.taken
    amid: list[threading.Thread] = []

    def interrupted(launches: list) -> bool:
        if not amid:  # all cells are written
            amid.append(threading.Thread(target=theirs.forward))
            amid[0].start()
            amid[0].join()
        return usual(launches)

    _triton_again.taken = interrupted
    runs = launches_of(mine.forward)
    _triton_again.taken = usual
    seen = [run.given["query"] == mine.query.data_ptr() for run in runs]
    assert seen == sorted(seen) and 0 < sum(seen) < len(seen)


def check_in_parts(kind: type[Attention] | type[AlongEdges], names: str) -> None:
    """Where a call makes tensors of its own, all is launched as triton would."""
    first, second = kind(names), kind(names)
    for name in ("forward", "backward"):
        getattr(first, name)()
        GIVEN.clear()
        GIVEN.update(x.data_ptr() for x in second.tensors())
        again = launches_of(getattr(second, name))
        _triton_launch._KNOWN.__dict__.clear()
        anew = launches_of(getattr(second, name))
        assert alike(again) == alike(anew) and again, (names, name)


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
    most = _triton_launch.MAX_KNOWN
    _triton_launch.MAX_KNOWN = _triton_again.MAX_KNOWN = 2
    _triton_launch._KNOWN.__dict__.clear()
    Attention("").problem.known()._made.clear()
    for names in ("", "joined", "half", "pairs", "dropout"):
        attention = Attention(names)
        known = attention.problem.known()
        assert len(launches_of(attention.forward)) >= 4
        assert 0 < len(known) <= 2 and 0 < len(_triton_launch._KNOWN.__dict__) <= 2
    for scale in range(1, 9):  # a number, like an address, is written anew
        attention.problem = attention.problem._replace(scale=float(scale))
        (*_, run) = launches_of(attention.forward)
        assert run.by == "us" and run.given["scale"] == scale
        assert 0 < len(known) <= 2
    _triton_launch.MAX_KNOWN = _triton_again.MAX_KNOWN = most


def check_that_calls_write_all_that_differs() -> None:
    """Calls of one kind on two layouts share cells, and write into them by turns."""
    attentions = [Attention("dropout"), Attention("dropout")]
    query_layout = GraphLayout.from_sizes(LAYOUTS["layout"].sizes)
    attentions[1].problem = attentions[1].problem._replace(layout=query_layout)
    attentions[1].problem = attentions[1].problem._replace(query_layout=query_layout, scale=7.0)
    for each in attentions:
        each.forward()
    expected = [launches_of(each.forward) for each in attentions]
    for _ in range(2):
        for each, runs in zip(attentions, expected, strict=True):
            again = launches_of(partial(only_again, each.forward))
            GIVEN.clear()
            GIVEN.update(x.data_ptr() for x in each.tensors())
            assert alike(again) == alike(runs)
            scale = ctypes.c_float(each.problem.scale).value
            assert {run.given["scale"] for run in again} == {scale}
    tables = [{run.given["programs"] for run in runs} for runs in expected]
    assert not tables[0] & tables[1], "each has tables of its own"


def check_that_other_batches_are_known() -> None:
    """What differs between two batches, numbers of pairs too, is written into the cells."""
    for names in ("dropout", "pairs", "pairs by head", "table", "joined half"):
        for sizes in ([5, 20, 40, 100], [6, 30, 33, 101]):
            attention = Attention(names, GraphLayout.from_sizes(sizes))
            runs = launches_of(attention.forward) + launches_of(attention.backward)
        assert {run.by for run in runs} == {"us"}, names
        if "by head" in names:
            (head,) = {run.given["pairs_head"] for run in runs}
            assert head == attention.pairs.size(0)


FULL = (
    "", "unaligned", "joined", "half joined", "pairs dropout", "cross negative", "joined pairs",
    "pairs by head", "joined one gradient", "one gradient pairs dropout",
)  # fmt: skip
ALONG = "", "joined", "values dropout", "features", "keys", "values"


def check_that_triton_launches() -> list[list[tuple]]:
    """All, each time, and nothing is kept of a call; what was launched."""
    assert not replays()
    _triton_direct._driver = None
    cases = [(Attention, name) for name in (*FULL, "table")]
    cases += [(AlongEdges, name) for name in (*ALONG, "heavy values")]
    launched = []
    for kind, names in cases:
        torch.manual_seed(1)
        attention = kind(names)
        GIVEN.clear()
        GIVEN.update(x.data_ptr() for x in attention.tensors())
        for name in ("forward", "backward"):
            first, second = (launches_of(getattr(attention, name)) for _ in range(2))
            assert first and {run.by for run in first + second} == {"triton"}, (names, name)
            assert alike(first) == alike(second), (names, name)
            launched.append([(run.hash, run.grid) for run in first])
        if kind is Attention:
            assert len(attention.problem.known()) == 0
    assert key_of("forward", reads=()) is None and not _triton_launch._KNOWN.__dict__
    return launched


def check_that_they_are_the_same_without_it(launched: list[list[tuple]]) -> None:
    cases = [(Attention, name) for name in (*FULL, "table")]
    cases += [(AlongEdges, name) for name in (*ALONG, "heavy values")]
    again = []
    for kind, names in cases:
        torch.manual_seed(1)
        attention = kind(names)
        for name in ("forward", "backward"):
            call = getattr(attention, name)
            call()
            again.append([(run.hash, run.grid) for run in launches_of(call)])
    assert again == launched


def check_memory(num_nodes: int) -> None:
    """A step on one graph takes room for its outputs and gradients, not for pairs of nodes."""
    layout = GraphLayout.from_sizes([num_nodes])
    problem = Problem(layout, layout, None, None, None, None, 0.25, 0.0)
    joined = torch.randn(num_nodes, 3, 4, 16, requires_grad=True)
    grad = torch.randn(num_nodes, 4, 16)
    # an output, and the gradients of three parts once, or twice where autograd joins them
    for parts, share in (((joined, None, None), 4 / 3), (joined.unbind(1), 7 / 3)):
        with torch.profiler.profile(profile_memory=True, acc_events=True) as profiled:
            torch.autograd.grad(attend(problem, *parts), [joined], grad)
        events = profiled.profiler.kineto_results.events()
        asked = sorted((x.start_ns(), x.nbytes()) for x in events if x.name() == "[memory]")
        most = max(itertools.accumulate(size for _, size in asked))
        print(f"{num_nodes} nodes, forward and backward: {most / 2**20:.0f} MiB")
        assert share * joined.nbytes <= most < share * joined.nbytes + joined.nbytes / 4


def main() -> None:
    driver.set_active(NoDevice())
    CompiledKernel._init_handles = load
    CompiledKernel.run = property(record)
    os.environ.pop(SWITCH, None)
    replays.cache_clear()
    launched = check_that_triton_launches()
    check_memory(200_000)
    os.environ[SWITCH] = "1"
    replays.cache_clear()
    known = triton.__version__.startswith(tuple(f"{version}." for version in VERSIONS))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert replays() == replays() == known
    if not known:  # it says so, once, and triton launches
        assert len(caught) == 1 and SWITCH in str(caught[0].message)
        assert check_that_triton_launches() == launched
        print(f"triton {triton.__version__} was not read: it launches all")
        return
    assert not caught
    _triton_direct._driver = lambda: CALLED
    check_that_they_are_the_same_without_it(launched)
    RUN.clear()
    _triton_launch._KNOWN.__dict__.clear()
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
    found = {run.hash for run in RUN}
    kept = sum(len(made._kernels) for made in _triton_launch._KNOWN.__dict__.values())
    print(f"{len(RUN)} launches, {len(found)} compilations, {kept} kept")
    assert len(found) <= kept

    before = len(RUN)
    call = Call(("nothing",), {}, [], dict, torch.empty(1))
    arguments = call.arguments()
    arguments.launch(probe, 0, {}, num_warps=1)
    arguments.end()
    assert len(RUN) == before, "no programs, no launch"
    a_case = cases[0]
    for switched_on in (False, True, False):
        knobs.runtime.debug = switched_on
        check(*a_case)
    assert RUN[-1].hash == RUN[-5].hash != RUN[-3].hash

    for names in FULL:
        check_again(Attention, names)
    for names in ALONG:
        check_again(AlongEdges, names)
    check_again(Attention, "table")
    check_in_parts(AlongEdges, "heavy values")
    check_again_where_the_driver_refuses_or_somebody_watches()
    check_that_threads_write_into_cells_of_their_own()
    for kind in (Attention, AlongEdges):
        check_that_no_tensor_stays(kind)
    check_that_not_all_are_known()
    check_that_calls_write_all_that_differs()
    check_that_other_batches_are_known()
    check_memory(200_000)


if __name__ == "__main__":
    main()
