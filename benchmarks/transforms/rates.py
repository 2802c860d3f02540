"""Seconds and graphs per second of candidates that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def interleaved_rates(
    candidates: dict[str, Callable[[], Any]], num_graphs: int, rounds: int
) -> dict[str, Any]:
    """Graphs per second of each, and the ratios of the first one's time to the others'."""
    return rates(seconds_of(candidates, rounds), num_graphs)


def seconds_of(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Of each call; all run once in every round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            result = call()
            times[name].append(time.perf_counter() - start)
            del result  # what it takes to free thousands of graphs is nobody's encoding
    return times


def rates(times: dict[str, list[float]], num_graphs: int) -> dict[str, Any]:
    """Graphs per second of each, and the ratios of the first one's time to the others'."""
    first, *others = times
    row: dict[str, Any] = {
        "graphs": num_graphs,
        "graphs_per_second": {
            name: round(num_graphs / statistics.median(each)) for name, each in times.items()
        },
    }
    for name in others:
        row[f"{name}: times {first}"] = round(ratio_of(times[first], times[name]), 2)
    return row


def ratio_of(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds."""
    return statistics.median(a / b for a, b in zip(ones, others, strict=True))
