"""What the order of the backends and their thresholds rest on: ``python benchmarks/attention.py``.

H = 4, C = 16, one thread: every backend that runs full attention on a CPU, with and without biases
and dropout; torch's fused kernel against batched products for graphs of one size, and the size of
a slice that is computed in one step (``sdpa``); the backends on edges. Every candidate is checked
against the ``reference`` backend (without dropout) before it is timed; all candidates of a row run
interleaved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import environment, interleaved, median_ms, write
from torch import Tensor

from pyg_gt import EdgeMask, GraphLayout, PairBias, TableBias, attention
from pyg_gt.ops import AttentionBias, _bucketed, _buckets

HEADS, CHANNELS = 4, 16
SIZES = ((16, 256), (24, 128), (32, 128), (48, 64), (64, 64), (96, 32), (200, 16), (450, 8))
SLICES = (16, 18, 19, 20, 22, 25)
# nodes of each graph, at random between the two; graphs
RAGGED = ((2, 6, 512), (10, 40, 128), (80, 444, 32), (395, 500, 16), (3000, 3000, 1))
EDGES = ((25, 128, 2), (150, 32, 2), (150, 32, 50), (2000, 1, 14))


def tensors(num_nodes: int) -> tuple[Tensor, ...]:
    """Query, key and value ``[N, H, C]`` that want gradients."""
    return tuple(torch.randn(num_nodes, HEADS, CHANNELS, requires_grad=True) for _ in range(3))


def checked(run: Callable[[], Tensor], qkv: tuple[Tensor, ...], want: list[Tensor]) -> None:
    """Raises unless ``run`` gives the outputs and gradients of the reference."""
    for got, expected in zip(results(run, qkv), want, strict=True):
        close = {} if got.dtype == torch.float32 else {"rtol": 0.02, "atol": 0.05}
        torch.testing.assert_close(got, expected, **(close or {"rtol": 1e-4, "atol": 1e-5}))


def results(run: Callable[[], Tensor], qkv: tuple[Tensor, ...]) -> list[Tensor]:
    """The output and the gradients of query, key and value."""
    for x in qkv:
        x.grad = None
    out = run()
    out.sin().sum().backward()
    return [out.detach(), *(x.grad.clone() for x in qkv)]


def train(run: Callable[[], Tensor]) -> None:
    """Forward and backward."""
    run().sum().backward()


def timed(
    candidates: dict[str, Callable[[], Tensor]], reference: Callable[[], Tensor],
    qkv: tuple[Tensor, ...], rounds: int,
) -> dict[str, float]:  # fmt: skip
    """Median milliseconds of forward and of forward and backward, by candidate."""
    want = results(reference, qkv)
    calls: dict[str, Callable[[], Any]] = {}
    for name, run in candidates.items():
        checked(run, qkv, want)

        calls[f"{name}, forward"] = torch.no_grad()(run)
        calls[f"{name}, train"] = partial(train, run)
    return median_ms(interleaved(calls, rounds))


def with_settings(
    run: Callable[[], Tensor], fused_from: int, slice_size: int
) -> Callable[[], Tensor]:
    """``run`` under other thresholds."""

    def call() -> Tensor:
        _bucketed._FUSED_FROM, _buckets._MAX_SCORES["cpu"] = fused_from, slice_size
        return run()

    return call


def biases_of(kind: str, layout: GraphLayout) -> tuple[AttentionBias, ...]:
    """A learnable bias of this kind."""
    if kind == "pair bias":
        return (PairBias(torch.randn(layout.num_pairs, HEADS, requires_grad=True)),)
    if kind == "table bias":
        index = torch.randint(20, (layout.num_pairs,), dtype=torch.uint8)
        return (TableBias(torch.randn(20, HEADS, requires_grad=True), index),)
    return ()


def ragged(rounds: int, note: Callable[[str, str, dict[str, float]], None]) -> None:
    """The backends that run full attention on a CPU."""
    for low, high, graphs in RAGGED:
        sizes = torch.randint(low, high + 1, (graphs,)).tolist()
        layout = GraphLayout.from_sizes(sizes)
        for kind in ("plain", "dropout 0.5", "pair bias", "table bias", "bfloat16"):
            qkv = tensors(layout.num_nodes)
            if kind == "bfloat16":
                qkv = tuple(x.detach().bfloat16().requires_grad_() for x in qkv)
            biases = biases_of(kind, layout)

            run = partial(attention, *qkv, layout, biases)
            named = {name: partial(run, backend=name) for name in ("cpu", "sdpa")}
            reference = partial(run, backend="reference")
            shape = f"{graphs} x {low}-{high}, {kind}"
            if kind != "dropout 0.5":
                note("full", shape, timed(named, reference, qkv, rounds))
                continue
            for call in named.values():
                checked(call, qkv, results(reference, qkv))
            dropping = {name: partial(run, backend=name, dropout_p=0.5) for name in named}
            calls: dict[str, Callable[[], Any]] = {}
            for name, call in dropping.items():
                calls[f"{name}, forward"] = torch.no_grad()(call)
                calls[f"{name}, train"] = partial(train, call)
            note("full", shape, median_ms(interleaved(calls, rounds)))


def main() -> None:
    """Runs the tables, prints them, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    results_folder = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results_folder / "attention_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = _bucketed._FUSED_FROM, _buckets._MAX_SCORES["cpu"]
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("full", "fused or products", "slices", "edges")
    }

    def note(table: str, shape: str, ms: dict[str, float]) -> None:
        tables[table].append({"shape": shape, "ms": ms})
        print(f"{table}: {shape}: {ms}", flush=True)

    ragged(args.rounds, note)
    for nodes, graphs in SIZES:
        layout = GraphLayout.from_sizes([nodes] * graphs)
        qkv = tensors(layout.num_nodes)

        run = partial(attention, *qkv, layout, backend="sdpa")
        reference = partial(attention, *qkv, layout, backend="reference")
        both = {
            "fused": with_settings(run, 1, chosen[1]),
            "products": with_settings(run, 2**62, chosen[1]),
        }
        note("fused or products", f"{graphs} x {nodes}", timed(both, reference, qkv, args.rounds))
        if nodes in (24, 200, 450):
            sizes = {f"2^{k}": with_settings(run, 2**62, 2**k) for k in SLICES}
            note("slices", f"{graphs} x {nodes}", timed(sizes, reference, qkv, args.rounds))
    _bucketed._FUSED_FROM, _buckets._MAX_SCORES["cpu"] = chosen

    for nodes, graphs, degree in EDGES:
        layout = GraphLayout.from_sizes([nodes] * graphs)
        qkv = tensors(layout.num_nodes)
        target = torch.arange(layout.num_nodes).repeat_interleave(degree)
        source = target // nodes * nodes + torch.randint(nodes, target.shape)
        mask = EdgeMask(torch.stack([source, target]))
        named = {
            name: partial(attention, *qkv, layout, (mask,), backend=name)
            for name in ("cpu", "sparse", "sdpa", "reference")
        }
        reference = named.pop("reference")
        shape = f"{graphs} x {nodes}, degree {degree}"
        note("edges", shape, timed(named, reference, qkv, args.rounds))
    write(args.out, {"environment": environment(), "heads": HEADS, "channels": CHANNELS, **tables})


if __name__ == "__main__":
    main()
