"""The examples in docstrings run, and show what they say."""

import doctest
import importlib
import inspect
import sys
import types

import pytest
import torch

ROOMS = (
    "pyg_gt",
    "pyg_gt.models",
    "pyg_gt.nn",
    "pyg_gt.ops",
    "pyg_gt.layout",
    "pyg_gt.transforms",
    "pyg_gt.datasets",
)
# where every public class has an example
COMPLETE = ("pyg_gt.models", "pyg_gt.nn", "pyg_gt.ops")


def public(room: str) -> dict[str, object]:
    """The classes and functions that a package names, by their qualified name."""
    package = importlib.import_module(room)
    found = {}
    for name in package.__all__:
        thing = getattr(package, name)
        if isinstance(thing, (type, types.FunctionType)):
            found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


PUBLIC = {name: thing for room in ROOMS for name, thing in public(room).items()}


def examples(name: str, thing: object) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False)
    # an example may use the names of its own module, as everywhere with doctest
    names = dict(vars(sys.modules[getattr(thing, "__module__", __name__)]))
    parts = {name: thing}
    if isinstance(thing, type):
        parts |= {
            f"{name}.{part}": member
            for part, member in vars(thing).items()
            if not part.startswith("_") and inspect.getdoc(member)
        }
    return [
        test
        for part, member in parts.items()
        for test in finder.find(member, part, globs=dict(names))
        if test.examples
    ]


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if examples(name, thing)])
def test_examples_run(name: str) -> None:
    torch.manual_seed(0)
    for test in examples(name, PUBLIC[name]):
        lines: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        result = runner.run(test, out=lines.append)
        assert result.failed == 0, "".join(lines)
        # what needs a download says so, and is left out
        skips = [example.options.get(doctest.SKIP, False) for example in test.examples]
        assert result.attempted == skips.count(False)
        assert "datasets" in name or not any(skips), name


@pytest.mark.parametrize("room", COMPLETE)
def test_every_public_class_has_an_example(room: str) -> None:
    classes = {name: thing for name, thing in public(room).items() if isinstance(thing, type)}
    assert len(classes) >= 5
    assert [name for name, thing in classes.items() if not examples(name, thing)] == []


def test_an_example_that_is_wrong_is_seen() -> None:
    def wrong() -> None:
        """It adds.

        Example:
            >>> 1 + 1
            3
        """

    (test,) = examples("wrong", wrong)
    assert doctest.DocTestRunner().run(test, out=lambda text: None).failed == 1
