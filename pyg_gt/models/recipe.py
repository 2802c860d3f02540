"""The published training settings of a preset, as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a preset was trained: what a runner needs beside the model.

    Dropout rates are arguments of the model, and stand there.

    Args:
        dataset (str): Name of the set, as its publisher writes it.
        source (str): Where the settings were published.
        loss (str): ``"bce"`` (with logits, over the labels that are there), ``"l1"`` or
            ``"cross_entropy"``; for ogbg-code2 the mean of five cross-entropies.
        metric (str): What the set is judged by: ``"rocauc"``, ``"ap"``, ``"mae"``, ``"acc"``,
            ``"f1"``.
        transforms (tuple): Transforms that add what the model reads, in their order.
        batch_size (int, optional): Graphs a batch; None: the whole graph. (default: :obj:`32`)
        epochs (int): (default: :obj:`100`)
        warmup_epochs (int): Epochs in which the learning rate rises. (default: :obj:`0`)
        lr (float): Peak learning rate. (default: :obj:`1e-3`)
        min_lr (float): Learning rate at the end of the schedule. (default: :obj:`0.0`)
        weight_decay (float): On all parameters. (default: :obj:`0.0`)
        optimizer (str): ``"adamw"`` or ``"adam"``. (default: :obj:`"adamw"`)
        schedule (str): ``"cosine"``, ``"linear"`` or ``"constant"`` after the warm-up.
            (default: :obj:`"cosine"`)
        schedule_unit (str): What the schedule counts: ``"epoch"`` or ``"step"``.
            (default: :obj:`"epoch"`)
        clip_norm (float, optional): Largest norm of the gradient. (default: :obj:`1.0`)
        parameters (int, optional): Published number of parameters. (default: :obj:`None`)
        published (str): Published score, with the part it was measured on.
            (default: :obj:`""`)
        notes (str): What else to know, in a sentence. (default: :obj:`""`)

    Example:
        >>> from pyg_gt.models import GPS
        >>> recipe = GPS.ogbg_molhiv().recipe
        >>> recipe.epochs, recipe.lr, len(recipe.transforms)
        (100, 0.0001, 1)
    """

    dataset: str
    source: str
    loss: Literal["bce", "l1", "cross_entropy"]
    metric: Literal["rocauc", "ap", "mae", "acc", "f1"]
    transforms: tuple[Callable[[Any], Any], ...] = ()
    batch_size: int | None = 32
    epochs: int = 100
    warmup_epochs: int = 0
    lr: float = 1e-3
    min_lr: float = 0.0
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    schedule_unit: Literal["epoch", "step"] = "epoch"
    clip_norm: float | None = 1.0
    parameters: int | None = None
    published: str = ""
    notes: str = ""

    def lr_factor(self, epoch: float, epochs: int | None = None) -> float:
        """What the peak learning rate is multiplied with in an epoch.

        As GraphGym's schedule: it rises from 1e-6 of the peak to all of it, then falls by half a
        cosine or a line, and to ``min_lr`` instead of zero where there is one.

        Args:
            epoch (float): Number of the epoch, from 0.
            epochs (int, optional): Epochs in all; None: those of the recipe.
                (default: :obj:`None`)
        """
        total = self.epochs if epochs is None else epochs
        warmup = self.warmup_epochs
        if epoch < warmup:
            factor = max(1e-6, epoch / warmup)
        elif self.schedule == "constant":
            return 1.0
        else:
            done = min(1.0, (epoch - warmup) / max(1, total - warmup))
            cosine = 0.5 * (1 + math.cos(math.pi * done))
            factor = cosine if self.schedule == "cosine" else 1 - done
        least = self.min_lr / self.lr
        return (1 - least) * factor + least
