"""Interleaved timing: each candidate once a round, so that the machine's load is shared by all."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

import torch
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
            times[name].append(_seconds(call))
    return times


def batched(
    candidates: Mapping[str, Callable[[], Any]],
    seconds: float,
    batch: float = 2e-3,
    rounds: tuple[int, int] = (5, 31),
) -> dict[str, list[float]]:
    """Seconds of a call, by name, where calls are short or do not wait for their device.

    In every round each candidate is called as often as fills about ``batch`` seconds; the device
    is idle when the clock is read.

    Args:
        candidates: what to time; each has been called before.
        seconds: after this time no round begins, once the least number of them is done.
        batch: seconds of one measurement.
        rounds: the least and the largest number of them.
    """
    counts = {}
    for name, call in candidates.items():
        _seconds(call)
        counts[name] = max(1, min(500, round(batch / _seconds(call))))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() > end:
            break
        for name, call in candidates.items():
            times[name].append(_seconds(call, counts[name]))
    return times


def _seconds(call: Callable[[], Any], count: int = 1) -> float:
    """Seconds of a call, the mean of ``count`` in a row; without freeing the last result."""

    def repeated() -> Any:
        for _ in range(count - 1):
            call()
        return call()

    return timed_call(repeated)[1] / count


def timed_call(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of one call, and its seconds."""
    _synchronize()
    start = time.perf_counter()
    result = call()
    _synchronize()
    return result, time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_one_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same with the backward pass in the calling thread; torch gives a GPU's to another."""

    def run() -> Any:
        with torch.autograd.set_multithreading_enabled(False):
            return call()

    return run


def ratio(times: Mapping[str, list[float]], peer: str, ours: str) -> float:
    """The median over rounds of peer / ours."""
    return statistics.median(p / o for p, o in zip(times[peer], times[ours], strict=True))


def median_ms(times: Mapping[str, list[float]], digits: int = 3) -> dict[str, float]:
    """Median milliseconds by name."""
    return {name: round(1e3 * statistics.median(values), digits) for name, values in times.items()}


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


def peak_rss_mib() -> int:
    """The most memory that this process has had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


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
