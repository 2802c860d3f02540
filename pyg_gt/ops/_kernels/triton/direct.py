"""A compiled Triton kernel, launched by the driver's own function.

Triton's launcher asks every tensor for its address, and the driver about every address. Here the
arguments lie in memory, each in a cell that is written when it changes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from torch import Tensor

_CELLS = {
    "i1": ctypes.c_int8, "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32,
    "i64": ctypes.c_int64, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
    "fp32": ctypes.c_float, "f32": ctypes.c_float, "fp64": ctypes.c_double,
    "f64": ctypes.c_double,
}  # fmt: skip
_ONE = ctypes.c_uint(1)
# arguments of the driver's function, each of its type in C
Launch = tuple[Any, ...]


class Direct:
    """A kernel with its arguments.

    Args:
        compiled: triton's.
        cells: of all its arguments, in their order.
        own: those that every launch writes, by name.
    """

    def __init__(self, compiled: Any, cells: list[Any], own: dict[str, Any]) -> None:
        metadata = compiled.metadata
        self._function = ctypes.c_void_p(compiled.function)
        self._threads = ctypes.c_uint(32 * metadata.num_warps)
        self._shared = ctypes.c_uint(metadata.shared)
        # two more, for memory that later versions of triton may be given beside
        self._alive = *cells, ctypes.c_uint64(0), ctypes.c_uint64(0)
        addresses = [ctypes.addressof(cell) for cell in self._alive]
        self._addresses = (ctypes.c_void_p * len(addresses))(*addresses)
        self._own = own
        # keeps the module, and so the function, loaded
        self._compiled = compiled

    def __call__(self, grid: int, own: Mapping[str, Any], stream: int) -> bool:
        """Whether the driver took it; where it did not, triton's launcher finds out why."""
        for cell, number in self.written(own):
            cell.value = number
        return taken([self.launch(grid, ctypes.c_void_p(stream))])

    def written(self, own: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """Cells with what a launch writes into them."""
        return [(cell, number(own[name])) for name, cell in self._own.items()]

    def launch(self, grid: int, stream: ctypes.c_void_p) -> Launch:
        """With what lies in the cells, and in that of the stream, when the driver is asked."""
        return (
            self._function, ctypes.c_uint(grid), _ONE, _ONE, self._threads, _ONE, _ONE,
            self._shared, stream, self._addresses, None,
        )  # fmt: skip


def taken(launches: Iterable[Launch]) -> bool:
    """Whether the driver takes them, one after the other; none after one that it refuses."""
    driver = _driver()
    for launch in launches:
        if driver(*launch):
            return False
    return True


def is_watched() -> bool:
    """Whether somebody wants to be told of launches."""
    runtime = knobs().runtime
    for hook in (runtime.launch_enter_hook, runtime.launch_exit_hook):
        if hook is not None and getattr(hook, "calls", True):
            return True
    return False


@cache
def knobs() -> Any:
    """Triton's settings."""
    from triton import knobs

    return knobs


def number(x: Any) -> Any:
    """What a kernel is given."""
    return 0 if x is None else x.data_ptr() if isinstance(x, Tensor) else x


def direct(
    compiled: Any,
    named: Mapping[str, Any],
    varying: Iterable[str],
    own: Iterable[str],
    cells: dict[str, Any],
) -> Direct | None:
    """The kernel, ready to be launched with the same arguments but for some.

    Args:
        compiled: what triton gave back when it launched it.
        named: the arguments of that launch.
        varying: names of those that are written into ``cells`` before a launch.
        own: names of those that come with each launch.
        cells: where varying arguments lie, by name; missing ones are made.

    Returns:
        None where more than a plain launch is asked for.
    """
    if not _is_plain(compiled):
        return None
    varying, own = set(varying), set(own)
    order, mine = [], {}
    for name, kind in compiled.src.signature.items():
        if kind == "constexpr":
            continue
        x = named[name]
        cell = cells.get(name) if name in varying else None
        if cell is None:
            make = ctypes.c_uint64 if kind.startswith("*") else _CELLS[kind]
            cell = make(number(x))
            if name in varying:
                cells[name] = cell
            elif name in own:
                mine[name] = cell
        order.append(cell)
    return Direct(compiled, order, mine)


def _is_plain(compiled: Any) -> bool:
    if not hasattr(compiled, "packed_metadata"):  # interpreted, or still being compiled
        return False
    metadata, signature = compiled.metadata, getattr(compiled.src, "signature", None)
    special = (
        getattr(metadata, "num_ctas", 1) != 1, getattr(metadata, "global_scratch_size", 0),
        getattr(metadata, "profile_scratch_size", 0),
        getattr(metadata, "launch_cooperative_grid", False),
        getattr(metadata, "launch_pdl", False), metadata.target.backend != "cuda",
    )  # fmt: skip
    if any(special) or not isinstance(signature, dict):
        return False
    kinds = (kind for kind in signature.values() if kind != "constexpr")
    return all(kind.startswith("*") or kind in _CELLS for kind in kinds) and _is_there()


@cache
def _is_there() -> bool:
    try:
        _driver()
    except (OSError, AttributeError):
        return False
    return True


@cache
def _driver() -> Any:
    """``cuLaunchKernel`` of the CUDA driver API."""
    # No 'argtypes': arguments are of C's types already, and to convert them takes as long again as
    # the call does.
    launch = ctypes.CDLL("libcuda.so.1").cuLaunchKernel
    launch.restype = ctypes.c_int
    return launch
