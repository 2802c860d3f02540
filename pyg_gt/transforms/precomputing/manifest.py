"""What names and certifies stored encodings: fingerprints and manifests in JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._version import __version__
from ..graph_encoding import GraphEncoding
from ..graphs.graphs import Graphs
from .files import new_file

_FORMAT = 1
MANIFEST = "manifest.json"


def contents_of(
    chunks: Sequence[range], digests: Sequence[str], encodings: Sequence[GraphEncoding]
) -> dict[str, Any]:
    """The manifest of a store: graphs (by ``digests`` of the chunks), encodings and version."""
    return {
        "format": _FORMAT,
        "version": __version__,
        "transforms": [_name(encoding) for encoding in encodings],
        "shards": [
            [chunk.start, chunk.stop, digest]
            for chunk, digest in zip(chunks, digests, strict=True)
        ],
    }


def digest_of(graphs: Graphs) -> str:
    """A fingerprint of all that encodings read."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (graphs.ptr, graphs.row, graphs.col, graphs.weight, graphs.edge):
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(_bytes(array))
    return digest.hexdigest()


def _name(encoding: GraphEncoding) -> str:
    """All that decides what it computes, but for the code: its arguments and its limits."""
    kind = type(encoding)
    limits = {name: getattr(encoding, name) for name in dir(encoding) if name.isupper()}
    return f"{kind.__module__}.{kind.__qualname__}: {encoding!r} {limits or ''}".rstrip()


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def digest_of_json(contents: Any) -> str:
    """A fingerprint of ``contents``."""
    return hashlib.blake2b(json.dumps(contents).encode(), digest_size=16).hexdigest()


def write_json(path: Path, contents: Any) -> None:
    """Writes ``contents`` to a new file."""
    with new_file(path) as file:
        file.write(json.dumps(contents, indent=1).encode())


def read_json(path: Path) -> Any:
    """What the file holds.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path.parent, str(error)) from error


def damaged(folder: Path, reason: str) -> ValueError:
    """The error of a folder that is not as it was written."""
    return ValueError(
        f"{folder} is damaged or does not belong here ({reason}): pass rebuild=True to compute "
        "all encodings anew, or delete it"
    )
