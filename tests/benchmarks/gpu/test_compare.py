"""The GPU benchmark's comparison catches what is wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import compare, cuda_graphs, edges, operators, report
from benchmarks.gpu.section import Section


def section(seconds: float = 1000.0) -> Any:
    return Section("operators", seconds, "cpu", True)


def case(variant: str = "plain", dtype: torch.dtype = torch.float32) -> Any:
    return operators.Case(operators.Config("voc", 64, dtype, variant), "cpu", True)


def wrong_output(right: Any, p: float) -> Tensor:
    return right(p) * 1.01


def wrong_gradient(right: Any, p: float) -> Tensor:
    out = right(p)
    return out + (out - out.detach()) * 0.01


def wrong_row(right: Any, p: float) -> Tensor:
    out = right(p)
    keep = torch.ones(out.size(0), 1, 1)
    keep[-1] = 0
    return out * keep


def infinite(right: Any, p: float) -> Tensor:
    return right(p) * float("nan")


def too_short(right: Any, p: float) -> Tensor:
    return right(p)[1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_output, "the output differs from the reference by 0.01"),
        (wrong_gradient, "the gradient of joined differs from the reference by 0.01"),
        (wrong_row, "the output differs"),
        (infinite, "the output differs from the reference by nan"),
        (too_short, "the output is .33, 4, 64., expected .34, 4, 64."),
    ],
)
def test_a_wrong_candidate_is_caught_and_not_timed(change: Any, words: str) -> None:
    one, part = case(), section()
    right = partial(one.ours, "sdpa")
    candidates = {"sdpa": right, "triton": partial(change, right)}
    compare.compared(
        part, one.row(), one.problem(), candidates, {}, "sdpa", seconds=0.01, peak=False
    )
    found = part.rows[0]["candidates"]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found["triton"].pop("wrong"))
    assert found["triton"] == {} and {"forward_ms", "train_ms"} <= set(found["sdpa"])
    assert part.rows[0]["peer_over"] == {"forward": {}, "train": {}}


def test_a_wrong_backend_shows_in_the_end_and_in_the_exit_status() -> None:
    one, part = case(), section()
    right = partial(one.ours, "sdpa")
    for name in ("triton", "pyg padded"):
        compare.compared(
            part, one.row(), one.problem(), {name: partial(wrong_output, right)}, {}, "sdpa",
            seconds=0.01, peak=False,
        )  # fmt: skip
    parts = {"operators": part.result()}
    made = report.summary({"parts": parts, "device": "cuda"})
    assert len(made["wrong"]) == 1 and "triton: AssertionError" in made["wrong"][0]
    assert len(made["errors"]) == 2  # the peer's too
    assert "wrong: 1" in report.text(made)


def test_dropout_is_compared_weight_by_weight_where_it_is_one_mask() -> None:
    one = case("dropout 0.5")
    problem = one.problem()

    def other_weights(p: float) -> Tensor:
        torch.manual_seed(12)
        return one.reference(p)

    assert problem.difference("triton", one.reference) == 0.0
    with pytest.raises(AssertionError, match="with dropout 0.5"):
        problem.difference("triton", other_weights)
    assert problem.difference("sdpa", other_weights) == 0.0  # whose masks are its own


def test_dropped_edges_are_compared_one_by_one() -> None:
    shape = edges.Shape("E", 200, 900)
    torch.manual_seed(0)
    one = edges.Case(shape, torch.float32, *edges.edges_of(shape, "cpu", True), 0.5)
    assert one.sample.numel() == 128  # of 200 queries
    problem, right = one.problem(), partial(one.ours, "sparse")
    assert problem.difference("triton", right) < 1e-5

    def other_edges(p: float) -> Tensor:
        torch.manual_seed(12)
        return right(p)

    with pytest.raises(AssertionError, match="with dropout 0.5"):
        problem.difference("triton", other_edges)
    with pytest.raises(AssertionError, match="the gradient of query .* with dropout 0.0"):
        problem.difference("triton", partial(wrong_gradient, right))


@pytest.mark.parametrize("mode", ["train", "train in one thread"])
def test_training_in_one_thread(mode: str) -> None:
    """On a GPU torch runs the backward pass in another thread, unless told so."""
    one = case("plain")
    allowed: list[bool] = []

    def watched(p: float) -> Tensor:
        out = one.reference(p)
        if out.requires_grad:
            out.register_hook(lambda _: allowed.append(torch._C._is_multithreading_enabled()))
        return out

    call = compare.call_of(one.problem(), watched, mode)
    (got,) = call()
    assert allowed == [mode == "train"] and torch._C._is_multithreading_enabled()
    (want,) = torch.autograd.grad(one.reference(0.0).sum(), list(one.leaves.values()))
    torch.testing.assert_close(got, want)


def test_an_error_of_a_candidate_is_said_and_the_others_go_on() -> None:
    one, part = case(), section()

    def fails(p: float) -> Tensor:
        raise RuntimeError("no\nsuch kernel")

    calls: list[float] = []

    def fails_in_training(p: float) -> Tensor:
        if torch.is_grad_enabled():
            calls.append(p)
            if len(calls) == 2:  # the first one is the comparison
                raise torch.OutOfMemoryError("too much")
        return one.ours("sdpa", p)

    candidates = {"cpu": fails, "sparse": fails_in_training, "sdpa": partial(one.ours, "sdpa")}
    compare.compared(
        part, one.row(), one.problem(), candidates, {"flex": "it cannot"}, "sdpa", seconds=0.01,
        peak=False,
    )  # fmt: skip
    found = part.rows[0]["candidates"]
    assert found["cpu"] == {"error": "RuntimeError: no such kernel"}
    assert found["flex"] == {"objection": "it cannot"}
    assert found["sparse"]["train_error"] == "OutOfMemoryError: too much"
    assert found["sparse"]["forward_ms"] > 0 and found["sdpa"]["train_ms"] > 0
    made = report.summary({"parts": {"operators": part.result()}, "device": "cuda"})
    assert len(made["wrong"]) == 1  # too little memory is no wrong result
    assert len(made["errors"]) == 2


@pytest.mark.cuda
def test_a_captured_call_gives_what_the_call_gives() -> None:
    x = torch.zeros(3, device="cuda")
    replay = cuda_graphs.captured(lambda: x + 1)
    replay()
    counter = torch.zeros(1, device="cuda")
    with pytest.raises(AssertionError, match="another result"):
        cuda_graphs.captured(lambda: counter.add_(1).clone())


def test_backends_that_can_run_and_what_the_others_object() -> None:
    lines = {"triton": "chosen", "flex": "could run, choice 2", "cpu": "it runs on a CPU",
             "sdpa": "could run, choice 3", "reference": "could run, choice 4"}  # fmt: skip
    runs, objections = compare.backends(lines, lambda name: name, {"flex": "flex", "cpu": "x"})
    assert runs == {"triton": "triton", "sdpa": "sdpa"}
    assert objections == {"flex": "measured in the part 'flex'", "cpu": "it runs on a CPU"}
