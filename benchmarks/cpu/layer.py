"""PyG's layers and ours with the same weights, in one run: ``python -m benchmarks.cpu.layer``.

Medians of ratios over interleaved rounds; outputs and input gradients are checked equal (without
dropout) before anything is timed. Peak memory is what tensors hold at once. In the same rounds run
the dense products of the layer alone and the attention kernel alone: their sum is a limit that no
layer of these parts can pass, and ``share`` is what is reached of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

import pyg_gt
from benchmarks.batches import SHAPES
from benchmarks.layers import ALONG_EDGES, GPS, Case, dropout_of, edge_cases, gps_cases
from benchmarks.record import RESULTS, environment, parser, write
from benchmarks.timing import interleaved, median_ms, peak_mib, ratio


def products(model: nn.Module, nodes: int, train: bool) -> Callable[[], None]:
    """The linear maps of a layer on inputs of their own, one after the other."""
    weights = [
        w.detach().clone().requires_grad_(train)
        for w in model.parameters()
        if w.dim() == 2 and min(w.shape) > 1
    ]
    inputs = {w.size(1): torch.randn(nodes, w.size(1), requires_grad=train) for w in weights}
    grads = {w.size(0): torch.randn(nodes, w.size(0)) for w in weights}

    def run() -> None:
        with torch.set_grad_enabled(train):
            for weight in weights:
                out = nn.functional.linear(inputs[weight.size(1)], weight)
                if train:
                    torch.autograd.grad(out, (weight, inputs[weight.size(1)]), grads[out.size(1)])

    return run


def kernel(case: Case, heads: int, train: bool) -> Callable[[], None]:
    """Attention alone, on parts of a joined projection."""
    x, edge_index, *batch = case.inputs
    nodes, channels = x.shape
    joined = torch.randn(nodes, 3, heads, channels // heads, requires_grad=train)
    grad = torch.randn(nodes, heads, channels // heads)
    attend: Callable[..., Tensor]
    if batch:
        layout = pyg_gt.GraphLayout.of(batch[0], nodes)
        attend = partial(pyg_gt.attention, layout=layout, dropout_p=dropout_of(case.row["mode"]))
    else:
        mask = pyg_gt.EdgeMask(pyg_gt.EdgeLayout.of(edge_index, nodes))
        layout = pyg_gt.GraphLayout.of(None, nodes)
        attend = partial(pyg_gt.attention, layout=layout, biases=(mask,))

    def run() -> None:
        with torch.set_grad_enabled(train):
            parts = joined.unbind(1)
            out = attend(*parts)
            if train:
                torch.autograd.grad(out, parts, grad)

    return run


def measured(case: Case, heads: int, rounds: int) -> dict[str, Any]:
    """Times, the ratio of PyG's to ours, the limit of that ratio, and the share of it reached."""
    train = "train" in case.row["mode"]
    parts = {
        "products": products(case.models["pyg_gt"], case.inputs[0].size(0), train),
        "kernel": kernel(case, heads, train),
    }
    times = interleaved(case.calls | parts, rounds)
    times["least"] = [sum(pair) for pair in zip(*(times[name] for name in parts), strict=True)]
    return {
        "ms": median_ms(times),
        "ratio": round(ratio(times, "pyg", "pyg_gt"), 2),
        "limit": round(ratio(times, "pyg", "least"), 2),
        "share": round(ratio(times, "least", "pyg_gt"), 2),
        "peak_mib": {name: peak_mib(call) for name, call in case.calls.items()},
    }


def line(cells: Sequence[Any]) -> str:
    """One line of the table."""
    return "{:<10} {:<30} {:>9} {:>9} {:>6} {:>6} {:>6}  {}".format(*cells)


def main() -> None:
    """Runs all shapes and modes, prints a table, writes JSON."""
    arguments = parser(__doc__, RESULTS / "layer_cpu.json", rounds=15)
    arguments.add_argument("--channels", type=int, default=64)
    arguments.add_argument("--heads", type=int, default=4)
    shapes = [*SHAPES, "edges"]
    arguments.add_argument("--shapes", nargs="+", default=shapes, choices=shapes)
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    print(line(["shape", "mode", "pyg ms", "pyg_gt ms", "ratio", "limit", "share", "peak MiB"]))
    rows: list[dict[str, Any]] = []
    sizes = (args.channels, args.heads, args.shapes)
    for case in chain(gps_cases(GPS, *sizes), edge_cases(ALONG_EDGES, *sizes)):
        row = case.row | measured(case, args.heads, args.rounds)
        rows.append(row)
        ms, mib = row["ms"], row["peak_mib"]
        cells = [row[key] for key in ("ratio", "limit", "share")]
        peak = f"{mib['pyg']} / {mib['pyg_gt']}"
        print(line([row["shape"], row["mode"], ms["pyg"], ms["pyg_gt"], *cells, peak]), flush=True)
    config = {"channels": args.channels, "heads": args.heads, "rounds": args.rounds}
    write(args.out, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    main()
