"""A part of the benchmark in a process of its own, started before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.processes import end, start
from benchmarks.gpu.section import Row, Section
from benchmarks.record import ROOT

COMMAND = [sys.executable, "-m", "benchmarks.gpu.run"]
UNFINISHED = "what stood behind the last row when the part ended"
# a process needs about so much before it can begin
LEAST_SECONDS = 5


class PartProcess:
    """A process that imports what it needs, and then waits to be told how long it may take.

    On a machine with a GPU the imports alone take several seconds, in which another part runs.
    """

    def __init__(self, name: str, device: str, tiny: bool, path: Path) -> None:
        command = [
            *COMMAND, "--part", name, "--device", device, "--out", str(path), *["--tiny"] * tiny,
        ]  # fmt: skip
        # a file, since what the part starts may hold a pipe open beyond its end
        self.log = path.with_suffix(".txt")
        self.process = start(command, ROOT, self.log, subprocess.PIPE)

    def begin(self, seconds: float) -> None:
        """Tells it how long it may take."""
        assert self.process.stdin is not None
        if self.process.stdin.closed:  # it was ended
            return
        try:
            self.process.stdin.write(f"{seconds}\n".encode())
            self.process.stdin.close()
        except BrokenPipeError:  # it has died; its exit status tells how
            pass

    def end(self) -> None:
        """Kills it, if it still runs."""
        end(self.process)
        assert self.process.stdin is not None
        self.process.stdin.close()


def read_seconds() -> float:
    """The other side of :meth:`PartProcess.begin`."""
    line = sys.stdin.readline()
    if not line:
        sys.exit("the process that started this part ended before it told how long it may take")
    return float(line)


def run_in_process(section: Section, most: float, process: PartProcess | None = None) -> Row:
    """One part in a process of its own; its rows so far, if it hangs or dies.

    Args:
        section: its settings.
        most: seconds after which it is killed at the latest.
        process: one that waits to begin.
    """
    assert section.path is not None
    if most < LEAST_SECONDS:
        if process is not None:
            process.end()
        section.left_out.append("all of it")
        return section.result()
    section.save()
    if process is None:
        process = PartProcess(section.name, section.device, section.tiny, section.path)
    # a compilation or a large size that has begun may need a little more
    limit = min(most, 1.25 * section.seconds + 10)
    failure = None
    try:
        process.begin(section.seconds)
        if (code := process.process.wait(limit)) != 0:
            last = process.log.read_text(errors="replace").strip().splitlines()[-1:]
            failure = f"the part ended with {code}: {''.join(last)[:400]}"
    except subprocess.TimeoutExpired:
        failure = f"the part was killed after {limit:.0f} s"
    finally:
        process.end()
    found: Row = json.loads(section.path.read_text(encoding="utf-8"))
    if failure is not None:
        found["errors"].append(failure)
        found["seconds"] = round(time.monotonic() - section.start, 1)
        found["left_out"].append(UNFINISHED)
    return found
