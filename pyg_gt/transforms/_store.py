"""Encodings on disk: written whole or not at all, read through memory maps and without pickle."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from .._version import __version__
from ._attributes import Column
from ._bulk import chunks_of
from ._encoding import GraphEncoding
from ._graphs import Graphs

_FORMAT = 1


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
        cache_dir: str | PathLike[str],
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
        text = json.dumps(contents, indent=1)
        key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        folder = Path(cache_dir) / f"encodings-{key}"
        if rebuild and folder.exists():
            shutil.rmtree(folder)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
            staging.mkdir()
            (staging / "manifest.json").write_text(text, encoding="utf-8")
            _rename(staging, folder)
        if _read(folder / "manifest.json") != contents:
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
            if self._shard(number).exists():
                self._check(number)
            else:
                found.append(number)
        return found

    def write(self, number: int, graphs: Graphs, columns: Sequence[Column]) -> None:
        """Writes a shard under another name and renames it.

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
        staging = self.folder / f".{number:06d}-{uuid.uuid4().hex}"
        staging.mkdir()
        try:
            arrays = []
            for i, column in enumerate(columns):
                values = column.values.numpy()
                np.save(staging / f"{i}.npy", values, allow_pickle=False)
                np.save(staging / f"{i}.ptr.npy", column.ptr, allow_pickle=False)
                arrays.append(
                    {
                        "name": column.name,
                        "dim": column.dim,
                        "per_node": column.per_node,
                        "crc": [_crc(values), _crc(column.ptr)],
                    }
                )
            manifest = {"digest": self.digests[number], "arrays": arrays}
            (staging / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            _rename(staging, self._shard(number))
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def load(self, number: int) -> list[Column]:
        """The attributes of a shard, as memory maps; writing to them does not reach the disk."""
        shard = self._shard(number)
        arrays = _read(shard / "manifest.json")["arrays"]
        return [
            Column(
                array["name"],
                torch.from_numpy(_mapped(shard / f"{i}.npy")),
                np.load(shard / f"{i}.ptr.npy", allow_pickle=False),
                array["dim"],
                array["per_node"],
            )
            for i, array in enumerate(arrays)
        ]

    def finish(self) -> None:
        """Removes what was left behind by processes that were killed."""
        for leftover in self.folder.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _check(self, number: int) -> None:
        shard = self._shard(number)
        manifest = _read(shard / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("digest") != self.digests[number]:
            raise _damaged(shard, "it is of other graphs")
        try:
            columns = self.load(number)
            expected = [array["crc"] for array in manifest["arrays"]]
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise _damaged(shard, str(error)) from error
        for column, crc in zip(columns, expected, strict=True):
            if [_crc(column.values.numpy()), _crc(column.ptr)] != crc:
                raise _damaged(shard, f"the checksum of {column.name!r} is another")


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
    return f"{type(encoding).__module__}.{type(encoding).__qualname__}: {encoding!r}"


def _crc(array: NDArray[Any]) -> int:
    return zlib.crc32(_bytes(array))


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:
        # An array without an entry cannot be mapped; what else is wrong is raised again.
        return np.asarray(np.load(path, allow_pickle=False))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, str(error)) from error


def _rename(staging: Path, folder: Path) -> None:
    """Gives ``staging`` its name, unless another process was faster."""
    try:
        staging.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(staging, ignore_errors=True)


def _damaged(folder: Path, reason: str) -> ValueError:
    return ValueError(
        f"{folder} is damaged or does not belong here ({reason}): pass rebuild=True to compute "
        "all encodings anew, or delete it"
    )
