"""One part of the GPU benchmark: its time, its rows, and what it had to leave out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import write

Row = dict[str, Any]
# of training with the backward pass in the calling thread
ONE_THREAD = "train in one thread"


@dataclass
class Section:
    """The settings and the results of a part; written to ``path`` after every row.

    Attributes:
        name: of the part.
        seconds: after so long it begins nothing new.
        device: "cuda" or "cpu".
        tiny: sizes of a test of the benchmark itself.
        path: where its results are kept, or None.
        rows: one for each thing measured.
        left_out: what there was no time for.
        errors: what went wrong outside of a row.
        longest: seconds of the longest guarded step so far.
        start: when it began.
    """

    name: str
    seconds: float
    device: str
    tiny: bool = False
    path: Path | None = None
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds."""
        return self.start + self.seconds - time.monotonic()

    def has_time(self, what: str, needs: float = 0.0) -> bool:
        """Whether ``what`` may begin; if not, that is noted."""
        if self.left() > needs:
            return True
        self.left_out.append(what)
        self.save()
        return False

    def add(self, row: Row) -> None:
        """Keeps a row."""
        self.rows.append(row)
        self.save()

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """One step: what goes wrong inside is noted, and the part goes on."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            self.errors.append(f"{what}: {one_line(error)}")
            self.save()
        self.longest = max(self.longest, time.monotonic() - start)
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def result(self) -> Row:
        """As JSON."""
        return {
            "section": self.name,
            "seconds": round(time.monotonic() - self.start, 1),
            "budget_seconds": round(self.seconds, 1),
            "rows": self.rows,
            "left_out": self.left_out,
            "errors": self.errors,
        }

    def save(self) -> None:
        """Writes what there is so far."""
        if self.path is not None:
            write(self.path, self.result())


def one_line(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"
