"""Layers to compare: with one set of weights, on one batch, equal before they are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch_geometric.nn as pyg
from torch import nn

import pyg_gt
from benchmarks.batches import SHAPES, batch_of

MODES = ("train", "train, attention dropout 0.5", "eval forward")
# nodes and edges of one graph: as many as a batch of molecules has, and a large graph of two
# densities
EDGES = ((3_200, 6_800), (20_000, 280_000), (20_000, 1_000_000))

Models = dict[str, nn.Module]
Classes = Mapping[str, Callable[..., nn.Module]]
GPS = {"pyg": pyg.GPSConv, "pyg_gt": pyg_gt.nn.GPSConv}
ALONG_EDGES = {"pyg": pyg.TransformerConv, "pyg_gt": pyg_gt.nn.MaskedTransformerConv}


class Case(NamedTuple):
    """Layers on one batch in one mode, checked to be equal.

    Attributes:
        row: shape and mode.
        models: the layers by name.
        inputs: ``x [N, F]``, ``edge_index [2, E]`` and, of several graphs, ``batch [N]``.
        calls: what to time, by name.
    """

    row: dict[str, Any]
    models: Models
    inputs: tuple[Any, ...]
    calls: dict[str, Callable[[], None]]


def gps_layers(classes: Classes, channels: int, heads: int, mode: str) -> Models:
    """``GPSConv`` with GIN as its local part."""
    kwargs = {"dropout": dropout_of(mode)}
    return with_same_weights(
        {
            name: make(
                channels, pyg.GINConv(nn.Linear(channels, channels)), heads, attn_kwargs=kwargs
            )
            for name, make in classes.items()
        }
    )


def edge_layers(classes: Classes, channels: int, heads: int) -> Models:
    """``TransformerConv``, whose heads are joined to as many channels as go in."""
    return with_same_weights(
        {name: make(channels, channels // heads, heads) for name, make in classes.items()}
    )


def with_same_weights(models: Models) -> Models:
    """All with the first one's weights."""
    first, *others = models.values()
    for model in others:
        model.load_state_dict(first.state_dict())
    return models


def dropout_of(mode: str) -> float:
    """Of attention weights."""
    return 0.5 if "0.5" in mode else 0.0


def checked_calls(models: Models, inputs: tuple[Any, ...], mode: str) -> dict[str, Any]:
    """What to time in this mode, once the functions without dropout are found equal.

    They are compared in train mode, where that has no dropout.
    """
    train = "train" in mode
    for model in models.values():
        model.train(mode == "train")
    check_same(models, inputs)
    for model in models.values():
        model.train(train)
    inputs[0].requires_grad_(train)
    return {name: step(model, inputs, train) for name, model in models.items()}


def check_same(models: Models, inputs: tuple[Any, ...]) -> None:
    """Raises unless both give the same outputs and input gradients."""
    results = []
    for model in models.values():
        x = inputs[0].detach().clone().requires_grad_()
        out = model(x, *inputs[1:])
        # the gradient of a plain sum vanishes behind BatchNorm
        weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
        (out * weight).sum().backward()
        results.append((out.detach(), x.grad))
        model.zero_grad()
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def step(model: nn.Module, inputs: tuple[Any, ...], train: bool) -> Callable[[], None]:
    """One call to time; it makes its batch anew, as a loader would."""

    def run() -> None:
        x, edge_index, *batch = inputs
        with torch.set_grad_enabled(train):
            out = model(x, edge_index, *(b.clone() for b in batch))
        if train:
            out.sum().backward()

    return run


def gps_cases(
    classes: Classes, channels: int, heads: int, shapes: Sequence[str]
) -> Iterator[Case]:
    """``GPSConv`` on every shape of ``shapes`` that is a batch, in every mode."""
    for shape in (name for name in SHAPES if name in shapes):
        torch.manual_seed(0)
        batch, edge_index = batch_of(*SHAPES[shape])
        x = torch.randn(batch.numel(), channels)
        for mode in MODES:
            models = gps_layers(classes, channels, heads, mode)
            row = {"shape": shape, "nodes": batch.numel(), "mode": mode}
            inputs = (x, edge_index, batch)
            yield Case(row, models, inputs, checked_calls(models, inputs, mode))


def edge_cases(
    classes: Classes, channels: int, heads: int, shapes: Sequence[str]
) -> Iterator[Case]:
    """``TransformerConv`` along random edges, if ``shapes`` has "edges"."""
    for nodes, edges in EDGES if "edges" in shapes else ():
        torch.manual_seed(0)
        inputs = (torch.randn(nodes, channels), torch.randint(nodes, (2, edges)))
        models = edge_layers(classes, channels, heads)
        for mode in ("train", "eval forward"):
            row = {"shape": f"E={edges}", "nodes": nodes, "edges": edges, "mode": mode}
            yield Case(row, models, inputs, checked_calls(models, inputs, mode))
