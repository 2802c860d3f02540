"""Launches of Triton kernels that are made once more, with other tensors.

The layers of a model launch the same kernels on a batch, one after the other. The first one finds
out which; the others only hand over their tensors, in less than half of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

# calls on one layout whose launches are remembered
MAX_KNOWN = 64


class Again:
    """Launches with all their arguments but some tensors; see :meth:`Arguments.again`."""

    def __init__(
        self, launches: list[tuple[Callable[..., None], list[Any], list[tuple[int, str]]]]
    ) -> None:
        self._launches = launches

    def __call__(self, tensors: Mapping[str, Any], beside: Tensor) -> None:
        """Launches on the device of ``beside``; tensors must be of the kinds of the first ones."""
        with torch.cuda.device_of(beside):
            for launch, kept, places in self._launches:
                arguments = kept.copy()
                for place, name in places:
                    arguments[place] = tensors[name]
                launch(*arguments)


class Launches(NamedTuple):
    """The launches of a call.

    Attributes:
        known: those of earlier calls on the same layouts.
        key: what decides about them, but for triton's compilations.
        beside: a tensor on their device.
    """

    known: dict[Any, Again]
    key: tuple[Any, ...]
    beside: Tensor

    def done_again(self, tensors: Mapping[str, Tensor | None]) -> bool:
        """Whether they are known; they are made then."""
        again = self.known.get(self.key)
        if again is not None:
            again(tensors, self.beside)
        return again is not None

    def keep(self, again: Again | None) -> None:
        """For calls to come."""
        if again is not None:
            if len(self.known) >= MAX_KNOWN:  # one layout for long, and a scale that changes
                self.known.clear()
            self.known[self.key] = again


def launches_like(
    known: dict[Any, Again], beside: Tensor, given: Mapping[str, Tensor | None], *more: Any
) -> Launches:
    """Those of a call with tensors like ``given`` and with ``more`` that is equal.

    Args:
        known: those of earlier calls on the same layouts.
        beside: a tensor on their device.
        given: tensors of the caller, by name; results are made anew for each call, all alike.
        more: what else decides.
    """
    from triton import knobs

    settings = knobs.runtime.debug, knobs.compilation.instrumentation_mode
    return Launches(known, (*more, settings, *map(_likeness, given.values())), beside)


def _likeness(x: Tensor | None) -> Any:
    """Tensors that have it in common need the same launches."""
    if x is None:
        return None
    return x.dtype, x.shape, x.stride(), x.data_ptr() % 16 == 0
