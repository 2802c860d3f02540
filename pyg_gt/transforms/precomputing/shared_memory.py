"""Arrays handed from one process to another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

# Where each array begins is a multiple of a cache line.
_ALIGNMENT = 64


class _Memory(NamedTuple):
    """A file without a name, in memory, and what lies where in it."""

    file: Any
    size: int
    places: list[tuple[int, tuple[int, ...], np.dtype[Any]]]


def hand_over(arrays: Sequence[NDArray[Any]]) -> Any:
    """What to send to the process that calls :func:`taken_over`, once.

    A pipe would copy them six times. Memory with a name (`torch.multiprocessing`) is small in many
    containers, and tensors in it hold a file open for as long as they live.
    """
    if not hasattr(os, "memfd_create"):
        return list(arrays)
    number = os.memfd_create("pyg_gt")
    places = []
    with open(number, "wb") as file:
        for array in arrays:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            places.append((file.tell(), array.shape, array.dtype))
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        return _Memory(DupFd(number), file.tell(), places)


def taken_over(sent: Any) -> list[NDArray[Any]]:
    """The arrays.

    Raises:
        RuntimeError: if the process that handed them over is no longer there.
    """
    if not isinstance(sent, _Memory):
        arrays: list[NDArray[Any]] = sent
        return arrays
    try:
        number = sent.file.detach()
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        raise RuntimeError(
            "a worker exited unexpectedly before its results were taken over; it may have run out "
            "of memory, so try fewer workers"
        ) from error
    try:
        # closes the file, which mmap would keep open
        path = f"/proc/self/fd/{number}"
        memory = torch.from_file(path, shared=False, size=sent.size, dtype=torch.uint8).numpy()
    finally:
        os.close(number)
    return [np.ndarray(shape, dtype, memory.data, start) for start, shape, dtype in sent.places]
