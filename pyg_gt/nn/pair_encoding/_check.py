"""The one check at the door of the pair encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._arguments import said


def check_tensor(
    name: str,
    tensor: Any,
    columns: tuple[str, int] | None,
    integers: tuple[torch.dtype, ...] | None,
    cure: str,
) -> None:
    """Raises ``ValueError`` unless ``tensor`` has these columns and these types.

    Args:
        name: what to call it.
        tensor: what came.
        columns: what its second dimension is called and how large it is; None: a vector.
        integers: the types that it may have; None: any floating-point type.
        cure: what to do about it.
    """
    sizes = [] if columns is None else [columns[1]]
    dense = isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_nested
    if dense and tensor.dim() > 0 and list(tensor.shape[1:]) == sizes:
        if tensor.is_floating_point() if integers is None else tensor.dtype in integers:
            return
    kind = "floating-point" if integers is None else " or ".join(str(t)[6:] for t in integers)
    form = "a vector" if columns is None else f"of {columns[1]} columns ('{columns[0]}')"
    got = said(tensor)
    if dense:
        got = f"shape {list(tensor.shape)}, {tensor.dtype}"
    raise ValueError(f"'{name}' must be a tensor of {kind}, {form} (got {got}); {cure}")
