"""A part in a process of its own: how it begins, hangs, dies, and is ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.gpu.part_process import PartProcess, run_in_process
from benchmarks.gpu.section import Section


def test_a_part_that_hangs_is_ended_and_said(tmp_path: Path) -> None:
    part = Section("operators", 300.0, "cpu", False, tmp_path / "part.json")
    start = time.monotonic()
    found = run_in_process(part, 5.0)
    assert time.monotonic() - start < 200  # of 300
    assert found["errors"] == ["the part was killed after 5 s"] and len(found["left_out"]) == 1
    assert run_in_process(part, 1.0)["left_out"] == ["all of it"]


@pytest.mark.slow
def test_a_part_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = run_in_process(Section("ceilings", 600.0, "cpu", True, tmp_path / "part.json"), 1000.0)
    assert len(found["rows"]) == 5 and found["errors"] == []
    found = run_in_process(Section("nothing", 600.0, "cpu", True, tmp_path / "other.json"), 1000.0)
    assert found["errors"] == ["KeyError: 'nothing'"]


@pytest.mark.slow
def test_a_part_may_wait_before_it_begins(tmp_path: Path) -> None:
    waiting = PartProcess("ceilings", "cpu", True, tmp_path / "part.json")
    other = PartProcess("ceilings", "cpu", True, tmp_path / "other.json")
    found = run_in_process(
        Section("ceilings", 600.0, "cpu", True, tmp_path / "part.json"), 1000.0, waiting
    )
    assert len(found["rows"]) == 5 and found["errors"] == []
    assert found["budget_seconds"] == 600
    assert waiting.process.returncode == 0
    assert other.process.poll() is None, "nobody told it to begin"
    other.process.stdin.close()
    assert other.process.wait(200) == 1
    assert "ended before it told how long" in other.log.read_text()
    for most, words in ((1000.0, "the part ended with -9: "), (1.0, None)):
        third = PartProcess("ceilings", "cpu", True, tmp_path / "third.json")
        if words:
            third.end()
        part = Section("ceilings", 600.0, "cpu", True, tmp_path / "third.json")
        found = run_in_process(part, most, third)
        assert found["errors"] == ([words] if words else []) and found["rows"] == []
        assert third.process.poll() == -9
