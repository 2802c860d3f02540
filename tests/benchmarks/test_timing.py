"""The one clock of all benchmarks."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from benchmarks import timing


def test_short_calls_are_timed_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that stands still but for the calls."""
    clock, calls = [0], {"short": 0, "long": 0}
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock[0] / 1e6))

    def call(name: str, microseconds: int) -> None:
        calls[name] += 1
        clock[0] += microseconds

    candidates = {"short": partial(call, "short", 5), "long": partial(call, "long", 10_000)}
    times = timing.batched(candidates, 0.0, 1e-3, (3, 9))
    assert calls == {"short": 2 + 3 * 200, "long": 2 + 3}
    for name, seconds in (("short", 5e-6), ("long", 1e-2)):
        assert times[name] == pytest.approx([seconds] * 3)
    # the first two rounds took 11 ms each, so that time is up after the fifth
    assert len(timing.batched(candidates, 0.05, 1e-3, (3, 9))["long"]) == 5
