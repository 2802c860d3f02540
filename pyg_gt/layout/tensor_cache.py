"""A cache by tensor object, whose hits are confirmed by the numbers or the version."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class IdentityCache(Generic[T]):
    """What was made from a tensor, kept for as long as that tensor object lives.

    The object says where to look and proves nothing: compiled code hands the same object with
    other numbers, and collectives, numpy, ``.data`` and other processes write past its version.
    So a caller's numbers are compared with those that the value owns (:meth:`get`). Only on
    accelerators, where comparing waits for the device, does eager code go by the version, unless
    ``PYG_GT_CHECK=1``; an inference tensor has none and is compared there too.

    The cache never keeps a key alive, and a value must not hold its key, or nothing is ever freed.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, Hashable], tuple[weakref.ref[Tensor], int, T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(
        self,
        key: Tensor,
        kind: Hashable,
        is_same: Callable[[T], bool],
        *,
        by_value: bool = False,
    ) -> T | None:
        """What was stored under this tensor and ``kind``, or None.

        Args:
            key: the tensor.
            kind: which of the things made from it.
            is_same: whether what was stored holds the numbers that ``key`` has now.
            by_value: compare on every device, as ops do: compiled code calls them.
        """
        entry = self._entries.get((id(key), kind))
        if entry is None or entry[0]() is not key:
            return None
        if by_value or _is_compared(key):
            return entry[2] if is_same(entry[2]) else None
        return entry[2] if entry[1] == key._version else None

    def get_unedited(self, key: Tensor, kind: Hashable = None) -> T | None:
        """What was stored under a tensor that nobody but this package and torch writes to."""
        entry = self._entries.get((id(key), kind))
        if entry is None or entry[0]() is not key or entry[1] != version_of(key):
            return None
        return entry[2]

    def put(self, key: Tensor, value: T, kind: Hashable = None) -> None:
        """Stores ``value`` until ``key`` dies."""
        name = id(key), kind
        entries = self._entries

        def forget(ref: weakref.ref[Tensor]) -> None:
            # a new tensor may have taken the address before this callback runs
            if name in entries and entries[name][0] is ref:
                del entries[name]

        entries[name] = (weakref.ref(key, forget), version_of(key), value)


def version_of(tensor: Tensor) -> int:
    """How often torch wrote to ``tensor``; -1 for an inference tensor, which does not count."""
    return -1 if tensor.is_inference() else tensor._version


def _is_compared(key: Tensor) -> bool:
    return key.is_cpu or key.is_inference() or os.environ.get("PYG_GT_CHECK") == "1"
