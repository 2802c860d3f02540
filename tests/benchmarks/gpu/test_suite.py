"""The test suite as a part of the GPU benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.gpu import report, suite
from benchmarks.gpu.section import Section


@pytest.mark.slow
def test_the_tests_are_counted_and_what_fails_is_said(tmp_path: Path) -> None:
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

    class UntilThreeEnded(Section):  # type: ignore[misc]
        """Time is up when all has ended that ends by itself, however busy the machine is."""

        def left(self) -> float:
            return 1.0 if len(self.rows) < 3 else 0.0

    part = UntilThreeEnded("tests", 1.0, "cpu")
    beside = [sys.executable, "-c", "import time; time.sleep(600)"]
    suite.run(part, [beside], tmp_path)
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
    made = report.summary({"parts": {"tests": part.result()}, "device": "cuda"})
    assert len(made["wrong"]) == 3
    (goal,) = [g for g in made["goals"] if g["goal"].startswith("tests that failed")]
    assert goal["measured"] == 3 and goal["met"] == "no"
