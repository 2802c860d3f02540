"""Compiled files: kept, found again, whole, and used by nobody else."""

import errno
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyg_gt.native import cache
from pyg_gt.native.cache import cache_folder, find_or_compile
from tests.native.place import NEEDS_COMPILER, Place, refused

pytestmark = NEEDS_COMPILER


def test_it_is_compiled_once_and_found_again(place: Place) -> None:
    library = place.library()
    assert place.calls() == 0 and not place.cache.exists()
    assert library.why_not() is None
    assert library.get().answer() == 42
    assert library.get() is library.get()
    path, about = place.compiled(), place.compiled().stat()
    assert place.calls() == 1
    assert place.library().get().answer() == 42
    assert place.calls() == 1
    assert place.compiled() == path and path.stat().st_mtime_ns == about.st_mtime_ns


def test_nobody_else_may_use_what_is_compiled(place: Place) -> None:
    old = os.umask(0)
    try:
        place.library().get()
    finally:
        os.umask(old)
    for path in (place.cache, place.compiled()):
        assert path.stat().st_mode & 0o777 == 0o700


def test_the_cache_may_be_named_from_the_current_folder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.cache.mkdir(0o700)
    monkeypatch.chdir(place.cache)
    monkeypatch.setenv("PYG_GT_CACHE", ".")
    assert place.library().get().answer() == 42
    assert place.compiled()


@pytest.mark.parametrize("named", [True, False])
def test_without_a_name_it_is_kept_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.delenv("PYG_GT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if named:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / ("own" if named else ".cache") / "pyg_gt"
    monkeypatch.setenv("PYG_GT_CACHE", "~/third")
    assert cache_folder() == tmp_path / "third"


ASK = """
import ctypes, importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location(
    "native", {module!r}, submodule_search_locations=[{folder!r}]
)
native = sys.modules["native"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
print("ready", flush=True)
sys.stdin.readline()
library = native.Library(pathlib.Path({source!r}), lambda library: None, lambda library: None)
print(library.get().answer(), flush=True)
"""


@pytest.fixture
def ask(place: Place) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that loads the library after a line on its standard input."""
    # the folder needs nothing of the package, whose import takes seconds
    spec = importlib.util.find_spec("pyg_gt.native")
    assert spec is not None and spec.origin is not None
    code = ASK.format(
        module=spec.origin, folder=str(Path(spec.origin).parent), source=str(place.source)
    )
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_that_compile_at_once_leave_one_file(
    place: Place, ask: Callable[[], subprocess.Popen[str]]
) -> None:
    # nobody compiles before all have begun to
    place.compiler(f'until [ "$(wc -l < {place.log})" -ge 4 ]; do sleep 0.05; done')
    processes = [ask() for _ in range(4)]
    for process in processes:
        go(process)
    for process in processes:
        out, said = process.communicate(timeout=600)
        assert (process.returncode, out, said) == (0, "42\n", "")
    assert place.calls() == 4
    assert place.compiled()


def test_a_compiler_that_is_killed_leaves_no_damaged_library(
    place: Place, ask: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    """The target is written under another name first."""
    half, stuck = tmp_path / "half", tmp_path / "stuck"
    stuck.touch()
    place.compiler(
        f'if [ -e {stuck} ]; then for target; do :; done; echo half > "$target"; '
        f"touch {half}; sleep 900; fi"
    )
    process = ask()
    go(process)
    end = time.monotonic() + 600
    while not half.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    (room,) = place.files()
    (left,) = room.iterdir()
    assert room.name.startswith(".") and left.read_text() == "half\n"
    # somebody else compiles in the meantime: the folder of a living process is left alone
    stuck.unlink()
    assert place.library().get().answer() == 42
    assert left.exists()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # and that of a dead one is removed, whether there is something to compile or not
    assert place.library().get().answer() == 42
    assert place.calls() == 2 and place.compiled().name.startswith("answer-")


def test_where_there_are_no_locks_what_is_a_day_old_is_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)
    place.cache.mkdir(0o700)
    new, old = (place.cache / f".compiling-answer-{age}" for age in ("new", "old"))
    for room in (new, old):
        room.mkdir()
        (room / "answer.so").write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert place.library().get().answer() == 42
    assert new.exists() and not old.exists()


def test_a_folder_that_cannot_be_written_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.cache.mkdir(0o700)
    place.cache.chmod(0o500)
    what = os.strerror(errno.EACCES)
    if os.access(place.cache, os.W_OK):  # modes do not bind root
        what = os.strerror(errno.EROFS)

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(errno.EROFS, what)

        monkeypatch.setattr(tempfile, "mkdtemp", fail)
    refused(place.library(), f"'{place.cache}'", what, "set PYG_GT_CACHE to a folder that can")
    assert place.calls() == 0


def test_a_folder_that_cannot_be_made(place: Place) -> None:
    place.cache.write_text("a file")
    refused(place.library(), f"'{place.cache}'", "File exists", "set PYG_GT_CACHE to a folder")


def test_a_full_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    refused(place.library(), "the disk is full", "set PYG_GT_CACHE to another folder")
    assert place.files() == []


def test_a_source_that_is_not_there(place: Place) -> None:
    place.source.unlink()
    refused(place.library(), f"'{place.source}'", "No such file", "PYG_GT_NATIVE=0")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o750, 0o701], ids=oct)
def test_a_folder_that_others_may_use(place: Place, mode: int) -> None:
    place.cache.mkdir()
    place.cache.chmod(mode)
    refused(place.library(), f"'{place.cache}' (mode {mode:o})", f"'chmod 700 {place.cache}'")
    assert place.files() == [] and place.calls() == 0
    place.cache.chmod(0o700)
    assert place.library().get().answer() == 42


@pytest.mark.parametrize("mode", [0o720, 0o702], ids=oct)
def test_a_file_that_others_may_write_to(place: Place, mode: int) -> None:
    place.library().get()
    path = place.compiled()
    path.chmod(mode)
    refused(place.library(), f"'{path}' (mode {mode:o})", f"'chmod 700 {path}'")


def test_a_folder_that_is_a_link(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    place.cache.symlink_to(tmp_path / "elsewhere")
    refused(place.library(), f"'{place.cache}' is a link", "remove it")
    assert place.calls() == 0


def test_a_file_that_is_a_link(place: Place, tmp_path: Path) -> None:
    place.library().get()
    path = place.compiled()
    path.rename(tmp_path / "elsewhere.so")
    path.symlink_to(tmp_path / "elsewhere.so")
    refused(place.library(), f"'{path}' is a link", "remove it")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_another_user(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    place.library().get()
    path, me = place.cache if what == "folder" else place.compiled(), os.getuid()
    real = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        about = real(self)
        if self != path:
            return about
        return os.stat_result([*about[:4], me + 1, *about[5:]])  # st_uid

    monkeypatch.setattr(Path, "lstat", lstat)
    refused(
        place.library(), f"'{path}' belongs to another user", f"(id {me + 1}, not {me})",
        "set PYG_GT_CACHE to a folder of yours",
    )  # fmt: skip
    assert place.calls() == 1


def cut(size: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * size)]


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        at = int(place * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]

    return flip


@pytest.mark.parametrize(
    "damage",
    [*map(cut, (0, 0.01, 0.3, 0.9, 0.9999)), *map(flipped, (0, 0.2, 0.5, 0.8, 1))],
    ids=[*(f"cut-{x}" for x in (0, 1, 30, 90, 99)), *(f"bit-{x}" for x in (0, 20, 50, 80, 100))],
)
def test_a_damaged_file_is_made_again(place: Place, damage: Callable[[bytes], bytes]) -> None:
    path, _ = find_or_compile(place.source, (), lambda path: None)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert place.library().get().answer() == 42
    assert place.compiled().read_bytes() == whole
    assert place.calls() == 2
    assert place.library().get().answer() == 42
    assert place.calls() == 2


def test_a_damaged_file_that_cannot_be_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = find_or_compile(place.source, (), lambda path: None)
    path.write_bytes(path.read_bytes()[:-1])
    place.compiler("exit 1")
    # the same compiler, for all that the name of the file can tell
    monkeypatch.setattr(cache, "build_key", lambda *args: path.stem.split("-")[1])
    refused(place.library(), f"'{place.cxx}' failed", "CXX")
    assert place.files() == []
