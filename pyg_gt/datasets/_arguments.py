"""Arguments that the datasets check alike."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_whole(number: Any) -> bool:
    """Whether this is a whole number, by type: ``True`` and ``1.0`` are none."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def check_transforms(owner: str, **transforms: object) -> None:
    """Raise ``ValueError`` if one of ``transforms`` is neither ``None`` nor of use on a graph."""
    for name, value in transforms.items():
        if value is None or (callable(value) and not isinstance(value, type)):
            continue
        made = f" (an instance, {value.__name__}(...))" if isinstance(value, type) else ""
        raise ValueError(
            f"{owner} got {name}={value!r}; expected a function or an object that can be called "
            f"with a graph{made}, or None"
        )
