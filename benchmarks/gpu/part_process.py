"""A part of the benchmark in a process of its own, which may be there before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cuda_tests
from cuda_section import Row, Section

SCRIPT = Path(__file__).parent / "cuda_run.py"
BEHIND = "what stood behind the last row when the part ended"
# a process needs about so much before it can begin
LEAST_SECONDS = 5


class Waiting:
    """A process that imports what it needs, and then waits to be told how long it may take.

    On a machine with a GPU the imports alone take several seconds, in which another part runs.
    """

    def __init__(self, name: str, device: str, tiny: bool, path: Path) -> None:
        command = [
            sys.executable, str(SCRIPT), "--part", name, "--device", device, "--out", str(path),
            *["--tiny"] * tiny,
        ]  # fmt: skip
        # a file, since what the part starts may hold a pipe open beyond its end
        self.words = path.with_suffix(".txt")
        self.process = cuda_tests.start(command, cuda_tests.ROOT, self.words, subprocess.PIPE)

    def go(self, seconds: float) -> None:
        """Lets it begin."""
        assert self.process.stdin is not None
        if self.process.stdin.closed:  # it was ended
            return
        try:
            self.process.stdin.write(f"{seconds}\n".encode())
            self.process.stdin.close()
        except BrokenPipeError:  # it has died; how, its end tells
            pass

    def end(self) -> None:
        """Kills it, if it still runs."""
        cuda_tests.end(self.process)
        assert self.process.stdin is not None
        self.process.stdin.close()


def time_told() -> float:
    """What :meth:`Waiting.go` says, on the other side."""
    line = sys.stdin.readline()
    if not line:
        sys.exit("nobody is there any more to say how long this part may take")
    return float(line)


def apart(section: Section, most: float, waiting: Waiting | None = None) -> Row:
    """One part in a process of its own; its rows so far, if it hangs or dies."""
    assert section.path is not None
    if most < LEAST_SECONDS:
        if waiting is not None:
            waiting.end()
        section.left_out.append("all of it")
        return section.result()
    section.save()
    if waiting is None:
        waiting = Waiting(section.name, section.device, section.tiny, section.path)
    # a compilation or a large size that has begun may need a little more
    limit = min(most, 1.25 * section.seconds + 10)
    died = None
    try:
        waiting.go(section.seconds)
        if (code := waiting.process.wait(limit)) != 0:
            last = waiting.words.read_text(errors="replace").strip().splitlines()[-1:]
            died = f"the part ended with {code}: {''.join(last)[:400]}"
    except subprocess.TimeoutExpired:
        died = f"the part was killed after {limit:.0f} s"
    finally:
        waiting.end()
    found: Row = json.loads(section.path.read_text(encoding="utf-8"))
    if died is not None:
        found["errors"].append(died)
        found["seconds"] = round(time.monotonic() - section.start, 1)
        found["left_out"].append(BEHIND)
    return found
