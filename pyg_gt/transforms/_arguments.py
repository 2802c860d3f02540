"""Arguments that several transforms check alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

# Of the Laplacian, as in `torch_geometric.utils.get_laplacian`.
Normalization = Literal["sym", "rw"] | None


def check_count(owner: object, name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int, if it is a whole number of at least ``least``; else ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(
            f"{type(owner).__name__} got {name}={value!r}; expected a whole number of at least "
            f"{least}"
        )
    return int(value)


def check_attr_name(owner: object, attr_name: Any) -> str | None:
    """``attr_name``, if PyG can store and batch an encoding under it; else ``ValueError``."""
    if attr_name is None:
        return None
    if not isinstance(attr_name, str) or not attr_name:
        raise ValueError(
            f"{type(owner).__name__} got attr_name={attr_name!r}; expected a name, or None to "
            "append the encoding to data.x"
        )
    if "index" in attr_name or "batch" in attr_name or attr_name == "face":
        raise ValueError(
            f"{type(owner).__name__} got attr_name={attr_name!r}; PyG renumbers attributes with "
            "'index' or 'batch' in their name when it batches graphs, which would change the "
            "encoding: choose another name"
        )
    return attr_name


def check_normalization(owner: object, normalization: Any) -> Normalization:
    """``normalization``, if it is one; else ``ValueError``."""
    if normalization not in ("sym", "rw", None):
        raise ValueError(
            f"{type(owner).__name__} got normalization={normalization!r}; expected 'sym', 'rw' or "
            "None"
        )
    checked: Normalization = normalization
    return checked


def check_pair_name(owner: object, attr_name: Any) -> str:
    """``attr_name``, if an encoding of pairs can be stored under it; else ``ValueError``."""
    if not isinstance(attr_name, str) or not attr_name.startswith("pair_"):
        raise ValueError(
            f"{type(owner).__name__} got attr_name={attr_name!r}; expected a name that begins "
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
            f"{type(owner).__name__} got attr_name={attr_name!r}; expected a name that ends with "
            "'_edge_index', so that PyG renumbers the nodes in it when it batches graphs"
        )
    return attr_name
