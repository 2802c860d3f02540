"""Whole layers, PyG's and ours with the same weights; how often compiled ones recompile."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pyg_gt
from benchmarks.batches import SHAPES, batch_of
from benchmarks.gpu.cuda_graphs import captured
from benchmarks.gpu.section import Row, Section, one_line
from benchmarks.layers import (
    ALONG_EDGES,
    GPS,
    MODES,
    checked_calls,
    edge_layers,
    gps_layers,
)
from benchmarks.timing import batched, in_one_thread, median_ms, peak_mib, ratio

CHANNELS, HEADS = 64, 4
ONE_THREAD = ("pyg, one thread", "pyg_gt, one thread")


def run(section: Section) -> None:
    """``GPSConv`` with a new batch in every step, ``TransformerConv`` along edges."""
    shapes: dict[str, tuple[Any, ...]] = dict(SHAPES)
    edges = {"E=1M": (20_000, 1_000_000), "E=280k": (20_000, 280_000)}
    if section.tiny:
        shapes = {"molecules": (4, (0, 1), (2, 9))}
        edges = {"E=400": (60, 400)}
    for shape, sizes in shapes.items():
        torch.manual_seed(0)
        batch, edge_index = (t.to(section.device) for t in batch_of(*sizes))
        for mode in MODES:
            what = f"GPSConv, {shape}, {mode}"
            if section.has_time(what):
                with section.guarded(what):
                    gps(section, shape, mode, batch, edge_index)
    for shape, (nodes, count) in edges.items():
        what = f"TransformerConv, {shape}"
        if section.has_time(what):
            with section.guarded(what):
                transformer(section, shape, nodes, count)


def gps(section: Section, shape: str, mode: str, batch: Tensor, edge_index: Tensor) -> None:
    """Compared without dropout, then timed in its mode."""
    device, train = section.device, "train" in mode
    models = gps_layers(GPS, CHANNELS, HEADS, mode)
    for model in models.values():
        model.to(device)
    inputs = (torch.randn(batch.numel(), CHANNELS, device=device), edge_index, batch)
    calls = checked_calls(models, inputs, mode)
    if train:  # host time, which these layers are bound by, depends on the thread
        calls |= {f"{name}, one thread": in_one_thread(call) for name, call in calls.items()}
    row: Row = {"layer": "GPSConv", "shape": shape, "nodes": batch.numel(), "mode": mode}
    if train and device == "cuda":
        # of one batch, as of one graph in full-batch training; PyG's padding reads the host
        try:
            # a capture takes a layout, whose sizes are then those of all replays
            layout = pyg_gt.GraphLayout.of(batch, batch.numel())
            call = partial(gradients, models["pyg_gt"], (*inputs[:2], layout))
            calls["pyg_gt in a CUDA graph"] = captured(call)
        except Exception as error:
            row["not_captured"] = one_line(error)
    section.add(row | timed(section, calls))


def gradients(model: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Forward and backward, with nothing written outside."""
    leaves = [inputs[0], *(x for x in model.parameters() if x.requires_grad)]
    return torch.autograd.grad(model(*inputs).square().sum(), leaves)


def transformer(section: Section, shape: str, nodes: int, count: int) -> None:
    """``TransformerConv`` and ``MaskedTransformerConv``; the edges stay the same."""
    torch.manual_seed(0)
    device = section.device
    models = edge_layers(ALONG_EDGES, CHANNELS, HEADS)
    for model in models.values():
        model.to(device)
    inputs = (
        torch.randn(nodes, CHANNELS, device=device),
        torch.randint(nodes, (2, count), device=device),
    )
    for mode in ("train", "eval forward"):
        calls = checked_calls(models, inputs, mode)
        row = {"layer": "TransformerConv", "shape": shape, "nodes": nodes, "mode": mode}
        section.add(row | {"edges": count} | timed(section, calls))


def timed(section: Section, calls: dict[str, Callable[[], Any]]) -> Row:
    """Medians, and the medians of PyG's time over the others'."""
    cuda = section.device == "cuda"
    # a CUDA graph has its memory for good
    counted = [name for name in calls if cuda and name in ("pyg", "pyg_gt")]
    memory = {name: peak_mib(calls[name], "cuda") for name in counted}
    times = batched(calls, 0.02 if section.tiny else 0.6)
    more = {}
    if all(name in times for name in ONE_THREAD):
        more["one_thread_over"] = round(ratio(times, *ONE_THREAD), 3)
    alone = [name for name in times if name != "pyg" and name not in ONE_THREAD]
    return more | {
        "channels": CHANNELS, "heads": HEADS, "dtype": "float32", "checked": True,
        "ms": median_ms(times, 4),
        "peak_mib": memory,
        "pyg_over": {name: round(ratio(times, "pyg", name), 3) for name in alone},
    }  # fmt: skip


def recompiles(section: Section) -> None:
    """How many graphs ``torch.compile`` makes over different batches: flex, and a model of GPS."""
    number = 4 if section.tiny else 100
    for name, make in (("flex", _flex), ("GPSConv", _gps)):
        if section.has_time(name):
            with section.guarded(name):
                torch._dynamo.reset()
                call = make(section)
                done, before = 0, _graphs()
                for seed in range(number):
                    if not section.has_time(f"{name}, from batch {seed} on"):
                        break
                    torch.manual_seed(seed)
                    graphs = int(torch.randint(2, 6 if section.tiny else 200, ()))
                    call(*(t.to(section.device) for t in batch_of(graphs, (0, 1), (2, 40))))
                    done += 1
                row = {"compiled": name, "batches": done, "graphs": _graphs() - before}
                section.add(row)


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _flex(section: Section) -> Callable[[Tensor, Tensor], None]:
    train = section.device == "cuda"  # it has no backward elsewhere
    dtype = torch.bfloat16 if train else torch.float32

    def call(batch: Tensor, edge_index: Tensor) -> None:
        x = torch.randn(batch.numel(), HEADS, 16, device=batch.device, dtype=dtype)
        x.requires_grad_(train)
        layout = pyg_gt.GraphLayout.of(batch, batch.numel())
        out = pyg_gt.attention(x, x, x, layout, backend="flex")
        want = pyg_gt.attention(x, x, x, layout, backend="reference")
        torch.testing.assert_close(out, want, rtol=3e-2, atol=3e-2)
        if train:
            out.sum().backward()

    return call


class _Stack(torch.nn.ModuleList):
    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, edge_index, batch)
        return x


def _gps(section: Section) -> Callable[[Tensor, Tensor], None]:
    pairs = (gps_layers(GPS, CHANNELS, HEADS, "train") for _ in range(2))
    model = _Stack(pair["pyg_gt"] for pair in pairs).to(section.device)
    twin = copy.deepcopy(model)
    compiled = torch.compile(
        model, backend="inductor" if section.device == "cuda" else "aot_eager"
    )

    def call(batch: Tensor, edge_index: Tensor) -> None:
        x = torch.randn(batch.numel(), CHANNELS, device=batch.device)
        out, want = compiled(x, edge_index, batch), twin(x, edge_index, batch)
        torch.testing.assert_close(out, want, rtol=1e-2, atol=1e-2)
        out.sum().backward()

    return call
