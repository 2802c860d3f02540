"""What must hold of a tensor before compiled code is given its address."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# named wherever memory is made: a default device may be another
HOST = torch.device("cpu")
PLAIN = (Tensor, torch.nn.Parameter)


def has_raw_memory(x: Tensor) -> bool:
    """Whether nothing but autograd looks on, so that an op is not needed."""
    # Traced code asks nothing else. A fake tensor has a type of its own.
    return (
        not torch.compiler.is_compiling()
        and type(x) in PLAIN
        and not x.is_meta
        and not torch._C._is_tracing()  # of 'torch.jit.trace', which records ops
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        # a wrapper may outlive its transform; a batch of gradients comes without any
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch._C._functorch.is_legacy_batchedtensor(x)
    )


def have_raw_memory(first: Tensor, *others: Tensor | None) -> bool:
    """:func:`has_raw_memory` of all: an address is taken of each, and a wrapper has none."""
    if not has_raw_memory(first):
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    for x in others:
        if x is not None and (type(x) not in PLAIN or x.is_meta or wrapped(x)):
            return False
    return True


def apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    """``function.apply``, in a fraction of the time where no argument is wrapped."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    for x in args:
        if isinstance(x, Tensor) and wrapped(x):
            out: Tensor = function.apply(*args)
            return out
    # what 'apply' itself calls where no transform is at work
    out = super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]
    return out


def check(name: str, x: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Compiled code takes a tensor to be what it is said to be.

    Raises:
        ValueError: for another shape, type or device.
    """
    if x.shape != shape or x.dtype not in dtypes or not x.is_cpu:
        raise ValueError(
            f"'{name}' must have shape {list(shape)} and type {dtypes[0]} on the CPU (got "
            f"{list(x.shape)}, {x.dtype} on '{x.device}')"
        )


def materialized(x: Tensor) -> Tensor:
    """``x``, or a copy if its numbers are not those in memory."""
    # '.imag' of a conjugate is negated when it is read; torch's zeros may have no memory at all
    return x.clone() if x.is_neg() or x._is_zerotensor() else x


def empty_like(x: Tensor) -> Tensor:
    """Room for as many numbers, side by side."""
    # in half the time of 'new_empty'
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def with_dense_channels(x: Tensor) -> Tensor:
    """``x [N, H, C]``, or a copy if its channels do not lie side by side in memory."""
    x = materialized(x)
    return x if x.stride(2) == 1 or x.size(2) == 1 else x.contiguous()


def aligned_strides(rows: Mapping[str, Tensor]) -> tuple[dict[str, int], int]:
    """Strides ``{name}_row`` and ``{name}_head`` of ``[N, H, C]``, and what they are multiples of.

    They come divided by it. A kernel that multiplies them with it again knows it, and reads
    several numbers at once, also where a head has 8 channels; triton itself tells multiples of 16.
    """
    strides = {}
    for name, x in rows.items():
        strides[f"{name}_row"], strides[f"{name}_head"], _ = x.stride()
    align = math.gcd(8, *strides.values())
    return {name: stride // align for name, stride in strides.items()}, align
