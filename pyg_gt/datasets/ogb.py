"""Open Graph Benchmark datasets, through OGB's own classes, without their surprises.

`Hu et al. 2020, "Open Graph Benchmark" <https://arxiv.org/abs/2005.00687>`_. What the package ogb
(1.3.6) does by itself, and what is done about it here:

- importing it starts a thread that asks a server for the newest version: prevented;
- it asks on standard input when its release file is missing or a download is large: errors and
  ``download=True`` take the place of questions;
- it cannot read its own processed file with ``weights_only=True``, PyTorch's default since 2.6:
  the three PyG classes in that file and NumPy integers are allowed, and nothing else;
- it writes the processed file in place: here it is written aside and renamed when complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch_geometric.data import InMemoryDataset

from ._download import download_folder
from ._processed import (
    DATA,
    UNREADABLE,
    again,
    check_pre_transform,
    open_processed,
    process,
    tensors_only,
    unusable,
)

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

    Args:
        name: Official name: ``ogbg-*`` (graphs) or ``ogbn-*`` (nodes).
        root: Folder that holds the datasets.
        download: Fetch the dataset if its folder is missing (some are tens of gigabytes).
        pre_transform: Applied to every graph once, before the ``processed`` folder is written.
            The result must consist of tensors and plain Python values. Transforms are told apart
            by their ``repr``, as everywhere in PyG: two plain functions look the same.
        transform: Applied to a graph at every access.

    Raises:
        ImportError: If ogb is not installed.
        FileNotFoundError: If files are missing and no download was asked for.
        ConnectionError: If the download fails.
        PermissionError: If the dataset must be processed and its folder is read-only.
        ValueError: If the name is unknown, if files are damaged or do not belong together, or if
            they were processed with another ``pre_transform``.
    """
    module, dataset_class = _import_ogb(name)
    meta = _meta(module, name)
    folder = _folder(Path(root).expanduser(), name)
    release, split = f"RELEASE_v{meta['version']}.txt", f"split/{meta['split']}"
    if download and not (folder.is_dir() and any(folder.iterdir())):
        # The address in ogb's table is plain http; the same server answers https.
        url = meta["url"].replace("http://snap.stanford.edu", "https://snap.stanford.edu")
        expected = (release, "raw", split)
        download_folder(url, meta["download_name"], folder, expected=expected)
    _check_files(folder, name, release, split)

    processed = folder / "processed"
    if not (processed / DATA).exists():
        process(dataset_class, name, folder, pre_transform)
    check_pre_transform(processed, pre_transform)
    dataset = open_processed(dataset_class, name, folder, transform, pre_transform)
    split_idx = _read_split(dataset, folder / split)
    _check_split(dataset, split_idx, processed / DATA, graphs=name.startswith("ogbg"))
    return OGBTask(dataset, split_idx, module.Evaluator(name))


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


def _read_split(dataset: Any, folder: Path) -> dict[str, Any]:
    try:
        with tensors_only():
            split_idx = dataset.get_idx_split()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {again(Path(dataset.root))}") from error
    except UNREADABLE as error:
        raise ValueError(
            f"the split under {folder} cannot be read: {error}. {again(Path(dataset.root))}"
        ) from error
    return {part: _as_tensors(index) for part, index in split_idx.items()}


def _as_tensors(index: Any) -> Any:
    # With several node types, ogb converts the first one only.
    if isinstance(index, Mapping):
        return {node_type: _as_tensors(nodes) for node_type, nodes in index.items()}
    return torch.as_tensor(index, dtype=torch.long)


def _check_split(dataset: Any, split_idx: dict[str, Any], path: Path, *, graphs: bool) -> None:
    """Check that the processed file belongs to the split beside it."""
    if graphs:
        split_size = sum(index.numel() for index in split_idx.values())
        if split_size != len(dataset):
            raise unusable(path, f"It has {len(dataset)} graphs, the split {split_size}")
        return
    data = dataset._data
    for part, index in split_idx.items():
        per_type = index if isinstance(index, dict) else {None: index}
        for node_type, nodes in per_type.items():
            size = data.num_nodes if node_type is None else data.num_nodes_dict[node_type]
            if nodes.numel() > 0 and int(nodes.max()) >= size:
                raise unusable(path, f"It has {size} nodes, and {part!r} names {nodes.max()}")
