"""Linear algebra of small matrices on one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  loads its library, which is another one than NumPy's
from threadpoolctl import ThreadpoolController

from ..graphs.graphs import Graphs
from .library import COMPILED

# Number of nodes up to which threads have nothing to share.
_SMALL_GRAPH = 512


def threads_for(graphs: Graphs) -> AbstractContextManager[Any]:
    """Holds BLAS to one thread for graphs that are all small.

    For a matrix of a molecule, handing work to another thread takes longer than the work, and on
    a busy machine ten times as long, since threads wait for each other. Many graphs are spread
    over processes instead.
    """
    sizes = graphs.ptr[1:] - graphs.ptr[:-1]
    return _blas().limit(limits=1) if sizes.max(initial=0) <= _SMALL_GRAPH else nullcontext()


def load_libraries() -> None:
    """Loads what one process at least would load sooner or later."""
    _blas()
    COMPILED.why_not()


@cache
def _blas() -> Any:
    return ThreadpoolController().select(user_api="blas")
