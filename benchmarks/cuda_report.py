"""What the rows come to: goals, the fastest backend of each row, and all that went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cuda_section import Row

PEERS = ("pyg padded", "sdpa dense mask", "efficient ragged", "pyg core")
# no result of a backend: the card is too small for it
SMALL = ("OutOfMemoryError",)


def summary(result: Row) -> Row:
    """The part of the JSON that people read first."""
    parts = result["parts"]
    wrong = [line for name, part in parts.items() for line in _wrong(name, part)]
    return {
        "goals": [g | {"met": _met(g, result["device"])} for g in _goals(parts)],
        "fastest": [line for name in ("operators", "flex", "edges", "flex edges") if name in parts
                    for row in parts[name]["rows"] for line in _fastest(name, row)],
        "exp_shares": list(_exp_shares(parts)),
        "copy_shares": list(_copy_shares(parts)),
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
                    yield f"{name}: {_said(row)}: {candidate}: {text}"


def _errors(name: str, part: Row) -> Iterator[str]:
    """Of peers too, and where memory did not suffice."""
    for row in part["rows"]:
        for candidate, found in _candidates(row):
            for key, text in found.items():
                if key == "wrong" or key.endswith("error"):
                    yield f"{name}: {_said(row)}: {candidate}: {key}: {text}"


def _candidates(row: Row) -> list[tuple[str, Row]]:
    if "candidate" in row:  # of the memory part: a row each
        return [(row["candidate"], {k: v for k, v in row.items() if isinstance(v, str)})]
    return list(row.get("candidates", {}).items())


def _said(row: Row) -> str:
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


def _ceiling(parts: Row, name: str) -> float | None:
    rows = parts.get("ceilings", {}).get("rows", [])
    return next((row["value"] for row in rows if row["ceiling"] == name), None)


def _exp_shares(parts: Row) -> Iterator[Row]:
    """Scores a second over exponentials a second, forward."""
    ceiling = _ceiling(parts, "exp")
    for part in ("operators", "flex"):
        for row in parts.get(part, {}).get("rows", []) if ceiling else []:
            for name, found in row["candidates"].items():
                if "forward_ms" in found and row["bias"] is None and row["dropout"] == 0:
                    share = row["scores"] / (found["forward_ms"] / 1e3) / ceiling
                    yield {"candidate": name, "share": round(share, 4),
                           **{k: row[k] for k in ("shape", "channels", "dtype")}}  # fmt: skip


def _copy_shares(parts: Row) -> Iterator[Row]:
    """Bytes that have to move over the time it took, and over the speed of a copy.

    More than 1 is possible: keys and values of few nodes stay in a cache.
    """
    ceiling = _ceiling(parts, "copy")
    edges = [
        row for part in ("edges", "flex edges") for row in parts.get(part, {}).get("rows", [])
    ]
    for row in edges if ceiling else []:
        for name, found in row["candidates"].items():
            for mode in ("forward", "train"):
                if f"{mode}_ms" in found:
                    speed = row["bytes"][mode] / (found[f"{mode}_ms"] / 1e3) / 1e9
                    yield {"candidate": name, "mode": mode, "gb_per_s": round(speed, 1),
                           "share": round(speed / ceiling, 4),
                           **{k: row[k] for k in ("shape", "dtype", "dropout")}}  # fmt: skip


def _goals(parts: Row) -> Iterator[Row]:
    """Goals and what was measured; of several candidates the package's best."""
    for part, words in (("operators", ""), ("graphs", ", CUDA graph over PyG without")):
        for row in parts.get(part, {}).get("rows", []):
            plain = row["bias"] is None and row["dropout"] == 0
            if row["shape"].startswith("molecules") and plain and row["channels"] == 16:
                for mode, least in (("forward", 8), ("train", 5)):
                    what = f"PyG padded / ours, {row['shape']}, {row['dtype']}, {mode}{words}"
                    yield _at_least(what, least, _gain(row, mode))
    for row in parts.get("edges", {}).get("rows", []):
        where = f"{row['shape']}, {row['dtype']}"
        if row["dropout"] == 0 and row["shape"] == "E=1M":
            for mode, least in (("forward", 15), ("train", 8)):
                what = f"TransformerConv core / ours, {where}, {mode}"
                yield _at_least(what, least, _gain(row, mode))
        if row["shape"] == "products":
            times = [c["forward_ms"] for n, c in row["candidates"].items()
                     if n not in PEERS and "forward_ms" in c]  # fmt: skip
            yield _at_most(f"{where}, forward, ms", 30, min(times, default=None))
    shares = [s for s in _exp_shares(parts) if s["channels"] == 16 and s["candidate"] not in PEERS]
    best = max((s["share"] for s in shares), default=None)
    yield _at_least("share of the exp rate at C = 16", 0.35, best)
    for row in parts.get("layers", {}).get("rows", []):
        if (row["layer"], row["shape"]) == ("GPSConv", "molecules") and "0.5" in row["mode"]:
            for name, gain in row["pyg_over"].items():
                yield _at_least(f"PyG / {name}, GPSConv step, dropout 0.5", 5, gain)
    largest = [
        row
        for row in parts.get("memory", {}).get("rows", [])
        if row["nodes"] == 200_000 and row["candidate"] not in PEERS
    ]
    peaks = [row["peak_mib"] / 1024 for row in largest if "peak_mib" in row]
    yield _at_most("200,000 nodes, forward and backward, GiB", 20, min(peaks, default=None))
    for row in parts.get("recompiles", {}).get("rows", []):
        what = f"compilations in {row['batches']} batches, {row['compiled']}"
        yield _at_most(what, 2, row["graphs"])
    if "tests" in parts:
        rows = parts["tests"]["rows"]
        ran = sum(row.get("passed", 0) for row in rows)
        yield _at_most(f"tests that failed ({ran} passed)", 0, sum(r["failed"] for r in rows))


def _gain(row: Row, mode: str) -> float | None:
    gains = row["peer_over"].get(mode, {})
    return max((x for name, x in gains.items() if name not in PEERS), default=None)


def _at_least(what: str, bound: float, value: float | None) -> Row:
    return {"goal": what, "bound": f">= {bound:g}", "measured": value,
            "reached": None if value is None else value >= bound}  # fmt: skip


def _at_most(what: str, bound: float, value: float | None) -> Row:
    rounded = None if value is None else round(value, 3)
    return {"goal": what, "bound": f"<= {bound:g}", "measured": rounded,
            "reached": None if value is None else value <= bound}  # fmt: skip


def _met(goal: Row, device: str) -> str:
    """Goals are about a GPU."""
    if goal["reached"] is None:
        return "not measured"
    return ("yes" if goal["reached"] else "no") if device == "cuda" else "no GPU"


def text(made: Row) -> str:
    """A table, and what went wrong."""
    lines: list[list[Any]] = [["goal", "bound", "measured", "met"]]
    lines += [[g["goal"], g["bound"], g["measured"], g["met"]] for g in made["goals"]]
    cells = [["-" if cell is None else str(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = [
        "  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    for title in ("wrong", "left_out"):
        if made[title]:
            table += ["", f"{title.replace('_', ' ')}: {len(made[title])}"]
            table += [f"  {line}" for line in made[title][:20]]
            table += ["  ..."] * (len(made[title]) > 20)
    return "\n".join(["", *table])
