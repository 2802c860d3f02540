"""PyG's layers and ours with the same weights, in one run: ``python benchmarks/layer.py``.

One thread; medians of ratios over interleaved rounds; outputs and input gradients are checked
equal (without dropout) before anything is timed. Peak memory is what tensors hold at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric.nn as pyg
from timing import environment, interleaved, median_ms, peak_mib, ratio, write

import pyg_gt

# Graphs of a batch, and nodes of a graph at these quantiles: of ogbg-molhiv as they are (PyG pads to
# the largest of a batch), of peptides-func from 80 nodes on, of PascalVOC-SP.
SHAPES = {
    "molecules": (
        128,
        (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1),
        (2, 9, 13, 18, 23, 29, 46, 70, 123, 222),
    ),
    "peptides": (64, (0, 1), (80, 444)),
    "voc": (32, (0, 1), (395, 500)),
}
MODES = ("train", "train, attention dropout 0.5", "eval forward")


def batch_of(
    graphs: int, quantiles: Sequence[float], nodes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """``batch [N]`` and an ``edge_index`` of molecule-like degree (each graph a ring)."""
    drawn = np.interp(torch.rand(graphs).numpy(), quantiles, nodes).round()
    sizes = torch.from_numpy(drawn).long()
    batch = torch.repeat_interleave(sizes)
    start = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    node = torch.arange(batch.numel())
    following = start + (node - start + 1) % sizes[batch]
    forth = torch.stack([node, following])
    return batch, torch.cat([forth, forth.flip(0)], dim=1)


def layers(channels: int, heads: int, dropout: float) -> dict[str, torch.nn.Module]:
    """PyG's layer and ours, with one set of weights."""

    def local() -> torch.nn.Module:
        return pyg.GINConv(torch.nn.Linear(channels, channels))

    kwargs = {"dropout": dropout}
    theirs = pyg.GPSConv(channels, local(), heads, attn_kwargs=kwargs)
    ours = pyg_gt.nn.GPSConv(channels, local(), heads, attn_kwargs=kwargs)
    ours.load_state_dict(theirs.state_dict())
    return {"pyg": theirs, "pyg_gt": ours}


def checked(models: dict[str, torch.nn.Module], inputs: tuple[Any, ...]) -> None:
    """Raises unless both give the same outputs and input gradients."""
    results = []
    for model in models.values():
        x = inputs[0].clone().requires_grad_()
        out = model(x, *inputs[1:])
        # the gradient of a plain sum vanishes behind BatchNorm
        weight = torch.linspace(-1, 1, out.numel()).view_as(out)
        (out * weight).sum().backward()
        results.append((out.detach(), x.grad))
        model.zero_grad()
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def step(model: torch.nn.Module, inputs: tuple[Any, ...], train: bool) -> Callable[[], None]:
    """One call to time; a train step makes its batch anew, as a loader would."""

    def run() -> None:
        x, edge_index, batch = inputs
        if train:
            model(x, edge_index, batch.clone()).sum().backward()
        else:
            with torch.no_grad():
                model(x, edge_index, batch.clone())

    return run


def train_step(model: torch.nn.Module, *inputs: Any) -> None:
    """Forward and backward."""
    model(*inputs).sum().backward()


def report(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Keeps a row and prints it."""
    rows.append(row)
    ms, mib = row["ms"], row["peak_mib"]
    print(
        f"{row['shape']:<10} {row['mode']:<30} {ms['pyg']:>9} {ms['pyg_gt']:>9} "
        f"{row['ratio']:>6}  {mib['pyg']} / {mib['pyg_gt']}",
        flush=True,
    )


def along_edges(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """``TransformerConv``: a batch of molecules, and one large graph of two densities."""
    for nodes, edges in ((3_200, 6_800), (20_000, 280_000), (20_000, 1_000_000)):
        torch.manual_seed(0)
        x = torch.randn(nodes, args.channels, requires_grad=True)
        edge_index = torch.randint(nodes, (2, edges))
        shape = (args.channels, args.channels // args.heads, args.heads)
        theirs, ours = pyg.TransformerConv(*shape), pyg_gt.nn.MaskedTransformerConv(*shape)
        ours.load_state_dict(theirs.state_dict())
        models = {"pyg": theirs, "pyg_gt": ours}
        checked(models, (x.detach(), edge_index))
        forward = {n: torch.no_grad()(partial(m, x, edge_index)) for n, m in models.items()}
        train = {n: partial(train_step, m, x, edge_index) for n, m in models.items()}
        for mode, calls in (("train", train), ("eval forward", forward)):
            times = interleaved(calls, args.rounds)
            row = {"shape": f"E={edges}", "nodes": nodes, "edges": edges, "mode": mode}
            row |= {"ms": median_ms(times), "ratio": round(ratio(times, "pyg", "pyg_gt"), 2)}
            row["peak_mib"] = {name: peak_mib(call) for name, call in calls.items()}
            report(rows, row)


def main() -> None:
    """Runs all shapes and modes, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / "layer_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    print(f"{'shape':<10} {'mode':<30} {'pyg ms':>9} {'pyg_gt ms':>9} {'ratio':>6}  peak MiB")
    for shape in args.shapes:
        torch.manual_seed(0)
        batch, edge_index = batch_of(*SHAPES[shape])
        x = torch.randn(batch.numel(), args.channels)
        for mode in MODES:
            models = layers(args.channels, args.heads, 0.5 if "0.5" in mode else 0.0)
            inputs = (x.requires_grad_("train" in mode), edge_index, batch)
            for model in models.values():
                # what is checked is the function without dropout, in train mode otherwise
                model.train("0.5" not in mode and "eval" not in mode)
            checked(models, (x.detach(), edge_index, batch))
            for model in models.values():
                model.train("train" in mode)
            calls = {name: step(m, inputs, "train" in mode) for name, m in models.items()}
            times = interleaved(calls, args.rounds)
            ms = median_ms(times)
            gain = round(ratio(times, "pyg", "pyg_gt"), 2)
            mib = {name: peak_mib(call) for name, call in calls.items()}
            report(rows, {"shape": shape, "nodes": batch.numel(), "mode": mode, "ms": ms,
                          "ratio": gain, "peak_mib": mib})  # fmt: skip
    along_edges(rows, args)
    config = {"channels": args.channels, "heads": args.heads, "rounds": args.rounds}
    write(args.out, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    main()
