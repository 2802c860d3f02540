"""The threads of BLAS: one for small matrices."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  loads its library, which is another one than NumPy's
from threadpoolctl import ThreadpoolController

from .library import COMPILED

# Number of rows up to which threads have nothing to share.
_SMALL = 512


def threads_for(max_nodes: int) -> AbstractContextManager[Any]:
    """Holds BLAS to one thread where all matrices have few rows, at most ``max_nodes``.

    For a matrix of a molecule, handing work to another thread takes longer than the work, and on
    a busy machine ten times as long, since threads wait for each other. Many graphs are spread
    over processes instead.
    """
    return _blas().limit(limits=1) if max_nodes <= _SMALL else nullcontext()


def load_libraries() -> None:
    """Loads BLAS and our compiled code, which a process needs sooner or later."""
    _blas()
    COMPILED.why_not()


@cache
def _blas() -> Any:
    return ThreadpoolController().select(user_api="blas")
