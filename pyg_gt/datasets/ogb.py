"""Open Graph Benchmark datasets, through OGB's own classes, without their surprises.

`Hu et al. 2020, "Open Graph Benchmark" <https://arxiv.org/abs/2005.00687>`_. What the package ogb
(1.3.6) does by itself, and what is done about it here:

- importing it starts a thread that asks a server for the newest version: prevented;
- it asks on standard input when its release file is missing or a download is large: errors and
  ``download=True`` take the place of questions;
- it cannot read its own processed file with ``weights_only=True``, PyTorch's default since 2.6:
  the three PyG classes in that file and NumPy integers are allowed, and nothing else;
- it writes the processed file in place: here it is written aside and renamed when complete;
- it reads raw files, splits and its processed file unchecked: see `_raw`, `_split`, `_processed`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from ._arguments import check_transforms
from ._download import download_folder
from ._processed import CHECKED, DATA, again, check_pre_transform, open_processed, process
from ._raw import Items, check_raw
from ._split import check_split, read_split
from ._staging import remove_stale

_SETS = {
    "ogbg": ("ogb.graphproppred", "PygGraphPropPredDataset"),
    "ogbn": ("ogb.nodeproppred", "PygNodePropPredDataset"),
}


class OGBTask(NamedTuple):
    """A dataset, its official split and its official metric."""

    dataset: InMemoryDataset
    """OGB's own class: a sequence of ``Data`` objects."""
    split_idx: dict[str, Any]
    """``"train"``, ``"valid"``, ``"test"``: an index tensor each (``ogbn-mag``: one per type)."""
    evaluator: Any
    """OGB's own ``Evaluator``: ``eval({"y_true": ..., "y_pred": ...})``."""


def load_ogb(
    name: str,
    root: str | os.PathLike[str],
    *,
    download: bool = False,
    pre_transform: Callable[[Any], Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
) -> OGBTask:
    """Load an OGB dataset from ``root/<name with underscores>``, in OGB's own layout.

    The first call reads the raw files and writes a ``processed`` folder beside them, so ``root``
    must be writable. No code stored in a file is ever run, no question is asked on standard
    input, and no connection is opened unless ``download=True`` and the dataset is not there.

    Files are checked before they are used. Raw files, before they are processed: whether they can
    be unpacked, whether numbers are what they should be, and whether sizes, indices, features,
    labels and the split agree. The split and the checksums in the processed file: at every call.
    What cannot be found is a raw number that was changed to another possible one: a feature, a
    label, an edge to another node of its graph. Raw files of a ``processed`` folder that was
    written by ogb itself are checked at every call; delete that folder to have it made again.

    A process that is killed while it downloads or processes leaves a hidden folder, which the next
    call deletes.

    Args:
        name (str): The official name: ``ogbg-*`` (graphs) or ``ogbn-*`` (nodes).
        root (str or path): The folder that holds the datasets.
        download (bool, optional): Whether to fetch the dataset if its folder is missing (some
            are tens of gigabytes). (default: :obj:`False`)
        pre_transform (callable, optional): Applied to every graph once, before the ``processed``
            folder is written. The result must consist of tensors and plain Python values.
            Transforms are told apart by their ``repr``, as everywhere in PyG: two plain functions
            look the same. (default: :obj:`None`)
        transform (callable, optional): Applied to a graph at every access.
            (default: :obj:`None`)

    Raises:
        ImportError: If ogb is not installed.
        FileNotFoundError: If files are missing and no download was asked for.
        ConnectionError: If the download fails.
        PermissionError: If the dataset must be processed and its folder is read-only.
        OSError: If a disk is full; the message names the folder or file.
        ValueError: If an argument is wrong or the name is unknown; if files are damaged or do not
            belong together (the message names the file and the line); if they were processed with
            another ``pre_transform``.
    """
    root = _check_arguments(name, root, download, pre_transform, transform)
    module, dataset_class = _import_ogb(name)
    meta = _meta(module, name)
    folder = _folder(root, name)
    release, split = f"RELEASE_v{meta['version']}.txt", f"split/{meta['split']}"
    remove_stale(root, folder.name)
    if download and not (folder.is_dir() and any(folder.iterdir())):
        # The address in ogb's table is plain http; the same server answers https.
        url = meta["url"].replace("http://snap.stanford.edu", "https://snap.stanford.edu")
        expected = (release, "raw", split)
        download_folder(url, meta["download_name"], folder, expected=expected)
    _check_files(folder, name, release, split)

    remove_stale(folder, "processed")
    processed = folder / "processed"
    cure = again(folder)
    with torch.device("cpu"):  # Whatever the caller's default device: files are read to the host.
        # Files that ogb itself has processed may come of raw files that contradict each other.
        unchecked = not ((processed / DATA).exists() and (processed / CHECKED).exists())
        if unchecked:
            raw_items = check_raw(folder / "raw", meta, cure)
        split_idx = read_split(folder / split, cure, hetero=meta.get("is hetero") == "True")
        if unchecked:
            check_split(split_idx, raw_items, folder / split, "the set of raw files", cure)
        if not (processed / DATA).exists():
            process(dataset_class, name, folder, pre_transform)
        check_pre_transform(processed, pre_transform)
        dataset = open_processed(dataset_class, name, folder, transform, pre_transform)
        graphs, as_read = name.startswith("ogbg"), pre_transform is None
        items = _items(dataset, split_idx, graphs=graphs, as_read=as_read)
        check_split(
            *(split_idx, items, folder / split, str(processed / DATA)),
            f"If the split is right, delete the folder {processed}, and it is made again from the "
            f"raw files; if not: {cure}",
        )
    return OGBTask(dataset, split_idx, module.Evaluator(name))


def _check_arguments(
    name: object, root: object, download: object, pre_transform: object, transform: object
) -> Path:
    """Return ``root`` as a path, if the arguments of ``load_ogb`` are what they should be."""
    if not isinstance(name, str):
        raise ValueError(f"load_ogb got name={name!r}; expected a string like 'ogbg-molhiv'")
    path = os.fspath(root) if isinstance(root, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(
            f"load_ogb got root={root!r}; expected the path of the folder that holds the datasets "
            f"('.' for the current one)"
        )
    if not isinstance(download, (bool, np.bool_)):
        raise ValueError(f"load_ogb got download={download!r}; expected True or False")
    check_transforms("load_ogb", pre_transform=pre_transform, transform=transform)
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:  # No such user.
        raise ValueError(f"load_ogb got root={root!r}: {error}") from error
    if expanded.exists() and not expanded.is_dir():
        raise ValueError(
            f"load_ogb got root={root!r}, which is a file; expected the folder that holds the "
            f"datasets"
        )
    return expanded


def _import_ogb(name: str) -> tuple[ModuleType, Any]:
    """Import the part of ogb that serves ``name``, without its update check."""
    kind = name.partition("-")[0]
    if kind not in _SETS:
        raise ValueError(f"an OGB name starts with 'ogbg-' or 'ogbn-', got {name!r}")
    module_name, class_name = _SETS[kind]
    # ogb/__init__.py starts a thread that opens a connection if `outdated` can be imported, and
    # `outdated` starts another for itself; None in sys.modules makes that import fail instead.
    checker = sys.modules.get("outdated")
    sys.modules["outdated"] = None  # type: ignore[assignment]
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} is read with the package ogb, and {error.name} is missing: "
            f'pip install "pyg_gt[ogb]"'
        ) from error
    finally:
        del sys.modules["outdated"]
        if checker is not None:
            sys.modules["outdated"] = checker
    return module, getattr(module, class_name)


def _meta(module: ModuleType, name: str) -> dict[str, str]:
    """The column of ogb's own table that describes ``name``."""
    pandas = import_module("pandas")  # Comes with ogb.
    table = Path(str(module.__file__)).with_name("master.csv")
    master = pandas.read_csv(table, index_col=0, keep_default_na=False)
    if name not in master:
        raise ValueError(f"ogb knows no dataset {name!r}; it knows {', '.join(master)}")
    return dict(master[name])


def _folder(root: Path, name: str) -> Path:
    folder = root / name.replace("-", "_")
    pyg = folder.with_name(folder.name + "_pyg")  # ogb's own name for it in older versions.
    return pyg if pyg.exists() else folder


def _check_files(folder: Path, name: str, release: str, split: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name} is not at {folder}. Pass download=True to fetch it, or the root under which "
            f"the folder {folder.name!r} lies"
        )
    missing = [part for part in (release, "raw", split) if not (folder / part).exists()]
    if missing == [release]:
        raise FileNotFoundError(
            f"{folder / release} is missing, by which ogb knows the version of its data. If these "
            f"are the current files, create it (it may be empty); if not, move {folder} away and "
            f"pass download=True"
        )
    if missing:
        raise FileNotFoundError(
            f"{name} at {folder} is incomplete: no {', '.join(missing)}. {again(folder)}"
        )


def _items(
    dataset: Any, split_idx: Mapping[str, Any], *, graphs: bool, as_read: bool
) -> dict[str | None, Items]:
    """What the processed file has for the split to divide.

    Where a pre_transform may have added nodes (``as_read=False``), some may be in no part.
    """
    if graphs:
        return {None: Items("graphs", len(dataset), all_labelled=True)}
    data = dataset._data

    def items(number: int, y: Tensor) -> Items:
        return Items("nodes", int(number), as_read and not bool(y.isnan().any()))

    if not isinstance(split_idx["train"], Mapping):
        return {None: items(data.num_nodes, data.y)}
    return {of: items(data.num_nodes_dict[of], y) for of, y in data.y_dict.items()}
