"""Plots of the rows: operators, memory against nodes, shares of the ceilings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.section import Row

ORDER = ("triton", "flex", "sdpa", "sparse", "cpu", *PEERS)
# ours in colours, peers in greys
COLOURS = dict(zip(ORDER, ("#1b6ca8", "#8e5ea2", "#e9a03b", "#c2504d", "#5b8c3a",
                           "#555555", "#888888", "#aaaaaa", "#cccccc", "#555555"),
                   strict=True))  # fmt: skip


def draw(result: Row, stem: Path) -> list[Path]:
    """Writes the plots beside the JSON; those without any row are left out."""
    import matplotlib

    matplotlib.use("Agg")
    fastest = result["summary"]["fastest"]
    paths = []
    for name, figure in (
        ("operators", _bars([r for r in fastest if r["part"] == "operators"])),
        ("edges", _bars([r for r in fastest if r["part"] == "edges"])),
        ("flex", _bars([r for r in fastest if r["part"].startswith("flex")])),
        ("memory", _memory(result["parts"].get("memory", {}).get("rows", []))),
        ("shares", _shares(result["summary"])),
    ):
        if figure is None:
            continue
        card = result["card"].get("name", "no GPU: a test of the benchmark")
        torch = result["environment"]["torch"]
        figure.suptitle(f"{card}, torch {torch}, {result['environment']['date']}")
        path = stem.with_name(f"{stem.name}_{name}.png")
        figure.savefig(path, dpi=110)
        paths.append(path)
    return paths


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _bars(rows: list[Row]) -> Any:
    """Milliseconds of a call: a panel for each dtype and mode, a group of bars for each row."""
    from matplotlib.ticker import NullFormatter

    panels = sorted({(r["dtype"], r["mode"]) for r in rows})
    if not panels:
        return None
    groups = max(sum((r["dtype"], r["mode"]) == panel for r in rows) for panel in panels)
    figure, axes = _figure(1, len(panels), 4.6 * len(panels), 1.6 + 0.62 * groups)
    for axis, (dtype, mode) in zip(axes[0], panels, strict=True):
        chosen = [r for r in rows if (r["dtype"], r["mode"]) == (dtype, mode)][::-1]
        _grouped(axis, [(_label(row), row["ms"]) for row in chosen], fontsize=7)
        axis.set(xscale="log", xlabel="ms of a call", title=f"{dtype}, {mode}")
        times = [t for r in chosen for t in r["ms"].values()]
        # whole decades, so that a bar's length means the same in every panel
        axis.set_xlim(10 ** math.floor(math.log10(min(times)) - 0.1), 1.5 * max(times))
        axis.xaxis.set_minor_formatter(NullFormatter())
    _legend(figure, {n for r in rows for n in r["ms"]})
    return figure


def _grouped(axis: Any, groups: list[tuple[str, dict[str, float]]], fontsize: int) -> None:
    """A group of bars, one a candidate, for each label."""
    for at, (_, values) in enumerate(groups):
        names = [n for n in ORDER if n in values][::-1]
        height = 0.84 / max(1, len(names))
        for i, name in enumerate(names):
            y = at - 0.42 + (i + 0.5) * height
            axis.barh(y, values[name], 0.9 * height, color=COLOURS[name])
    axis.set_yticks(range(len(groups)), [label for label, _ in groups], fontsize=fontsize)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def _label(row: Row) -> str:
    bias = {None: "", "EdgeMask": ""}.get(row["bias"], f", {row['bias']}")
    dropout = f", dropout {row['dropout']:g}" if row["dropout"] else ""
    return f"{row['shape']}, C={row['channels']}{dropout}{bias}"


def _legend(figure: Any, names: set[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=COLOURS[n], label=n) for n in ORDER if n in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)


def _memory(rows: list[Row]) -> Any:
    """GiB against nodes, both axes logarithmic."""
    from matplotlib.ticker import NullFormatter

    rows = [r for r in rows if r.get("peak_mib")]
    if not rows:
        return None
    figure, axes = _figure(1, 1, 6.4, 4.4)
    axis = axes[0][0]
    for name in ORDER:
        line = [(r["nodes"], r["peak_mib"] / 1024) for r in rows if r["candidate"] == name]
        if line:
            dashes = "--" if name == "pyg padded" else "-"
            axis.plot(
                *zip(*line, strict=True), dashes, marker="o", label=name, color=COLOURS[name]
            )
    if max(r["nodes"] for r in rows) >= 200_000:
        axis.plot([200_000], [20], marker="_", markersize=16, color="black", label="goal")
    axis.set(xscale="log", yscale="log", xlabel="nodes of one graph", ylabel="peak GiB",
             title="forward and backward, bfloat16, H=4, C=16")  # fmt: skip
    nodes = sorted({r["nodes"] for r in rows})
    axis.set_xticks(nodes, [f"{n:,}" for n in nodes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    return figure


def _shares(summary: Row) -> Any:
    """Of the exp rate (full attention, C = 16) and of a copy (edges)."""
    exp = [r for r in summary["exp_shares"] if r["channels"] == 16 and r["candidate"] in ORDER]
    copies = [r for r in summary["copy_shares"] if r["dropout"] == 0 and r["mode"] == "forward"]
    panels = [("share of the exp rate, C=16", exp)] if exp else []
    if copies:
        panels.append(("share of the copy bandwidth, edges, forward", copies))
    if not panels:
        return None
    groups = {title: list(dict.fromkeys((r["shape"], r["dtype"]) for r in rows))
              for title, rows in panels}  # fmt: skip
    tall = max(map(len, groups.values()))
    figure, axes = _figure(1, len(panels), 6.0 * len(panels), 1.8 + 0.7 * tall)
    for axis, (title, rows) in zip(axes[0], panels, strict=True):
        chosen = []
        for shape, dtype in groups[title][::-1]:
            found = [r for r in rows if (r["shape"], r["dtype"]) == (shape, dtype)]
            chosen.append((f"{shape}, {dtype}", {r["candidate"]: r["share"] for r in found}))
        _grouped(axis, chosen, fontsize=8)
        axis.set(title=title)
    _legend(figure, {r["candidate"] for _, rows in panels for r in rows if r["share"] > 0})
    return figure
