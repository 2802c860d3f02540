"""Launches of Triton kernels: arguments by name, on the device and the stream of the tensors."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_gt.ops._kernels.triton.launch import Launch, dropout_arguments, launch_all

from .processes import needs_triton, run


@needs_triton
@pytest.mark.slow
def test_what_the_launcher_of_triton_is_given() -> None:
    run(["-m", "pytest", "-q", "-x", "tests/ops/kernels/triton/launch_cases.py"], interpret=False)


class Kernel:
    """Notes launches as ``triton.jit`` would make them."""

    def __init__(self, *names: str) -> None:
        self.arg_names = list(names)
        self.launched: list[tuple[tuple[int, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda **given: self.launched.append((grid, given))


def test_a_kernel_gets_its_arguments_by_name() -> None:
    first, second = Kernel("x", "count", "B"), Kernel("B", "y")
    launches = [
        Launch(first, 3, {"count": 5, "B": 16}, {"num_warps": 1}),
        Launch(second, 7, {"B": 32}, {"num_warps": 2, "num_stages": 3}),
        Launch(first, 2, {"count": 6, "B": 64}, {}),
    ]
    launch_all(launches, {"x": "a tensor", "y": None, "count": 4}, torch.empty(0))
    assert first.launched == [
        ((3,), {"x": "a tensor", "count": 5, "B": 16, "num_warps": 1}),
        ((2,), {"x": "a tensor", "count": 6, "B": 64}),
    ]
    assert second.launched == [((7,), {"B": 32, "y": None, "num_warps": 2, "num_stages": 3})]


def test_no_programs_no_launch() -> None:
    kernel = Kernel("x")
    launch_all([Launch(kernel, 0, {}, {})], {"x": 1}, torch.empty(0))
    assert not kernel.launched


def test_a_missing_argument_is_an_error() -> None:
    with pytest.raises(KeyError, match="'x'"):
        launch_all([Launch(Kernel("x"), 1, {}, {})], {"y": 1}, torch.empty(0))


class OnCuda(Tensor):
    """Says that it lies on the fourth GPU."""

    is_cuda = True  # type: ignore[assignment]

    def get_device(self) -> int:
        return 3


def test_kernels_run_on_the_device_of_the_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    monkeypatch.setattr(torch.cuda, "device", lambda x: entered.append(x) or nullcontext())
    launches = [Launch(Kernel("x"), 1, {}, {})] * 2
    launch_all(launches, {"x": 1}, torch.empty(0))
    assert not entered
    launch_all(launches, {"x": 1}, torch.empty(0).as_subclass(OnCuda))
    assert entered == [3], "once for all launches of a call"


@pytest.mark.parametrize(
    ("p", "threshold", "factor"),
    [(0.0, -(2**31), 1.0), (0.5, 0, 2.0), (0.75, 2**30, 4.0), (1.0, 2**31 - 1, 0.0)],
)
def test_dropout_is_a_bound_and_a_factor(p: float, threshold: int, factor: float) -> None:
    assert dropout_arguments(p) == {"threshold": threshold, "factor": factor}
