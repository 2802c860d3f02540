"""Checks of the arguments of transforms."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from functools import cache
from numbers import Real
from typing import Any, Literal

import numpy as np

# Of the Laplacian, as in `torch_geometric.utils.get_laplacian`.
Normalization = Literal["sym", "rw"] | None


# Most columns of an encoding: beyond, a single node takes megabytes.
MOST_COLUMNS = 2**20


def check_count(
    owner: object,
    name: str,
    value: Any,
    least: int = 1,
    *,
    most: int | None = None,
    why: str = "",
) -> int:
    """``value`` as an int, if it is a whole number in ``[least, most]``; else ``ValueError``."""
    if not is_whole(value) or value < least:
        raise ValueError(
            f"{_called(owner)} got {name}={value!r}; expected a whole number of at least {least}"
        )
    if most is not None and value > most:
        raise ValueError(f"{_called(owner)} got {name}={value!r}; expected at most {most}{why}")
    return int(value)


def is_whole(value: Any) -> bool:
    """Whether ``value`` is a whole number; True and 1.0 are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether ``value`` is a number; True is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_columns(owner: object, name: str, value: Any) -> int:
    """``value``, if an encoding can have so many columns; else ``ValueError``."""
    return check_count(
        owner, name, value, most=MOST_COLUMNS, why=", since that many columns are stored"
    )


def check_flag(owner: object, name: str, value: Any) -> bool:
    """``value``, if it is True or False; else ``ValueError``."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{_called(owner)} got {name}={value!r}; expected True or False")
    return bool(value)


def check_real(owner: object, name: str, value: Any, least: float = 0.0) -> float:
    """``value`` as a float, if it is finite and at least ``least``; else ``ValueError``."""
    if not is_real(value) or not least <= value < math.inf:
        raise ValueError(
            f"{_called(owner)} got {name}={value!r}; expected a finite number of at least {least}"
        )
    return float(value)


def check_names(owner: object, name: str, value: Any) -> tuple[str, ...] | None:
    """``value`` as names of attributes, if it is several, or None; else ``ValueError``."""
    if value is None:
        return None
    found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (0,)
    if not all(isinstance(each, str) for each in found):
        cure = f", as ({value!r},)" if isinstance(value, str) else ""
        raise ValueError(f"{_called(owner)} got {name}={value!r}; expected several names{cure}")
    return found


def check_memory(owner: object, name: str, value: int, num_bytes: int) -> None:
    """Raises ``ValueError`` if ``value`` asks for more than all the memory of this machine."""
    memory = _memory()
    if memory is not None and num_bytes > memory:
        raise ValueError(
            f"{_called(owner)} got {name}={value}, which takes {num_bytes / 1e9:.1f} GB for these "
            f"graphs, more than the {memory / 1e9:.1f} GB of this machine; choose a smaller {name}"
        )


@cache
def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return None


def _called(owner: object) -> str:
    return owner if isinstance(owner, str) else type(owner).__name__


def check_attr_name(owner: object, attr_name: Any) -> str | None:
    """``attr_name``, if PyG can store and batch an encoding under it; else ``ValueError``."""
    if attr_name is None:
        return None
    if not isinstance(attr_name, str) or not attr_name:
        raise ValueError(
            f"{_called(owner)} got attr_name={attr_name!r}; expected a name, or None to "
            "append the encoding to data.x"
        )
    if "index" in attr_name or "batch" in attr_name or attr_name == "face":
        raise ValueError(
            f"{_called(owner)} got attr_name={attr_name!r}; PyG renumbers attributes with "
            "'index' or 'batch' in their name when it batches graphs, which would change the "
            "encoding: choose another name"
        )
    return attr_name


def check_normalization(owner: object, normalization: Any) -> Normalization:
    """``normalization``, if it is one; else ``ValueError``."""
    if normalization not in ("sym", "rw", None):
        raise ValueError(
            f"{_called(owner)} got normalization={normalization!r}; expected 'sym', 'rw' or None"
        )
    checked: Normalization = normalization
    return checked


def check_pair_name(owner: object, attr_name: Any) -> str:
    """``attr_name``, if an encoding of pairs can be stored under it; else ``ValueError``."""
    if not isinstance(attr_name, str) or not attr_name.startswith("pair_"):
        raise ValueError(
            f"{_called(owner)} got attr_name={attr_name!r}; expected a name that begins "
            "with 'pair_', which tells it from the attributes of nodes and edges"
        )
    check_attr_name(owner, attr_name)
    return attr_name


def check_edge_index_name(owner: object, attr_name: Any) -> str:
    """``attr_name``, if PyG renumbers it as it renumbers ``edge_index``; else ``ValueError``."""
    if (
        not isinstance(attr_name, str)
        or not attr_name.endswith("_edge_index")
        or "batch" in attr_name
    ):
        raise ValueError(
            f"{_called(owner)} got attr_name={attr_name!r}; expected a name that ends with "
            "'_edge_index', so that PyG renumbers the nodes in it when it batches graphs"
        )
    return attr_name
