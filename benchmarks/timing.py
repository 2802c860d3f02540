"""Interleaved timing: every candidate once per round, so that they share the machine's moods."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib import metadata
from importlib.util import find_spec
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


def batched(
    candidates: Mapping[str, Callable[[], Any]],
    seconds: float,
    batch: float = 2e-3,
    rounds: tuple[int, int] = (5, 31),
) -> dict[str, list[float]]:
    """Seconds of a call, by name, where calls are short or do not wait for their device.

    In every round each candidate is called as often as fills about ``batch`` seconds; the device
    has nothing left to do when a clock is read.

    Args:
        candidates: what to time; each has been called before.
        seconds: after this time no round begins, once the least number of them is done.
        batch: seconds of one measurement.
        rounds: the least and the largest number of them.
    """
    counts = {}
    for name, call in candidates.items():
        _time(call, 1)
        counts[name] = max(1, min(500, round(batch / _time(call, 1))))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() > end:
            break
        for name, call in candidates.items():
            times[name].append(_time(call, counts[name]))
    return times


def _time(call: Callable[[], Any], count: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def in_one_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same with the backward pass in the calling thread; torch gives a GPU's to another."""

    def run() -> Any:
        with torch.autograd.set_multithreading_enabled(False):
            return call()

    return run


def ratio(times: Mapping[str, list[float]], peer: str, ours: str) -> float:
    """The median over rounds of peer / ours."""
    return statistics.median(p / o for p, o in zip(times[peer], times[ours], strict=True))


def median_ms(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Median milliseconds by name."""
    return {name: round(1e3 * statistics.median(values), 3) for name, values in times.items()}


def peak_mib(call: Callable[[], Any], device: str = "cpu") -> float:
    """The most memory that one call holds at once beyond what was held before, in MiB.

    On a GPU in blocks of torch's allocator, elsewhere in tensors.
    """
    call()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    # torch 2.11 warns that a later cycle would clear the events of this one
    activities = [ProfilerActivity.CPU]
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return round(max(held, default=0) / 2**20, 1)


def kernel_us(call: Callable[[], Any], count: int = 5) -> dict[str, float]:
    """Microseconds of each kernel of a call on a GPU, by name, all its launches together."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(count):
            call()
        torch.cuda.synchronize()
    events = profiler.key_averages()
    return {e.key: e.device_time_total / count for e in events if e.device_time_total}


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


def card() -> dict[str, Any]:
    """The GPU, its driver and its clocks as ``nvidia-smi`` gives them, where there is one."""
    if not torch.cuda.is_available():
        return {}
    found: dict[str, Any] = {
        "name": torch.cuda.get_device_name(),
        "capability": list(torch.cuda.get_device_capability()),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
        "cuda": torch.version.cuda,
        "triton": metadata.version("triton") if find_spec("triton") else None,
        "triton_replay": os.environ.get("PYG_GT_TRITON_REPLAY", ""),
    }
    if (program := shutil.which("nvidia-smi")) is not None:
        fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
        command = [program, f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired) as error:
            return found | {"nvidia-smi": str(error)}
        values = done.stdout.strip().split(", ")
        found["nvidia-smi"] = dict(zip(fields.split(","), values, strict=False))
    return found


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
