"""Remembers what was computed from a tensor for as long as that very tensor lives unchanged."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def is_readable(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be read on the host now: not traced, fake or meta."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    return not isinstance(tensor, torch._subclasses.FakeTensor)


def unwrapped(tensor: Tensor) -> Tensor:
    """``tensor`` without the wrappers of ``torch.func``, which have no memory and outlive it."""
    while torch._C._functorch.is_gradtrackingtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def remember(made: dict[Any, Any], key: Any, make: Callable[[], T]) -> T:
    """What ``make`` gives, made once; what was made for a layout that is dead is dropped."""
    if key not in made:
        for old in list(made):
            if isinstance(old, tuple) and any(map(_is_dead, old)):
                made.pop(old, None)
        if torch.is_inference_mode_enabled():  # training may need what an evaluation made
            with torch.inference_mode(False):
                made[key] = make()
        else:
            made[key] = make()
    value: T = made[key]
    return value


def _is_dead(part: Any) -> bool:
    return isinstance(part, weakref.ref) and part() is None


class IdentityCache(Generic[T]):
    """A map whose key is the identity of a tensor and its version.

    The cache never keeps a key alive: an entry goes when its tensor does. A value must not hold
    its key either, or nothing is ever freed. An inference tensor has no version, so an edit of it
    could not be seen: it is not remembered. Edits through ``.data`` or numpy are not seen.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], int, T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Tensor) -> T | None:
        """What was stored under this tensor, or None."""
        entry = self._entries.get(id(key))
        if entry is None or entry[0]() is not key or entry[1] != key._version:
            return None
        return entry[2]

    def put(self, key: Tensor, value: T) -> None:
        """Stores ``value`` until ``key`` dies or is edited."""
        if key.is_inference():
            return
        name = id(key)
        entries = self._entries

        def forget(ref: weakref.ref[Tensor]) -> None:
            # a new tensor may have taken the address before this callback runs
            if name in entries and entries[name][0] is ref:
                del entries[name]

        entries[name] = (weakref.ref(key, forget), key._version, value)
