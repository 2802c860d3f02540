"""The table, the plot and the JSON file of a training run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAMES = {"gin": "GIN", "gps": "GPS", "transformer": "Transformer"}
COLORS = {"gin": "#d1495b", "gps": "#00798c", "transformer": "#edae49"}


@dataclass
class Epoch:
    train_loss: float
    valid: float | None
    test: float | None
    seconds: float  # of training, without evaluation


@dataclass
class Result:
    model: str
    parameters: int
    epochs: list[Epoch] = field(default_factory=list)

    def best(self, higher_is_better: bool) -> Epoch:
        """The epoch chosen by validation, as the benchmarks' rules want it."""
        sign = 1 if higher_is_better else -1
        return max(self.epochs, key=lambda e: -math.inf if e.valid is None else sign * e.valid)


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def table(results: list[Result], metric: str, higher_is_better: bool) -> str:
    header = ["model", f"valid {metric}", f"test {metric}", "parameters", "s/epoch", "total s"]
    rows = [header]
    for result in results:
        best, seconds = result.best(higher_is_better), [e.seconds for e in result.epochs]
        rows.append(
            [
                result.model,
                number(best.valid),
                number(best.test),
                f"{result.parameters:,}",
                f"{sum(seconds) / len(seconds):.1f}",
                f"{sum(seconds):.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: Path, results: list[Result], about: dict[str, Any]) -> None:
    content = {**about, "models": [asdict(result) for result in results]}
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def plot(path: Path, results: list[Result], title: str, metric: str, chance: float | None) -> None:
    """Training loss and score by epoch: a colour for a model, a style for a part of the split."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    figure, (losses, scores) = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    solid = {"lw": 2, "marker": "o", "ms": 4}
    dotted = {"lw": 1.5, "ls": ":", "marker": "o", "ms": 4, "mfc": "white"}
    for result in results:
        color, steps = COLORS[result.model], range(1, len(result.epochs) + 1)
        losses.plot(steps, [e.train_loss for e in result.epochs], color=color, **solid)
        for part, style in (("test", dotted), ("valid", solid)):
            values = [getattr(epoch, part) for epoch in result.epochs]
            values = [math.nan if value is None else value for value in values]
            scores.plot(steps, values, color=color, **style)
    keys = [Line2D([], [], color=COLORS[r.model], lw=4, label=NAMES[r.model]) for r in results]
    keys += [Line2D([], [], color="0.35", label="validation", **solid)]
    keys += [Line2D([], [], color="0.35", label="test", **dotted)]
    if chance is not None:
        chance_style = {"color": "0.35", "lw": 1, "ls": (0, (6, 4))}
        scores.axhline(chance, zorder=0, **chance_style)
        keys += [Line2D([], [], label="chance", **chance_style)]

    losses.set_title("training loss", loc="left")
    scores.set_title(metric, loc="left")
    for axes in (losses, scores):
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    unfinished = path.with_name(path.name + ".part")
    figure.savefig(unfinished, dpi=150, format="png")
    unfinished.replace(path)
    pyplot.close(figure)
