"""What every test shares: one thread, a fixed seed, the data folder; what a machine lacks."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from pyg_gt import native
from pyg_gt.ops._kernels.cpu.edges_library import EDGES
from pyg_gt.ops._kernels.cpu.full import FULL

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

# The same examples every time; `--hypothesis-profile=default` looks for new ones. How long a busy
# machine takes says nothing about the code.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def no_compiler() -> str | None:
    """Why nothing can be compiled on this machine, whatever the code; None if it can."""
    if os.name != "posix":
        return "compiling is for POSIX systems"
    try:
        native.find_compiler()
    except native.Unavailable as error:
        return str(error)
    return None


if no_compiler() is not None:
    os.environ[native.SWITCH] = "0"  # 'auto' would warn, and warnings are errors


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `cuda` and `compiled` where there is no device or no compiler."""
    missing = {
        "cuda": None if torch.cuda.is_available() else "needs a CUDA device",
        "compiled": no_compiler(),
    }
    for item in items:
        for name, reason in missing.items():
            if reason is not None and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _compiles(request: pytest.FixtureRequest) -> None:
    """A compiler that is there and fails must fail the tests marked `compiled`, not skip them."""
    if request.node.get_closest_marker("compiled"):
        for library in (FULL, EDGES):
            assert library.why_not() is None, library.why_not()


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
