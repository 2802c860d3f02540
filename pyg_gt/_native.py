"""C++ compiled on first use by the system's compiler, kept in the user's cache, loaded by ctypes.

A compiled file is named after a hash of all that made it: sources, flags, compiler, processor.
Loading it runs code, so its folder must belong to this user and be closed to everybody else.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-fvisibility=hidden"),
    # no exceptions of arithmetic are looked at; NaN, infinity and the order of sums are kept
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
# tried in this order: some compilers come without OpenMP, and run on one thread then
THREADS = (("-fopenmp",), ())
SWITCH = "PYG_GT_NATIVE"
CACHE = "PYG_GT_CACHE"
_TIMEOUT = 300.0


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
        """Why it cannot be used, or None; the first call compiles, and warns once if it fails."""
        if os.environ.get(SWITCH, "1") in ("0", "off", "false"):
            return f"compiled code is switched off by {SWITCH}={os.environ[SWITCH]}"
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
            path = compiled(self._source, self._flags)
        except OSError as error:  # a full disk, a source that is not there
            raise Unavailable(
                f"'{self._source}' cannot be compiled ({error}); set {CACHE} to another folder, "
                f"or {SWITCH}=0"
            ) from error
        try:
            library = ctypes.CDLL(str(path))
            self._declare(library)
            wrong = self._check(library)
        except (OSError, AttributeError) as error:
            raise Unavailable(
                f"'{path}' cannot be loaded ({error}); delete it, or set {CACHE} to another folder"
            ) from error
        if wrong is not None:
            raise Unavailable(
                f"the self-test of '{path}' failed ({wrong}); set {SWITCH}=0 and report it with "
                f"the output of '{compiler()} --version'"
            )
        return library


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


def compiler() -> str:
    """The C++ compiler: ``CXX``, or the first of the usual names that is there."""
    given = os.environ.get("CXX")
    names = [given] if given else ["g++", "c++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return os.path.abspath(found)  # as a link: 'clang++' and 'ccache' go by their name
    raise Unavailable(
        f"no C++ compiler was found (looked for {', '.join(names)}); install one, for instance "
        f"'g++', or name yours in CXX"
    )


def compiled(source: Path, flags: tuple[str, ...] = ()) -> Path:
    """The shared library made from ``source``: an old one if nothing has changed since."""
    if os.name != "posix":
        raise Unavailable(f"compiling on '{os.name}' is not supported; set {SWITCH}=0")
    folder = _checked_folder(cache_folder())
    cxx = compiler()
    path = folder / f"{source.stem}-{_key(source, cxx, flags)}.so"
    if path.exists():
        _check_owner(path)
        return path
    handle, name = _temporary(folder, path)
    os.close(handle)
    try:
        _compile(cxx, source, name, flags)
        os.chmod(name, 0o700)
        os.replace(name, path)  # another process may do the same: either file will do
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def _temporary(folder: Path, path: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-", suffix=".so")
    except OSError as error:
        raise Unavailable(
            f"'{folder}' cannot be written to ({error.strerror}); set {CACHE} to a folder that can"
        ) from error


def _compile(cxx: str, source: Path, target: str, flags: tuple[str, ...]) -> None:
    said = ""
    for threads in THREADS:
        command = [cxx, *FLAGS, *flags, *threads, str(source), "-o", target]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(
                f"'{cxx}' could not be run ({error}); name another compiler in CXX, or set "
                f"{SWITCH}=0"
            ) from error
        if done.returncode == 0:
            return
        said = said or done.stderr.strip()
    raise Unavailable(
        f"'{cxx}' failed on '{source}': {said[:500]}; name another compiler in CXX, or set "
        f"{SWITCH}=0"
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


def _key(source: Path, cxx: str, flags: tuple[str, ...]) -> str:
    parts = [repr((FLAGS, flags, THREADS)), _processor()]
    about = os.stat(cxx)  # its version would cost a process
    parts += [cxx, os.path.realpath(cxx), str(about.st_size), str(about.st_mtime_ns)]
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
