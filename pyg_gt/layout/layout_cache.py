"""Caches of layouts: by the caller's tensor that one was made from, or by a tensor of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from torch import Tensor

from .frozen import FrozenLayout
from .tensor_cache import IdentityCache

L = TypeVar("L", bound=FrozenLayout)


class LayoutCache(Generic[L]):
    """Layouts by the caller's tensors that they were made from, and by the tensors they own.

    Attributes:
        by_source: layouts by the caller's tensor, compared with it by numbers.
        by_own: layouts by a tensor of theirs that a user may hand to a layer; the tensor does not
            keep its layout alive.
    """

    def __init__(self) -> None:
        self.by_source: IdentityCache[L] = IdentityCache()
        self.by_own: IdentityCache[weakref.ref[L]] = IdentityCache()

    def find(
        self,
        tensor: Tensor,
        kind: Hashable,
        is_same: Callable[[L], bool],
        by_value: bool = False,
    ) -> L | None:
        """The layout made from ``tensor``, if it is not edited; see :meth:`IdentityCache.get`."""
        layout = self.by_source.get(tensor, kind, is_same, by_value=by_value)
        return None if layout is None or layout.is_edited() else layout

    def owner(self, tensor: Tensor) -> L | None:
        """The layout whose own tensor this is, if it lives and the tensor has its version."""
        ref = self.by_own.get_unedited(tensor)
        return None if ref is None else ref()

    def put(self, tensor: Tensor, kind: Hashable, layout: L) -> None:
        """Stores a layout under the caller's tensor that it was made from."""
        self.by_source.put(tensor, layout, kind)

    def put_own(self, tensor: Tensor, layout: L) -> None:
        """Stores a layout under a tensor that it owns."""
        self.by_own.put(tensor, weakref.ref(layout))
