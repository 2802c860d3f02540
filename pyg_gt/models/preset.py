"""What the presets of all models share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def choose(name: str, value: Any, options: Iterable[str]) -> str:
    """``value``, which has to be one of ``options``.

    Raises:
        ValueError: If it is none of them; names the nearest.
    """
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value).lower(), options, 1, cutoff=0.0)
    raise ValueError(
        f"'{name}' must be one of {', '.join(map(repr, options))} (got {value!r}); did you mean "
        f"{near[0]!r}?"
    )


def pick(name: str, value: Any, table: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A copy of the row ``value`` of a table of settings.

    Raises:
        ValueError: If there is none; names the nearest.
    """
    return dict(table[choose(name, value, table)])
