"""Chunks of a dataset encoded in this process or by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..compiled.blas import load_libraries
from ..graph_encoding import GraphEncoding
from .columns import Column
from .encode import encode
from .shared_memory import receive_arrays, send_arrays
from .store import Store, progress_bar
from .worker_exit import ExitWithParent

_NOTHING = np.empty(0)


@dataclass(frozen=True)
class Work:
    """What there is to compute, chunk by chunk: given back, or written to a store.

    Attributes:
        data: the graphs.
        encodings: what is computed of them.
        chunks: the numbers of the graphs of each chunk.
        store: where results are written; None to give them back.
    """

    data: Any
    encodings: Sequence[GraphEncoding]
    chunks: Sequence[range]
    store: Store | None

    def __getitem__(self, number: int) -> list[Column]:
        chunk = self.chunks[number]
        graphs, columns = encode([self.data[i] for i in chunk], self.encodings, chunk.start)
        if self.store is None:
            return columns
        self.store.write(number, graphs, columns)
        return []


def run(
    work: Work, numbers: Sequence[int], num_workers: int, progress: bool
) -> Iterator[list[Column]]:
    """The results of the chunks ``numbers``, in their order."""
    total = sum(len(work.chunks[number]) for number in numbers)
    with tqdm(total=total, desc="encoding", **progress_bar(progress)) as bar:
        for number, columns in zip(numbers, _results(work, numbers, num_workers), strict=True):
            yield columns
            bar.update(len(work.chunks[number]))


@dataclass(frozen=True)
class _RemoteWork:
    """Work in another process, which sends its results: number, arrays, columns without them."""

    work: Work

    def __getitem__(self, number: int) -> tuple[int, Any, list[Column]]:
        columns = self.work[number]
        arrays = [each.values for each in columns]
        return number, send_arrays(arrays), [replace(each, values=_NOTHING) for each in columns]


def _results(work: Work, numbers: Sequence[int], num_workers: int) -> Iterator[list[Column]]:
    if num_workers == 0 or not numbers:
        yield from (work[number] for number in numbers)
        return
    if any(encoding.spectra for encoding in work.encodings):
        load_libraries()  # here, so that processes need not do it again, each of them
    loader: DataLoader[Any] = DataLoader(
        _RemoteWork(work),  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbers,
        num_workers=min(num_workers, len(numbers)),
        collate_fn=_identity,
        worker_init_fn=ExitWithParent(),
        in_order=False,  # the next one goes to whoever has the least to do
    )
    with torch.device("cpu"):  # where it draws a seed
        messages = iter(loader)
    early: dict[int, list[Column]] = {}
    expected = iter(numbers)
    following = next(expected)
    for number, sent, columns in messages:
        early[number] = [
            replace(each, values=array)
            for array, each in zip(receive_arrays(sent), columns, strict=True)
        ]
        while following in early:
            yield early.pop(following)
            following = next(expected, -1)


def _identity(message: Any) -> Any:
    return message
