"""C++ compiled on first use by the system's compiler, kept in the user's cache, loaded by ctypes.

A compiled file is named after a hash of all that made it (sources, flags, compiler, processor) and
one of what it holds, by which damage is found before it is loaded. Loading it runs code, so its
folder must belong to this user and be closed to everybody else.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-fvisibility=hidden"),
    # no exceptions of arithmetic are looked at; NaN, infinity and the order of sums are kept
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
# tried in this order: some compilers come without OpenMP, and run on one thread then
THREADS = (("-fopenmp",), ())
SWITCH = "PYG_GT_NATIVE"
_SWITCHED_OFF, _SWITCHED_ON = ("0", "off", "false", "no"), ("1", "on", "true", "yes", "")
CACHE = "PYG_GT_CACHE"
_TIMEOUT = 300.0
_ROOM = ".compiling-"
# after which a folder to compile in is given up where it cannot be seen whose it is
_ABANDONED = 24 * 3600.0


T = TypeVar("T")


class Unavailable(Exception):
    """Why there is no compiled code, and what helps."""


class Library:
    """One shared library, compiled and loaded when it is first asked for.

    Args:
        source: the C++ file; every header beside it counts as part of it.
        declare: sets the argument types of the functions of the loaded library.
        check: runs them once on something known; returns what is wrong, or None.
        flags: for the compiler, behind the usual ones.
    """

    def __init__(
        self,
        source: Path,
        declare: Callable[[ctypes.CDLL], None],
        check: Callable[[ctypes.CDLL], str | None],
        flags: tuple[str, ...] = (),
    ) -> None:
        self._source = source
        self._flags = flags
        self._declare = declare
        self._check = check
        self._lock = threading.Lock()
        self._loaded: ctypes.CDLL | None = None
        self._reason: str | None = None

    def why_not(self) -> str | None:
        """Why it cannot be used, or None; the first call compiles, and warns once if it fails.

        Raises:
            ValueError: if ``PYG_GT_NATIVE`` says neither on nor off.
        """
        given = os.environ.get(SWITCH)
        if given is not None and _is_off(given):
            return f"compiled code is switched off by {SWITCH}={given}"
        if self._loaded is not None:
            return None
        with self._lock:
            if self._loaded is None and self._reason is None:
                try:
                    self._loaded = self._load()
                except Unavailable as error:
                    self._reason = str(error)
                    warnings.warn(
                        f"pyg_gt runs without its compiled '{self._source.name}', which is "
                        f"slower: {self._reason}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
        return self._reason

    def get(self) -> ctypes.CDLL:
        """The loaded library.

        Raises:
            NotImplementedError: if it cannot be used, with the reason.
        """
        if self._loaded is None and (reason := self.why_not()) is not None:
            raise NotImplementedError(reason)
        assert self._loaded is not None
        return self._loaded

    def _load(self) -> ctypes.CDLL:
        try:
            made = _made(self._source, self._flags, self._opened)
        except OSError as error:  # a full disk, a source that is not there
            raise Unavailable(
                f"'{self._source}' cannot be compiled ({error}); set {CACHE} to another folder, "
                f"or {SWITCH}=0"
            ) from error
        return made[1]

    def _opened(self, path: Path) -> ctypes.CDLL:
        try:
            library = ctypes.CDLL(str(path))
            self._declare(library)
            wrong = self._check(library)
        except (OSError, AttributeError) as error:
            raise Unavailable(
                f"'{path}' cannot be loaded ({error}); set {CACHE} to another folder, or "
                f"{SWITCH}=0"
            ) from error
        if wrong is not None:
            raise Unavailable(
                f"the self-test of '{path}' failed ({wrong}); set {SWITCH}=0 and report it with "
                f"the output of '{shlex.join(compiler())} --version'"
            )
        return library


def _is_off(given: str) -> bool:
    word = given.strip().lower()
    if word not in _SWITCHED_OFF + _SWITCHED_ON:
        raise ValueError(
            f"{SWITCH} must be one of {', '.join(_SWITCHED_OFF)} (off) and "
            f"{', '.join(_SWITCHED_ON[:-1])} (on), but it is '{given}'; unset it to use compiled "
            f"code where there is a compiler"
        )
    return word in _SWITCHED_OFF


def cache_folder() -> Path:
    """Where compiled files are kept: ``PYG_GT_CACHE``, or ``pyg_gt`` in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if given := os.environ.get(CACHE):
            # 'dlopen' looks elsewhere for a name without a folder
            return Path(given).expanduser().absolute()
        return (Path(base) if base else Path.home() / ".cache") / "pyg_gt"
    except RuntimeError as error:  # a user without a home
        raise Unavailable(f"there is no home folder ({error}); set {CACHE} to a folder") from error


def compiler() -> list[str]:
    """The C++ compiler: the command ``CXX``, or the first of the usual names that is there."""
    given = os.environ.get("CXX")
    names = [[name] for name in ("g++", "c++", "clang++")]
    if given:
        try:  # a path may hold spaces; 'ccache g++' is two words
            names = [[given] if shutil.which(given) else shlex.split(given)]
        except ValueError as error:
            raise Unavailable(f"CXX='{given}' is no command ({error})") from error
    for name, *rest in filter(None, names):
        if found := shutil.which(name):
            # as a link: 'clang++' and 'ccache' go by their name
            return [os.path.abspath(found), *rest]
    looked_for = ", ".join(name[0] for name in names if name) or f"{given!r}"
    raise Unavailable(
        f"no C++ compiler was found (looked for {looked_for}); install one, for instance "
        f"'g++', or name yours in CXX"
    )


def compiled(source: Path, flags: tuple[str, ...] = ()) -> Path:
    """The shared library made from ``source``: an old one if nothing has changed since."""
    return _made(source, flags, lambda path: None)[0]


def _made(source: Path, flags: tuple[str, ...], opened: Callable[[Path], T]) -> tuple[Path, T]:
    """The library and what ``opened`` gives of it; it takes its name when that has not failed."""
    if os.name != "posix":
        raise Unavailable(f"compiling on '{os.name}' is not supported; set {SWITCH}=0")
    folder = _checked_folder(cache_folder())
    cxx = compiler()
    name = f"{source.stem}-{_key(source, cxx, flags)}"
    _remove_abandoned(folder)
    for path in sorted(folder.glob(f"{name}-*.so")):
        try:
            _check_owner(path)
            whole = path.stem == f"{name}-{_content(path)}"
        except FileNotFoundError:
            continue  # another process found the damage first
        if whole:
            return path, opened(path)
        path.unlink(missing_ok=True)  # it was cut short, or bits have flipped: it is made again
    with _room(folder, name) as room:
        new = room / f"{source.stem}.so"
        _compile(cxx, source, str(new), flags)
        os.chmod(new, 0o700)
        _to_disk(new)
        path = folder / f"{name}-{_content(new)}.so"
        result = opened(new)
        os.replace(new, path)  # another process may do the same: either file will do
        with suppress(OSError):  # not every file system does that to a folder
            _to_disk(folder)
    return path, result


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would outlive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _room(folder: Path, name: str) -> Iterator[Path]:
    """A folder to compile in, locked as long as this process lives, and gone afterwards."""
    while True:
        try:
            room = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_ROOM}{name}-"))
        except OSError as error:
            raise Unavailable(
                f"'{folder}' cannot be written to ({error.strerror}); set {CACHE} to a folder "
                f"that can"
            ) from error
        # before it is locked somebody may take it for abandoned
        try:
            handle = os.open(room, os.O_RDONLY)
        except FileNotFoundError:
            continue
        _locked(handle, wait=True)
        if room.exists():
            break
        os.close(handle)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """Removes what processes that were killed have left."""
    for room in folder.glob(f"{_ROOM}*"):
        try:
            handle = os.open(room, os.O_RDONLY)
        except OSError:
            continue  # its owner has removed it
        try:
            free = _locked(handle, wait=False)
            if free is None:  # this file system has no locks
                free = time.time() - os.fstat(handle).st_mtime > _ABANDONED
            if free:
                shutil.rmtree(room, ignore_errors=True)
        finally:
            os.close(handle)


def _locked(handle: int, wait: bool) -> bool | None:
    """Whether an open folder could be locked; None where that cannot be told."""
    import fcntl  # of POSIX systems only

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _compile(cxx: list[str], source: Path, target: str, flags: tuple[str, ...]) -> None:
    said = ""
    for threads in THREADS:
        command = [*cxx, *FLAGS, *flags, *threads, str(source), "-o", target]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(
                f"'{shlex.join(cxx)}' could not be run ({error}); name another compiler in CXX, "
                f"or set {SWITCH}=0"
            ) from error
        if done.returncode == 0:
            return
        said = said or done.stderr.strip()
    raise Unavailable(
        f"'{shlex.join(cxx)}' failed on '{source}': {said[:500]}; name another compiler in CXX, "
        f"or set {SWITCH}=0"
    )


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
    """Only this user may have written what is about to be run."""
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


def _key(source: Path, cxx: list[str], flags: tuple[str, ...]) -> str:
    parts = [repr((FLAGS, flags, THREADS, cxx)), _processor()]
    for word in cxx:  # of 'ccache g++' both
        if found := shutil.which(word):
            about = os.stat(found)  # its version would cost a process
            parts += [os.path.realpath(found), str(about.st_size), str(about.st_mtime_ns)]
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in [source, *sorted(source.parent.glob("*.h"))]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


@lru_cache(maxsize=1)
def _processor() -> str:
    """What '-march=native' looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features", "CPU part", "isa")
    found = [line for line in lines if line.split(":")[0].strip() in names]
    return "\n".join([platform.machine(), platform.processor(), *found])
