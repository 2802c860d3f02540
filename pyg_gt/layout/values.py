"""Whether a tensor holds values that the host can read (not fake, meta or traced), and how."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode


def is_readable(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be read on the host now: not traced, fake or meta."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    return not isinstance(tensor, torch._subclasses.FakeTensor) and not is_recorded()


def is_traced() -> bool:
    """Whether ``torch.jit.trace`` is at work."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def is_recorded() -> bool:
    """Whether ``torch.jit.trace`` or ``make_fx`` is at work; not for what is compiled.

    Tensors hold values then, but what is read of them on the host is a constant of the record, and
    a wrong one for other inputs.
    """
    if torch._C._is_tracing():
        return True
    return torch._C._len_torch_dispatch_stack() > 0 and get_proxy_mode() is not None


def unwrapped(tensor: Tensor) -> Tensor:
    """``tensor`` without the wrappers of ``torch.func``, which have no memory and outlive it."""
    while torch._C._functorch.is_gradtrackingtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def in_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """The memory of ``tensor`` as numpy sees it, or a copy from another device.

    numpy takes a fifth of torch's time for operations on few numbers, and neither
    ``torch.func`` nor a dispatch mode sees it read.
    """
    # inside a transform of 'torch.func' even a plain tensor does not tell where it lies
    with torch._C._DisableFuncTorch():
        plain = unwrapped(tensor)
        numbers: npt.NDArray[Any] = (plain if plain.is_cpu else plain.cpu()).numpy()
    return numbers


def out_of_range(index: Tensor, size: int, name: str) -> int | None:
    """A number of ``index`` that does not lie in ``[0, size)``, or None.

    On CUDA nothing is waited for: the device asserts it, as in PyG's own gather.
    """
    if index.numel() == 0:
        return None
    if index.is_cuda:
        low, high = index.aminmax()
        torch._assert_async((low >= 0) & (high < size), f"a {name} index is out of range")
        return None
    numbers = in_numpy(index)
    first, last = int(numbers.min()), int(numbers.max())
    if first < 0:
        return first
    return last if last >= size else None


def check_not_mapped(name: str, tensor: Tensor, why: str) -> None:
    """Raises ``ValueError`` if ``torch.vmap`` maps over ``tensor``, whose values are needed."""
    if torch._C._functorch.is_batchedtensor(unwrapped(tensor)):
        raise ValueError(
            f"'{name}' cannot be mapped over by 'torch.vmap': {why}, would differ between its "
            f"calls; loop over them, or keep it out"
        )


def check_not_captured(name: str, tensor: Tensor, cure: str) -> None:
    """Raises ``RuntimeError`` if a CUDA graph would fix numbers that its replays may change."""
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"'{name}' is read on the host, which a CUDA graph cannot record: its replays would "
            f"go by the numbers of the capture. {cure}"
        )
