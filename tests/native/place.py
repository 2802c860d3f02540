"""A source, an empty cache and a compiler that counts its calls; what a refusal looks like."""

import ctypes
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pyg_gt.native import Library

REAL = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
NEEDS_COMPILER = [
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
