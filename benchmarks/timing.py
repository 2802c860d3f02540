"""Interleaved timing: every candidate once per round, so that they share the machine's moods."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch_geometric
from torch.profiler import ProfilerActivity, profile


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], rounds: int = 15, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each call, by name; all candidates run once in every round."""
    for _ in range(warmup):
        for call in candidates.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: Mapping[str, list[float]], peer: str, ours: str) -> float:
    """The median over rounds of peer / ours."""
    return statistics.median(p / o for p, o in zip(times[peer], times[ours], strict=True))


def median_ms(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Median milliseconds by name."""
    return {name: round(1e3 * statistics.median(values), 3) for name, values in times.items()}


def peak_mib(call: Callable[[], Any]) -> float:
    """The most memory that tensors hold at once during one call on a CPU, in MiB."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return round(max(held, default=0) / 2**20, 1)


def environment() -> dict[str, Any]:
    """What a figure is worth nothing without."""
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes JSON to a temporary name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    Path(file.name).replace(path)
