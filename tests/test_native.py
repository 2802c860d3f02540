"""Compiled on first use, kept, found again; where that fails, one warning that says what helps."""

import ctypes
import errno
import fcntl
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyg_gt import _native
from pyg_gt._native import Library

REAL = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="compiling is for POSIX systems"),
    pytest.mark.skipif(REAL is None, reason="there is no C++ compiler"),
]

SOURCE = """
#include "answer.h"
extern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }
"""


def declare(library: ctypes.CDLL) -> None:
    library.answer.argtypes = []
    library.answer.restype = ctypes.c_int


def fine(library: ctypes.CDLL) -> str | None:
    return None


class Place:
    """A source, an empty cache, and a compiler that notes when it is called."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source" / "answer.cpp"
        self.header = self.source.with_suffix(".h")
        self.cache = root / "cache"
        self.cxx = root / "bin" / "cxx"
        self.log = root / "log"
        self.source.parent.mkdir()
        self.source.write_text(SOURCE)
        self.header.write_text("#define ANSWER 42\n")
        self.cxx.parent.mkdir()
        self.compiler("")

    def compiler(self, before: str) -> None:
        """Make the compiler run these lines of shell before it compiles."""
        self.cxx.write_text(f'#!/bin/sh\necho "$@" >> {self.log}\n{before}\nexec {REAL} "$@"\n')
        self.cxx.chmod(0o755)

    def calls(self) -> int:
        """How often the compiler was called."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def library(self, check: Callable[[ctypes.CDLL], str | None] = fine) -> Library:
        return Library(self.source, declare, check)

    def files(self) -> list[Path]:
        return sorted(self.cache.iterdir())

    def compiled(self) -> Path:
        """The only file of the cache."""
        (path,) = self.files()
        assert path.suffix == ".so" and not path.name.startswith(".")
        return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.setenv("PYG_GT_CACHE", str(place.cache))
    monkeypatch.setenv("CXX", str(place.cxx))
    monkeypatch.delenv("PYG_GT_NATIVE", raising=False)
    return place


def refused(library: Library, *parts: str) -> str:
    """The reason, which holds all `parts`: warned of once, given and raised each time."""
    with pytest.warns(RuntimeWarning) as caught:
        reason = library.why_not()
    assert reason is not None
    (warning,) = caught
    assert str(warning.message).endswith(reason)
    assert "'answer.cpp'" in str(warning.message) and "slower" in str(warning.message)
    for part in parts:
        assert part in reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library.why_not() == reason
        with pytest.raises(NotImplementedError) as error:
            library.get()
    assert str(error.value) == reason
    return reason


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
    assert _native.cache_folder() == tmp_path / ("own" if named else ".cache") / "pyg_gt"
    monkeypatch.setenv("PYG_GT_CACHE", "~/third")
    assert _native.cache_folder() == tmp_path / "third"


def test_a_changed_source_is_another_file(place: Place) -> None:
    place.library().get()
    place.source.write_text(SOURCE.replace("return ANSWER", "return ANSWER + 1"))
    assert place.library().get().answer() == 43
    assert len(place.files()) == place.calls() == 2


def test_a_changed_header_is_another_file(place: Place) -> None:
    place.library().get()
    place.header.write_text("#define ANSWER 7\n")
    assert place.library().get().answer() == 7
    assert len(place.files()) == place.calls() == 2


def test_changed_flags_are_another_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.library().get()
    monkeypatch.setattr(_native, "FLAGS", (*_native.FLAGS, "-DOTHER"))
    place.library().get()
    assert len(place.files()) == place.calls() == 2


def test_another_compiler_is_another_file(place: Place) -> None:
    place.library().get()
    place.compiler("# another size and another time")
    place.library().get()
    assert len(place.files()) == place.calls() == 2


def test_another_processor_is_another_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.library().get()
    monkeypatch.setattr(_native, "_processor", lambda: "another")
    place.library().get()
    assert len(place.files()) == place.calls() == 2


def test_a_compiler_without_openmp_compiles_without(place: Place) -> None:
    place.compiler('case "$*" in *-fopenmp*) echo "no OpenMP" >&2; exit 1;; esac')
    assert place.library().get().answer() == 42
    assert place.calls() == 2 and place.compiled()


def test_a_compiler_that_is_a_link_is_called_by_the_links_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 'clang++' and the links of 'ccache' want it."""
    place.compiler('case "$0" in */driver++) ;; *) echo "I am $0" >&2; exit 1;; esac')
    link = place.cxx.with_name("driver++")
    link.symlink_to(place.cxx)
    monkeypatch.setenv("CXX", str(link))
    assert place.library().get().answer() == 42


@pytest.mark.parametrize("rest", ["", " -DMORE=1", " '-DMORE=two words'"])
def test_a_compiler_may_be_named_with_words_before_and_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    """As in CXX="ccache g++"."""
    wrapper = place.cxx.with_name("wrapper")
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"{wrapper} {place.cxx}{rest}")
    assert place.library().get().answer() == 42
    words = [str(wrapper), str(place.cxx), *shlex.split(rest)]
    assert _native.compiler() == words and place.calls() == 1
    # another compiler behind the same wrapper, or other words, are another file
    place.compiler("# another size and another time")
    place.library().get()
    monkeypatch.setenv("CXX", f"{wrapper} {place.cxx}{rest} -DOTHER")
    place.library().get()
    assert len(place.files()) == place.calls() == 3


def test_a_compiler_whose_path_has_spaces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = place.cxx.with_name("my compiler")
    place.cxx.rename(spaced)
    for name in (str(spaced), f"'{spaced}'"):
        monkeypatch.setenv("CXX", name)
        assert _native.compiler() == [str(spaced)]
    assert place.library().get().answer() == 42


@pytest.mark.parametrize("name", ["g++ 'half", "   "])
def test_a_compiler_that_is_no_command(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CXX", name)
    refused(place.library(), "CXX")


ASK = """
import ctypes, importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("native", {module!r})
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
    # the module needs nothing of the package, whose import takes seconds
    spec = importlib.util.find_spec("pyg_gt._native")
    assert spec is not None
    code = ASK.format(module=spec.origin, source=str(place.source))
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


def test_threads_that_ask_at_once_compile_once(place: Place) -> None:
    place.compiler("sleep 0.5")
    library, start = place.library(), threading.Barrier(2)
    answers = []

    def run() -> None:
        start.wait()
        answers.append(library.get().answer())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [42, 42]
    assert place.calls() == 1


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


def test_a_compiler_that_is_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    refused(place.library(), "looked for /nonexistent/g++", "install one", "CXX")


def test_no_compiler_at_all(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "source"))
    refused(place.library(), "looked for g++, c++, clang++", "install one", "CXX")


def test_the_usual_names_are_looked_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX")
    place.cxx.rename(place.cxx.with_name("c++"))
    monkeypatch.setenv("PATH", f"{place.cxx.parent}:/nonexistent")
    assert _native.compiler() == [str(place.cxx.with_name("c++"))]


def test_an_error_in_the_source(place: Place) -> None:
    place.source.write_text("int answer( {")
    refused(place.library(), f"'{place.cxx}'", f"'{place.source}'", "error", "CXX")
    assert place.files() == []
    place.source.write_text(SOURCE)
    assert place.library().get().answer() == 42


def test_a_compiler_that_talks_nonsense(place: Place) -> None:
    place.compiler(r"printf 'b\377d' >&2; exit 1")
    refused(place.library(), "b\N{REPLACEMENT CHARACTER}d", "PYG_GT_NATIVE=0")


def test_a_compiler_that_cannot_be_run(place: Place) -> None:
    place.cxx.write_bytes(b"\0 no program")
    refused(place.library(), f"'{place.cxx}' could not be run", "CXX", "PYG_GT_NATIVE=0")


def test_a_compiler_that_never_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_TIMEOUT", 0.2)
    place.compiler("exec sleep 900")
    refused(place.library(), "timed out after 0.2 seconds", "CXX", "PYG_GT_NATIVE=0")
    assert place.files() == []


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
    path = _native.compiled(place.source)
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
    path = _native.compiled(place.source)
    path.write_bytes(path.read_bytes()[:-1])
    place.compiler("exit 1")
    # the same compiler, for all that the name of the file can tell
    monkeypatch.setattr(_native, "_key", lambda *args: path.stem.split("-")[1])
    refused(place.library(), f"'{place.cxx}' failed", "CXX")
    assert place.files() == []


def test_a_library_takes_its_name_when_it_is_on_the_disk_and_tested(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def noted(what: str, function: Callable[..., object]) -> Callable[..., object]:
        def note(*args: object) -> object:
            done.append(what)
            return function(*args)

        return note

    def check(library: ctypes.CDLL) -> None:
        done.append("test")

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    place.library(check).get()
    assert done == ["fsync", "test", "replace", "fsync"]


def test_a_library_without_the_function(place: Place) -> None:
    place.source.write_text("int hidden() { return 1; }")
    refused(place.library(), "cannot be loaded", "answer", "PYG_GT_NATIVE=0")
    assert place.files() == []


def test_a_self_test_that_fails(place: Place) -> None:
    def check(library: ctypes.CDLL) -> str | None:
        answer = library.answer()
        return None if answer == 43 else f"{answer} in place of 43"

    refused(
        place.library(check), "self-test", "(42 in place of 43)", "PYG_GT_NATIVE=0",
        f"'{place.cxx} --version'",
    )  # fmt: skip
    assert place.files() == []  # nobody will load it
    place.header.write_text("#define ANSWER 43\n")
    assert place.library(check).get().answer() == 43


@pytest.mark.parametrize("value", ["0", "off", "OFF", "false", "False", "no", "No", " 0 "])
def test_the_switch_is_quiet(place: Place, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYG_GT_NATIVE", value)
    library = place.library()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library.why_not() == f"compiled code is switched off by PYG_GT_NATIVE={value}"
        with pytest.raises(NotImplementedError, match=f"PYG_GT_NATIVE={value}"):
            library.get()
    assert place.calls() == 0 and not place.cache.exists()
    for on in ("1", "", "on", "True", "YES"):
        monkeypatch.setenv("PYG_GT_NATIVE", on)
        assert library.why_not() is None
    # also where the library is loaded by now
    monkeypatch.setenv("PYG_GT_NATIVE", value)
    assert library.why_not() is not None


@pytest.mark.parametrize("value", ["2", "-1", "of", "none", "disable"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_switch_that_says_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, value: str, loaded: bool
) -> None:
    library = place.library()
    if loaded:
        library.get()
    monkeypatch.setenv("PYG_GT_NATIVE", value)
    with pytest.raises(ValueError, match=f"PYG_GT_NATIVE must be one of 0, off.*'{value}'"):
        library.why_not()


IMPORT_ALL = """
import importlib, pkgutil, pyg_gt
for module in pkgutil.walk_packages(pyg_gt.__path__, "pyg_gt."):
    if not module.name.endswith("_kernels"):  # of Triton, which may not be there
        importlib.import_module(module.name)
"""


@pytest.mark.slow
def test_nothing_is_compiled_on_import(place: Place) -> None:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert place.calls() == 0 and not place.cache.exists()
