"""The ``processed`` folder of an OGB dataset: written as a whole, read without running code."""

from __future__ import annotations

import errno
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data.data import BaseData, DataEdgeAttr, DataTensorAttr

# PyG's name for a pre_transform, which its datasets store beside the processed file.
from torch_geometric.data.dataset import _repr as name_of_transform
from torch_geometric.data.storage import GlobalStorage

from ._staging import staging

DATA, NOTE = "geometric_data_processed.pt", "pre_transform.pt"
CHECKED = "raw_files_checked.txt"  # Absent where ogb itself has processed.
UNREADABLE = (
    *(pickle.UnpicklingError, EOFError, OSError, RuntimeError),  # Not a file of torch.save,
    *(ValueError, TypeError, KeyError, AttributeError, IndexError),  # or one of something else.
)
# What ogb's processed files hold beside tensors and plain values: three classes of PyG, and the
# number of nodes as a NumPy integer where the raw files are binary (ogbn-papers100M).
_SCALAR: Any = np.int64(0).__reduce__()[0]
SAFE = [
    *(DataEdgeAttr, DataTensorAttr, GlobalStorage),
    *(np.dtype, type(np.dtype(np.int64))),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # NumPy 1, 2
]


def process(
    dataset_class: Any, name: str, folder: Path, pre_transform: Callable[[Any], Any] | None
) -> None:
    """Let ogb process into a folder aside, then rename its files, the data last."""
    with _writable(folder), staging(folder, "processed") as content:
        staged_class = type(
            dataset_class.__name__,
            (dataset_class,),
            {"processed_dir": str(content), "_download": _check_raw},
        )
        try:
            with warnings.catch_warnings(), tensors_only(), _checksums():
                # ogb wraps pandas' read-only arrays; only their copies on disk are ever used.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                staged_class(name, root=str(folder.parent), pre_transform=pre_transform)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"pre_transform={pre_transform!r} puts objects into the data that cannot be read "
                f"back without running stored code: let it store tensors, or pass it as "
                f"transform. {error}"
            ) from error
        except RuntimeError as error:
            if "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(f"{folder / 'processed' / DATA} cannot be written: {error}") from error
        (content / CHECKED).write_text("pyg_gt checked the raw files before they were read.\n")
        processed = folder / "processed"
        processed.mkdir(exist_ok=True)
        for file in sorted(content.iterdir(), key=lambda file: file.name == DATA):
            file.replace(processed / file.name)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or os.access(
            folder, os.W_OK
        ):
            raise
        raise PermissionError(
            f"{folder} is read-only, and its processed form is written there on first use: copy "
            f"it to another root and make the copy writable (chmod -R u+w)"
        ) from error


@contextmanager
def _checksums() -> Iterator[None]:
    """Let ``torch.save`` write the checksums that ``load_tensors`` compares."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def load_tensors(path: Path) -> Any:
    """Read a file of ``torch.save`` that is undamaged, without running code.

    Raises:
        ValueError: If it is damaged or something else.
    """
    check_checksums(path)
    try:
        with tensors_only():
            return torch.load(path, weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def check_checksums(path: Path) -> None:
    """Compare the checksums in a file of ``torch.save``, which ``torch.load`` does not.

    Raises:
        ValueError: If a byte of its content has changed, or it is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # Whatever zipfile makes of bytes that are wrong.
        raise ValueError(f"{path} cannot be read: {error}") from error
    if damaged is not None:
        raise ValueError(f"{path} cannot be read: the checksum of {damaged} in it differs")


def check_pre_transform(processed: Path, pre_transform: Callable[[Any], Any] | None) -> None:
    """Refuse data processed otherwise, where PyG warns and returns that data."""
    try:
        made_with = load_tensors(processed / NOTE)
    except ValueError as error:
        raise unusable(processed / NOTE, error) from error
    asked = name_of_transform(pre_transform)
    if made_with != asked:
        raise ValueError(
            f"{processed} was made with pre_transform={made_with}, and pre_transform={asked} is "
            f"asked for: delete that folder, or use a copy of the dataset under another root"
        )


def open_processed(
    dataset_class: Any,
    name: str,
    folder: Path,
    transform: Callable[[Any], Any] | None,
    pre_transform: Callable[[Any], Any] | None,
) -> Any:
    """Make ogb's dataset object from the processed file."""
    # PyG's `_process` would read the notes with weights_only=False; `check_pre_transform` has
    # done it safely, and there is nothing left to process.
    opened_class = type(
        dataset_class.__name__,
        (dataset_class,),
        {"_download": _check_raw, "_process": lambda dataset: None},
    )
    path = folder / "processed" / DATA
    try:
        check_checksums(path)
        with tensors_only():
            dataset: Any = opened_class(name, str(folder.parent), transform, pre_transform)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise unusable(path, error) from error
    if not isinstance(dataset._data, BaseData):
        raise unusable(path, f"It holds a {type(dataset._data).__name__}, not graphs")
    dataset.__class__ = dataset_class  # A class made inside a function cannot be pickled.
    return dataset


def unusable(path: Path, reason: object) -> ValueError:
    """The error for a processed file that is not what it should be."""
    return ValueError(
        f"{path} is damaged or does not belong here: delete the folder {path.parent}, and it is "
        f"made again from the raw files. {reason}"
    )


@contextmanager
def tensors_only() -> Iterator[None]:
    """Let ``torch.load`` read OGB's processed files, and run no code from any file.

    ogb calls ``torch.load`` without ``weights_only``. The default is safe, unless this environment
    variable says otherwise: the usual way around ogb's failure to read its own files.
    """
    variable = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    unsafe = os.environ.pop(variable, None)
    try:
        with torch.serialization.safe_globals(SAFE):
            yield
    finally:
        if unsafe is not None:
            os.environ[variable] = unsafe


def again(folder: Path) -> str:
    """The cure where a dataset's own files are not whole."""
    return f"Move {folder} away and pass download=True, or copy the dataset's whole folder there"


def _check_raw(dataset: Any) -> None:
    """Stands in for PyG's ``_download``: a missing raw file is an error, not a download."""
    missing = [path for path in dataset.raw_paths if not Path(path).exists()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)}. {again(Path(dataset.root))}")
