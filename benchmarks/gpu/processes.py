"""Processes that end with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


def start(
    command: Sequence[str],
    folder: Path,
    log: Path = Path(os.devnull),
    stdin: int | None = None,
) -> subprocess.Popen[bytes]:
    """A process in ``folder`` that writes its output and its errors to ``log``."""
    with log.open("wb") as file:
        # a session of its own, so that what it starts ends with it
        return subprocess.Popen(
            command, cwd=folder, stdin=stdin, stdout=file, stderr=file, start_new_session=True
        )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that still runs, and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
