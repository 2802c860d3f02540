"""The goals on a GPU and the shares of the card's ceilings, read from the rows."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.section import ONE_THREAD, Row


def _ceiling(parts: Row, name: str) -> float | None:
    rows = parts.get("ceilings", {}).get("rows", [])
    return next((row["value"] for row in rows if row["ceiling"] == name), None)


def exp_shares(parts: Row) -> Iterator[Row]:
    """Scores a second over exponentials a second, forward."""
    ceiling = _ceiling(parts, "exp")
    for part in ("operators", "flex"):
        for row in parts.get(part, {}).get("rows", []) if ceiling else []:
            for name, found in row["candidates"].items():
                if "forward_ms" in found and row["bias"] is None and row["dropout"] == 0:
                    ms = found.get("forward_device_ms", found["forward_ms"])
                    share = row["scores"] / (ms / 1e3) / ceiling
                    yield {"candidate": name, "share": round(share, 4),
                           **{k: row[k] for k in ("shape", "channels", "dtype")}}  # fmt: skip


def copy_shares(parts: Row) -> Iterator[Row]:
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


def goals(parts: Row) -> Iterator[Row]:
    """Goals and what was measured; of several candidates the package's best."""
    for part, suffix in (("operators", ""), ("graphs", ", CUDA graph over PyG without")):
        for row in parts.get(part, {}).get("rows", []):
            plain = row["bias"] is None and row["dropout"] == 0
            if row["shape"].startswith("molecules") and plain and row["channels"] == 16:
                for mode, least in (("forward", 8), ("train", 5), (ONE_THREAD, 5)):
                    if mode == ONE_THREAD and mode not in row["peer_over"]:
                        continue
                    what = f"PyG padded / ours, {row['shape']}, {row['dtype']}, {mode}{suffix}"
                    yield _at_least(what, least, _gain(row, mode))
    for row in parts.get("edges", {}).get("rows", []):
        where = f"{row['shape']}, {row['dtype']}"
        if row["dropout"] == 0 and row["shape"] == "E=1M":
            for mode, least in (("forward", 15), ("train", 8), (ONE_THREAD, 8)):
                if mode == ONE_THREAD and mode not in row["peer_over"]:
                    continue
                what = f"TransformerConv core / ours, {where}, {mode}"
                yield _at_least(what, least, _gain(row, mode))
        if row["shape"] == "products":
            times = [c["forward_ms"] for n, c in row["candidates"].items()
                     if n not in PEERS and "forward_ms" in c]  # fmt: skip
            yield _at_most(f"{where}, forward, ms", 30, min(times, default=None))
    shares = [s for s in exp_shares(parts) if s["channels"] == 16 and s["candidate"] not in PEERS]
    best = max((s["share"] for s in shares), default=None)
    yield _at_least("share of the exp rate at C = 16", 0.35, best)
    for row in parts.get("layers", {}).get("rows", []):
        if (row["layer"], row["shape"]) == ("GPSConv", "molecules") and "0.5" in row["mode"]:
            ours = {n: x for n, x in row["pyg_over"].items() if n.startswith("pyg_gt")}
            for name, gain in ours.items():
                yield _at_least(f"PyG / {name}, GPSConv step, dropout 0.5", 5, gain)
            if (gain := row.get("one_thread_over")) is not None:
                what = "PyG / pyg_gt, GPSConv step, dropout 0.5, both in one thread"
                yield _at_least(what, 5, gain)
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


def met(goal: Row, device: str) -> str:
    """Goals are about a GPU."""
    if goal["reached"] is None:
        return "not measured"
    return ("yes" if goal["reached"] else "no") if device == "cuda" else "no GPU"
