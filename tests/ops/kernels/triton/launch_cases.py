"""What Triton's launcher is given, on a machine without a GPU; run by ``test_launch``.

Kernels are compiled, and not run. A process of its own, since Triton must not interpret here:
``TRITON_INTERPRET=0 pytest tests/ops/kernels/triton/launch_cases.py``.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import driver

from pyg_gt import EdgeLayout, GraphLayout, attention, qkv_attention
from pyg_gt.ops._backends import triton as backend
from pyg_gt.ops._fused import full as fused
from pyg_gt.ops._kernels.problem import EdgeProblem, FullProblem, Saved
from pyg_gt.ops._kernels.triton import edges as along_edges
from pyg_gt.ops._kernels.triton import full
from pyg_gt.ops._kernels.triton.edges.programs import programs_by_source, programs_by_target
from pyg_gt.ops._kernels.triton.full.launches import tiles_for
from pyg_gt.ops._kernels.triton.full.programs import programs_of

from .compiles import NoDevice

STREAM = 77
HEADS = 4


class Run(NamedTuple):
    """A launch: kernel, compilation, grid and stream, and what the driver would be given."""

    name: str
    hash: str
    grid: tuple[int, ...]
    stream: int
    given: dict[str, object]


class Driver(NoDevice):
    """With a stream that is not the default one."""

    def get_current_stream(self, device: int = 0) -> int:
        return STREAM


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """All launches; nothing is loaded into a GPU, and nothing runs."""
    made: list[Run] = []

    def load(self: CompiledKernel) -> None:
        self.function = 16

    def record(self: CompiledKernel) -> Callable[..., None]:
        def run(x: int, y: int, z: int, stream: int, *more: object) -> None:
            names = self.src.fn.arg_names
            given = dict(zip(names, more[-len(names) :], strict=True))
            numbers = seen_by_the_driver(self, given)
            made.append(Run(self.src.fn.fn.__name__, self.hash, (x, y, z), stream, numbers))

        return run

    monkeypatch.setattr(CompiledKernel, "_init_handles", load)
    monkeypatch.setattr(CompiledKernel, "run", property(record))
    driver.set_active(Driver())  # for the rest of the process: there is no other one
    return made


def seen_by_the_driver(compiled: CompiledKernel, given: dict[str, object]) -> dict[str, object]:
    """Arguments but for constants and None."""
    kinds = compiled.src.signature
    seen = {name: given[name] for name, kind in kinds.items() if kind != "constexpr"}
    for name, x in seen.items():
        if isinstance(x, Tensor):
            seen[name] = x.data_ptr()
        elif kinds[name] == "fp32":
            seen[name] = ctypes.c_float(x).value
    return seen


LAYOUT = GraphLayout.from_sizes([5, 20, 40, 100, 70])
QUERY_LAYOUT = GraphLayout.from_sizes([4, 30, 7, 70, 9])
NODES = torch.arange(40)
EDGES = EdgeLayout.of(torch.stack([NODES.repeat(3), NODES.repeat_interleave(3)]), 40)
HUB = EdgeLayout.of(torch.stack([NODES.repeat(99), torch.zeros(99 * 40, dtype=torch.long)]), 40)
FULL = (
    "", "unaligned", "joined", "half joined", "pairs dropout", "cross negative", "joined pairs",
    "pairs by head", "joined one gradient", "one gradient pairs dropout", "table",
)  # fmt: skip
ALONG = "", "joined", "values dropout", "features", "keys", "values", "hub values"


class FullCall:
    """Full attention with tensors of its own."""

    def __init__(self, names: str, layout: GraphLayout = LAYOUT) -> None:
        query_layout = QUERY_LAYOUT if "cross" in names else layout
        dtype = torch.bfloat16 if "half" in names else torch.float32
        self.query = torch.randn(query_layout.num_nodes, HEADS, 16, dtype=dtype)
        self.key, self.value = torch.randn(2, layout.num_nodes, HEADS, 16, dtype=dtype)
        if "joined" in names:
            joined = torch.randn(layout.num_nodes, 3, HEADS, 16, dtype=dtype)
            self.query, self.key, self.value = joined.unbind(1)
        if "unaligned" in names:
            self.value = torch.randn(self.value.numel() + 1)[1:].view_as(self.value)
        self.grad, self.out = torch.randn_like(self.query), torch.randn_like(self.query)
        self.out = self.out.contiguous()
        self.joined = None
        if "one gradient" in names:
            self.joined = torch.empty(layout.num_nodes, 3, HEADS, 16)
        self.stats = torch.zeros(query_layout.num_nodes, HEADS, 2)
        pairs = sum(a * b for a, b in zip(query_layout.sizes, layout.sizes, strict=True))
        self.pairs = self.table = self.seed = index = None
        if "pairs" in names:
            self.pairs = torch.randn(pairs, HEADS)
        if "by head" in names:
            self.pairs = torch.randn(HEADS, pairs).t()
        if "table" in names:
            self.table, index = torch.randn(20, HEADS), torch.zeros(pairs, dtype=torch.uint8)
        if "dropout" in names:
            self.seed = torch.zeros(1, dtype=torch.int64)
        self.needs = self.pairs is not None, self.table is not None, False
        self.problem = FullProblem(
            query_layout, layout, self.pairs, self.table, index, None, None, self.seed,
            -0.3 if "negative" in names else 0.3, 0.5 if "dropout" in names else 0.0,
        )  # fmt: skip

    def forward(self) -> list[Tensor]:
        return list(full.forward(self.problem, self.query, self.key, self.value))

    def backward(self) -> list[Tensor | None]:
        return list(
            full.backward(
                self.problem,
                self.grad,
                Saved(self.query, self.key, self.value, self.out, self.stats),
                self.needs,
                self.joined,
            )
        )


class EdgeCall:
    """Attention along edges with tensors of its own."""

    def __init__(self, names: str) -> None:
        edges = HUB if "hub" in names else EDGES
        nodes, count = edges.num_src, edges.num_edges
        self.query, self.key, self.value = torch.randn(3, nodes, HEADS, 16)
        if "joined" in names:
            self.query, self.key, self.value = torch.randn(nodes, 3, HEADS, 16).unbind(1)
        self.grad = torch.randn_like(self.query)
        self.out = torch.randn(self.query.shape)
        self.stats = torch.zeros(nodes, HEADS, 2)
        self.values = torch.randn(count, HEADS) if "values" in names else None
        self.features = torch.randn(count, HEADS, 16) if "features" in names else None
        self.seed = torch.zeros(1, dtype=torch.int64) if "dropout" in names else None
        self.needs = "keys" not in names, True, "keys" not in names, True, True
        p = 0.5 if "dropout" in names else 0.0
        self.problem = EdgeProblem(edges, self.values, self.features, self.seed, 0.3, p)

    def forward(self) -> list[Tensor]:
        return list(along_edges.forward(self.problem, self.query, self.key, self.value))

    def backward(self) -> list[Tensor | None]:
        return list(
            along_edges.backward(
                self.problem,
                self.grad,
                Saved(self.query, self.key, self.value, self.out, self.stats),
                self.needs,
            )
        )


CALLS = [(FullCall, names) for names in FULL] + [(EdgeCall, names) for names in ALONG]


def tensors_of(call: FullCall | EdgeCall) -> dict[str, Tensor]:
    return {name: x for name, x in vars(call).items() if isinstance(x, Tensor)}


@pytest.mark.parametrize(("kind", "names"), CALLS)
def test_kernels_are_given_the_tensors_and_numbers_of_the_call(
    kind: type[FullCall] | type[EdgeCall], names: str, runs: list[Run]
) -> None:
    call = kind(names)
    tensors = tensors_of(call)
    if "negative" in names:  # kernels are given a negated copy
        del tensors["query"]
    for method, written in (
        (call.forward, ("out", "stats")),
        (call.backward, ("query_grad", "key_grad", "value_grad")),
    ):
        runs.clear()
        made = method()
        assert runs
        expected = {name: x.data_ptr() for name, x in tensors.items()}
        expected |= {n: x.data_ptr() for n, x in zip(written, made, strict=False) if x is not None}
        for run in runs:
            assert run.stream == STREAM and run.grid[0] > 0 and run.grid[1:] == (1, 1)
            if "hub" in names:
                continue  # its parts have rows of their own, and other kernels combine them
            for name in expected.keys() & run.given.keys():
                assert run.given[name] == expected[name], (run.name, name)
            assert run.given["scale"] == ctypes.c_float(0.3).value
            dropped = call.seed is not None
            assert run.given["threshold"] == (0 if dropped else -(2**31))
            assert run.given["factor"] == (2.0 if dropped else 1.0)
        seen = set().union(*(run.given for run in runs))
        assert {"programs", "query", "key", "value"} <= seen
        for name in ("pairs", "table", "values", "features", "seed"):
            assert (name in seen) == (getattr(call, name, None) is not None), name


@pytest.mark.parametrize(("kind", "names"), CALLS)
def test_nothing_is_kept_of_a_call(
    kind: type[FullCall] | type[EdgeCall], names: str, runs: list[Run]
) -> None:
    """A second one is launched as the first, with its own tensors, and none of them stays."""
    first, second = kind(names), kind(names)
    launches = []
    for call in (first, second):
        runs.clear()
        call.forward()
        call.backward()
        launches.append([(run.name, run.hash, run.grid) for run in runs])
    assert launches[0] == launches[1]
    alive = [weakref.ref(x) for x in tensors_of(second).values()]
    runs.clear()
    del call, second
    gc.collect()
    assert not any(x() is not None for x in alive)


def test_every_program_of_a_layout_is_launched_once_for_each_head(runs: list[Run]) -> None:
    call = FullCall("")
    call.forward()
    programs = programs_of(LAYOUT, LAYOUT, tiles_for(call.problem, call.query))
    assert sum(run.grid[0] for run in runs) == programs.count * HEADS
    tables = [*(table for _, table in programs.small), programs.query_tiles]
    assert [run.given["programs"] for run in runs] == [table.data_ptr() for table in tables]


def test_every_pass_over_edges_goes_by_its_own_order(runs: list[Run]) -> None:
    call = EdgeCall("values")
    call.forward()
    call.backward()
    orders = {
        "edge_forward": programs_by_target(EDGES), "edge_backward_queries":
        programs_by_target(EDGES), "edge_backward_keys": programs_by_source(EDGES),
    }  # fmt: skip
    assert {run.name for run in runs} == orders.keys()
    for run in runs:
        for name, x in orders[run.name].csr.items():
            assert run.given[name] == x.data_ptr(), run.name


@pytest.mark.parametrize("names", ["dropout", "pairs", "pairs by head", "table", "joined half"])
def test_other_batches_need_no_other_kernels(names: str, runs: list[Run]) -> None:
    """Numbers of nodes and pairs are no part of what is compiled."""
    hashes = []
    for sizes in ([5, 20, 40, 100], [6, 30, 33, 101]):
        call = FullCall(names, GraphLayout.from_sizes(sizes))
        runs.clear()
        call.forward()
        call.backward()
        hashes.append([(run.name, run.hash) for run in runs])
    assert hashes[0] == hashes[1]
    if "by head" in names:
        assert {run.given["pairs_head"] for run in runs} == {call.pairs.size(0)}


@pytest.mark.parametrize("whole", [False, True])
def test_a_step_on_one_graph_takes_memory_for_outputs_and_gradients_only(
    whole: bool, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None for pairs of nodes."""
    monkeypatch.setattr(backend, "unsupported", lambda inputs: None)
    monkeypatch.setattr(fused, "full_kernels", lambda query: full)
    nodes = 200_000
    layout = GraphLayout.from_sizes([nodes])
    joined = torch.randn(nodes, 3, HEADS, 16, requires_grad=True)
    grad = torch.randn(nodes, HEADS, 16)

    def step() -> None:
        if whole:
            out = qkv_attention(joined, layout, backend="triton")
        else:
            out = attention(*joined.unbind(1), layout, backend="triton")
        torch.autograd.grad(out, [joined], grad)

    with torch.profiler.profile(profile_memory=True, acc_events=True) as profiled:
        step()
    events = profiled.profiler.kineto_results.events()
    asked = sorted((x.start_ns(), x.nbytes()) for x in events if x.name() == "[memory]")
    most = max(itertools.accumulate(size for _, size in asked))
    # an output, and the gradients of three parts once, or twice where autograd joins them
    share = 4 / 3 if whole else 7 / 3
    assert share * joined.nbytes <= most < share * joined.nbytes + joined.nbytes / 4
