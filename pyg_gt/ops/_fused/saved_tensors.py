"""Checks of what autograd hands back: hooks on saved tensors may replace them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Kinds = list[Any] | None


def kinds_of(saved: Sequence[Tensor | None]) -> Kinds:
    """Shape, type and device of each; None where no hook on saved tensors is at work."""
    hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else [None if x is None else _kind(x) for x in saved]


def check_kinds(saved: Sequence[Tensor | None], kinds: Kinds) -> None:
    """Raises ``ValueError`` if a tensor came back with another shape, type or device."""
    if kinds is None:
        return
    for x, kind in zip(saved, kinds, strict=True):
        if x is not None and _kind(x) != kind:
            raise ValueError(
                f"a saved tensor must have shape, type and device {kind} as before (got "
                f"{_kind(x)}); a hook on saved tensors must hand back an equal one"
            )


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.device
