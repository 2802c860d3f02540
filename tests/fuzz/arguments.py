"""Wrong arguments: one at a time, at every public door, must be refused in words that name it."""

from __future__ import annotations

import os
import re
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyg_gt

from .calls import Call, calls
from .draws import Fault, random_of
from .wrong_values import is_right, wrong_values

_PACKAGE = Path(pyg_gt.__file__).resolve().parent
_TYPES = (ValueError, IndexError, NotImplementedError, ImportError, TypeError, FileNotFoundError)
# other words by which a message may name an argument
_SAID = {
    "x": r"x\b|node features|nodes|'query'",
    "key": "key|query",
    "value": "value|key",
    "qkv": "qkv|query",
    "layout": "layout|batch",
    "query_layout": "layout|batch|graphs|device",
    "ptr": "ptr|layout",
    "batch": "batch|layout|graphs|nodes",
    "biases": "bias",
    "transform": "transform",
    "edges": "edge|graph|E = |adjacency",
    "edge_index": "edge|E = |adjacency",
    "edge_attr": "edge_attr|EdgeBias.values|EdgeMask.features|edges",
    "fn": "ScoreMod",
    "data": "data|graph|edge_index|num_nodes",
    "num_nodes": "(num_)?nodes",
    "num_src": "source|key nodes|edge layout|num_src",
    "num_dst": "target|query nodes|edge layout|num_dst",
    "model": "Module",
    "layer": "TransformerEncoderLayer",
    "device": "device|GraphLayout",
    "attn_dropout": "dropout",
    "in_channels": "(in_)?channels",
    "out_channels": "(out_)?channels",
    "pair_walk": "PairBias|pair_walk",
    "pair_distance": "TableBias|[Tt]able index|pair_distance",
    "max_distance": "max_distance|[Tt]able index",
    "heads": r"heads|\[[PK], ",
}


class Case(NamedTuple):
    """One wrong argument of one call."""

    call: Call
    argument: str
    label: str


@lru_cache(maxsize=1)
def cases() -> tuple[Case, ...]:
    """All of them, in one order."""
    found = []
    for call in calls():
        for argument, valid in call.valid().items():
            if argument in call.skip:
                continue
            labels = [label for label in wrong_values(valid) if call.huge or label != "10**9"]
            found += [Case(call, argument, label) for label in labels]
    return tuple(found)


def size() -> int:
    """How many there are."""
    return len(cases())


def draw(seed: int, number: int) -> Counter[str]:
    """Tries case ``number``; raises ``Fault`` where it is not refused as it should be."""
    random_of(seed, "arguments", number)
    call, argument, label = cases()[number]
    arguments = call.valid()
    valid = arguments[argument]
    try:
        value = wrong_values(valid)[label](valid)
    except (RuntimeError, IndexError, TypeError):  # there is no such tensor
        return Counter(["not a value"])
    arguments[argument] = value
    where = f"{call.name}({argument}={label})"
    try:
        with _in_a_folder_of_its_own():
            call.run(arguments)
    except Exception as error:
        if (wrong := _what_is_wrong(error, argument)) is not None:
            # what is right by its type may be refused by its value, but in words too
            raise Fault(f"{wrong} {where} -> {_said(error)}") from error
        return Counter(["refused"])
    annotation = call.annotations.get(argument, "")
    if (argument, label) in call.fine or is_right(label, value, valid, annotation, argument):
        return Counter(["taken"])
    raise Fault(f"silent  {where}: taken in silence (annotated '{annotation}')")


@contextmanager
def _in_a_folder_of_its_own() -> Iterator[None]:
    """Where a path such as "x" is a right one, and files are written."""
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _what_is_wrong(error: Exception, argument: str) -> str | None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    last = Path(frame.filename)
    own = last.is_relative_to(_PACKAGE)
    own = own and (frame.line or "").startswith("raise")  # not what Python says of an operand
    names = re.search(rf"\b({re.escape(argument)}|{_SAID.get(argument, argument)})", str(error))
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return "memory "
    if not own:
        # words of PyG or torch that name the argument do as well
        clear = isinstance(error, (ValueError, IndexError)) and names is not None
        clear = clear or "resolve" in str(error) or "value of Tensor" in str(error)
        return None if clear else "raw    "
    if not isinstance(error, _TYPES):
        return "raw    "
    return None if names else "unnamed"


def _said(error: Exception) -> str:
    frame: Any = traceback.extract_tb(error.__traceback__)[-1]
    line = (str(error).splitlines() or [""])[0][:160]
    return f"{type(error).__name__}: {line} ({Path(frame.filename).name}:{frame.lineno})"
