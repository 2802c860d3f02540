"""The compiled ``csrc/edges.cpp``: its functions, the struct they read, and a test of both."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

from ....native import Library


class Rows(ctypes.Structure):
    """``struct Rows``: an address, and the strides of nodes and heads in elements."""

    _fields_ = (("data", ctypes.c_void_p), ("row", ctypes.c_int64), ("head", ctypes.c_int64))


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Call(ctypes.Structure):
    """``struct Call`` of ``csrc/edges.cpp``, field by field."""

    _fields_ = (
        *_fields("queries keys edges heads channels", ctypes.c_int64),
        *_fields("half values_half threads most", ctypes.c_int64),
        *_fields("ptr source number", ctypes.c_void_p),
        *_fields("query key value features", Rows),
        *_fields("values seed", ctypes.c_void_p),
        *_fields("scale dropout_p", ctypes.c_double),
        *_fields("out", Rows),
        *_fields("source_ptr target slot", ctypes.c_void_p),
        *_fields("grad dquery dkey dvalue dfeatures", Rows),
        *_fields("dvalues", ctypes.c_void_p),
    )


def _declare(library: ctypes.CDLL) -> None:
    number, address = ctypes.c_int64, ctypes.c_void_p
    for function in (library.edges_forward, library.edges_backward):
        function.argtypes = [ctypes.POINTER(Call)]
        function.restype = ctypes.c_int
    library.edges_by_target.argtypes = [*(address,) * 2, *(number,) * 3, *(address,) * 3]
    library.edges_by_source.argtypes = [*(address,) * 2, *(number,) * 2, *(address,) * 3]
    for function in (library.edges_by_target, library.edges_by_source):
        function.restype = number
    library.edges_spare.argtypes = []
    library.edges_spare.restype = ctypes.c_int


def _self_test(library: ctypes.CDLL) -> str | None:
    """Three edges, of which two share a target, by hand."""
    room = 3 + library.edges_spare()
    ends = (ctypes.c_int32 * 6)(0, 2, 1, 1, 0, 1)
    ptr, source, number = ((ctypes.c_int32 * n)() for n in (3, room, room))
    at = ctypes.addressof
    lists = at(ptr), at(source), at(number)
    most = library.edges_by_target(at(ends), at(ends) + 12, 3, 3, 2, *lists)
    if (most, ptr[:], source[:3], number[:3]) != (2, [0, 1, 3], [2, 0, 1], [1, 0, 2]):
        return f"edges came out in the order {number[:3]}"
    query, key, value = [0.5, -1.0], [1.0, 2.0, 3.0], [10.0, -20.0, 30.0]
    rows = [(ctypes.c_float * 3)(*x) for x in (query, key, value)]
    out = (ctypes.c_float * 2)()
    call = Call(
        2, 3, 3, 1, 1, 0, 0, 1, most, *lists,
        *(Rows(at(x), 1, 1) for x in rows), scale=1.0, out=Rows(at(out), 1, 1),
    )  # fmt: skip
    library.edges_forward(ctypes.byref(call))
    weights = [math.exp(query[1] * key[j]) for j in range(2)]
    want = [value[2], sum(w * v for w, v in zip(weights, value, strict=False)) / sum(weights)]
    if any(abs(a - b) > 1e-4 for a, b in zip(out, want, strict=True)):
        return f"got {list(out)} where {want} was expected"
    return None


EDGES = Library(Path(__file__).parent / "csrc" / "edges.cpp", _declare, _self_test)
