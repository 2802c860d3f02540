"""Train a GIN, a GPS model and a Transformer, and compare them.

Without arguments: a generated task that needs a view of the whole graph, in about two minutes on
two CPU cores. On real molecules, the GPS model with the published settings of GraphGPS:

    python examples/train.py --dataset ogbg-molhiv --root DIR [--download]

`DIR` holds OGB's folder `ogbg_molhiv`. A short try: add `--limit 500 --epochs 1`.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

# Waiting threads sleep instead of spinning, which on cores that others use too is many times as
# slow. OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch_geometric
from graph_model import LAYERS, GraphModel, Shape
from report import Epoch, Result, number, plot, table, write_json
from tasks import Task, long_range, molecules
from torch import Tensor
from torch_geometric.loader import DataLoader
from tqdm import tqdm

import pyg_gt

# What an argument is when it is not given. The second column is GraphGPS's
# configs/GPS/ogbg-molhiv-GPS+RWSE.yaml (https://github.com/rampasek/GraphGPS).
DEFAULTS = {
    #                 long-range       molecules
    "models": ("gin,gps,transformer", "gps"),
    "epochs": (10, 100),
    "warmup_epochs": (1, 5),
    "batch_size": (64, 32),
    "lr": (2e-3, 1e-4),
    "layers": (4, 10),
    "channels": (64, 64),
    "heads": (4, 4),
    "dropout": (0.0, 0.05),
    "attn_dropout": (0.0, 0.5),
}
WEIGHT_DECAY, MAX_GRADIENT_NORM = 1e-5, 1.0


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    def whole(text: str) -> int:
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
        return value

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="long-range", help="long-range (default) or an ogbg-mol* name")
    add("--root", type=Path, help="folder that holds the OGB datasets; written to on first use")
    add("--download", action="store_true", help="fetch an OGB dataset that is not in --root")
    add("--models", help="comma-separated: gin, gps, transformer")
    add("--epochs", type=whole)
    add("--batch-size", type=whole)
    add("--lr", type=float)
    add("--layers", type=whole)
    add("--channels", type=whole, help="a multiple of 4, the number of attention heads")
    add("--limit", type=whole, help="use the first so many graphs of each part of the split")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--backend", default="auto", help="attention backend, see pyg_gt.attention")
    add("--num-workers", type=int, default=0, help="processes that load data")
    add("--out", type=Path, default=Path("runs"), help="folder for the JSON file and the plot")
    args = parser.parse_args(given)

    real = args.dataset.startswith("ogbg-mol")
    for name, values in DEFAULTS.items():
        if getattr(args, name, None) is None:
            setattr(args, name, values[real])
    args.models = args.models.split(",")
    if not real and args.dataset != "long-range":
        parser.error(f"--dataset must be long-range or an ogbg-mol* name, got {args.dataset!r}")
    if real and args.root is None:
        parser.error(f"--dataset {args.dataset} needs --root")
    if unknown := set(args.models) - set(LAYERS):
        parser.error(f"--models takes {', '.join(LAYERS)}; got {', '.join(sorted(unknown))!r}")
    if args.channels % args.heads:
        parser.error(f"--channels must be a multiple of {args.heads}, got {args.channels}")
    if args.lr <= 0 or args.num_workers < 0:
        parser.error("--lr must be above 0 and --num-workers at least 0")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {args.device}: {str(error).splitlines()[0]}")
    return args


def loader(task: Task, part: str, args: argparse.Namespace) -> DataLoader:
    train = part == "train"
    return DataLoader(
        task.parts[part],
        batch_size=args.batch_size if train else 4 * args.batch_size,
        shuffle=train,
        num_workers=args.num_workers,
        persistent_workers=args.num_workers > 0,
        generator=torch.Generator().manual_seed(args.seed),
    )


@torch.no_grad()
def evaluate(model: GraphModel, batches: DataLoader, task: Task, device: str) -> float | None:
    model.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in batches:
        logits.append(model(batch.to(device)).cpu())
        labels.append(batch.y.cpu())
    return task.score(torch.cat(logits), torch.cat(labels))


def train(kind: str, task: Task, args: argparse.Namespace) -> Result:
    torch.manual_seed(args.seed)
    shape = Shape(
        **{name: getattr(args, name) for name in Shape.__dataclass_fields__ if name != "edges"},
        edges=task.edge_encoder is not None,
    )
    model = GraphModel(kind, task, shape).to(args.device)
    parts = {part: loader(task, part, args) for part in task.parts}
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=WEIGHT_DECAY)
    steps = args.epochs * len(parts["train"])
    warmup = max(1, min(args.warmup_epochs * len(parts["train"]), steps // 5))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    result = Result(kind, sum(p.numel() for p in model.parameters()))
    for epoch in range(1, args.epochs + 1):
        model.train()
        start, total = time.perf_counter(), torch.zeros((), device=args.device)
        bar = tqdm(
            parts["train"], f"{kind}, epoch {epoch}/{args.epochs}", disable=None, leave=False
        )
        for batch in bar:
            batch = batch.to(args.device)
            loss = task.loss(model(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            scheduler.step()
            total += loss.detach() * batch.num_graphs
        mean = total.item() / len(task.parts["train"])  # .item() waits for the device.
        seconds = time.perf_counter() - start
        valid, test = (evaluate(model, parts[p], task, args.device) for p in ("valid", "test"))
        result.epochs.append(Epoch(mean, valid, test, seconds))
        print(
            f"{kind:<11} epoch {epoch:>3}/{args.epochs}  train loss {mean:.4f}  "
            f"{task.metric}: valid {number(valid)} test {number(test)}  {seconds:.1f} s",
            flush=True,
        )
    return result


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.device.startswith("cuda"):
        # Steps on small graphs wait for Python, which is slower in the thread of its own that
        # torch has for the backward pass of a GPU.
        torch.autograd.set_multithreading_enabled(False)
    if args.dataset == "long-range":
        task = long_range(args.limit, args.seed)
    else:
        try:
            task = molecules(args.dataset, args.root, args.limit, args.download)
        except (OSError, ValueError, ImportError) as error:
            raise SystemExit(f"{type(error).__name__}: {error}") from error
    sizes = " / ".join(f"{len(graphs):,}" for graphs in task.parts.values())
    limited = f" (limited to the first {args.limit:,} of each)" if args.limit else ""
    print(f"{task.name}: {sizes} graphs for training / validation / test{limited}", flush=True)

    results = [train(kind, task, args) for kind in args.models]
    print(f"\n{table(results, task.metric, task.higher_is_better)}\n")
    about = {
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()},
        "metric": task.metric,
        "graphs": {part: len(graphs) for part, graphs in task.parts.items()},
        "versions": {m.__name__: m.__version__ for m in (pyg_gt, torch, torch_geometric)},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {args.device}",
    }
    files = [args.out / f"{task.name}.{ending}" for ending in ("json", "png")]
    write_json(files[0], results, about)
    title = f"{task.name}, {len(task.parts['train']):,} training graphs"
    plot(files[1], results, title, task.metric, task.chance)
    print(f"results: {files[0]}\nplot:    {files[1]}")


if __name__ == "__main__":
    main()
