"""The layers that are timed have the same weights and give the same numbers."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from benchmarks import layers


def test_every_mode_of_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"small": (3, (0, 1), (2, 5)), "not asked for": (1, (0, 1), (2, 2))}
    monkeypatch.setattr(layers, "SHAPES", shapes)
    monkeypatch.setattr(layers, "EDGES", ((9, 30),))
    sizes = (8, 2, ("small", "edges"))
    cases = chain(
        layers.gps_cases(layers.GPS, *sizes), layers.edge_cases(layers.ALONG_EDGES, *sizes)
    )
    rows = []
    for case in cases:
        mode = case.row["mode"]
        rows.append((case.row["shape"], mode))
        assert list(case.calls) == list(case.models) == ["pyg", "pyg_gt"]
        for model, call in zip(case.models.values(), case.calls.values(), strict=True):
            assert model.training == ("train" in mode)
            assert all(p.grad is None for p in model.parameters())
            call()
            assert all((p.grad is not None) == ("train" in mode) for p in model.parameters())
            if case.row["shape"] == "small":
                dropout = 0.5 if mode == layers.MODES[1] else 0.0
                assert model.attn.dropout == dropout
    assert rows == [("small", mode) for mode in layers.MODES] + [
        ("E=30", "train"), ("E=30", "eval forward"),
    ]  # fmt: skip


def test_layers_that_differ_are_not_timed() -> None:
    models = layers.edge_layers(layers.ALONG_EDGES, 8, 2)
    inputs = (torch.randn(5, 8), torch.randint(5, (2, 12)))
    layers.checked_calls(models, inputs, "train")
    with torch.no_grad():
        models["pyg_gt"].lin_key.weight += 0.1
    with pytest.raises(AssertionError):
        layers.checked_calls(models, inputs, "train")
