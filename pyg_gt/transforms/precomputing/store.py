"""Encodings on disk: written whole or not at all, read through memory maps and without pickle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..graph_encoding import GraphEncoding
from ..graphs.graphs import Graphs
from .chunks import read_chunks
from .columns import Column
from .files import checksum, mapped, new_file, new_folder, remove, remove_leftovers
from .manifest import (
    MANIFEST,
    contents_of,
    damaged,
    digest_of,
    digest_of_json,
    read_json,
    write_json,
)


@dataclass(frozen=True)
class Store:
    """A folder of shards, each a folder of arrays, under a name that says what is in it.

    Attributes:
        folder: where it lies.
        chunks: the numbers of the graphs of each shard.
        digests: of the graphs of each shard.
    """

    folder: Path
    chunks: list[range]
    digests: list[str]

    @classmethod
    def open(
        cls,
        cache_dir: str | os.PathLike[str],
        data: Any,
        encodings: Sequence[GraphEncoding],
        *,
        rebuild: bool,
        progress: bool,
    ) -> Store:
        """The store of these graphs and encodings, made if it is not there.

        Raises:
            ValueError: if what lies in its place is something else.
        """
        chunks, digests = [], []
        with tqdm(total=len(data), desc="reading", **progress_bar(progress)) as bar:
            for chunk, graphs in read_chunks(data, encodings):
                chunks.append(chunk)
                digests.append(digest_of(graphs))
                bar.update(len(chunk))
        contents = contents_of(chunks, digests, encodings)
        # Absolute, so that a later change of the working directory does not matter.
        folder = Path(cache_dir).absolute() / f"encodings-{digest_of_json(contents)}"
        if rebuild:
            remove(folder)
        if not os.path.lexists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with new_folder(folder) as staging:
                write_json(staging / MANIFEST, contents)
        if read_json(folder / MANIFEST) != contents:
            raise damaged(folder, "its manifest is not that of these graphs and transforms")
        return cls(folder, chunks, digests)

    def missing(self, progress: bool) -> list[int]:
        """Numbers of the shards that are not there.

        Raises:
            ValueError: if one that is there is damaged.
        """
        found = []
        numbers = range(len(self.chunks))
        for number in tqdm(numbers, desc="checking", **progress_bar(progress)):
            if os.path.lexists(self._shard(number)):
                self._check(number)
            else:
                found.append(number)
        return found

    def write(self, number: int, graphs: Graphs, columns: Sequence[Column]) -> None:
        """Writes a shard.

        Raises:
            ValueError: if ``graphs`` are not those the store was opened for.
        """
        if digest_of(graphs) != self.digests[number]:
            chunk = self.chunks[number]
            raise ValueError(
                f"graphs {chunk.start} to {chunk.stop - 1} have changed since they were first "
                "read: data must give the same graphs at every read, so a random transform "
                "belongs behind the encodings"
            )
        with new_folder(self._shard(number)) as staging:
            arrays = []
            for path, column in zip(_paths(staging, len(columns)), columns, strict=True):
                for file, array in zip(path, (column.values, column.ptr), strict=True):
                    with new_file(file) as opened:
                        np.save(opened, array, allow_pickle=False)
                arrays.append(
                    {
                        "name": column.name,
                        "dim": column.dim,
                        "per_node": column.per_node,
                        "checksums": [checksum(file) for file in path],
                    }
                )
            write_json(
                staging / MANIFEST, {"arrays": arrays, "digest": self._digest(number, arrays)}
            )

    def load(self, number: int) -> list[Column]:
        """The attributes of a shard, as memory maps; writing to them does not reach the disk.

        Raises:
            ValueError: if it is not there, or damaged in a way that shows at once.
        """
        shard, arrays = self._shard(number), self._arrays(number)
        try:
            return [
                Column(
                    array["name"],
                    mapped(values),
                    mapped(ptr),
                    array["dim"],
                    array["per_node"],
                )
                for (values, ptr), array in zip(_paths(shard, len(arrays)), arrays, strict=True)
            ]
        except (OSError, ValueError) as error:
            raise damaged(shard, str(error)) from error

    def finish(self) -> None:
        """Removes what killed processes left behind, once all shards are there."""
        remove_leftovers(self.folder)
        remove_leftovers(self.folder.parent, self.folder.name)

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _arrays(self, number: int) -> list[dict[str, Any]]:
        """What the manifest of a shard says of its arrays, as :meth:`write` wrote it."""
        manifest = read_json(self._shard(number) / MANIFEST)
        arrays = manifest.get("arrays") if isinstance(manifest, dict) else None
        if arrays is None or manifest.get("digest") != self._digest(number, arrays):
            raise damaged(self._shard(number), f"{MANIFEST} was written for something else")
        found: list[dict[str, Any]] = arrays
        return found

    def _digest(self, number: int, arrays: Any) -> str:
        """The folder's name says which graphs, transforms and version ``arrays`` are of."""
        return digest_of_json([self.folder.name, number, arrays])

    def _check(self, number: int) -> None:
        shard, arrays = self._shard(number), self._arrays(number)
        for path, array in zip(_paths(shard, len(arrays)), arrays, strict=True):
            for file, expected in zip(path, array["checksums"], strict=True):
                try:
                    found = checksum(file)
                except OSError as error:
                    raise damaged(shard, str(error)) from error
                if found != expected:
                    raise damaged(shard, f"the checksum of {file.name} is another")


class Shards(Sequence[list[Column]]):
    """The shards of a store, opened as they are asked for; to another process go their names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._opened: dict[int, list[Column]] = {}

    def __len__(self) -> int:
        return len(self._store.chunks)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} shards, and none of number {number}")
        if number not in self._opened:
            self._opened[number] = self._store.load(number)
        return self._opened[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self._store,)


def progress_bar(progress: bool) -> dict[str, Any]:
    """Options of a progress bar: on a terminal only, and only if asked for."""
    return {"disable": None if progress else True, "leave": False}


def _paths(shard: Path, count: int) -> list[tuple[Path, Path]]:
    """Where ``count`` columns lie: the values and the ``ptr`` of each."""
    return [(shard / f"{i}.npy", shard / f"{i}.ptr.npy") for i in range(count)]
