"""What stands beside a figure."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import record


def test_the_card_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '590.1, 1980 MHz, 1980 MHz, 3201 MHz, 700.00 W, 31'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert record.card() == {} or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    properties = SimpleNamespace(total_memory=80 * 2**30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    card = record.card()
    assert card["name"] == "a card" and card["memory_gib"] == 80.0
    assert card["nvidia-smi"]["driver_version"] == "590.1"
    assert card["nvidia-smi"]["clocks.max.sm"] == "1980 MHz"
