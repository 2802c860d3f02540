"""What both layouts share: tensors that nobody may write to, and values cached on them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from .tensor_cache import version_of

T = TypeVar("T")
Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


class FrozenLayout:
    """The base of :class:`GraphLayout` and :class:`EdgeLayout`: owned tensors and cached values.

    Cached values (CSR, size buckets, block tables) would not follow an edit of the tensors. So the
    version of each tensor that a user can reach is kept, and an edited layout is refused.
    """

    _REMEDY: ClassVar[str]
    _cache: dict[Any, Any]
    _versions: list[tuple[Tensor, int]]

    def _freeze(self, tensors: Iterable[Tensor]) -> None:
        vars(self).update(_cache={}, _versions=[(x, version_of(x)) for x in tensors])

    def is_edited(self) -> bool:
        """Whether the tensors of this layout were written to."""
        if torch.compiler.is_compiling():
            return False
        # every layer asks: a loop with 'version_of' spelled out takes a third of a generator
        for x, version in self._versions:
            if (-1 if x.is_inference() else x._version) != version:
                return True
        return False

    def check_unedited(self) -> None:
        """Refuses a layout whose tensors were written to.

        Raises:
            ValueError: if they were.
        """
        if self.is_edited():
            raise ValueError(
                f"the tensors of this '{type(self).__name__}' were edited in place, but a layout "
                f"is frozen: {self._REMEDY}"
            )

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """The value under ``key``, made once per layout (CSR, size buckets, block tables).

        Args:
            key (hashable): The name of the value. A tuple may hold weak references to other
                layouts; when one of them is dead, the value is dropped.
            make (callable): Makes the value when it is first asked for.

        Returns:
            What ``make()`` returned.
        """
        cache = self._cache
        if key not in cache:
            for old in list(cache):
                if isinstance(old, tuple) and any(map(_is_dead, old)):
                    cache.pop(old, None)
            # training may need what an evaluation made, and wrappers outlive their transform
            with torch.inference_mode(False), torch._C._DisableFuncTorch():
                cache[key] = make()
        value: T = cache[key]
        return value

    def _cached_tensors(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """:meth:`cached` for tensors that users can reach, which are frozen too."""

        def make_frozen() -> Tensors:
            made = make()
            self._versions.extend((x, version_of(x)) for x in made)
            return made

        return self.cached(key, make_frozen)


def _is_dead(part: Any) -> bool:
    return isinstance(part, weakref.ref) and part() is None
