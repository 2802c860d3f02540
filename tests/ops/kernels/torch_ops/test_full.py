"""Attention of all pairs in torch operations against the reference, outside of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_gt import EdgeBias, EdgeLayout, GraphLayout, PairBias, TableBias
from pyg_gt.ops._kernels.problem import FullProblem, Saved
from pyg_gt.ops._kernels.torch_ops import buckets, full
from pyg_gt.ops._kernels.torch_ops.dropout import generator_dropout
from pyg_gt.ops.dropout import draw_seed

from ...cases import BIASES, Case, layout_of, make_case

TAKEN = [
    *("none", "pair", "pair-inf", "table-uint8", "table-int16", "table-int32", "table-int64"),
    *("edge", "edge-repeats", "additive"),
]
TYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.float16, 4e-3),
        (torch.bfloat16, 3e-2),
    ],
)


def problem_of(case: Case, scale: float = 0.7, dropout_p: float = 0.0) -> FullProblem:
    pairs = table = index = edges = values = None
    for bias in case.biases:
        if isinstance(bias, PairBias):
            pairs = bias.values.detach()
        elif isinstance(bias, TableBias):
            table, index = bias.table.detach(), bias.index
        else:
            assert isinstance(bias, EdgeBias)
            sizes = case.layout.num_nodes, case.query_layout.num_nodes
            edges, values = EdgeLayout.of(bias.edges, *sizes), bias.values.detach()
    seed = draw_seed(torch.device("cpu")) if dropout_p > 0 else None
    return FullProblem(
        case.query_layout, case.layout, pairs, table, index, edges, values, seed, scale, dropout_p
    )


def computed(
    case: Case, grad: Tensor, scale: float = 0.7, dropout_p: float = 0.0, **kwargs: object
) -> list[Tensor]:
    """The output and the gradients of every tensor, in the order of ``case.leaves``."""
    torch.manual_seed(7)
    problem = problem_of(case, scale, dropout_p)
    qkv = [x.detach() for x in (case.query, case.key, case.value)]
    with torch.no_grad():
        out, stats = full.forward(problem, *qkv)
        needs = (
            problem.pairs is not None, problem.table is not None, problem.edge_values is not None
        )  # fmt: skip
        gradients = full.backward(problem, grad, Saved(*qkv, out, stats), needs, **kwargs)
    assert out.dtype == case.dtype and out.shape == case.query.shape
    double = case.dtype == torch.float64
    assert stats.shape == (*out.shape[:2], 2)
    assert stats.dtype == (torch.float64 if double else torch.float32) and not stats[..., 1].any()
    return [out, *(x for x in gradients if x is not None)]


def wanted(case: Case, grad: Tensor, scale: float = 0.7, dropout_p: float = 0.0) -> list[Tensor]:
    torch.manual_seed(7)
    out = case.attention("reference", scale=scale, dropout_p=dropout_p)
    return [out, *torch.autograd.grad(out, list(case.leaves.values()), grad)]


def assert_same(case: Case, tolerance: float, **kwargs: float) -> None:
    grad = torch.randn(case.query.shape).to(case.dtype)
    got, want = computed(case, grad, **kwargs), wanted(case, grad, **kwargs)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.isfinite().all()
        limit = tolerance * max(1.0, float(b.detach().abs().max())) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=0, atol=limit)


@TYPES
@pytest.mark.parametrize("bias", TAKEN)
def test_it_is_the_reference(bias: str, dtype: torch.dtype, tolerance: float) -> None:
    for order in ("sorted", "unsorted"):
        for kind in ("self", "cross"):
            assert_same(make_case(bias, order, kind, dtype), tolerance)


@TYPES
@pytest.mark.parametrize("bias", ["none", "edge-repeats"])
def test_graphs_of_the_size_from_which_torchs_fused_kernel_runs(
    bias: str, dtype: torch.dtype, tolerance: float
) -> None:
    layout = layout_of([97, 1, 200, 48, 0, 47], "unsorted")
    for query_layout in (layout, layout_of([5, 97, 33, 0, 2, 104], "unsorted")):
        case = Case(query_layout, layout, dtype)
        BIASES[bias](case)
        assert_same(case, tolerance)
        log_sums = full.forward(problem_of(case), case.query, case.key, case.value)[1][..., 0]
        # of the fused kernel alone
        is_fused = torch.tensor([bias == "none" and m >= 41 for m in layout.sizes])
        assert torch.equal(log_sums.bool().all(1), is_fused[query_layout.batch])


@pytest.mark.parametrize("scale", [-1.3, 0.0, 40.0])
@pytest.mark.parametrize("bias", ["none", "additive"])
def test_any_scale(bias: str, scale: float) -> None:
    assert_same(make_case(bias, "unsorted", "cross"), 1e-11, scale=scale)


@pytest.mark.parametrize("dropout_p", [0.3, 1.0])
@pytest.mark.parametrize("bias", ["none", "additive"])
@pytest.mark.parametrize("max_scores", [1, 100, 2**20])
def test_it_drops_what_the_reference_drops(
    monkeypatch: pytest.MonkeyPatch, max_scores: int, bias: str, dropout_p: float
) -> None:
    sizes = dict.fromkeys(buckets._MAX_SCORES, max_scores)
    monkeypatch.setattr(buckets, "_MAX_SCORES", sizes)
    layout = layout_of([12, 3, 0, 20, 1], "unsorted")  # buckets of several widths
    for query_layout in (layout, layout_of([2, 14, 5, 17, 4], "unsorted")):
        case = Case(query_layout, layout)
        BIASES[bias](case)
        assert_same(case, 1e-12, dropout_p=dropout_p)


@pytest.mark.parametrize("dropout_p", [0.25, 0.3, 1.0])
def test_the_backward_pass_draws_from_the_generator_what_the_forward_pass_did(
    dropout_p: float,
) -> None:
    """The output is linear in the values, so their gradient tells which weights were kept."""
    layout = layout_of([40, 3, 0, 30])
    problem = FullProblem(layout, layout, *[None] * 5, torch.tensor([5]), 0.7, dropout_p)
    q, k, v, grad = torch.randn(4, layout.num_nodes, 2, 3, dtype=torch.float64).unbind()
    out, stats = full.forward(problem, q, k, v, generator_dropout)
    needs = False, False, False
    saved = Saved(q, k, v, out, stats)
    gradients = full.backward(problem, grad, saved, needs, dropout=generator_dropout)
    assert out.any() == (dropout_p < 1)
    torch.testing.assert_close((out * grad).sum(), (gradients.value * v).sum())


@pytest.mark.parametrize("dropout_p", [0.25, 0.3, 0.9])
def test_draws_of_the_generator_keep_the_mean(dropout_p: float) -> None:
    layout = layout_of([100] * 20)
    problem = FullProblem(layout, layout, *[None] * 5, torch.tensor([5]), 0.7, dropout_p)
    zeros, ones = torch.zeros(2000, 2, 3), torch.ones(2000, 2, 3)
    out, _ = full.forward(problem, zeros, zeros, ones, generator_dropout)
    # 400,000 weights
    assert abs(float(out.mean()) - 1) < 5 * (dropout_p / (1 - dropout_p) / 4e5) ** 0.5


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_gradients_that_are_needed(needs: tuple[bool, ...]) -> None:
    case = make_case("additive")
    problem = problem_of(case)
    qkv = case.query, case.key, case.value
    out, stats = full.forward(problem, *qkv)
    gradients = full.backward(problem, torch.ones_like(out), Saved(*qkv, out, stats), needs)
    assert tuple(x is not None for x in gradients) == (True, True, True, *needs)


@pytest.mark.parametrize("bias", ["none", "additive"])
def test_one_tensor_for_the_gradients_of_a_joined_projection(bias: str) -> None:
    case = make_case(bias, "unsorted")
    grad = torch.randn_like(case.query)
    joined = torch.empty(case.query.size(0), 3, *case.query.shape[1:], dtype=case.dtype)
    got = computed(case, grad, joined=joined)
    for part, a, b in zip(joined.unbind(1), got[1:4], computed(case, grad)[1:4], strict=True):
        assert torch.equal(part, b) and a.data_ptr() == part.data_ptr()


def test_strides_do_not_matter() -> None:
    case = make_case("additive", "unsorted")
    grad = torch.randn(3, 2, case.query.size(0), dtype=case.dtype).permute(2, 1, 0)
    want = computed(case, grad.contiguous())
    joined = torch.stack([case.query, case.key, case.value], 1).detach()
    case.query, case.key, case.value = joined.unbind(1)
    pairs, table, edges = case.biases
    case.biases = (
        PairBias(pairs.values.detach().t().contiguous().t()), table,
        EdgeBias(edges.edges, edges.values.detach().repeat(1, 2)[:, :2]),
    )  # fmt: skip
    assert all(map(torch.equal, computed(case, grad), want))


@pytest.mark.parametrize("sizes", [([], []), ([0, 0], [0, 0]), ([0, 3], [2, 0]), ([0, 0], [3, 2])])
@pytest.mark.parametrize("bias", ["none", "pair", "table-uint8", "edge"])
def test_nothing_to_attend_to(bias: str, sizes: tuple[list[int], list[int]]) -> None:
    query_layout, layout = (GraphLayout.from_sizes(x) for x in sizes)
    case = Case(query_layout, layout)
    if bias == "edge":
        case.biases = (EdgeBias(torch.empty(2, 0, dtype=torch.int64), case.leaf(0, 2)),)
    else:
        case.biases = {
            "none": (),
            "pair": (PairBias(case.leaf(0, 2)),),
            "table-uint8": (TableBias(case.leaf(4, 2), torch.empty(0, dtype=torch.uint8)),),
        }[bias]
    got = computed(case, torch.ones_like(case.query))
    assert len(got) == 4 + (bias != "none")
    for x, like in zip(got, (case.query, *case.leaves.values()), strict=True):
        assert x.shape == like.shape and not x.any()


def test_autocast_does_not_lower_it() -> None:
    case = make_case("additive", dtype=torch.float32)
    grad = torch.randn_like(case.query)
    want = computed(case, grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = computed(case, grad)
    assert all(map(torch.equal, got, want))
