"""Launches of Triton kernels, with arguments gathered by name.

Each is triton's own ``kernel[grid](...)``, which takes the host some 25 us, mostly to find the
compilation that fits. A captured CUDA graph of a step with static shapes has none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...dropout import threshold


class Launch(NamedTuple):
    """One launch of a kernel.

    Attributes:
        kernel: a function of a module, under ``triton.jit``.
        grid: number of programs; a kernel without any is not launched.
        arguments: of this launch alone, by name.
        options: ``num_warps`` and ``num_stages``.
    """

    kernel: Any
    grid: int
    arguments: Mapping[str, Any]
    options: Mapping[str, int]


def launch_all(launches: Iterable[Launch], shared: Mapping[str, Any], near: Tensor) -> None:
    """Launches kernels one after the other, on the current stream of a device.

    Args:
        launches: the kernels.
        shared: arguments that several of them have in common, by name.
        near: a tensor on that device.
    """
    if near.is_cuda:
        with torch.cuda.device(near.get_device()):
            _launch_all(launches, shared)
    else:  # in the interpreter
        _launch_all(launches, shared)


def _launch_all(launches: Iterable[Launch], shared: Mapping[str, Any]) -> None:
    for kernel, grid, arguments, options in launches:
        if grid:
            given = {**shared, **arguments}
            kernel[(grid,)](**{name: given[name] for name in kernel.arg_names}, **options)


def dropout_arguments(dropout_p: float) -> dict[str, float]:
    """The bound and the factor by which kernels drop weights and scale those that stay."""
    return {
        # 2^31 less than the smallest word that keeps a weight, so that it fits in 32 bits
        "threshold": threshold(dropout_p) - 2**31,
        "factor": 0.0 if dropout_p >= 1 else 1 / (1 - dropout_p),
    }
