"""Tests of kernels in a process of their own: triton reads the switch of its interpreter once."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs the package 'triton' (pyg_gt[triton])"
)


def run(arguments: list[str], interpret: bool) -> None:
    """Runs python with ``arguments``; fails with what it printed."""
    # not the options and the worker's name of the pytest around it
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env["TRITON_INTERPRET"] = "1" if interpret else "0"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def side_by_side() -> list[str]:
    """On a GPU nearly all of the time goes into compiling."""
    if find_spec("xdist") is None:
        return []
    # what 'pytest-benchmark' says of it would be an error
    return ["-n", str(max(1, (os.cpu_count() or 1) // 2)), "-p", "no:benchmark"]
