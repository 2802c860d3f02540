"""Arrays sent from one process to another through memory that both map."""

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


class _MemoryFile(NamedTuple):
    """A file in memory without a name: its descriptor, its size, and each array's place in it."""

    file: Any
    size: int
    places: list[tuple[int, tuple[int, ...], np.dtype[Any]]]


def send_arrays(arrays: Sequence[NDArray[Any]]) -> Any:
    """The message to the process that calls :func:`receive_arrays`, which may do so once.

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
        return _MemoryFile(DupFd(number), file.tell(), places)


def receive_arrays(sent: Any) -> list[NDArray[Any]]:
    """The arrays of a message of :func:`send_arrays`.

    Raises:
        RuntimeError: if the process that sent them is no longer there.
    """
    if not isinstance(sent, _MemoryFile):
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
