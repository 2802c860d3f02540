"""Attention along edges in torch operations against the reference, outside of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_gt import EdgeLayout, EdgeMask
from pyg_gt.ops._kernels.problem import EdgeProblem, Saved
from pyg_gt.ops._kernels.torch_ops import edges
from pyg_gt.ops.dropout import draw_seed

from ...cases import Case, make_case

TAKEN = [
    *("mask", "mask-repeats", "mask-values", "mask-values-repeats", "mask-values-inf"),
    *("mask-no-edges", "mask-features", "mask-values-features-repeats"),
]
ALL = (True,) * 5


def problem_of(case: Case, scale: float = 0.7, dropout_p: float = 0.0) -> EdgeProblem:
    (mask,) = case.biases
    assert isinstance(mask, EdgeMask)
    layout = EdgeLayout.of(mask.edges, case.layout.num_nodes, case.query_layout.num_nodes)
    values, features = (None if x is None else x.detach() for x in (mask.values, mask.features))
    seed = draw_seed(torch.device("cpu")) if dropout_p > 0 else None
    return EdgeProblem(layout, values, features, seed, scale, dropout_p)


def computed(case: Case, grad: Tensor, scale: float = 0.7, dropout_p: float = 0.0) -> list[Tensor]:
    """The output and the gradients of every tensor, in the order of ``case.leaves``."""
    torch.manual_seed(7)
    problem = problem_of(case, scale, dropout_p)
    qkv = [x.detach() for x in (case.query, case.key, case.value)]
    out, stats = edges.forward(problem, *qkv)
    gradients = edges.backward(problem, grad, Saved(*qkv, out, stats), ALL)
    assert out.dtype == case.dtype and out.shape == case.query.shape
    double = case.dtype == torch.float64
    assert stats.shape == (*out.shape[:2], 2)
    assert stats.dtype == (torch.float64 if double else torch.float32)
    return [out, *(x for x in gradients if x is not None)]


def assert_same(case: Case, tolerance: float, **kwargs: float) -> None:
    grad = torch.randn(case.query.shape).to(case.dtype)
    got = computed(case, grad, **kwargs)
    torch.manual_seed(7)
    out = case.attention("reference", **{"scale": 0.7, **kwargs})
    want = [out, *torch.autograd.grad(out, list(case.leaves.values()), grad)]
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.isfinite().all()
        limit = tolerance * max(1.0, float(b.detach().abs().max())) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.float16, 4e-3),
        (torch.bfloat16, 3e-2),
    ],
)
@pytest.mark.parametrize("bias", TAKEN)
def test_it_is_the_reference(bias: str, dtype: torch.dtype, tolerance: float) -> None:
    for order in ("sorted", "unsorted"):
        for kind in ("self", "cross"):
            assert_same(make_case(bias, order, kind, dtype), tolerance)


@pytest.mark.parametrize("scale", [-1.3, 0.0, 40.0])
def test_any_scale(scale: float) -> None:
    case = make_case("mask-values-features-repeats", "unsorted", "cross")
    assert_same(case, 1e-11, scale=scale)


@pytest.mark.parametrize("dropout_p", [0.3, 1.0])
@pytest.mark.parametrize("max_edges", [1, 10, 2**12])
def test_it_drops_what_the_reference_drops(
    monkeypatch: pytest.MonkeyPatch, max_edges: int, dropout_p: float
) -> None:
    monkeypatch.setattr(edges, "_MAX_EDGES", dict.fromkeys(edges._MAX_EDGES, max_edges))
    case = make_case("mask-values-features-repeats", "unsorted", "cross")
    assert_same(case, 1e-12, dropout_p=dropout_p)


def test_statistics_are_the_largest_score_and_the_sum_of_exponentials() -> None:
    case = make_case("mask-values")
    problem = problem_of(case)
    top, total = edges.forward(problem, case.query, case.key, case.value)[1].unbind(-1)
    source, target = problem.edges.ends.long()
    scores = 0.7 * (case.query[target] * case.key[source]).sum(-1) + problem.values
    for query in range(case.query.size(0)):
        found = scores[target == query]
        if len(found):
            torch.testing.assert_close(top[query], found.amax(0))
            torch.testing.assert_close(total[query].log() + top[query], found.logsumexp(0))
        else:
            assert not top[query].any() and (total[query] == 1).all()


@pytest.mark.parametrize("needed", range(5))
def test_only_gradients_that_are_needed(needed: int) -> None:
    case = make_case("mask-values-features-repeats")
    problem = problem_of(case)
    qkv = [x.detach() for x in (case.query, case.key, case.value)]
    out, stats = edges.forward(problem, *qkv)
    grad = torch.randn_like(out)
    every = edges.backward(problem, grad, Saved(*qkv, out, stats), ALL)
    needs = tuple(i == needed for i in range(5))
    gradients = edges.backward(problem, grad, Saved(*qkv, None, stats), needs)
    assert tuple(x is not None for x in gradients) == needs
    assert torch.equal(gradients[needed], every[needed])


def test_sharp_attention_in_half_precision() -> None:
    """Where a rounded output would give gradients of queries that are off by some per cent."""
    case = make_case("mask-values-repeats", dtype=torch.bfloat16)
    grad = torch.randn(case.query.shape).bfloat16()
    got = computed(case, grad, scale=8.0)[1]
    leaves = [x.detach().double().requires_grad_() for x in case.leaves.values()]
    (mask,) = case.biases
    case.query, case.key, case.value = leaves[:3]
    case.biases, case.dtype = (EdgeMask(mask.edges, leaves[3]),), torch.float64
    out = case.attention("reference", scale=8.0)
    (want,) = torch.autograd.grad(out, leaves[0], grad.double())
    large = want.abs() > 1e-3 * want.abs().max()
    error = ((got.double() - want).abs() / want.abs())[large]
    assert float(error.quantile(0.95)) < 0.01
