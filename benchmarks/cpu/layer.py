"""PyG's layers and ours with the same weights, in one run: ``python benchmarks/layer.py``.

Medians of ratios over interleaved rounds; outputs and input gradients are checked equal (without
dropout) before anything is timed. Peak memory is what tensors hold at once. In the same rounds run
the dense products of the layer alone and the attention kernel alone: their sum is a limit that no
layer of these parts can pass, and ``share`` is what is reached of it.
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

# Graphs of a batch, and nodes of a graph at these quantiles: those of ogbg-molhiv (PyG pads to the
# largest graph of a batch), of peptides-func from 80 nodes on, of PascalVOC-SP.
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


def products(model: torch.nn.Module, nodes: int, train: bool) -> Callable[[], None]:
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
                out = torch.nn.functional.linear(inputs[weight.size(1)], weight)
                if train:
                    torch.autograd.grad(out, (weight, inputs[weight.size(1)]), grads[out.size(1)])

    return run


def kernel(
    call: Callable[..., torch.Tensor], shape: Sequence[int], train: bool
) -> Callable[[], None]:
    """Attention alone, on parts of a joined projection."""
    joined = torch.randn(shape[0], 3, *shape[1:], requires_grad=train)
    grad = torch.randn(tuple(shape))

    def run() -> None:
        with torch.set_grad_enabled(train):
            parts = joined.unbind(1)
            out = call(*parts)
            if train:
                torch.autograd.grad(out, parts, grad)

    return run


def measured(
    calls: dict[str, Callable[[], None]], bare: dict[str, Callable[[], None]], rounds: int
) -> dict[str, Any]:
    """Times, the ratio of PyG's to ours, the limit of that ratio, and the share of it reached."""
    times = interleaved(calls | bare, rounds)
    times["least"] = [sum(parts) for parts in zip(*(times[name] for name in bare), strict=True)]
    gain, limit = ratio(times, "pyg", "pyg_gt"), ratio(times, "pyg", "least")
    return {
        "ms": median_ms(times),
        "ratio": round(gain, 2),
        "limit": round(limit, 2),
        "share": round(ratio(times, "least", "pyg_gt"), 2),
        "peak_mib": {name: peak_mib(call) for name, call in calls.items()},
    }


def report(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Keeps a row and prints it."""
    rows.append(row)
    ms, mib = row["ms"], row["peak_mib"]
    print(
        f"{row['shape']:<10} {row['mode']:<30} {ms['pyg']:>9} {ms['pyg_gt']:>9} {row['ratio']:>6} "
        f"{row['limit']:>6} {row['share']:>6}  {mib['pyg']} / {mib['pyg_gt']}",
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
        edges_of = pyg_gt.EdgeLayout.of(edge_index, nodes)
        one = pyg_gt.GraphLayout.of(None, nodes)
        call = partial(pyg_gt.attention, layout=one, biases=(pyg_gt.EdgeMask(edges_of),))
        for mode, calls in (("train", train), ("eval forward", forward)):
            bare = {
                "products": products(ours, nodes, mode == "train"),
                "kernel": kernel(call, (nodes, args.heads, shape[1]), mode == "train"),
            }
            row = {"shape": f"E={edges}", "nodes": nodes, "edges": edges, "mode": mode}
            report(rows, row | measured(calls, bare, args.rounds))


def main() -> None:
    """Runs all shapes and modes, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / "layer_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    print(
        f"{'shape':<10} {'mode':<30} {'pyg ms':>9} {'pyg_gt ms':>9} {'ratio':>6} {'limit':>6} "
        f"{'share':>6}  peak MiB"
    )
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
            layout = pyg_gt.GraphLayout.of(batch, batch.numel())
            dropout_p = 0.5 if "0.5" in mode else 0.0
            call = partial(pyg_gt.attention, layout=layout, dropout_p=dropout_p)
            sizes = (batch.numel(), args.heads, args.channels // args.heads)
            bare = {
                "products": products(models["pyg_gt"], batch.numel(), "train" in mode),
                "kernel": kernel(call, sizes, "train" in mode),
            }
            row = {"shape": shape, "nodes": batch.numel(), "mode": mode}
            report(rows, row | measured(calls, bare, args.rounds))
    along_edges(rows, args)
    config = {"channels": args.channels, "heads": args.heads, "rounds": args.rounds}
    write(args.out, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    main()
