"""Compiled on first use; where that fails, one warning that says what helps."""

import ctypes
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.place import NEEDS_COMPILER, Place, refused

pytestmark = NEEDS_COMPILER


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
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert place.calls() == 0 and not place.cache.exists()
