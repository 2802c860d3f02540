"""The kernels by which ceilings are measured."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.record import ROOT


@pytest.mark.skipif(find_spec("triton") is None, reason="needs the package 'triton'")
def test_the_kernel_of_exponentials() -> None:
    """In triton's interpreter, which it turns to when it is imported."""
    code = (
        "import torch\n"
        "from benchmarks.gpu.ceiling_kernels import nothing, repeated_exp2\n"
        "x = torch.rand(2048); out = torch.empty_like(x)\n"
        "repeated_exp2[(2,)](x, out, ROUNDS=3, BLOCK=1024); nothing[(1,)](x)\n"
        "torch.testing.assert_close(out, torch.exp2(-torch.exp2(-torch.exp2(-x))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
