"""The summary of all rows: the fastest backend of each, what went wrong, a short table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu import order
from benchmarks.gpu.goals import copy_shares, exp_shares, goals, met
from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.section import Row

# no result of a backend: the card is too small for it
SMALL = ("OutOfMemoryError",)


def summary(result: Row) -> Row:
    """The part of the JSON that people read first."""
    parts = result["parts"]
    wrong = [line for name, part in parts.items() for line in _wrong(name, part)]
    fastest = [
        line
        for name in ("operators", "flex", "edges", "flex edges")
        for row in parts.get(name, {}).get("rows", [])
        for line in _fastest(name, row)
    ]
    return {
        "goals": [g | {"met": met(g, result["device"])} for g in goals(parts)],
        "fastest": fastest,
        "order": order.order(fastest),
        "exp_shares": list(exp_shares(parts)),
        "copy_shares": list(copy_shares(parts)),
        "wrong": wrong,
        "errors": [line for name, part in parts.items() for line in _errors(name, part)],
        "left_out": [f"{name}: {x}" for name, part in parts.items() for x in part["left_out"]],
    }  # fmt: skip


def _wrong(name: str, part: Row) -> Iterator[str]:
    yield from (f"{name}: {error}" for error in part["errors"])
    for row in part["rows"]:
        if name == "tests":
            if row["failed"]:
                yield f"tests: {row['file']}: {row.get('ended') or row['failures']}"
            continue
        for candidate, found in _candidates(row):
            if candidate in PEERS:
                continue
            for key, text in found.items():
                bad = key == "wrong" or (key.endswith("error") and not text.startswith(SMALL))
                if bad and "not run:" not in text:
                    yield f"{name}: {_label(row)}: {candidate}: {text}"


def _errors(name: str, part: Row) -> Iterator[str]:
    """Of peers too, and where memory did not suffice."""
    for row in part["rows"]:
        for candidate, found in _candidates(row):
            for key, text in found.items():
                if key == "wrong" or key.endswith(("error", "not_captured")):
                    yield f"{name}: {_label(row)}: {candidate}: {key}: {text}"


def _candidates(row: Row) -> list[tuple[str, Row]]:
    if "candidate" in row:  # of the memory part: a row each
        return [(row["candidate"], {k: v for k, v in row.items() if isinstance(v, str)})]
    return list(row.get("candidates", {}).items())


def _label(row: Row) -> str:
    keys = ("shape", "layer", "mode", "channels", "dtype", "dropout", "bias", "nodes")
    return ", ".join(f"{k}={row[k]}" for k in keys if row.get(k) is not None)


def _fastest(part: str, row: Row) -> Iterator[Row]:
    """What the order of ``auto`` is to be decided by."""
    if "candidates" not in row:
        return
    for mode in ("forward", "train"):
        times = {n: c[f"{mode}_ms"] for n, c in row["candidates"].items() if f"{mode}_ms" in c}
        ours = {n: t for n, t in times.items() if n not in PEERS}
        keys = ("shape", "nodes", "graphs", "channels", "dtype", "dropout", "bias", "density")
        if ours:
            yield {"part": part, **{k: row.get(k) for k in keys}, "mode": mode, "ms": times,
                   "fastest": min(ours, key=lambda n: ours[n])}  # fmt: skip


def text(result: Row) -> str:
    """A table, and what went wrong."""
    lines: list[list[Any]] = [["goal", "bound", "measured", "met"]]
    lines += [[g["goal"], g["bound"], g["measured"], g["met"]] for g in result["goals"]]
    cells = [["-" if cell is None else str(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = [
        "  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    if result["order"]:
        table += ["", "backends, and how much slower than the fastest (geometric mean)"]
        table += order.text(result["order"])
    for title in ("wrong", "left_out"):
        if result[title]:
            table += ["", f"{title.replace('_', ' ')}: {len(result[title])}"]
            table += [f"  {line}" for line in result[title][:20]]
            table += ["  ..."] * (len(result[title]) > 20)
    return "\n".join(["", *table])
