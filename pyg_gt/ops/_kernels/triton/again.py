"""Calls of Triton's kernels made once more, with other tensors.

On a batch that is known, as it is to all layers but the first, a call differs from an earlier one
in the addresses of its tensors. They are written where the kernels' arguments lie, and that is all
there is to do before the launches. Only where :func:`~pyg_gt.ops._kernels.triton.replay.replays`.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .direct import Direct, is_watched, number, taken
from .replay import replays

# calls on a layout that are remembered
MAX_KNOWN = 256
_NUMBERS = itertools.count()


class Block:
    """Addresses of the tensors that calls of a kind bring, side by side in memory.

    Attributes:
        addresses: in the order of the tensors.
        writer: number of the call that wrote all other arguments last.
    """

    def __init__(self, tensors: int) -> None:
        self.addresses = (ctypes.c_uint64 * tensors)()
        self.writer = -1

    def cells(self) -> list[ctypes.c_uint64]:
        """Where kernels read each of the addresses."""
        places = range(0, 8 * len(self.addresses), 8)
        return [ctypes.c_uint64.from_buffer(self.addresses, place) for place in places]


class Part(NamedTuple):
    """A launch: a kernel, its number of programs, and arguments of it alone."""

    kernel: Direct
    grid: int
    own: Mapping[str, Any]


class Again:
    """A call that was made, and can be made once more; in the thread that made it.

    Args:
        block: where kernels read the addresses of its tensors.
        others: where they read all else that calls of a kind differ in, and what that is.
        parts: its launches.
    """

    def __init__(
        self, block: Block, others: Sequence[tuple[Any, Any]], parts: Sequence[Part]
    ) -> None:
        self._block = block
        self._number = next(_NUMBERS)
        self._stream = ctypes.c_void_p()
        self._launches = [kernel.launch(grid, self._stream) for kernel, grid, _ in parts]
        self._written = [(cell, number(x)) for cell, x in others]
        for kernel, _, own in parts:
            self._written += kernel.written(own)
        self._alive = others, parts

    def __call__(self, tensors: Sequence[Tensor | None], device: int) -> bool:
        """Whether all was launched; if not, some of it may have been.

        Args:
            tensors: of kinds as before, in the order of the block.
            device: where they are; below zero on the CPU.
        """
        addresses = [0 if x is None else x.data_ptr() for x in tensors]
        if not are_aligned(addresses) or is_watched():
            return False
        if device >= 0:
            if device != torch._C._cuda_getDevice():
                return False
            self._stream.value = torch._C._cuda_getCurrentRawStream(device)
        block = self._block
        if block.writer != self._number:
            for cell, value in self._written:
                cell.value = value
            block.writer = self._number
        block.addresses[:] = addresses  # type: ignore[assignment]
        return taken(self._launches)


class Known:
    """Calls that were made on a layout, or along edges."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Again] = {}

    def __len__(self) -> int:
        return len(self._made)

    def done(
        self, key: tuple[Any, ...] | None, tensors: Sequence[Tensor | None], beside: Tensor
    ) -> bool:
        """Whether one of them was like this one; its launches are made then.

        Args:
            key: of this thread, see :func:`key_of`.
            tensors: what it reads, and what it writes.
            beside: a tensor on the device of the kernels.
        """
        again = None if key is None else self._made.get(key)
        return again is not None and again(tensors, beside.get_device())

    def keep(
        self, key: tuple[Any, ...] | None, again: Again | None, tensors: Sequence[Tensor | None]
    ) -> None:
        """For later calls of the same key."""
        if key is None or again is None:
            return
        if not are_aligned([0 if x is None else x.data_ptr() for x in tensors]):
            return
        if len(self._made) >= MAX_KNOWN:
            self._made.clear()
        self._made[key] = again


def key_of(*kind: Any, reads: Sequence[Tensor | None]) -> tuple[Any, ...] | None:
    """What calls on a layout have in common that differ in addresses alone.

    None where no call is made once more.

    Args:
        *kind: what kind of call it is, with all numbers.
        reads: the tensors that it reads, as they come.
    """
    if not replays():
        return None
    key = [threading.get_ident(), *kind]
    for x in reads:
        if x is None:
            key.append(None)
        else:  # and whether its numbers are those in memory
            key += x.dtype, x.shape, x.stride(), x.is_neg() or x._is_zerotensor()
    return tuple(key)


def are_aligned(addresses: Sequence[int]) -> bool:
    """Whether all are multiples of 16, as mostly they are: kernels are compiled for it."""
    return not reduce(or_, addresses, 0) & 15
