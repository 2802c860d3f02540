"""The examples in docstrings run and print what they say."""

import doctest

import pytest

from pyg_gt import transforms

# Values that the examples of others show.
RESULTS = {"Attribute", "BlockDensity", "Graphs", "ReorderReport"}


@pytest.mark.parametrize("name", sorted(set(transforms.__all__) - RESULTS))
def test_example(name: str) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(transforms, name), name)
    assert test.examples
    told: list[str] = []
    result = doctest.DocTestRunner().run(test, out=told.append)
    assert result.failed == 0, "".join(told)
