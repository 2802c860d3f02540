"""Our layers now and at another commit, interleaved: ``python benchmarks/layer_against.py REV``.

The rows of ``layer.py``. The other commit's package is imported under another name, takes the same
weights, and must give the same numbers; then both run in the same rounds. ``ratio`` is the median
over rounds of the time now over the time then: above 1 this commit is slower.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch_geometric.nn as pyg
from layer import MODES, SHAPES, batch_of, checked, step, train_step
from timing import environment, interleaved, median_ms, peak_mib, ratio, write

import pyg_gt

ROOT = Path(__file__).parent.parent
NAME = "pyg_gt_then"


def imported(revision: str, folder: Path) -> ModuleType:
    """``pyg_gt`` as it was, with every mention of its name changed, so that both can be loaded."""
    archive = subprocess.run(
        ["git", "archive", revision, "pyg_gt"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    tarfile.open(fileobj=BytesIO(archive)).extractall(folder, filter="data")
    (folder / "pyg_gt").rename(folder / NAME)
    for path in (folder / NAME).rglob("*.py"):
        path.write_text(path.read_text().replace("pyg_gt", NAME))
    sys.path.insert(0, str(folder))
    return importlib.import_module(f"{NAME}.nn")


def pairs(nn: ModuleType, channels: int, heads: int, dropout: float) -> dict[str, torch.nn.Module]:
    """``GPSConv`` then and now, with one set of weights."""

    def made(kind: Callable[..., torch.nn.Module]) -> torch.nn.Module:
        local = pyg.GINConv(torch.nn.Linear(channels, channels))
        return kind(channels, local, heads, attn_kwargs={"dropout": dropout})

    then, now = made(nn.GPSConv), made(pyg_gt.nn.GPSConv)
    now.load_state_dict(then.state_dict())
    return {"then": then, "now": now}


def report(rows: list[dict[str, Any]], row: dict[str, Any], calls: Any, rounds: int) -> None:
    """Times one row, keeps and prints it."""
    times = interleaved(calls, rounds, warmup=3)
    row |= {
        "ms": median_ms(times),
        "ratio": round(ratio(times, "now", "then"), 3),
        "peak_mib": {name: peak_mib(call) for name, call in calls.items()},
    }
    rows.append(row)
    print(
        f"{row['shape']:<10} {row['mode']:<30} {row['ratio']:>6}  {row['ms']}  {row['peak_mib']}"
    )


def main() -> None:
    """Runs all rows, prints them, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, default=1)
    out = Path(__file__).parent / "results" / "layer_against.json"
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        nn = imported(args.revision, Path(folder))
        for shape, sizes in SHAPES.items():
            torch.manual_seed(0)
            batch, edge_index = batch_of(*sizes)
            x = torch.randn(batch.numel(), 64)
            for mode in MODES:
                models = pairs(nn, 64, 4, 0.5 if "0.5" in mode else 0.0)
                inputs = (x.requires_grad_("train" in mode), edge_index, batch)
                for model in models.values():
                    model.train("0.5" not in mode and "eval" not in mode)
                checked(models, (x.detach(), edge_index, batch))
                for model in models.values():
                    model.train("train" in mode)
                calls = {name: step(m, inputs, "train" in mode) for name, m in models.items()}
                report(rows, {"shape": shape, "mode": mode}, calls, args.rounds)
        for nodes, edges in ((3_200, 6_800), (20_000, 280_000), (20_000, 1_000_000)):
            torch.manual_seed(0)
            x = torch.randn(nodes, 64, requires_grad=True)
            edge_index = torch.randint(nodes, (2, edges))
            then, now = (
                nn.MaskedTransformerConv(64, 16, 4),
                pyg_gt.nn.MaskedTransformerConv(64, 16, 4),
            )
            now.load_state_dict(then.state_dict())
            models = {"then": then, "now": now}
            checked(models, (x.detach(), edge_index))
            train = {n: partial(train_step, m, x, edge_index) for n, m in models.items()}
            forward = {n: torch.no_grad()(partial(m, x, edge_index)) for n, m in models.items()}
            for mode, calls in (("train", train), ("eval forward", forward)):
                report(rows, {"shape": f"E={edges}", "mode": mode}, calls, args.rounds)
    revision = subprocess.run(
        ["git", "rev-parse", "--short", args.revision], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    config = {"then": revision, "rounds": args.rounds, "channels": 64, "heads": 4}
    write(args.out, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    main()
