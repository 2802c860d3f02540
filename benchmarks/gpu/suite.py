"""The tests marked ``cuda``, a process a file, while kernels are compiled ahead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.processes import end, start
from benchmarks.gpu.section import Row, Section
from benchmarks.record import ROOT

MARK = "mark.cuda"
# of files with many tests, where pytest-xdist is installed
WORKERS = {"test_backends.py": 4}


def run(section: Section, background: Sequence[Sequence[str]] = (), root: Path = ROOT) -> None:
    """A row for each test file; ``background`` commands run meanwhile, without a result.

    What is not done when time is up is killed and counted as failed.
    """
    files = [
        path
        for path in sorted((root / "tests").rglob("test_*.py"))
        if MARK in path.read_text(encoding="utf-8")
    ]
    if section.tiny and root == ROOT:
        files = files[:1]
    others = [start(command, root) for command in background]
    running: dict[Path, tuple[subprocess.Popen[bytes], Path]] = {}
    try:
        with TemporaryDirectory() as folder:
            _files(section, files, running, Path(folder), root)
        while any(p.poll() is None for p in others) and section.left() > 0:
            time.sleep(0.1)
        for number, process in enumerate(others):
            if process.poll() is None:
                section.left_out.append(f"compiling ahead, part {number}")
    finally:  # also where this process is interrupted
        for process in (*others, *(p for p, _ in running.values())):
            end(process)
    section.save()


def _files(
    section: Section,
    waiting: list[Path],
    running: dict[Path, tuple[subprocess.Popen[bytes], Path]],
    folder: Path,
    root: Path,
) -> None:
    """Some files at a time, until all have ended or time is up."""
    most = max(2, (os.cpu_count() or 2) // 2)
    while (waiting or running) and section.left() > 0:
        while waiting and len(running) < most:
            file = waiting.pop(0)
            report = folder / f"{len(waiting)}.xml"
            command = [
                sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider",
                f"--junitxml={report}", "--tb=short", str(file), *_workers(file),
            ]  # fmt: skip
            running[file] = (start(command, root, report.with_suffix(".txt")), report)
        for file, (process, report) in list(running.items()):
            if process.poll() is not None:
                del running[file]
                section.add(counts(report, process.returncode) | {"file": _name(file, root)})
        time.sleep(0.1)
    for file in running:
        section.add({"file": _name(file, root), "ended": "killed: time is up", "failed": 1})
    for file in waiting:
        section.left_out.append(_name(file, root))


def _workers(file: Path) -> list[str]:
    if file.name not in WORKERS or find_spec("xdist") is None:
        return []
    # a warning of 'pytest-benchmark' about it would be an error
    return ["-n", str(WORKERS[file.name]), "-p", "no:benchmark"]


def counts(report: Path, code: int) -> Row:
    """Of a JUnit file: how many tests passed, failed and were skipped, and what failed."""
    row: Row = {"exit": code, "passed": 0, "failed": 0, "skipped": 0, "failures": []}
    if code == 5:  # nothing was selected
        return row
    if not report.is_file():
        log = report.with_suffix(".txt")
        last = log.read_text(errors="replace").strip()[-300:] if log.is_file() else ""
        failure = f"pytest ended with {code} and no report: {' '.join(last.split())}"
        return row | {"failed": 1, "failures": [failure]}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            row["failed"] += 1
            message = next(c.get("message") or "" for c in case if c.tag in ("failure", "error"))
            name = f"{case.get('classname')}::{case.get('name')}"
            row["failures"].append(f"{name}: {' '.join(message.split())[:300]}")
        elif "skipped" in kinds:
            row["skipped"] += 1
        else:
            row["passed"] += 1
    if code != 0 and not row["failed"]:
        row |= {"failed": 1, "failures": [f"pytest ended with {code}"]}
    return row


def _name(file: Path, root: Path) -> str:
    return str(file.relative_to(root))
