"""Whether Triton can be imported, and whether it runs kernels on the CPU."""

from __future__ import annotations

import os
from importlib.util import find_spec


def interprets() -> bool:
    """Whether triton runs kernels on the CPU, in numpy; it decides so when it is imported."""
    switch = os.environ.get("TRITON_INTERPRET", "").lower()
    return switch in ("1", "true", "on", "yes", "y")


def is_installed() -> bool:
    """Whether triton can be imported."""
    return find_spec("triton") is not None
