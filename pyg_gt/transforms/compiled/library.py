"""Our compiled code: eigenpairs of small matrices and diagonals of powers of walks."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...native import Library


def call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    """Calls a function of ``library`` with arrays and numbers.

    The arrays are ours, made of what was checked when graphs were read: no address of a caller's
    memory, which could be written to meanwhile, is passed.

    Raises:
        MemoryError: if there is not enough.
        ValueError: if an entry of a sparse matrix does not lie where it must.
        ctypes.ArgumentError: if an array has another type or is not contiguous.
    """
    code = getattr(library, name)(*arguments)
    if code == 2:
        raise ValueError(f"{name}: an entry lies outside of the blocks of its matrix")
    if code:
        raise MemoryError(f"{name} of arrays of {[np.shape(each) for each in arguments]}")


def _declare(library: ctypes.CDLL) -> None:
    number = ctypes.c_int64
    floats, places, indices, flags = (
        np.ctypeslib.ndpointer(kind, flags="C_CONTIGUOUS")
        for kind in (np.float64, np.int64, np.int32, np.bool_)
    )
    csr = [indices, indices, floats]
    for name, arguments in {
        "symmetric_eigenpairs": [floats, number, number, floats, floats, flags],
        "diagonals_of_powers": [places, number, *csr, number, number, floats],
    }.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int


def _self_test(library: ctypes.CDLL) -> str | None:
    """What is wrong with the eigenpairs and the powers of a path and of a single edge."""
    n = 7
    matrices = np.zeros((2, n, n))
    matrices[0] = np.eye(n, k=1) + np.eye(n, k=-1)
    matrices[1, 0, 3] = matrices[1, 3, 0] = 1e-5
    values, vectors, failed = np.empty((2, n)), np.empty((2, n, n)), np.empty(2, dtype=np.bool_)
    call(library, "symmetric_eigenpairs", matrices, 2, n, values, vectors, failed)
    errors: list[NDArray[Any]] = [
        failed,
        matrices @ vectors - vectors * values[:, None],
        vectors.swapaxes(1, 2) @ vectors - np.eye(n),
        values[0] - 2 * np.cos(np.pi * np.arange(n, 0, -1) / (n + 1)),
    ]
    row, column = np.nonzero(matrices[0])
    start = np.searchsorted(row, np.arange(n + 1)).astype(np.int32)
    expected = [np.diag(np.linalg.matrix_power(matrices[0], t)) for t in range(1, 6)]
    csr = start, column.astype(np.int32), np.ones(row.size)
    for short_sum in 0, n:
        found = np.zeros((n, 5))
        call(library, "diagonals_of_powers", np.array([0, n]), 1, *csr, 5, short_sum, found)
        errors.append(found - np.stack(expected, axis=1))
    worst = max(float(np.abs(error).max()) for error in errors)
    return None if worst < 1e-13 else f"an error of {worst:.1e}"


COMPILED = Library(Path(__file__).with_name("csrc") / "transforms.cpp", _declare, _self_test)
