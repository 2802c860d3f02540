"""Runs draws in processes of their own, so that a dead process is a finding and not the end."""

from __future__ import annotations

import multiprocessing
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

import pyg_gt

from .draws import Fault, Part

# of one draw; what takes longer hangs. The first one may compile the C++
SECONDS_A_DRAW = 120.0
# beyond what a process holds when it starts: small inputs need little
MEMORY = 3 * 2**30
_PACKAGE = Path(pyg_gt.__file__).resolve().parent


class Finding(NamedTuple):
    """A draw that failed, and how."""

    part: str
    number: int
    message: str

    @property
    def kind(self) -> str:
        """Its first line without numbers, by which findings are counted together."""
        return re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", self.message.splitlines()[0])[:150]


class Result(NamedTuple):
    """Of one part: how many draws ran, what was compared, what failed."""

    draws: int
    compared: Counter[str]
    findings: list[Finding]


def run_one(name: str, part: Part, seed: int, number: int) -> tuple[Counter[str], Finding | None]:
    """One draw in this process."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a wrong argument may warn before it is refused
            return part.draw(seed, number), None
    except Fault as fault:
        return Counter(), Finding(name, number, str(fault))
    except Exception as error:
        return Counter(), Finding(name, number, told(error))


def told(error: BaseException) -> str:
    """Type and message of an error, and the last place in the library that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    paths = [Path(frame.filename) for frame in frames]
    inside = [
        frame
        for frame, path in zip(frames, paths, strict=True)
        if path.is_relative_to(_PACKAGE)
    ]
    frame = (inside or frames)[-1]
    line = (str(error).splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {line} ({Path(frame.filename).name}:{frame.lineno})"


def run(
    name: str, part: Part, seed: int, batches: int, seconds: float, jobs: int, first: int = 0
) -> Result:
    """Draws ``first`` to ``first + batches``, or as many as ``seconds`` allow, on ``jobs``."""
    stop = first + (batches if part.size is None else min(batches, part.size() - first))
    until = time.monotonic() + seconds
    workers = [_Worker(name, part, seed, range(first + j, stop, jobs), until) for j in range(jobs)]
    result = Result(0, Counter(), [])
    while waiting := [w for w in workers if not w.done]:
        wait([w.pipe for w in waiting], timeout=1.0)
        for worker in waiting:
            draws, compared, findings = worker.news()
            result.compared.update(compared)
            result.findings.extend(findings)
            result = result._replace(draws=result.draws + draws)
    return result


class _Worker:
    """A process that goes through some numbers, and is made again where it dies."""

    def __init__(
        self, name: str, part: Part, seed: int, numbers: Sequence[int], until: float
    ) -> None:
        self.name, self.part, self.seed, self.until = name, part, seed, until
        self.numbers = numbers
        self.done = False
        # parts are functions, and imports take seconds: a fork needs neither again
        self.context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._start()

    def _start(self) -> None:
        self.told = 0
        self.place = self.context.Value("q", 0)
        self.since = self.context.Value("d", time.monotonic())
        self.pipe, other = self.context.Pipe(duplex=False)
        args = (self.name, self.part, self.seed, self.numbers, self.until)
        self.process = self.context.Process(
            target=_work, args=(*args, self.place, self.since, other), daemon=True
        )
        self.process.start()
        other.close()

    def news(self) -> tuple[int, Counter[str], list[Finding]]:
        """What came since the last time: draws, what was compared, what failed."""
        draws, compared, findings = 0, Counter[str](), list[Finding]()
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                if message is None:
                    self.done = True
                    self.process.join()
                    return draws, compared, findings
                draws += message[0]
                self.told += message[0]
                compared.update(message[1])
                findings += message[2]
        except EOFError:
            self.process.join()
            draws += self.place.value + 1 - self.told
            findings.append(self._died(f"the process died ({_reason(self.process.exitcode)})"))
            return draws, compared, findings
        if time.monotonic() - self.since.value > SECONDS_A_DRAW:
            self.process.kill()
            self.process.join()
            draws += self.place.value + 1 - self.told
            findings.append(self._died(f"it took more than {SECONDS_A_DRAW:.0f} s"))
        return draws, compared, findings

    def _died(self, message: str) -> Finding:
        place = self.place.value
        number = self.numbers[place]
        self.numbers = self.numbers[place + 1 :]
        self._start()
        return Finding(self.name, number, message)


def _work(
    name: str,
    part: Part,
    seed: int,
    numbers: Sequence[int],
    until: float,
    place: Any,
    since: Any,
    pipe: Connection,
) -> None:
    _limit_memory()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    sent = time.monotonic()
    draws, compared = 0, Counter[str]()
    for i, number in enumerate(numbers):
        if time.monotonic() > until:
            break
        place.value, since.value = i, time.monotonic()
        found, finding = run_one(name, part, seed, number)
        draws, compared = draws + 1, compared + found
        if finding is not None or time.monotonic() - sent > 1:
            pipe.send((draws, compared, [] if finding is None else [finding]))
            draws, compared, sent = 0, Counter(), time.monotonic()
    pipe.send((draws, compared, []))
    pipe.send(None)


def _limit_memory() -> None:
    if sys.platform != "linux":
        return
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def _reason(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit status {exitcode}"


def kinds(findings: Sequence[Finding]) -> Iterator[tuple[Finding, int]]:
    """The first finding of each kind and how many there are of it, most frequent kinds first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.part, finding.kind), []).append(finding)
    for group in sorted(groups.values(), key=len, reverse=True):
        yield min(group, key=lambda f: f.number), len(group)
