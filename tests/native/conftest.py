"""The place every test of compiled code starts from."""

from pathlib import Path

import pytest

from tests.native.place import Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.setenv("PYG_GT_CACHE", str(place.cache))
    monkeypatch.setenv("CXX", str(place.cxx))
    monkeypatch.delenv("PYG_GT_NATIVE", raising=False)
    return place
