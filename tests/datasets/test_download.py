"""A download puts a whole, checked folder in place, or nothing."""

import errno
import importlib.util
import io
import os
import re
import zipfile
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from pyg_gt.datasets import _download, load_ogb
from pyg_gt.datasets._download import download_folder

URL = "https://example.org/bace.zip"
EXPECTED = ("RELEASE_v1.txt", "raw", "split/scaffold")
FILES = {
    "bace/RELEASE_v1.txt": b"",
    "bace/raw/edge.csv.gz": os.urandom(500),
    "bace/split/scaffold/train.csv.gz": b"0",
}


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return content.getvalue()


class Answer(io.BytesIO):
    def __init__(self, body: bytes, announced: int | None) -> None:
        super().__init__(body)
        self.headers = {} if announced is None else {"Content-Length": str(announced)}


Serve = Callable[..., list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Stands in for the network; returns the addresses asked for."""

    def install(body: bytes | Exception, announced: int | None = -1) -> list[str]:
        asked: list[str] = []

        def answer(url: str, timeout: float) -> Answer:
            asked.append(url)
            if isinstance(body, Exception):
                raise body
            return Answer(body, len(body) if announced == -1 else announced)

        monkeypatch.setattr(_download, "urlopen", answer)
        return asked

    return install


@pytest.mark.parametrize("announced", [-1, None])
@pytest.mark.parametrize("exists", [False, True])
def test_folder_is_laid_in_place(
    tmp_path: Path, serve: Serve, announced: int | None, exists: bool
) -> None:
    folder = tmp_path / "root" / "ogbg_molbace"
    if exists:
        folder.mkdir(parents=True)
    assert serve(archive(FILES), announced) == []
    download_folder(URL, "bace", folder, expected=EXPECTED)
    assert {
        f"bace/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == FILES
    assert os.listdir(folder.parent) == ["ogbg_molbace"]


WHOLE = archive(FILES)
# The flags of each member, in its own header and in the list of members.
ENCRYPTED = re.sub(
    rb"(PK\x03\x04..|PK\x01\x02....).", lambda header: header[1] + b"\x01", WHOLE, flags=re.DOTALL
)
BROKEN = WHOLE.replace(FILES["bace/raw/edge.csv.gz"], bytes(500))


@pytest.mark.parametrize(
    ("body", "announced", "error", "words"),
    [
        (WHOLE[:-100], len(WHOLE), ConnectionError, "announced .* came"),
        (WHOLE[:-100], -1, ValueError, "intact zip"),
        (b"<html>moved</html>", -1, ValueError, "intact zip"),
        (BROKEN, -1, ValueError, "intact zip.*CRC"),
        (
            archive({"hiv/raw/edge.csv.gz": b""}),
            -1,
            ValueError,
            "lacks RELEASE_v1.txt, raw, split",
        ),
        (archive({"bace/raw/x": b"", "bace/split/scaffold/x": b""}), -1, ValueError, "lacks REL"),
        (URLError("no route"), -1, ConnectionError, "no route"),
        (HTTPError(URL, 404, "Not Found", None, None), -1, ConnectionError, "404"),  # type: ignore[arg-type]
        (TimeoutError("timed out"), -1, ConnectionError, "timed out"),
        (IncompleteRead(b"half"), -1, ConnectionError, "IncompleteRead"),
        (ENCRYPTED, -1, ValueError, "intact zip.*bace/RELEASE_v1.txt.*encrypted"),
    ],
)
def test_bad_download_leaves_nothing(
    tmp_path: Path,
    serve: Serve,
    body: bytes | Exception,
    announced: int,
    error: type[Exception],
    words: str,
) -> None:
    serve(body, announced)
    with pytest.raises(error, match=words):
        download_folder(URL, "bace", tmp_path / "ogbg_molbace", expected=EXPECTED)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_named(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(WHOLE)

    def no_space(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", no_space)
    with pytest.raises(OSError, match=r"No space left on device: .*ogbg_molbace"):
        download_folder(URL, "bace", tmp_path / "ogbg_molbace", expected=EXPECTED)
    assert os.listdir(tmp_path) == []


def test_members_stay_inside(tmp_path: Path, serve: Serve) -> None:
    serve(archive({**FILES, "../../../outside": b"", "bace/../../outside": b""}))
    root = tmp_path / "a" / "b"
    download_folder(URL, "bace", root / "ogbg_molbace", expected=EXPECTED)
    assert not [path for path in tmp_path.rglob("outside") if root not in path.parents]


def test_load_ogb_downloads_only_when_asked_and_missing(tmp_path: Path, serve: Serve) -> None:
    if importlib.util.find_spec("ogb") is None:  # to import it starts a thread
        pytest.skip("ogb is not installed")
    asked = serve(archive(FILES))
    with pytest.raises(FileNotFoundError):
        load_ogb("ogbg-molbace", tmp_path)
    assert asked == []
    # These few files are no dataset, so loading fails after the download, and does not repeat it.
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="node-feat"):
            load_ogb("ogbg-molbace", tmp_path, download=True)
        assert asked == [
            "https://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/bace.zip"
        ]
