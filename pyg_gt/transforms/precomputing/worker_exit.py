"""Worker processes that exit when the process that started them has ended."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

# Seconds between two checks.
_INTERVAL = 0.5
# From Linux's <sys/prctl.h>: the signal a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ExitWithParent:
    """A ``worker_init_fn`` of `torch.utils.data.DataLoader`, made in the parent.

    Workers of a killed process notice by themselves only between two pieces of work. They may not
    come to that: at its end a worker waits for a thread that writes to a pipe, and as long as the
    worker itself holds the end that nobody reads any more, that thread waits for ever.
    """

    parent: int = field(default_factory=os.getpid)

    def __call__(self, worker: int) -> None:
        """Makes this process, the worker of that number, exit with its parent."""
        # a server forks for 'forkserver', and ends with the process that started it
        forked_by_server = multiprocessing.get_start_method(allow_none=True) == "forkserver"
        parent = os.getppid() if forked_by_server else self.parent
        _ask_kernel()
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _ask_kernel() -> None:
    """Asks the kernel to kill this process too: compiled code may run for minutes."""
    if sys.platform == "linux":
        libc: Any = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _exit_after(parent: int) -> None:
    """Exits, where the kernel cannot be asked or the parent ended before it was."""
    while os.getppid() == parent:
        time.sleep(_INTERVAL)
    os._exit(1)
