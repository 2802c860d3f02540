"""Dropout acts on weights after the softmax, from one seed drawn from torch's generator."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyg_gt import EdgeMask, GraphLayout, ScoreMod, attention, explain_choice
from pyg_gt.ops._backends.sdpa import bucketed_op as _sdpa_op
from pyg_gt.ops._kernels.torch_ops import buckets as _buckets
from pyg_gt.ops._kernels.torch_ops.dropout import philox_dropout
from pyg_gt.ops.dropout import draw_seed, keep_edges, keep_pairs

from .cases import (
    BIASES,
    CPU,
    QUERY_SIZES,
    SIZES,
    Case,
    dtype_of,
    layout_of,
    make_case,
    tolerance_of,
    unsupported,
)

BACKENDS = ["reference", "sdpa", "sparse", CPU]
CPU_EDGES = pytest.param("cpu along edges", marks=pytest.mark.compiled)
P = 0.4


def weights_of(case: Case, backend: str, dropout_p: float) -> Tensor:
    """``[Nq, H, M]``: the weight of every key, read off with one-hot values."""
    one_hot = torch.eye(case.channels, dtype=case.dtype)[case.layout.pos]
    value = one_hot.unsqueeze(1).expand(case.key.shape)
    return attention(
        case.query, case.key, value, case.layout, case.biases, query_layout=case.query_layout,
        dropout_p=dropout_p, backend=backend,
    ).detach()  # fmt: skip


def wide_case(order: str, kind: str, dtype: torch.dtype) -> Case:
    """As many channels as the largest graph has nodes."""
    layout = layout_of(SIZES, order)
    query_layout = layout if kind == "self" else layout_of(QUERY_SIZES, order)
    return Case(query_layout, layout, dtype, channels=max(SIZES))


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("backend", ["reference", CPU])
def test_pairs_are_dropped_one_by_one_as_philox_says(backend: str, order: str, kind: str) -> None:
    case = wide_case(order, kind, dtype_of(backend))
    plain = weights_of(case, backend, 0.0)
    torch.manual_seed(5)
    dropped = weights_of(case, backend, P)
    torch.manual_seed(5)
    seed = draw_seed(torch.device("cpu"))
    # queries are numbered graph by graph, keys inside their graph
    queries = case.query_layout.batch.argsort(stable=True)
    rows, positions = torch.arange(len(queries))[:, None], torch.arange(case.channels)
    factors = keep_pairs(seed, rows, positions, 2, P, case.dtype)  # [Nq, M, H]
    want = torch.empty_like(plain)
    want[queries] = plain[queries] * factors.transpose(1, 2)
    torch.testing.assert_close(dropped, want)
    real = plain > 0
    assert 20 < (dropped[real] == 0).sum() < 0.7 * real.sum()


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("backend", ["reference", "sparse", CPU])
def test_edges_are_dropped_one_by_one_as_philox_says(backend: str, repeats: bool) -> None:
    case = wide_case("unsorted", "cross", dtype_of(backend))
    edges = case.edges(repeats)
    case.biases = (EdgeMask(edges),)
    # the weight of each single edge: a softmax over the edges of its query
    source, target = edges
    scores = (case.query[target] * case.key[source]).sum(-1) * case.channels**-0.5
    weights = torch.zeros_like(scores)
    for query in target.unique():
        weights[target == query] = scores[target == query].softmax(0)
    torch.manual_seed(6)
    dropped = weights_of(case, backend, P)
    torch.manual_seed(6)
    seed = draw_seed(torch.device("cpu"))
    factors = keep_edges(seed, torch.arange(edges.size(1)), 2, P, case.dtype)
    want = torch.zeros(case.query.size(0), case.channels, 2, dtype=case.dtype)
    want.index_put_((target, case.layout.pos[source]), weights * factors, accumulate=True)
    torch.testing.assert_close(dropped, want.transpose(1, 2).detach())
    assert 0 < (factors == 0).sum() < factors.numel()


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("backend", ["sparse", CPU])
def test_what_the_reference_drops_in_both_directions(backend: str, bias: str, kind: str) -> None:
    case = make_case(bias, "unsorted", kind, dtype_of(backend))
    if (reason := unsupported(case, backend, P)) is not None:
        pytest.skip(reason)
    results = []
    for name in ("reference", backend):
        torch.manual_seed(1)
        out = case.attention(name, dropout_p=P)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(case.leaves.values()))])
    for want, got in zip(*results, strict=True):
        # gradients of squares reach 20, and a processor with wider vectors adds in another order
        most = max(1.0, float(want.detach().abs().max()) if want.numel() else 0.0)
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance_of(backend) * most)
    assert bias == "mask-no-edges" or not torch.allclose(results[0][0], case.attention(backend))


@pytest.mark.parametrize(
    ("backend", "bias"),
    [
        *((b, n) for b in ("reference", "sdpa") for n in ("none", "additive", "mods")),
        *((b, "mask-values") for b in ("reference", "sdpa", "sparse")),
        ("reference", "mask-features"),
        ("sparse", "mask-features"),
        ("sparse", "mask-values-repeats"),
    ],
)
def test_gradients_are_those_of_the_mask_of_the_forward_pass(backend: str, bias: str) -> None:
    case = make_case(bias, "unsorted", "cross")
    assert unsupported(case, backend, P) is None
    leaves = list(case.leaves.values())

    def run(*_: Tensor) -> Tensor:
        torch.manual_seed(3)
        return case.attention(backend, dropout_p=P)

    assert not torch.allclose(run(), case.attention(backend))
    # gradcheck moves the very tensors that the case holds
    torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("backend", [*BACKENDS, CPU_EDGES, "sdpa with a function"])
def test_rate_and_mean(backend: str, p: float) -> None:
    sizes = [20] * 40 + [5] * 40
    layout = GraphLayout.from_sizes(sizes)
    backend, _, kind = backend.partition(" ")
    case = Case(layout, layout, dtype_of(backend), channels=20)
    if backend == "sparse" or kind == "along edges":
        same = layout.batch[:, None] == layout.batch[None, :]
        case.biases = (EdgeMask(same.nonzero().t().flip(0)),)
    if kind == "with a function":
        case.biases = (ScoreMod(lambda score, graph, head, q, k: score / 2),)
    plain, dropped = weights_of(case, backend, 0.0), weights_of(case, backend, p)
    real = plain > 0
    count = int(real.sum())
    assert count == 2 * sum(n * n for n in sizes)
    rate = float((dropped[real] == 0).double().mean())
    assert abs(rate - p) < 4 * math.sqrt(p * (1 - p) / count)
    kept = real & (dropped != 0)
    # one factor for all that is kept, and it makes up for the rest ('sdpa' rounds p to 2^-16)
    factors = (dropped / plain)[kept]
    torch.testing.assert_close(factors, torch.full_like(factors, 1 / (1 - p)), rtol=1e-3, atol=0)
    assert float(factors.max() - factors.min()) < tolerance_of(backend) * 1e3


@pytest.mark.parametrize("backend", [*BACKENDS, CPU_EDGES])
def test_heads_graphs_and_calls_are_dropped_independently(backend: str) -> None:
    layout = GraphLayout.from_sizes([20] * 8)
    backend, _, kind = backend.partition(" ")
    case = Case(layout, layout, dtype_of(backend), channels=20)
    if backend == "sparse" or kind == "along edges":
        same = layout.batch[:, None] == layout.batch[None, :]
        case.biases = (EdgeMask(same.nonzero().t().flip(0)),)
    masks = torch.stack([weights_of(case, backend, 0.5) == 0 for _ in range(2)])
    streams = masks.view(2, 8, 20, 2, 20).permute(0, 1, 3, 2, 4).reshape(32, 400).double()
    agreement = torch.corrcoef(streams) - torch.eye(32, dtype=torch.float64)
    assert agreement.abs().max() < 5 / math.sqrt(400)


@pytest.mark.parametrize("bias", ["none", "mods", "mask-values"])
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_nothing_is_drawn_without_dropout(backend: str, bias: str) -> None:
    case = make_case(bias, dtype=dtype_of(backend))
    if backend != "auto" and (reason := unsupported(case, backend, P)) is not None:
        pytest.skip(reason)
    before = torch.get_rng_state()
    case.attention(backend, dropout_p=0.0).sum().backward()
    explain_choice(case.query, case.key, case.value, case.layout, case.biases, dropout_p=P)
    assert torch.equal(torch.get_rng_state(), before)
    case.attention(backend, dropout_p=P)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bias", ["none", "mods", "mask-values"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_dropped_gives_zeros(backend: str, bias: str) -> None:
    case = make_case(bias, dtype=dtype_of(backend))
    if (reason := unsupported(case, backend, 1.0)) is not None:
        pytest.skip(reason)
    out = case.attention(backend, dropout_p=1.0)
    gradients = torch.autograd.grad(out.sum(), list(case.leaves.values()))
    assert all(not x.any() for x in (out, *gradients))  # NaN would be true


@pytest.mark.parametrize("bias", ["none", "mods", "mask-values"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_torchs_seed_decides(backend: str, bias: str) -> None:
    case = make_case(bias, dtype=dtype_of(backend))
    if (reason := unsupported(case, backend, P)) is not None:
        pytest.skip(reason)
    torch.manual_seed(9)
    first, second = (case.attention(backend, dropout_p=P) for _ in range(2))
    torch.manual_seed(9)
    assert torch.equal(case.attention(backend, dropout_p=P), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("bias", ["pair", "mods", "mask-values"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_checkpoint_recomputes_the_same_mask(backend: str, bias: str, reentrant: bool) -> None:
    case = make_case(bias, "unsorted", dtype=dtype_of(backend))
    if (reason := unsupported(case, backend, P)) is not None:
        pytest.skip(reason)
    leaves = list(case.leaves.values())

    def layers(*_: Tensor) -> Tensor:
        out = case.attention(backend, dropout_p=P)
        return attention(
            out.sin(), case.key, case.value, case.layout, case.biases, dropout_p=P,
            backend=backend,
        )  # fmt: skip

    results = []
    for run in (layers, lambda *x: checkpoint(layers, *x, use_reentrant=reentrant)):
        torch.manual_seed(4)
        for leaf in leaves:
            leaf.grad = None
        out = run(*leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed) and plain.any()


@pytest.mark.cuda
@pytest.mark.parametrize("bias", ["none", "additive"])
def test_on_a_gpu_the_bucketed_mask_is_the_references(bias: str) -> None:
    """Its seed is not read there, so it drops pair by pair what Philox says."""
    case = make_case(bias, "unsorted", device="cuda")
    results = []
    for backend in ("reference", "sdpa"):
        torch.manual_seed(2)
        results.append(case.attention(backend, dropout_p=P))
    torch.testing.assert_close(*results)
    assert not torch.allclose(results[0], case.attention("reference"))


@pytest.mark.parametrize("most", [1, 100, 2**20])
@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("bias", ["none", "additive"])
def test_the_branch_for_gpus_drops_what_the_reference_drops(
    monkeypatch: pytest.MonkeyPatch, bias: str, order: str, kind: str, most: int
) -> None:
    monkeypatch.setattr(_sdpa_op, "_dropout_of", lambda query: philox_dropout)
    monkeypatch.setattr(_buckets, "_MAX_SCORES", dict.fromkeys(_buckets._MAX_SCORES, most))
    layout = layout_of([12, 3, 0, 20, 1], order)  # buckets of several widths
    query_layout = layout if kind == "self" else layout_of([2, 14, 5, 17, 4], order)
    case = Case(query_layout, layout)
    BIASES[bias](case)
    results = []
    for backend in ("reference", "sdpa"):
        torch.manual_seed(2)
        # a multiple of 2^-16, to which a CPU rounds
        out = case.attention(backend, dropout_p=0.25)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(case.leaves.values()))])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    assert not torch.allclose(results[0][0], case.attention("reference"))


def test_a_repeated_edge_cannot_be_dropped_in_a_dense_matrix() -> None:
    case = make_case("mask-repeats")
    with pytest.raises(NotImplementedError, match="'sdpa'.*an edge that stands twice"):
        case.attention("sdpa", dropout_p=P)
    assert case.attention("auto", dropout_p=P).shape == case.query.shape


def test_flex_says_that_it_has_no_dropout() -> None:
    case = make_case("none", dtype=torch.float32, grad=False)
    with pytest.raises(NotImplementedError, match="'flex'.*no dropout"):
        case.attention("flex", dropout_p=P)
