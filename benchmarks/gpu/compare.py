"""Candidates of one computation: compared with the reference, then timed side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.section import ONE_THREAD, Row, Section, one_line
from benchmarks.timing import batched, in_one_thread, kernel_us, median_ms, peak_mib, ratio

# largest difference, relative to the largest number of a tensor
TOLERANCE = {torch.float32: 5e-4, torch.bfloat16: 5e-2}

# one call, with this probability of dropout
Run = Callable[[float], Tensor]


@dataclass
class Problem:
    """What candidates are to compute, and the right result.

    Attributes:
        leaves: what gradients are asked of, by name.
        want: the reference's ``[N, H, C]`` from the same leaves, for a probability of dropout.
        rows: which rows of an output ``want`` has; None: all.
        dropout_p: with which candidates are timed.
        exact: candidates that drop the very weights that the reference does.
    """

    leaves: dict[str, Tensor]
    want: Callable[[float], Tensor]
    rows: Tensor | None = None
    dropout_p: float = 0.0
    exact: tuple[str, ...] = ()
    _expected: dict[float, list[Tensor]] = field(default_factory=dict)

    def results(self, run: Run, p: float, rows: Tensor | None) -> list[Tensor]:
        """The output, and a gradient of each leaf."""
        torch.manual_seed(11)
        out = run(p)
        out = out if rows is None else out[rows]
        grad = torch.arange(out.numel(), device=out.device).view(out.shape).cos().to(out.dtype)
        leaves = list(self.leaves.values())
        gradients = torch.autograd.grad(out, leaves, grad) if leaves else ()
        return [out.detach(), *gradients]

    def difference(self, name: str, run: Run) -> float:
        """How far a candidate is from the reference, in the worst of all tensors.

        Raises:
            AssertionError: if that is too far.
        """
        worst = 0.0
        probabilities = {0.0, self.dropout_p} if name in self.exact else {0.0}
        for p in sorted(probabilities):
            if p not in self._expected:
                self._expected[p] = self.results(self.want, p, None)
            got = self.results(run, p, self.rows)
            allowed = TOLERANCE[got[0].dtype]  # the features' type is also their gradients' worth
            names = ["the output", *(f"the gradient of {leaf}" for leaf in self.leaves)]
            for what, a, b in zip(names, got, self._expected[p], strict=True):
                if a.shape != b.shape:
                    raise AssertionError(f"{what} is {list(a.shape)}, expected {list(b.shape)}")
                if b.numel() == 0:
                    continue
                size = max(float(b.abs().max()), 1e-6)
                error = float((a.float() - b.float()).abs().max()) / size
                if not error <= allowed:  # also where it is NaN
                    raise AssertionError(
                        f"{what} differs from the reference by {error:.3g} of its largest number "
                        f"(allowed: {allowed:.3g}) with dropout {p}"
                    )
                worst = max(worst, error)
        return worst


def backends(
    lines: Mapping[str, str], run_of: Callable[[str], Run], elsewhere: Mapping[str, str] = {}
) -> tuple[dict[str, Run], dict[str, str]]:
    """The backends that can run by ``explain_choice``'s lines, and what the others object.

    ``elsewhere`` names backends that are measured in another part, and that part.
    """
    runs: dict[str, Run] = {}
    objections: dict[str, str] = {}
    for name, text in lines.items():
        if name == "reference":
            continue
        if text != "chosen" and not text.startswith("could run"):
            objections[name] = text
        elif name in elsewhere:
            objections[name] = f"measured in the part '{elsewhere[name]}'"
        else:
            runs[name] = run_of(name)
    return runs, objections


def compared(
    section: Section,
    row: Row,
    problem: Problem,
    candidates: Mapping[str, Run],
    objections: Mapping[str, str],
    peer: str,
    modes: tuple[str, ...] = ("forward", "train"),
    seconds: float = 0.35,
    peak: bool = True,
) -> None:
    """Adds a row: of each candidate its difference, its times, its memory; or its error.

    Args:
        section: which the row is of.
        row: what was computed.
        problem: the reference.
        candidates: by name.
        objections: why some backends are not among them.
        peer: the candidate to which others are compared.
        modes: "forward" (without gradients), "train" (forward and backward), ``ONE_THREAD``.
        seconds: of one mode.
        peak: whether to measure memory.
    """
    found: dict[str, Row] = {name: {"objection": text} for name, text in objections.items()}
    ratios: dict[str, dict[str, float]] = {}
    try:
        alive = {}
        for name, run in candidates.items():
            found[name] = {}
            with _noted(found[name], "error", section.device):
                found[name]["difference"] = problem.difference(name, run)
                alive[name] = run
        for mode in modes:
            calls: dict[str, Callable[[], Any]] = {}
            for name, run in alive.items():
                with _noted(found[name], f"{mode}_error", section.device):
                    call = call_of(problem, run, mode)
                    call()
                    if peak and mode != ONE_THREAD:
                        found[name][f"{mode}_peak_mib"] = peak_mib(call, section.device)
                    if section.device == "cuda" and mode != ONE_THREAD:
                        # what of the time is the device's: the rest is Python, autograd, launches
                        us = sum(kernel_us(call).values())
                        found[name][f"{mode}_device_ms"] = round(us / 1e3, 5)
                    calls[name] = call
            if calls:
                ratios[mode] = side_by_side(calls, found, mode, peer, seconds)
    finally:  # where even the device is lost, what was found stays
        section.add(row | {"peer": peer, "candidates": found, "peer_over": ratios})


def side_by_side(
    calls: Mapping[str, Callable[[], Any]],
    found: dict[str, Row],
    mode: str,
    peer: str,
    seconds: float,
) -> dict[str, float]:
    """Notes medians in ``found``; returns the median over rounds of the peer's time over each."""
    times = batched(calls, seconds)
    for name, ms in median_ms(times, 5).items():
        found[name][f"{mode}_ms"] = ms
    if peer not in times:
        return {}
    return {name: round(ratio(times, peer, name), 3) for name in times if name != peer}


def call_of(problem: Problem, run: Run, mode: str) -> Callable[[], Any]:
    """One call to time."""
    p = problem.dropout_p
    if mode == "forward":
        return torch.no_grad()(partial(run, p))
    leaves = list(problem.leaves.values())
    with torch.no_grad():
        grad = torch.ones_like(run(p))

    def train() -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(p), leaves, grad)

    return in_one_thread(train) if mode == ONE_THREAD else train


@contextmanager
def _noted(found: Row, key: str, device: str) -> Iterator[None]:
    """Notes an error and goes on; a device that answers no more is an error of the caller."""
    try:
        yield
    except AssertionError as error:
        found["wrong"] = one_line(error)
    except Exception as error:
        found[key] = one_line(error)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
