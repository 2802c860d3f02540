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
    while True:
        folder = parent / f".{purpose}-{uuid.uuid4().hex}"
        folder.mkdir()
        lock = _open_lock(folder)
        if _take(lock) is not False and (folder / _LOCK).exists():
            break
        if lock is not None:  # Another process saw the folder before its lock was taken.
            os.close(lock)
    try:
        content = folder / "content"
        content.mkdir()
        yield content
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_stale(parent: Path, purpose: str) -> None:
    """Delete the folders that processes left which were killed inside :func:`staging`.

    Folders of a process that lives, on this machine or another one, stay. So do all where the
    file system has no locks or is read-only.
    """
    for folder in parent.glob(f".{purpose}-{'[0-9a-f]' * 32}"):
        lock = _open_lock(folder)
        if lock is None:
            continue
        if _take(lock):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _open_lock(folder: Path) -> int | None:
    with suppress(OSError):
        return os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    return None


def _take(lock: int | None) -> bool | None:
    """Whether the lock is ours now; None where there are no locks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Not a POSIX system.
        return None
    if lock is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
