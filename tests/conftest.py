"""What every test shares: one thread, a fixed seed, the data folder, no GPU no `cuda` test."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

# The same examples every time; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `cuda` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed every test starts from."""
    value = 0
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The read-only folder of real datasets: `PYG_GT_DATA`, by default `../shared/data`."""
    root = Path(os.environ.get("PYG_GT_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not root.is_dir():
        pytest.skip(f"no data folder at {root}; set PYG_GT_DATA to one")
    return root
