"""The GPU benchmark's report, the tests it runs, and how it measures."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PEERS = {"pyg padded", "sdpa dense mask", "efficient ragged", "pyg core"}


def test_the_order_of_backends_is_that_of_their_slowdown(load: Any) -> None:
    def row(mode: str, bias: str | None = None, **ms: float) -> dict[str, Any]:
        times = {name.replace("_", " "): t for name, t in ms.items()}
        ours = {n: t for n, t in times.items() if n not in PEERS}
        return {"dtype": "float32", "dropout": 0.0, "bias": bias, "mode": mode, "ms": times,
                "fastest": min(ours, key=lambda n: ours[n])}  # fmt: skip

    rows = [
        row("train", sdpa=8.0, triton=2.0, pyg_padded=1.0),
        row("train", sdpa=1.0, triton=2.0, flex=2.0),
        row("forward", sdpa=1.0),
        row("train", "EdgeMask", sparse=1.0),
    ]
    order = load("cuda_order").order(rows)
    assert [(g["kind"], g["mode"], g["rows"]) for g in order] == [
        ("full", "train", 2), ("full", "forward", 1), ("edges", "train", 1),
    ]  # fmt: skip
    places = [(b["backend"], b["slowdown"], b["wins"], b["rows"]) for b in order[0]["backends"]]
    # by hand: sqrt(1 * 2), sqrt(4 * 1), and 2 in its only row
    assert places == [("triton", 1.414, 1, 2), ("flex", 2.0, 0, 1), ("sdpa", 2.0, 1, 2)]
    assert load("cuda_order").text(order)[0].endswith("triton 1.41, flex 2.00, sdpa 2.00")


def test_goals_are_read_from_the_rows(load: Any) -> None:
    row = {
        "shape": "molecules x 128", "channels": 16, "scores": 10**9, "dtype": "float32",
        "bias": None, "dropout": 0.0,
        "candidates": {"triton": {"forward_ms": 1.0}, "pyg padded": {"forward_ms": 9.0}},
        "peer_over": {"forward": {"triton": 9.0}, "train in one thread": {"triton": 5.5}},
    }  # fmt: skip
    layer = {
        "layer": "GPSConv", "shape": "molecules", "mode": "train, attention dropout 0.5",
        "pyg_over": {"pyg_gt": 1.5}, "one_thread_over": 2.5,
    }  # fmt: skip
    ceiling = {"ceiling": "exp", "value": 4e12}
    memory = [
        {"nodes": 200_000, "candidate": name, "peak_mib": 1024.0 * gib}
        for name, gib in (("sdpa", 21.0), ("triton", 3.0), ("pyg padded", 1.0))
    ]
    parts = {
        name: {"rows": rows, "errors": [], "left_out": []}
        for name, rows in (
            ("ceilings", [ceiling]), ("operators", [row]), ("memory", memory), ("layers", [layer])
        )
    }
    made = load("cuda_report").summary({"parts": parts, "device": "cuda"})
    goals = {g["goal"]: (g["measured"], g["met"]) for g in made["goals"]}
    assert goals["PyG padded / ours, molecules x 128, float32, forward"] == (9.0, "yes")
    assert goals["PyG padded / ours, molecules x 128, float32, train"] == (None, "not measured")
    one_thread = "PyG padded / ours, molecules x 128, float32, train in one thread"
    assert goals[one_thread] == (5.5, "yes")
    step = "PyG / pyg_gt, GPSConv step, dropout 0.5"
    assert (goals[step], goals[f"{step}, both in one thread"]) == ((1.5, "no"), (2.5, "no"))
    assert goals["share of the exp rate at C = 16"] == (0.25, "no")  # 1e12 of 4e12
    assert goals["200,000 nodes, forward and backward, GiB"] == (3.0, "yes")
    assert made["fastest"][0]["fastest"] == "triton"


@pytest.mark.slow
def test_the_tests_are_counted_and_what_fails_is_said(load: Any, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    head = "import pytest, time\npytestmark = pytest.mark." + "cuda\n"
    for name, body in {
        "good": "def test_a(): pass\ndef test_b(): pytest.skip('no')",
        "bad": "def test_a(): assert 1 == 2\ndef test_b(): pass",
        "broken": "import nowhere_at_all",
        "asleep": "def test_a(): time.sleep(600)",
    }.items():
        (tmp_path / "tests" / f"test_{name}.py").write_text(head + body)
    (tmp_path / "tests" / "test_other.py").write_text("def test_a(): pass")

    class UntilThreeEnded(load("cuda_section").Section):  # type: ignore[misc]
        """Time is up when all has ended that ends by itself, however busy the machine is."""

        def left(self) -> float:
            return 1.0 if len(self.rows) < 3 else 0.0

    part = UntilThreeEnded("tests", 1.0, "cpu")
    beside = [sys.executable, "-c", "import time; time.sleep(600)"]
    load("cuda_tests").run(part, [beside], tmp_path)
    rows = {Path(row["file"]).stem: row for row in part.rows}
    assert set(rows) == {"test_good", "test_bad", "test_broken", "test_asleep"}
    counted = {
        n: tuple(r.get(k) for k in ("passed", "failed", "skipped")) for n, r in rows.items()
    }
    assert counted["test_good"] == (1, 0, 1) and counted["test_bad"] == (1, 1, 0)
    assert "test_a: assert 1 == 2" in rows["test_bad"]["failures"][0]
    assert rows["test_broken"]["failed"] == 1
    assert rows["test_asleep"]["ended"] == "killed: time is up"
    assert part.left_out == ["compiling ahead, part 0"]
    made = load("cuda_report").summary({"parts": {"tests": part.result()}, "device": "cuda"})
    assert len(made["wrong"]) == 3
    (goal,) = [g for g in made["goals"] if g["goal"].startswith("tests that failed")]
    assert goal["measured"] == 3 and goal["met"] == "no"


@pytest.mark.skipif(find_spec("triton") is None, reason="needs the package 'triton'")
def test_the_kernel_of_exponentials() -> None:
    """In triton's interpreter, which it turns to when it is imported."""
    code = (
        "import sys, torch; sys.path.insert(0, 'benchmarks')\n"
        "from cuda_exp_kernel import nothing, repeated_exp2\n"
        "x = torch.rand(2048); out = torch.empty_like(x)\n"
        "repeated_exp2[(2,)](x, out, ROUNDS=3, BLOCK=1024); nothing[(1,)](x)\n"
        "torch.testing.assert_close(out, torch.exp2(-torch.exp2(-torch.exp2(-x))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_card_is_described(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '590.1, 1980 MHz, 1980 MHz, 3201 MHz, 700.00 W, 31'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert load("timing").card() == {} or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    properties = SimpleNamespace(total_memory=80 * 2**30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    card = load("timing").card()
    assert card["name"] == "a card" and card["memory_gib"] == 80.0
    assert card["nvidia-smi"]["driver_version"] == "590.1"
    assert card["nvidia-smi"]["clocks.max.sm"] == "1980 MHz"


def test_short_calls_are_timed_in_batches(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that stands still but for the calls."""
    timing, clock, calls = load("timing"), [0], {"short": 0, "long": 0}
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
