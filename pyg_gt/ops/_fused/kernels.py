"""The kernels of a device: modules of one interface, imported when they are needed."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

# Triton's interpreter runs on a CPU, whose ops have other kernels
EAGER_ONLY = "Triton's interpreter runs in eager code only"
ONE_GRADIENT = "Triton's interpreter computes one gradient at a time"


def full_kernels(query: Tensor) -> ModuleType:
    """Those of ``pyg_gt::full_attention`` for tensors like ``query``."""
    if query.is_cuda:
        from .._kernels.triton import full as triton_kernels

        return triton_kernels
    from .._kernels.cpu import full as cpu_kernels

    if query.dtype in cpu_kernels.TYPES and cpu_kernels.why_not() is None:
        return cpu_kernels
    from .._kernels.torch_ops import full as composed_kernels

    return composed_kernels


def edge_kernels(query: Tensor, features: Tensor | None) -> ModuleType:
    """Those of ``pyg_gt::edge_attention`` for tensors like ``query`` and ``features``."""
    if query.is_cuda:
        from .._kernels.triton import edges as triton_kernels

        return triton_kernels
    from .._kernels.cpu import edges as cpu_kernels

    fits = query.dtype in cpu_kernels.TYPES and (features is None or features.dtype == query.dtype)
    if fits and cpu_kernels.why_not() is None:
        return cpu_kernels
    from .._kernels.torch_ops import edges as composed_kernels

    return composed_kernels
