"""The folder of compiled files in the user's cache.

A compiled file is named after a hash of all that made it (sources, flags, compiler, processor) and
one of what it holds, by which damage is found before it is loaded. Loading it runs code, so its
folder must belong to this user and be closed to everybody else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from .compiler import SWITCH, Unavailable, build_key, compile_source, find_compiler

#: The environment variable that names the folder.
CACHE = "PYG_GT_CACHE"
_COMPILING = ".compiling-"
# Seconds after which a folder to compile in is abandoned, where locks cannot tell.
_ABANDONED_AFTER = 24 * 3600.0

T = TypeVar("T")


def cache_folder() -> Path:
    """The folder of compiled files: ``PYG_GT_CACHE``, or ``pyg_gt`` in the user's cache.

    Raises:
        Unavailable: if the user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if given := os.environ.get(CACHE):
            # 'dlopen' looks elsewhere for a name without a folder
            return Path(given).expanduser().absolute()
        return (Path(base) if base else Path.home() / ".cache") / "pyg_gt"
    except RuntimeError as error:  # a user without a home
        raise Unavailable(f"there is no home folder ({error}); set {CACHE} to a folder") from error


def find_or_compile(
    source: Path, flags: tuple[str, ...], load: Callable[[Path], T]
) -> tuple[Path, T]:
    """The shared library made from ``source``, and what ``load`` makes of it.

    A new one is compiled under another name, and gets its own when ``load`` has not failed.

    Raises:
        Unavailable: if there is none and none can be made.
    """
    if os.name != "posix":
        raise Unavailable(f"compiling on '{os.name}' is not supported; set {SWITCH}=0")
    folder = _checked_folder(cache_folder())
    cxx = find_compiler()
    name = f"{source.stem}-{build_key(source, cxx, flags)}"
    _remove_abandoned(folder)
    for path in sorted(folder.glob(f"{name}-*.so")):
        try:
            _check_owner(path)
            is_whole = path.stem == f"{name}-{_content_hash(path)}"
        except FileNotFoundError:
            continue  # another process found the damage first
        if is_whole:
            return path, load(path)
        path.unlink(missing_ok=True)  # it was cut short, or bits have flipped: it is made again
    with _compiling_folder(folder, name) as staging:
        new = staging / f"{source.stem}.so"
        compile_source(cxx, source, str(new), flags)
        os.chmod(new, 0o700)
        _sync(new)
        path = folder / f"{name}-{_content_hash(new)}.so"
        loaded = load(new)
        os.replace(new, path)  # another process may do the same: either file will do
        with suppress(OSError):  # not every file system does that to a folder
            _sync(folder)
    return path, loaded


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would outlive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _compiling_folder(folder: Path, name: str) -> Iterator[Path]:
    """A folder to compile in, locked as long as this process lives, and gone afterwards."""
    while True:
        try:
            staging = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_COMPILING}{name}-"))
        except OSError as error:
            raise Unavailable(
                f"'{folder}' cannot be written to ({error.strerror}); set {CACHE} to a folder "
                f"that can"
            ) from error
        # before it is locked somebody may take it for abandoned
        try:
            handle = os.open(staging, os.O_RDONLY)
        except FileNotFoundError:
            continue
        _lock(handle, wait=True)
        if staging.exists():
            break
        os.close(handle)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """Removes the folders to compile in of processes that were killed."""
    for staging in folder.glob(f"{_COMPILING}*"):
        try:
            handle = os.open(staging, os.O_RDONLY)
        except OSError:
            continue  # its owner has removed it
        try:
            is_free = _lock(handle, wait=False)
            if is_free is None:  # this file system has no locks
                is_free = time.time() - os.fstat(handle).st_mtime > _ABANDONED_AFTER
            if is_free:
                shutil.rmtree(staging, ignore_errors=True)
        finally:
            os.close(handle)


def _lock(handle: int, wait: bool) -> bool | None:
    """Whether an open folder could be locked; None on a file system without locks."""
    import fcntl  # of POSIX systems only

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _checked_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"'{folder}' cannot be made ({error.strerror}); set {CACHE} to a folder of yours"
        ) from error
    _check_owner(folder)
    return folder


def _check_owner(path: Path) -> None:
    """Raises :class:`Unavailable` if anybody but this user can write to ``path``."""
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        raise Unavailable(f"'{path}' is a link, and what it leads to may change; remove it")
    if about.st_uid != os.getuid():
        raise Unavailable(
            f"'{path}' belongs to another user (id {about.st_uid}, not {os.getuid()}); set "
            f"{CACHE} to a folder of yours"
        )
    if about.st_mode & 0o077:
        raise Unavailable(
            f"others may use '{path}' (mode {stat.S_IMODE(about.st_mode):o}); run "
            f"'chmod 700 {path}', or set {CACHE} to a folder of yours"
        )
