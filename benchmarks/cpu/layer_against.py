"""Our layers now and at another commit: ``python -m benchmarks.cpu.layer_against REV``.

The rows of ``benchmarks.cpu.layer``. The other commit's package is imported under another name,
takes the same weights, and must give the same numbers; then both run in the same rounds. ``ratio``
is the median over rounds of the time now over the time then: above 1 this commit is slower.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import pyg_gt
from benchmarks.batches import SHAPES
from benchmarks.layers import edge_cases, gps_cases
from benchmarks.record import RESULTS, ROOT, environment, parser, write
from benchmarks.timing import interleaved, median_ms, peak_mib, ratio

NAME = "pyg_gt_then"
CHANNELS, HEADS = 64, 4


def git(*arguments: str) -> bytes:
    """What git prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def imported(revision: str, folder: Path) -> ModuleType:
    """``pyg_gt.nn`` as it was, with every mention of the package's name changed.

    Both can then be loaded; of the other commit nothing is used but its package.
    """
    archive = git("archive", revision, "pyg_gt")
    tarfile.open(fileobj=BytesIO(archive)).extractall(folder, filter="data")
    (folder / "pyg_gt").rename(folder / NAME)
    for path in (folder / NAME).rglob("*.py"):
        path.write_text(path.read_text().replace("pyg_gt", NAME))
    sys.path.insert(0, str(folder))
    return importlib.import_module(f"{NAME}.nn")


def main() -> None:
    """Runs all rows, prints them, writes JSON."""
    arguments = parser(__doc__, RESULTS / "layer_against.json", rounds=41)
    arguments.add_argument("revision")
    shapes = [*SHAPES, "edges"]
    arguments.add_argument("--shapes", nargs="+", default=shapes, choices=shapes)
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        then = imported(args.revision, Path(folder))
        gps, along_edges = (
            {"then": getattr(then, name), "now": getattr(pyg_gt.nn, name)}
            for name in ("GPSConv", "MaskedTransformerConv")
        )
        sizes = (CHANNELS, HEADS, args.shapes)
        for case in chain(gps_cases(gps, *sizes), edge_cases(along_edges, *sizes)):
            times = interleaved(case.calls, args.rounds, warmup=3)
            row = case.row | {
                "ms": median_ms(times),
                "ratio": round(ratio(times, "now", "then"), 3),
                "peak_mib": {name: peak_mib(call) for name, call in case.calls.items()},
            }
            rows.append(row)
            print(
                f"{row['shape']:<10} {row['mode']:<30} {row['ratio']:>6}  {row['ms']}  "
                f"{row['peak_mib']}",
                flush=True,
            )
    revision = git("rev-parse", "--short", args.revision).decode().strip()
    config = {"then": revision, "rounds": args.rounds, "channels": CHANNELS, "heads": HEADS}
    write(args.out, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    main()
