"""Folders that fill up under a name aside, and are deleted if the process at them was killed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = "lock"  # Held by the process at the folder; the system lets go of it when that dies.


@contextmanager
def staging(parent: Path, purpose: str) -> Iterator[Path]:
    """A new folder ``parent/.<purpose>-<random>/content``, deleted at the end.

    What is to stay is renamed out of it.
    """
    folder, lock = _new_folder(parent, purpose)
    try:
        content = folder / "content"
        content.mkdir()
        yield content
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(parent: Path, purpose: str) -> None:
    """Delete the folders that processes left which were killed inside :func:`staging`.

    Folders of a process that lives, on this machine or another one, stay. So do all where the
    file system has no locks or is read-only.
    """
    for folder in parent.glob(f".{purpose}-{'[0-9a-f]' * 32}"):
        with suppress(OSError):
            lock = _open_lock(folder)
            try:
                if _take(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _new_folder(parent: Path, purpose: str) -> tuple[Path, int]:
    """A folder whose lock is ours, if there are locks."""
    while True:
        folder = parent / f".{purpose}-{uuid.uuid4().hex}"
        folder.mkdir()
        # Another process may see the folder before its lock is taken, and delete it as stale.
        with suppress(FileNotFoundError):
            lock = _open_lock(folder)
            taken = _take(lock)
            if taken is None or (taken and (folder / _LOCK).exists()):
                return folder, lock
            os.close(lock)


def _open_lock(folder: Path) -> int:
    return os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)


def _take(lock: int) -> bool | None:
    """Whether the lock is ours now; None where there are no locks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Not a POSIX system.
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
