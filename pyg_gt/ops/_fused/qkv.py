"""Query, key and value as parts of one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def parts_of(
    query: Tensor, key: Tensor | None, value: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """All three; without a key and a value, ``query`` is ``[N, 3, H, C]`` of all of them."""
    if key is None or value is None:
        query, key, value = query.unbind(1)
    return query, key, value


def as_one(gradients: Sequence[Tensor | None], joined: Tensor | None) -> Tensor:
    """``joined [N, 3, H, C]``, where the three gradients lie in it; else made of them."""
    if joined is not None:
        return joined
    return torch.stack([x for x in gradients if x is not None], 1)
