"""Encodings on disk: written whole or not at all, read through memory maps and without pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..._version import __version__
from ..graph_encoding import GraphEncoding
from ..graphs.attributes import Column
from ..graphs.graphs import Graphs
from .bulk import chunks_of
from .files import checksum, mapped, new_file, new_folder, remove, remove_leftovers

_FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Store:
    """A folder of shards, each a folder of arrays, under a name that says what is in it.

    Attributes:
        folder: where it lies.
        pieces: which graphs each shard is of.
        digests: of the graphs of each shard.
    """

    folder: Path
    pieces: list[range]
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
        pieces, digests = [], []
        with tqdm(total=len(data), desc="reading", **bar(progress)) as shown:
            for piece, graphs in chunks_of(data, encodings):
                pieces.append(piece)
                digests.append(digest_of(graphs))
                shown.update(len(piece))
        contents = {
            "format": _FORMAT,
            "version": __version__,
            "transforms": [_name(encoding) for encoding in encodings],
            "shards": [
                [piece.start, piece.stop, digest]
                for piece, digest in zip(pieces, digests, strict=True)
            ],
        }
        # Absolute, so that a later change of the working directory does not matter.
        folder = Path(cache_dir).absolute() / f"encodings-{_digest_of_json(contents)}"
        if rebuild:
            remove(folder)
        if not os.path.lexists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with new_folder(folder) as staging:
                _write_json(staging / _MANIFEST, contents)
        if _read_json(folder / _MANIFEST) != contents:
            raise _damaged(folder, "its manifest is not that of these graphs and transforms")
        return cls(folder, pieces, digests)

    def missing(self, progress: bool) -> list[int]:
        """Numbers of the shards that are not there.

        Raises:
            ValueError: if one that is there is damaged.
        """
        found = []
        numbers = range(len(self.pieces))
        for number in tqdm(numbers, desc="checking", **bar(progress)):
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
            piece = self.pieces[number]
            raise ValueError(
                f"graphs {piece.start} to {piece.stop - 1} have changed since they were first "
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
            _write_json(
                staging / _MANIFEST, {"arrays": arrays, "digest": self._digest(number, arrays)}
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
            raise _damaged(shard, str(error)) from error

    def finish(self) -> None:
        """Removes what killed processes left behind, once all shards are there."""
        remove_leftovers(self.folder)
        remove_leftovers(self.folder.parent, self.folder.name)

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _arrays(self, number: int) -> list[dict[str, Any]]:
        """What the manifest of a shard says of its arrays, as :meth:`write` wrote it."""
        manifest = _read_json(self._shard(number) / _MANIFEST)
        arrays = manifest.get("arrays") if isinstance(manifest, dict) else None
        if arrays is None or manifest.get("digest") != self._digest(number, arrays):
            raise _damaged(self._shard(number), f"{_MANIFEST} was written for something else")
        found: list[dict[str, Any]] = arrays
        return found

    def _digest(self, number: int, arrays: Any) -> str:
        """The folder's name says which graphs, transforms and version ``arrays`` are of."""
        return _digest_of_json([self.folder.name, number, arrays])

    def _check(self, number: int) -> None:
        shard, arrays = self._shard(number), self._arrays(number)
        for path, array in zip(_paths(shard, len(arrays)), arrays, strict=True):
            for file, expected in zip(path, array["checksums"], strict=True):
                try:
                    found = checksum(file)
                except OSError as error:
                    raise _damaged(shard, str(error)) from error
                if found != expected:
                    raise _damaged(shard, f"the checksum of {file.name} is another")


class Shards(Sequence[list[Column]]):
    """The shards of a store, opened as they are asked for; to another process go their names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._opened: dict[int, list[Column]] = {}

    def __len__(self) -> int:
        return len(self._store.pieces)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} shards, and none of number {number}")
        if number not in self._opened:
            self._opened[number] = self._store.load(number)
        return self._opened[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self._store,)


def digest_of(graphs: Graphs) -> str:
    """A fingerprint of all that encodings read."""
    found = hashlib.blake2b(digest_size=16)
    for array in (graphs.ptr, graphs.row, graphs.col, graphs.weight, graphs.edge):
        found.update(len(array).to_bytes(8, "little"))
        found.update(_bytes(array))
    return found.hexdigest()


def bar(progress: bool) -> dict[str, Any]:
    """Options of a progress bar: on a terminal only, and only if asked for."""
    return {"disable": None if progress else True, "leave": False}


def _name(encoding: GraphEncoding) -> str:
    """All that decides what it computes, but for the code: its arguments and its limits."""
    kind = type(encoding)
    limits = {name: getattr(encoding, name) for name in dir(encoding) if name.isupper()}
    return f"{kind.__module__}.{kind.__qualname__}: {encoding!r} {limits or ''}".rstrip()


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _paths(shard: Path, count: int) -> list[tuple[Path, Path]]:
    """Where ``count`` columns lie: the values and the ``ptr`` of each."""
    return [(shard / f"{i}.npy", shard / f"{i}.ptr.npy") for i in range(count)]


def _digest_of_json(contents: Any) -> str:
    return hashlib.blake2b(json.dumps(contents).encode(), digest_size=16).hexdigest()


def _write_json(path: Path, contents: Any) -> None:
    with new_file(path) as file:
        file.write(json.dumps(contents, indent=1).encode())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path.parent, str(error)) from error


def _damaged(folder: Path, reason: str) -> ValueError:
    return ValueError(
        f"{folder} is damaged or does not belong here ({reason}): pass rebuild=True to compute "
        "all encodings anew, or delete it"
    )
