"""Download a zip archive, check what came, and lay one of its folders in place at once."""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from ._staging import staging

SECONDS_WITHOUT_DATA = 60.0


def download_folder(url: str, inner: str, folder: Path, *, expected: Iterable[str]) -> None:
    """Put the folder ``inner`` of the zip archive at ``url`` at ``folder``.

    Everything happens in a temporary folder beside the goal, which is renamed only after all
    checks, so an interrupted download leaves nothing that looks like a dataset.

    Args:
        url: Address of the archive.
        inner: Name of the wanted folder inside the archive.
        folder: Where it goes; must not exist, or be empty.
        expected: Paths relative to ``inner`` that must be there.

    Raises:
        ConnectionError: If the server does not answer or sends less than it announced.
        ValueError: If what came is no intact zip archive, or lacks an expected path.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staging(folder.parent, folder.name) as scratch:
            archive, unpacked = scratch / "archive.zip", scratch / "unpacked"
            _receive(url, archive)
            _unpack(url, archive, unpacked)
            missing = [path for path in expected if not (unpacked / inner / path).exists()]
            if missing:
                raise ValueError(
                    f"the archive from {url} lacks {', '.join(missing)} in its folder {inner!r}; "
                    f"nothing was written to {folder}"
                )
            (unpacked / inner).rename(folder)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # A full disk names no file.
            error.filename = str(folder)
        raise


def _receive(url: str, path: Path) -> None:
    with path.open("wb") as file:
        for block in _blocks(url):
            file.write(block)


def _blocks(url: str) -> Iterator[bytes]:
    """What the server sends; what fails here is the connection, and not the disk."""
    received = 0
    try:
        with urlopen(url, timeout=SECONDS_WITHOUT_DATA) as answer:
            header = str(answer.headers.get("Content-Length"))
            announced = int(header) if header.isdecimal() else None
            size = f"{announced / 1e6:,.1f} MB" if announced is not None else "size unknown"
            print(f"Downloading {url} ({size})", file=sys.stderr)
            while block := answer.read(1 << 20):
                received += len(block)
                yield block
    except (OSError, HTTPException) as error:  # urllib's own errors are OSErrors too.
        raise ConnectionError(f"cannot download {url}: {error}") from error
    if announced is not None and received != announced:
        raise ConnectionError(f"{url} announced {announced} bytes, but {received} came")


def _unpack(url: str, archive: Path, folder: Path) -> None:
    member = ""
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.namelist():
                content.extract(member, folder)  # Reading checks the member's CRC.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        # RuntimeError: encrypted, or packed by a method that zipfile does not know.
        reason = f"{member}: {error}" if member else str(error)
        raise ValueError(f"{url} did not send an intact zip archive: {reason}") from error
