"""The table, the plot and the JSON file of a training run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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
    """Training loss and score by epoch; validation solid, test dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = dict(
        zip(("gin", "gps", "transformer"), ("#d1495b", "#00798c", "#edae49"), strict=True)
    )
    figure, (losses, scores) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for result in results:
        color, steps = colors[result.model], range(1, len(result.epochs) + 1)
        style = {"color": color, "lw": 2, "marker": "o", "ms": 3.5}
        losses.plot(steps, [e.train_loss for e in result.epochs], label=result.model, **style)
        valid, test = ([getattr(e, part) for e in result.epochs] for part in ("valid", "test"))
        as_numbers = [[math.nan if v is None else v for v in values] for values in (valid, test)]
        scores.plot(steps, as_numbers[0], label=f"{result.model}, validation", **style)
        scores.plot(steps, as_numbers[1], label=f"{result.model}, test", color=color, ls=":")
    if chance is not None:
        scores.axhline(chance, color="0.6", lw=1, ls="--", zorder=0, label="chance")
    losses.set(xlabel="epoch", ylabel="training loss", title="Training loss")
    scores.set(xlabel="epoch", ylabel=metric, title=metric)
    for axes in (losses, scores):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    unfinished = path.with_name(path.name + ".part")
    figure.savefig(unfinished, dpi=150, format="png")
    unfinished.replace(path)
    pyplot.close(figure)
