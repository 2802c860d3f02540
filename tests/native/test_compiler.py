"""Which compiler is called, how, and what a compiled file depends on."""

import shlex
from pathlib import Path

import pytest

from pyg_gt.native import compiler, find_compiler
from tests.native.place import NEEDS_COMPILER, SOURCE, Place, refused

pytestmark = NEEDS_COMPILER


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
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-DOTHER"))
    place.library().get()
    assert len(place.files()) == place.calls() == 2


def test_another_compiler_is_another_file(place: Place) -> None:
    place.library().get()
    place.compiler("# another size and another time")
    place.library().get()
    assert len(place.files()) == place.calls() == 2


def test_another_processor_is_another_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.library().get()
    monkeypatch.setattr(compiler, "_processor", lambda: "another")
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
    assert find_compiler() == words and place.calls() == 1
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
        assert find_compiler() == [str(spaced)]
    assert place.library().get().answer() == 42


@pytest.mark.parametrize("name", ["g++ 'half", "   "])
def test_a_compiler_that_is_no_command(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CXX", name)
    refused(place.library(), "CXX")


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
    assert find_compiler() == [str(place.cxx.with_name("c++"))]


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
    monkeypatch.setattr(compiler, "_TIMEOUT", 0.2)
    place.compiler("exec sleep 900")
    refused(place.library(), "timed out after 0.2 seconds", "CXX", "PYG_GT_NATIVE=0")
    assert place.files() == []
