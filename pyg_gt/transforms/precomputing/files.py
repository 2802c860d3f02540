"""Files and folders that are there whole or not at all, and arrays in them."""

from __future__ import annotations

import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when it is full, unless another process was faster."""
    staging = _aside(folder)
    try:
        staging.mkdir()
        yield staging
        staging.rename(folder)
    except OSError:
        # The process that was faster may have removed this one's as a leftover.
        if not folder.exists():
            raise
    finally:
        _discard(staging)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, on the disk when it is closed: a rename does not wait for that."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Deletes what is there, if anything, renamed first: nothing half deleted keeps its name."""
    aside = _aside(path)
    with suppress(FileNotFoundError):
        path.rename(aside)
    _discard(aside)


def remove_leftovers(folder: Path, names: str = "*") -> None:
    """Deletes what processes that were killed left of ``names`` in ``folder``.

    Another process may be at one of them still, so all that ``names`` stand for has to be there.
    """
    for leftover in folder.glob(f".{names}-{'[0-9a-f]' * 32}"):
        _discard(leftover)


def checksum(path: Path) -> int:
    """Of the bytes of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc


def mapped(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file as a memory map; writing to it does not reach the file.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is something else.
    """
    array = np.lib.format.open_memmap(path, mode="r")  # refuses objects, which would be pickled
    # numpy keeps a mapped file open, and a process may have no more than 1024; torch closes it.
    file = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    return np.ndarray(array.shape, array.dtype, file.numpy(), array.offset, array.strides)


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}-{uuid.uuid4().hex}"


def _discard(path: Path) -> None:
    """Deletes as much as can be; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
