"""Download a zip archive, check what came, and lay one of its folders in place at once."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from urllib.request import urlopen

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
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        archive, unpacked = Path(scratch, "archive.zip"), Path(scratch, "unpacked")
        _receive(url, archive)
        try:
            with zipfile.ZipFile(archive) as content:  # Reading checks each member's CRC.
                content.extractall(unpacked)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{url} did not send an intact zip archive: {error}") from error
        missing = [path for path in expected if not (unpacked / inner / path).exists()]
        if missing:
            raise ValueError(
                f"the archive from {url} lacks {', '.join(missing)} in its folder {inner!r}; "
                f"nothing was written to {folder}"
            )
        (unpacked / inner).rename(folder)


def _receive(url: str, path: Path) -> None:
    try:
        with urlopen(url, timeout=SECONDS_WITHOUT_DATA) as answer, path.open("wb") as file:
            announced = answer.headers.get("Content-Length")
            size = f"{int(announced) / 1e6:,.1f} MB" if announced else "size unknown"
            print(f"Downloading {url} ({size})", file=sys.stderr)
            shutil.copyfileobj(answer, file, 1 << 20)
            received = file.tell()
    except OSError as error:  # urllib's own errors are OSErrors too.
        raise ConnectionError(f"cannot download {url}: {error}") from error
    if announced is not None and received != int(announced):
        raise ConnectionError(f"{url} announced {announced} bytes, but {received} came")
