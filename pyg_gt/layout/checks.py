"""Checks of the arguments of which layouts are made, and their messages."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .values import is_recorded, is_traced

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_count(name: str, number: object) -> None:
    """Raises ``ValueError`` unless ``number`` is a whole number of at least 0."""
    if type(number) is int and number >= 0:
        return
    # traced code has whole numbers of types of its own, whose values nobody may ask for
    if isinstance(number, torch.SymInt) or (isinstance(number, Tensor) and is_traced()):
        return
    whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    if not whole or number < 0:  # type: ignore[operator]
        raise ValueError(f"'{name}' must be a whole number of at least 0 (got {number!r})")


def check_num_nodes(described: int, num_nodes: int, name: str) -> None:
    """Raises ``ValueError`` if a layout or a ``batch`` is of another number of nodes."""
    if described != num_nodes:
        raise ValueError(
            f"'{name}' describes {described} nodes, but there are {num_nodes}; pass the one that "
            f"belongs to these node features"
        )


def check_integers(name: str, tensor: object) -> None:
    """Raises ``ValueError`` unless ``tensor`` is a dense vector of integers."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"'{name}' must be a tensor (got '{type(tensor).__name__}')")
    if tensor.is_nested or tensor.layout is not torch.strided:
        kind = "nested" if tensor.is_nested else str(tensor.layout)
        raise ValueError(f"'{name}' must be a dense tensor of integers (got one that is {kind})")
    check_integer_type(name, tensor)
    if tensor.dim() != 1:
        raise ValueError(f"'{name}' must be a vector (got shape {list(tensor.shape)})")


def check_integer_type(name: str, tensor: Tensor) -> None:
    """Raises ``ValueError`` unless ``tensor`` is of a type of integers."""
    if tensor.dtype not in INTEGERS:
        raise ValueError(
            f"'{name}' must hold integers (got {tensor.dtype}); convert it with '.long()'"
        )


def check_values(name: str, tensor: Tensor) -> None:
    """Raises ``ValueError`` if ``tensor`` is meta or fake."""
    if tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor):
        raise ValueError(f"'{name}' holds no values (it is meta or fake), and they are needed")


def check_not_recorded(name: str) -> None:
    """Raises ``RuntimeError`` where the sizes of the example's graphs would be constants."""
    if not torch.compiler.is_compiling() and is_recorded():
        raise RuntimeError(
            f"'{name}' is read on the host, and 'torch.jit.trace' and 'make_fx' would keep its "
            f"numbers as constants: hand the layer a 'batch', or use 'torch.export.export'"
        )


def whole_numbers(name: str, given: Any) -> list[int]:
    """The numbers as ``int``; raises ``ValueError`` unless all of them are whole."""
    try:
        whole = [int(n) for n in given]
        fits = all(n == g and abs(n) < 2**62 for n, g in zip(whole, given, strict=True))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        fits = False
    if not fits:
        shown = list(given) if isinstance(given, (list, tuple)) else given
        raise ValueError(f"'{name}' must hold integers of at least 0 (got {shown!r})")
    return whole


def as_device(device: Any) -> torch.device:
    """The device of a name, the CPU of None; raises ``ValueError`` for what names no device."""
    try:
        return torch.device("cpu" if device is None else device)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"'device' must name a device (got {device!r})") from error


def shortened(numbers: Sequence[int]) -> str:
    """A list for a message, by its first numbers if it is long."""
    return str(list(numbers)) if len(numbers) <= 10 else f"{list(numbers[:9])} and more"
