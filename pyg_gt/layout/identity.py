"""Finds again what was made from a tensor, where the tensor still holds the same numbers."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ..native import Library

T = TypeVar("T")

# Numbers compared at a time: a block and what it is converted to stay in a CPU's cache.
_BLOCK = 2**16
# Up to so many, numpy is as fast as a call of compiled code: 13,600 take it 15 us, and C 5.
_FEW = 2**12


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


def same_numbers(own: Tensor, given: Tensor) -> bool:
    """Whether two tensors of integers are equal; of other types, without a copy of either."""
    if own.shape != given.shape:
        return False
    if own.device.type != "cpu":
        wide = torch.promote_types(own.dtype, given.dtype)
        return torch.equal(own.to(wide), given.to(wide))
    if own.numel() > _FEW and given.dtype == torch.int64 and (same := _same_in_c(own, given)):
        return same > 0
    mine, theirs = in_numpy(own), in_numpy(given)
    if mine.size <= _FEW:
        return bool((mine == theirs).all())
    if mine.flags.c_contiguous and theirs.flags.c_contiguous:
        mine, theirs = mine.reshape(-1), theirs.reshape(-1)
    elif mine.ndim == 2 and len(mine) == 2:  # the transpose of pairs
        return all(_same_row(row, other) for row, other in zip(mine, theirs, strict=True))
    else:
        return bool((mine == theirs).all())
    return _same_row(mine, theirs)


def _same_in_c(own: Tensor, given: Tensor) -> int:
    """1 where contiguous tensors are equal, -1 where they differ, 0 where numpy has to tell."""
    if not (own.is_contiguous() and given.is_contiguous()) or _COMPARE.why_not():
        return 0
    if own.dtype not in (torch.int32, torch.int64):
        return 0
    # wrappers of 'torch.func' have no memory, nor have torch's lazy zeros
    if torch._C._functorch.peek_interpreter_stack() is not None or given._is_zerotensor():
        return 0
    at = own.data_ptr(), own.itemsize, given.data_ptr()
    return 1 if _COMPARE.get().same_numbers(*at, 1, own.numel()) else -1


def _same_row(mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    wide = theirs.dtype == np.int64 and mine.dtype in (np.int32, np.int64)
    if wide and mine.flags.c_contiguous and not _COMPARE.why_not():
        same, stride = _COMPARE.get().same_numbers, theirs.strides[0] // theirs.itemsize
        at = mine.ctypes.data, mine.itemsize, theirs.ctypes.data
        return bool(same(*at, stride, mine.size))
    blocks = range(0, mine.size, _BLOCK)
    return all((mine[i : i + _BLOCK] == theirs[i : i + _BLOCK]).all() for i in blocks)


def _declare(library: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.same_numbers.argtypes = [pointer, number, pointer, number, number]
    library.same_numbers.restype = number


def _self_test(library: ctypes.CDLL) -> str | None:
    given = np.arange(5000)
    for own in (given.astype(np.int32), given.copy()):
        for place in (None, 0, 4096, 4999):
            if place is not None:
                own[place] += 1
            for stride, array in ((1, given), (2, given.repeat(2)[::2])):
                at = own.ctypes.data, own.itemsize, array.ctypes.data
                if bool(library.same_numbers(*at, stride, 5000)) != (place is None):
                    return f"compares wrongly at place {place}, numbers {stride} apart"
    return None


# A million edges that are in no cache take 0.7 ms, 2.0 in numpy (0.6 only to read them), of 18 ms
# for a layer evaluated along them (one thread; benchmarks/cpu/layer_against.py).
_COMPARE = Library(Path(__file__).parent / "csrc" / "compare.cpp", _declare, _self_test)


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


def cached(made: dict[Any, Any], key: Any, make: Callable[[], T]) -> T:
    """What ``make`` gives, made once; what was made for a layout that is dead is dropped."""
    if key not in made:
        for old in list(made):
            if isinstance(old, tuple) and any(map(_is_dead, old)):
                made.pop(old, None)
        # training may need what an evaluation made, and wrappers outlive their transform
        with torch.inference_mode(False), torch._C._DisableFuncTorch():
            made[key] = make()
    value: T = made[key]
    return value


def _is_dead(part: Any) -> bool:
    return isinstance(part, weakref.ref) and part() is None


class IdentityCache(Generic[T]):
    """What was made from a tensor, kept for as long as that tensor object lives.

    The object says where to look and proves nothing: compiled code hands the same object with
    other numbers, and collectives, numpy, ``.data`` and other processes write past its version.
    So a caller's numbers are compared with those that the value owns (:meth:`get`). Only on
    accelerators, where comparing waits for the device, does eager code go by the version, unless
    ``PYG_GT_CHECK=1``; an inference tensor has none and is compared there too.

    The cache never keeps a key alive, and a value must not hold its key, or nothing is ever freed.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, Hashable], tuple[weakref.ref[Tensor], int, T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(
        self,
        key: Tensor,
        kind: Hashable,
        is_same: Callable[[T], bool],
        *,
        by_value: bool = False,
    ) -> T | None:
        """What was stored under this tensor and ``kind``, or None.

        Args:
            key: the tensor.
            kind: which of the things made from it.
            is_same: whether what was stored holds the numbers that ``key`` has now.
            by_value: compare on every device, as ops do: compiled code calls them.
        """
        entry = self._entries.get((id(key), kind))
        if entry is None or entry[0]() is not key:
            return None
        if by_value or _is_compared(key):
            return entry[2] if is_same(entry[2]) else None
        return entry[2] if entry[1] == key._version else None

    def get_unedited(self, key: Tensor, kind: Hashable = None) -> T | None:
        """What was stored under a tensor that nobody but this package and torch writes to."""
        entry = self._entries.get((id(key), kind))
        if entry is None or entry[0]() is not key or entry[1] != version_of(key):
            return None
        return entry[2]

    def put(self, key: Tensor, value: T, kind: Hashable = None) -> None:
        """Stores ``value`` until ``key`` dies."""
        name = id(key), kind
        entries = self._entries

        def forget(ref: weakref.ref[Tensor]) -> None:
            # a new tensor may have taken the address before this callback runs
            if name in entries and entries[name][0] is ref:
                del entries[name]

        entries[name] = (weakref.ref(key, forget), version_of(key), value)


def version_of(tensor: Tensor) -> int:
    """How often torch wrote to ``tensor``; -1 for an inference tensor, which does not count."""
    return -1 if tensor.is_inference() else tensor._version


def _is_compared(key: Tensor) -> bool:
    return key.is_cpu or key.is_inference() or os.environ.get("PYG_GT_CHECK") == "1"
