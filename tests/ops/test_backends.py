"""Every backend is the reference in outputs and all gradients; the reference is the formula."""

from itertools import product

import pytest
import torch

from pyg_gt import EdgeMask, GraphLayout, PairBias, ScoreMod, attention
from pyg_gt.ops.dispatch import BACKENDS
from pyg_gt.testing import assert_same_attention

from .cases import BIASES, CPU, INF, Case, by_hand, dtype_of, layout_of, make_case, unsupported

OTHERS = [CPU if name == "cpu" else name for name in BACKENDS if name != "reference"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
LAYOUTS = list(product(["sorted", "unsorted"], ["self", "cross"]))


def assert_same(case: Case, backend: str, tolerance: float | None = None) -> None:
    assert_same_attention(
        backend, case.query, case.key, case.value, case.layout, case.biases,
        query_layout=case.query_layout, captured=case.captured, tolerance=tolerance,
    )  # fmt: skip


def skip_if_unsupported(case: Case, backend: str) -> None:
    if (reason := unsupported(case, backend)) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("bias", BIASES)
def test_reference_is_the_formula(bias: str, order: str, kind: str) -> None:
    case = make_case(bias, order, kind)
    leaves = case.leaves
    want = by_hand(case, scale=0.7)
    got = case.attention("reference", scale=0.7)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
    if bias == "mask-no-edges":
        assert not got.any()
        return
    wave = torch.randn_like(want)
    wanted = torch.autograd.grad(want, list(leaves.values()), wave)
    gradients = torch.autograd.grad(got, list(leaves.values()), wave)
    for name, a, b in zip(leaves, gradients, wanted, strict=True):
        assert b.abs().max() > 1e-3, f"{name}: a gradient of zero shows nothing"
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=lambda m, name=name: name + m)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("backend", OTHERS)
def test_backend_is_the_reference(backend: str, bias: str, device: str) -> None:
    for order, kind in LAYOUTS:
        case = make_case(bias, order, kind, dtype_of(backend), device)
        skip_if_unsupported(case, backend)
        assert_same(case, backend)


MASKS = {name for name in BIASES if name.startswith("mask")}
FEATURES = {name for name in BIASES if "features" in name}
TAKES = {
    "reference": set(BIASES),
    "sdpa": set(BIASES) - FEATURES,
    "sparse": MASKS | {"edge-on-mask"},
    "flex": {name for name in BIASES if name.startswith(("mask", "mod", "table"))} - FEATURES
    | {"none"},
    "triton": set(),
    "cpu": MASKS
    | {"none", "pair", "pair-inf", "edge", "edge-repeats", "additive", "edge-on-mask"}
    | {name for name in BIASES if name.startswith("table")},
}


@pytest.mark.parametrize("backend", ["reference", *OTHERS])
def test_what_each_backend_takes(backend: str) -> None:
    """So that a backend cannot pass by skipping: the table of the design, on a CPU."""
    cases = {name: make_case(name, dtype=torch.float32, grad=False) for name in BIASES}
    taken = {name for name, case in cases.items() if unsupported(case, backend) is None}
    assert taken == TAKES[backend]


@pytest.mark.parametrize("backend", ["sdpa", "sparse", CPU])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # all sides compute in float32 or wider and round once; 'sparse' also rounds its messages
    [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)],
)
@pytest.mark.parametrize("bias", ["none", "additive", "everything", "mask-values-repeats"])
def test_types(backend: str, bias: str, dtype: torch.dtype, tolerance: float) -> None:
    case = make_case(bias, "unsorted", "cross", dtype)
    skip_if_unsupported(case, backend)
    assert case.attention(backend).dtype == dtype
    assert_same(case, backend, tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_graphs_around_the_size_from_which_torchs_kernel_runs(
    kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    layout = layout_of([97, 1, 200, 95, 88, 104, 103, 0], "unsorted")
    query_layout = layout if kind == "self" else layout_of([5, 97, 33, 200, 0, 2, 104, 3])
    case = Case(query_layout, layout, dtype)
    assert_same(case, "sdpa", tolerance)


@pytest.mark.parametrize("bias", ["pair", "mask-values-repeats"])
def test_large_graphs_with_a_bias(bias: str) -> None:
    layout = layout_of([97, 30, 120], "unsorted")
    case = Case(layout, layout)
    if bias == "pair":
        BIASES[bias](case)
    else:  # each node its 4 neighbours to the right, some twice
        nodes = torch.arange(247)
        edges = torch.stack([nodes.repeat(5), torch.cat([nodes + i for i in (1, 2, 3, 4, 1)])])
        edges = edges[:, edges[1] < 247]
        edges = edges[:, layout.batch[edges[0]] == layout.batch[edges[1]]]
        case.biases = (EdgeMask(edges, case.leaf(edges.size(1), case.heads)),)
    assert_same(case, "sdpa")


@pytest.mark.parametrize(
    "backend",
    [
        *("reference", "sdpa", "sparse", CPU),
        pytest.param("cpu along edges", marks=pytest.mark.compiled),
    ],
)
@pytest.mark.parametrize(
    # the fused kernel stores a log-sum-exp of 1e4, whose last digit in float32 is 1e-3
    ("dtype", "tolerance"),
    [(torch.float64, 1e-11), (torch.float32, 1e-3)],
)
def test_scores_of_ten_thousand(backend: str, dtype: torch.dtype, tolerance: float) -> None:
    layout = layout_of([1, 5, 120], "unsorted")
    n = layout.num_nodes
    case = Case(layout, layout, dtype, heads=1, channels=1)
    with torch.no_grad():
        case.query.copy_(case.query.sign() * 100)
        case.key.copy_(torch.randperm(n).view(n, 1, 1) * 2 - n)
    same = layout.batch[:, None] == layout.batch[None, :]
    if backend in ("sparse", "cpu along edges"):
        case.biases = (EdgeMask(same.nonzero().t().flip(0)),)
        backend = backend.split()[0]
    skip_if_unsupported(case, backend)
    # scores lie at least 200 apart: each query takes the value of its best key
    scores = case.query[:, 0] * case.key[:, 0].t()
    best = scores.masked_fill(~same, -INF).argmax(1)
    assert scores.abs().max() > 1e4
    torch.testing.assert_close(case.attention(backend), case.value[best])
    assert_same(case, backend, tolerance)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_a_function_sees_pairs_of_one_graph_only(backend: str) -> None:
    """Padding must not show it what it cannot stand: here a distance of zero."""
    layout = layout_of([1, 5, 3, 0, 7], "unsorted")
    n = layout.num_nodes
    same = layout.batch[:, None] == layout.batch[None, :]
    distance = torch.where(same, torch.rand(n, n, dtype=torch.float64) + 0.5, 0.0)
    distance.requires_grad_()
    case = Case(layout, layout)
    case.biases = (ScoreMod(lambda score, graph, head, q, k: score / distance[q, k]),)
    case.captured = (distance,)
    gradients = torch.autograd.grad(case.attention(backend).sum(), list(case.leaves.values()))
    assert all(bool(x.isfinite().all()) for x in gradients)
    assert gradients[-1].any()
    assert not gradients[-1][~same].any()
    assert_same(case, backend)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "sparse", CPU])
def test_nothing_to_attend_to_gives_zeros_and_finite_gradients(backend: str) -> None:
    layout = layout_of([3, 2])
    case = Case(layout, layout, dtype_of(backend))
    edges = torch.tensor([[0, 1, 4], [1, 1, 3]])
    case.biases = (EdgeMask(edges, case.leaf(3, 2)),)
    out = case.attention(backend)
    assert (out[[0, 2, 4]] == 0).all()
    assert (out[[1, 3]] != 0).all()
    gradients = torch.autograd.grad(out.square().sum(), list(case.leaves.values()))
    assert all(bool(x.isfinite().all()) for x in gradients)
    assert not gradients[0][[0, 2, 4]].any()


@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU])
def test_a_row_of_minus_infinity_gives_zeros(backend: str) -> None:
    layout = GraphLayout.from_sizes([3, 2])
    case = Case(layout, layout, dtype_of(backend))
    values = case.leaf(13, 2).detach()
    values[3:6, 0] = -INF  # query 1, head 0
    values[9:11] = -INF  # query 3
    case.biases = (PairBias(values.requires_grad_()),)
    out = case.attention(backend)
    assert (out[1, 0] == 0).all() and (out[3] == 0).all()
    assert (out[1, 1] != 0).all() and (out[[0, 2, 4]] != 0).all()
    gradients = torch.autograd.grad(out.square().sum(), list(case.leaves.values()))
    assert all(bool(x.isfinite().all()) for x in gradients)


@pytest.mark.parametrize("bias", ["none", "additive", "mods", "mask-values-repeats", "everything"])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "sparse", CPU])
def test_autocast_does_not_lower_the_scores(backend: str, bias: str) -> None:
    case = make_case(bias, dtype=torch.float32)
    skip_if_unsupported(case, backend)
    want = case.attention(backend)
    wanted = torch.autograd.grad(want.sum(), list(case.leaves.values()))
    with torch.autocast("cpu", torch.bfloat16):
        got = case.attention(backend)
    gradients = torch.autograd.grad(got.sum(), list(case.leaves.values()))
    assert got.dtype == torch.float32
    for a, b in zip((got, *gradients), (want, *wanted), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU])
@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
def test_no_nodes(backend: str, sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes)
    case = Case(layout, layout, dtype_of(backend))
    BIASES["pair"](case)
    edges = torch.empty(2, 0, dtype=torch.int64)
    case.biases += (EdgeMask(edges, case.leaf(0, 2)),)
    out = case.attention(backend)
    assert out.shape == (0, 2, 3)
    gradients = torch.autograd.grad(out.sum(), list(case.leaves.values()), materialize_grads=True)
    assert [g.shape for g in gradients] == [x.shape for x in case.leaves.values()]


@pytest.mark.parametrize("backend", ["sparse", CPU])
def test_no_nodes_and_no_edges(backend: str) -> None:
    layout = GraphLayout.from_sizes([0, 0])
    case = Case(layout, layout, dtype_of(backend))
    BIASES["mask-no-edges"](case)
    assert case.attention(backend).shape == (0, 2, 3)


@pytest.mark.parametrize("bias", [(), PairBias, EdgeMask])
@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU, "auto"])
def test_no_heads(backend: str, bias: type) -> None:
    x = torch.randn(3, 0, 2, requires_grad=True)
    edges = torch.tensor([[0, 1], [1, 1]])
    biases = {
        (): (),
        PairBias: (PairBias(torch.randn(9, 0)),),
        EdgeMask: (EdgeMask(edges),),
    }[bias]
    if backend == "cpu" and bias is EdgeMask:
        with pytest.raises(NotImplementedError, match="'cpu' cannot run.*needs heads"):
            attention(x, x, x, GraphLayout.of(None, 3), biases, backend=backend)
        return
    out = attention(x, x, x, GraphLayout.of(None, 3), biases, backend=backend)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.shape == gradient.shape == (3, 0, 2)


@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU])
def test_graphs_without_keys_or_without_queries(backend: str) -> None:
    keys, queries = layout_of([0, 4, 0, 2]), layout_of([3, 0, 0, 1])
    case = Case(queries, keys, dtype_of(backend))
    out = case.attention(backend)
    assert (out[:3] == 0).all() and (out[3] != 0).all()
    d_query, d_key, d_value = torch.autograd.grad(out.sum(), [case.query, case.key, case.value])
    assert not d_query[:3].any() and not d_key[:4].any() and not d_value[:4].any()
    assert d_query[3].any() and d_key[4:].any() and d_value[4:].any()


@pytest.mark.parametrize("bias", ["additive", "mask-values-repeats"])
@pytest.mark.parametrize("backend", ["sdpa", "sparse", CPU, "reference"])
def test_deterministic_algorithms(backend: str, bias: str) -> None:
    case = make_case(bias, dtype=dtype_of(backend))
    skip_if_unsupported(case, backend)
    want = torch.autograd.grad(case.attention(backend).sum(), list(case.leaves.values()))
    torch.use_deterministic_algorithms(True)
    try:
        got = torch.autograd.grad(case.attention(backend).sum(), list(case.leaves.values()))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, got, want))


def test_the_scale_is_one_over_the_root_of_the_width_unless_given() -> None:
    case = make_case("none")
    default = attention(case.query, case.key, case.value, case.layout)
    torch.testing.assert_close(default, by_hand(case, 3**-0.5))
    twice = attention(case.query, case.key, case.value, case.layout, scale=2.0)
    torch.testing.assert_close(twice, by_hand(case, 2.0))
