"""Backends and their thresholds on a CPU: ``python -m benchmarks.cpu.attention``.

H = 4, C = 16, one thread: every backend that runs full attention on a CPU, with and without biases
and dropout; torch's fused kernel against batched products for graphs of one size, and the size of
a slice that is computed in one step (``sdpa``); the backends on edges. Every candidate is checked
against the ``reference`` backend (without dropout) before it is timed; all candidates of a row run
interleaved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import RESULTS, environment, parser, write
from benchmarks.timing import interleaved, median_ms
from pyg_gt import EdgeMask, GraphLayout, PairBias, TableBias, attention
from pyg_gt.ops import AttentionBias
from pyg_gt.ops._kernels.torch_ops import buckets, full

HEADS, CHANNELS = 4, 16
SIZES = ((16, 256), (24, 128), (32, 128), (48, 64), (64, 64), (96, 32), (200, 16), (450, 8))
SLICES = (16, 18, 19, 20, 22, 25)
# nodes of each graph, at random between the two; graphs
RAGGED = ((2, 6, 512), (10, 40, 128), (80, 444, 32), (395, 500, 16), (3000, 3000, 1))
# nodes of a graph, graphs, edges into a node
EDGES = ((25, 128, 2), (150, 32, 2), (150, 32, 50), (2000, 1, 14))
# one call to time, which may be given a dropout_p
Attend = Callable[..., Tensor]
Note = Callable[[str, str, dict[str, float]], None]


def tensors(num_nodes: int) -> tuple[Tensor, ...]:
    """Query, key and value ``[N, H, C]`` that want gradients."""
    return tuple(torch.randn(num_nodes, HEADS, CHANNELS, requires_grad=True) for _ in range(3))


def check_same(run: Attend, qkv: tuple[Tensor, ...], want: list[Tensor]) -> None:
    """Raises unless ``run`` gives the outputs and gradients of the reference."""
    for got, expected in zip(results(run, qkv), want, strict=True):
        close = {} if got.dtype == torch.float32 else {"rtol": 0.02, "atol": 0.05}
        torch.testing.assert_close(got, expected, **(close or {"rtol": 1e-4, "atol": 1e-5}))


def results(run: Attend, qkv: tuple[Tensor, ...]) -> list[Tensor]:
    """The output and the gradients of query, key and value."""
    for x in qkv:
        x.grad = None
    out = run()
    out.sin().sum().backward()
    return [out.detach(), *(x.grad.clone() for x in qkv)]


def train(run: Attend) -> None:
    """Forward and backward."""
    run().sum().backward()


def timed(
    candidates: dict[str, Attend], reference: Attend, qkv: tuple[Tensor, ...], rounds: int,
    dropout_p: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """Median milliseconds of forward and of forward and backward, by candidate.

    Compared with the reference without dropout.
    """
    want = results(reference, qkv)
    calls: dict[str, Callable[[], Any]] = {}
    for name, run in candidates.items():
        check_same(run, qkv, want)
        call = partial(run, dropout_p=dropout_p)
        calls[f"{name}, forward"] = torch.no_grad()(call)
        calls[f"{name}, train"] = partial(train, call)
    return median_ms(interleaved(calls, rounds))


def with_settings(run: Attend, fused_from: int, slice_size: int) -> Attend:
    """``run`` under other thresholds."""

    def call(**kwargs: Any) -> Tensor:
        full._FUSED_FROM, buckets._MAX_SCORES["cpu"] = fused_from, slice_size
        return run(**kwargs)

    return call


def biases_of(kind: str, layout: GraphLayout) -> tuple[AttentionBias, ...]:
    """A learnable bias of this kind."""
    if kind == "pair bias":
        return (PairBias(torch.randn(layout.num_pairs, HEADS, requires_grad=True)),)
    if kind == "table bias":
        index = torch.randint(20, (layout.num_pairs,), dtype=torch.uint8)
        return (TableBias(torch.randn(20, HEADS, requires_grad=True), index),)
    return ()


def ragged(rounds: int, note: Note) -> None:
    """The backends that run full attention on a CPU."""
    for low, high, graphs in RAGGED:
        sizes = torch.randint(low, high + 1, (graphs,)).tolist()
        layout = GraphLayout.from_sizes(sizes)
        for kind in ("plain", "dropout 0.5", "pair bias", "table bias", "bfloat16"):
            qkv = tensors(layout.num_nodes)
            if kind == "bfloat16":
                qkv = tuple(x.detach().bfloat16().requires_grad_() for x in qkv)
            run = partial(attention, *qkv, layout, biases_of(kind, layout))
            named = {name: partial(run, backend=name) for name in ("cpu", "sdpa")}
            reference = partial(run, backend="reference")
            p = 0.5 if kind == "dropout 0.5" else 0.0
            shape = f"{graphs} x {low}-{high}, {kind}"
            note("full", shape, timed(named, reference, qkv, rounds, p))


def thresholds(rounds: int, note: Note) -> None:
    """Fused or batched products in ``sdpa``, and the scores of one slice."""
    chosen = full._FUSED_FROM, buckets._MAX_SCORES["cpu"]
    for nodes, graphs in SIZES:
        layout = GraphLayout.from_sizes([nodes] * graphs)
        qkv = tensors(layout.num_nodes)
        run = partial(attention, *qkv, layout, backend="sdpa")
        reference = partial(attention, *qkv, layout, backend="reference")
        both = {
            "fused": with_settings(run, 1, chosen[1]),
            "products": with_settings(run, 2**62, chosen[1]),
        }
        note("fused or products", f"{graphs} x {nodes}", timed(both, reference, qkv, rounds))
        if nodes in (24, 200, 450):
            sizes = {f"2^{k}": with_settings(run, 2**62, 2**k) for k in SLICES}
            note("slices", f"{graphs} x {nodes}", timed(sizes, reference, qkv, rounds))
    full._FUSED_FROM, buckets._MAX_SCORES["cpu"] = chosen


def along_edges(rounds: int, note: Note) -> None:
    """The backends that run on edges on a CPU."""
    for nodes, graphs, degree in EDGES:
        layout = GraphLayout.from_sizes([nodes] * graphs)
        qkv = tensors(layout.num_nodes)
        target = torch.arange(layout.num_nodes).repeat_interleave(degree)
        source = target // nodes * nodes + torch.randint(nodes, target.shape)
        run = partial(attention, *qkv, layout, (EdgeMask(torch.stack([source, target])),))
        named = {name: partial(run, backend=name) for name in ("cpu", "sparse", "sdpa")}
        reference = partial(run, backend="reference")
        shape = f"{graphs} x {nodes}, degree {degree}"
        note("edges", shape, timed(named, reference, qkv, rounds))


def main() -> None:
    """Runs the tables, prints them, writes JSON."""
    arguments = parser(__doc__, RESULTS / "attention_cpu.json", rounds=9)
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("full", "fused or products", "slices", "edges")
    }

    def note(table: str, shape: str, ms: dict[str, float]) -> None:
        tables[table].append({"shape": shape, "ms": ms})
        print(f"{table}: {shape}: {ms}", flush=True)

    for measure in (ragged, thresholds, along_edges):
        measure(args.rounds, note)
    write(args.out, {"environment": environment(), "heads": HEADS, "channels": CHANNELS, **tables})


if __name__ == "__main__":
    main()
