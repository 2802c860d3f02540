"""Checks of what the fused ops are handed by whoever calls them: kernels go by addresses."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from ..checks import FLOATS, check_like


def stats_type(query: Tensor) -> torch.dtype:
    """The type of softmax statistics."""
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def check_qkv(kernels: ModuleType, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raises unless the kernels take such tensors.

    Raises:
        NotImplementedError: for another type.
        ValueError: for shapes and devices that do not fit together.
    """
    if query.dtype not in kernels.TYPES:
        raise NotImplementedError(
            f"'query' must be of one of the types {', '.join(map(str, kernels.TYPES))} on "
            f"'{query.device}' (got {query.dtype})"
        )
    most = kernels.MAX_CHANNELS
    if query.dim() != 3 or query.size(2) == 0 or (most is not None and query.size(2) > most):
        upto = "" if most is None else f" from 1 to {most}"
        raise ValueError(
            f"'query' must have shape [Nq, H, C] and channels{upto} (got {list(query.shape)})"
        )
    for name, x in (("key", key), ("value", value)):
        check_like(name, x, (key.size(0), *query.shape[1:]), query, query.dtype)


def check_dropout(seed: Tensor | None, dropout_p: float, query: Tensor) -> None:
    """Raises ``ValueError`` unless ``seed`` is ``[1]`` int64, or None, and ``dropout_p`` fits."""
    if seed is not None:
        check_like("seed", seed, (1,), query, torch.int64)
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"'dropout_p' must lie in [0, 1] (got {dropout_p})")


def check_saved(grad: Tensor, out: Tensor, stats: Tensor, query: Tensor) -> None:
    """Raises ``ValueError`` unless they are like what the forward op gave."""
    check_like("grad", grad, query.shape, query, *FLOATS)
    check_like("out", out, query.shape, query, query.dtype)
    check_like("stats", stats, (*query.shape[:2], 2), query, stats_type(query))
