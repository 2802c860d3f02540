"""The order of the backends: which is fastest, and how much slower the others are."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.section import Row


def order(fastest: list[Row]) -> list[Row]:
    """A row for each (edges or not, dtype, dropout, bias, mode), the best backend first.

    ``slowdown`` is the geometric mean, over the rows that a backend ran, of its time over that of
    the fastest backend of the row; ``wins`` counts where it was the fastest.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in fastest:
        kind = "edges" if row["bias"] == "EdgeMask" else "full"
        key = (kind, row["dtype"], row["dropout"], row["bias"], row["mode"])
        groups.setdefault(key, []).append(row)
    standings = []
    for (kind, dtype, dropout, bias, mode), rows in groups.items():
        names = {name for row in rows for name in row["ms"] if name not in PEERS}
        backends = [_standing(name, rows) for name in names]
        backends.sort(key=lambda b: (b["slowdown"], b["backend"]))
        standings.append(
            {"kind": kind, "dtype": dtype, "dropout": dropout, "bias": bias, "mode": mode,
             "rows": len(rows), "backends": backends}
        )  # fmt: skip
    return standings


def _standing(name: str, rows: list[Row]) -> Row:
    ran = [row for row in rows if name in row["ms"]]
    logs = [math.log(row["ms"][name] / row["ms"][row["fastest"]]) for row in ran]
    return {
        "backend": name,
        "slowdown": round(math.exp(sum(logs) / len(logs)), 3),
        "wins": sum(row["fastest"] == name for row in ran),
        "rows": len(ran),
    }


def text(standings: list[Row]) -> list[str]:
    """A line for each group."""
    lines = []
    for group in standings:
        bias = "" if group["bias"] in (None, "EdgeMask") else f", {group['bias']}"
        dropout = f", dropout {group['dropout']:g}" if group["dropout"] else ""
        what = f"{group['kind']}, {group['dtype']}{dropout}{bias}, {group['mode']}"
        backends = ", ".join(f"{b['backend']} {b['slowdown']:.2f}" for b in group["backends"])
        lines.append(f"  {what:<42} {backends}")
    return lines
