"""The official split of an OGB dataset, read strictly and checked against what it divides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._processed import load_tensors
from ._raw import Files, Items, marked_types

_PARTS = ("train", "valid", "test")
_DICT = "split_dict.pt"  # Which ogb prefers, where it is there.


def read_split(folder: Path, cure: str, *, hetero: bool) -> dict[str, Any]:
    """Read a split as ogb does.

    Args:
        folder: Where its files are.
        cure: Ends each message.
        hetero: Whether there are several node types.

    Returns:
        For ``"train"``, ``"valid"`` and ``"test"`` an index tensor, or one per node type.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged; the message names it.
    """
    files = Files(folder, f"the split under {folder} cannot be read", cure)
    if files.exists(_DICT):
        return _read_dict(files, hetero=hetero)
    if not hetero:
        return {part: _read_part(files, f"{part}.csv.gz") for part in _PARTS}
    types = marked_types(files, "nodetype-has-split.csv.gz")
    return {
        part: {of: _read_part(files, f"{of}/{part}.csv.gz") for of in types} for part in _PARTS
    }


def _read_part(files: Files, file: str) -> Tensor:
    return torch.from_numpy(files.whole(file, columns=1)[:, 0].copy())


def _read_dict(files: Files, *, hetero: bool) -> dict[str, Any]:
    try:
        content = load_tensors(files.folder / _DICT)
    except ValueError as error:
        raise files.damaged(f"{_DICT} is damaged ({error})") from error
    if not isinstance(content, dict) or set(content) != set(_PARTS):
        raise files.damaged(f"{_DICT} has no 'train', 'valid' and 'test'")

    def as_index(part: str, index: Any) -> Any:
        if isinstance(index, Mapping) and hetero:
            return {of: as_index(part, nodes) for of, nodes in index.items()}
        try:
            tensor = torch.as_tensor(index)
        except (TypeError, ValueError, RuntimeError):
            tensor = torch.zeros(())
        if tensor.numel() == 0 and tensor.dim() == 1:
            return tensor.long()
        if tensor.dim() != 1 or tensor.dtype.is_floating_point or tensor.dtype == torch.bool:
            raise files.damaged(f"{part!r} in {_DICT} is no list of whole numbers")
        return tensor.long()

    return {part: as_index(part, index) for part, index in content.items()}


def check_split(
    split: Mapping[str, Any], items: Mapping[str | None, Items], folder: Path, of: str, cure: str
) -> None:
    """Check that the parts are disjoint, within range, and leave nothing labelled out.

    Each of OGB's sets fulfils this; of ogbn-papers100M, most nodes have no label and no part.

    Args:
        split: As of :func:`read_split`.
        items: What is divided: graphs, or the nodes of a type.
        folder: Where the split was read.
        of: What has the items, for the message.
        cure: Ends the message.

    Raises:
        ValueError: If it is not so; the message names the file of the part.
    """
    per_type: dict[str | None, dict[str, Tensor]] = {}
    for part, index in split.items():
        for node_type, nodes in (index if isinstance(index, Mapping) else {None: index}).items():
            per_type.setdefault(node_type, {})[part] = nodes
    for node_type, parts in per_type.items():
        prefix = "" if node_type is None else f"{node_type}/"
        if (folder / _DICT).exists():
            files = dict.fromkeys(parts, _DICT)
        else:
            files = {part: f"{prefix}{part}.csv.gz" for part in parts}
        problem = _problem(parts, items.get(node_type), files)
        if problem is not None:
            raise ValueError(
                f"the split under {folder} does not fit {of}, which {problem}. {cure}"
            )


def _problem(
    parts: Mapping[str, Tensor], items: Items | None, files: Mapping[str, str]
) -> str | None:
    if items is None:
        return f"has no labelled nodes of the type in {', '.join(files.values())}"
    has = f"has {items.number} {items.what}"
    for part, index in parts.items():
        for number in index.aminmax() if index.numel() > 0 else ():
            if not 0 <= int(number) < items.number:
                return f"{has}, and {part!r} names {number} ({files[part]})"
    times = torch.zeros(items.number, dtype=torch.long)
    for index in parts.values():
        times += torch.bincount(index, minlength=items.number)
    for number in (times > 1).nonzero()[:1, 0]:
        where = [f"{part!r} ({files[part]})" for part in parts if number in parts[part]]
        return f"{has}, and number {number} is {times[number]} times in {' and '.join(where)}"
    if items.all_labelled:
        for number in (times == 0).nonzero()[:1, 0]:
            where = list(dict.fromkeys(files.values()))
            return f"{has}, and number {number} is in none of {', '.join(where)}"
    return None
