"""The Triton kernels along edges against the reference; run by ``test_triton_edges``.

A process of its own, as for ``full_cases``: ``TRITON_INTERPRET=1 pytest
tests/ops/kernels/triton/edge_cases.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import EdgeLayout, EdgeMask, GraphLayout
from pyg_gt.ops._backends import sparse as _sparse
from pyg_gt.ops._backends import triton as _triton
from pyg_gt.ops._fused import edges as _fused_edges
from pyg_gt.ops._kernels.triton import launch
from pyg_gt.ops._kernels.triton.edges import programs as _programs
from pyg_gt.ops.dispatch import _inputs
from pyg_gt.ops.dropout import keep_edges

from ...cases import BIASES, Case, layout_of
from .full_cases import (
    DEVICE,
    TOLERANCE,
    assert_a_negated_gradient_is_read,
    assert_is_the_reference,
    attend,
    gradients,
    in_double,
    inputs_of,
    needs_gpu,
    negated,
)

INF = float("inf")
OPS = torch.ops.pyg_gt
ONE_NODE = [[0], [0]]


def edges_of(degrees: list[int], sources: int) -> Tensor:
    """Random edges, shuffled, with so many for each target; the last source has none."""
    target = torch.repeat_interleave(torch.tensor(degrees, dtype=torch.int64))
    source = torch.randint(max(sources - 1, 1), target.shape)
    return torch.stack([source, target])[:, torch.randperm(target.numel())].to(DEVICE)


def make(
    edges: Tensor,
    queries: int,
    keys: int,
    heads: int = 2,
    channels: int = 4,
    dtype: torch.dtype = torch.float32,
    values: bool = True,
    features: bool = True,
) -> Case:
    """One graph a side, whose edges run wherever they like."""
    case = Case(
        *(GraphLayout.from_sizes([n], DEVICE) for n in (queries, keys)), dtype, heads=heads,
        channels=channels,
    )  # fmt: skip
    count = edges.size(1)
    mask = EdgeMask(
        edges,
        case.leaf(count, heads) if values else None,
        case.leaf(count, heads, channels) if features else None,
    )
    case.biases = (mask,)
    return case


def mask_of(case: Case) -> EdgeMask:
    (mask,) = case.biases
    assert isinstance(mask, EdgeMask)
    return mask


def all_of(case: Case, dropout_p: float = 0.0) -> list[Tensor]:
    """Output and every gradient."""
    return gradients(attend(case, dropout_p), list(case.leaves.values()))


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("values", [False, True])
def test_it_is_the_reference(values: bool, features: bool, dropout_p: float) -> None:
    """Nodes of no, few and many edges; targets and sources are not the same."""
    edges = edges_of([3, 0, 1, 16, 17, 40, 4, 5, 2], 7)
    case = make(edges, 9, 7, values=values, features=features)
    assert_is_the_reference(case, dropout_p)


@pytest.mark.parametrize(
    ("heads", "channels"),
    [(1, 1), (3, 5), (4, 8), (5, 3), (16, 2), (1, 64), (3, 80), (12, 24), (2, 200), (1, 256)],
)
def test_heads_and_channels(heads: int, channels: int) -> None:
    """Powers of two and others, and more than one program holds."""
    assert_is_the_reference(make(edges_of([2, 7, 0, 18], 5), 4, 5, heads, channels), 0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_half_precision(dtype: torch.dtype, dropout_p: float) -> None:
    case = make(edges_of([2, 7, 0, 18], 5), 4, 5, dtype=dtype)
    assert attend(case).dtype == dtype
    assert_is_the_reference(case, dropout_p)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_values_and_features_of_another_type(dtype: torch.dtype) -> None:
    case = make(edges_of([2, 7, 0, 18], 5), 4, 5)
    other = make(mask_of(case).edges, 4, 5, dtype=dtype)
    case.biases = other.biases
    assert_is_the_reference(case, tolerance=3e-2 if dtype == torch.bfloat16 else None)


@pytest.mark.parametrize("name", ["query", "key", "value", "values", "features"])
def test_numbers_that_are_negated_when_they_are_read(name: str) -> None:
    case = make(edges_of([2, 7, 0, 18], 5), 4, 5)
    want = attend(case)
    mask = mask_of(case)
    if name in ("values", "features"):
        case.biases = (replace(mask, **{name: negated(getattr(mask, name))}),)
    else:
        setattr(case, name, negated(getattr(case, name)))
    got = attend(case)
    assert torch.equal(got, want)
    assert_a_negated_gradient_is_read(case.key if name == "query" else case.query, got)


BIASED = [
    "mask-repeats", "mask-values-inf", "mask-no-edges", "mask-values-features-repeats",
    "edge-on-mask",
]  # fmt: skip


@pytest.mark.parametrize("bias", BIASED)
def test_several_graphs_with_all_that_may_stand_on_edges(bias: str) -> None:
    sizes = [1, 5, 3, 0, 7]
    layout, query_layout = (layout_of(x, "unsorted", DEVICE) for x in (sizes, [2, 0, 4, 3, 6]))
    case = Case(query_layout, layout, torch.float32, heads=2, channels=4)
    BIASES[bias](case)
    assert_is_the_reference(case, 0.3)


def test_pair_and_table_biases_are_read_along_edges() -> None:
    layout = layout_of([1, 5, 3, 0, 7], "unsorted", DEVICE)
    case = Case(layout, layout, torch.float32, heads=2, channels=4)
    BIASES["mask-values-features-repeats"](case)
    biases = case.biases
    for bias in ("pair", "table-uint8"):
        BIASES[bias](case)
        biases += case.biases
    case.biases = biases
    assert_is_the_reference(case, 0.3)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes with more than 32 edges are computed in parts."""
    monkeypatch.setattr(_programs, "PART", 32)


HUBS = [40, 0, 3, 140, 32, 33]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("ends", ["targets", "sources"])
@pytest.mark.parametrize(("degrees", "heads", "channels"), [(HUBS, 2, 4), ([40, 3], 2, 130)])
def test_hubs(degrees: list[int], heads: int, channels: int, ends: str) -> None:
    edges, hubs = edges_of(degrees, 30), len(degrees)
    if ends == "targets":
        case = make(edges, hubs, 30, heads, channels)
    else:
        case = make(edges.flip(0), 30, hubs, heads, channels)
    assert_is_the_reference(case, 0.3)


def test_a_hub_of_a_thousand_edges() -> None:
    count = 2 * _programs.PART + 1
    case = make(edges_of([2, count], 60), 2, 60, 1, 4, features=False)
    assert_is_the_reference(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "channels"), [(4, 16), (3, 20)])
def test_a_larger_graph_is_what_torch_operations_give(
    heads: int, channels: int, dtype: torch.dtype
) -> None:
    """On a GPU one with hubs, and every processor at work; the same bits each time."""
    nodes, most = (20_000, 5_000) if DEVICE == "cuda" else (7, 20)
    degrees = (torch.rand(nodes) ** -0.8 * 2).int().clamp(max=most)
    case = make(edges_of(degrees.tolist(), nodes), nodes, nodes, heads, channels, dtype)
    got = all_of(case, 0.3)
    assert all(map(torch.equal, got, all_of(case, 0.3)))
    wide = in_double(case)
    out = _sparse.forward(inputs_of(wide, 0.3))
    want = gradients(out, list(wide.leaves.values()))
    for name, a, b in zip(["out", *case.leaves], got, want, strict=True):
        allowed = TOLERANCE[dtype] * max(1.0, float(b.abs().max()))
        assert float((a.double() - b).abs().max()) <= allowed, name


@pytest.mark.usefixtures("small_parts")
def test_parts_of_a_hub_that_have_no_weight() -> None:
    """Their largest score is none: it must not stand above that of others."""
    case = make(edges_of([100, 40], 9), 2, 9, 1, 1)
    values = mask_of(case).values
    assert values is not None
    with torch.no_grad():
        order = _programs.programs_by_target(
            EdgeLayout.of(mask_of(case).edges, 9, 2)
        ).edge_ids.long()
        values[order] = -INF
        values[order[32:64]] = -1000.0  # the second part of the first target
    assert_is_the_reference(case, tolerance=1e-4)
    assert attend(case)[0].all() and not attend(case)[1].any()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("count", [3, 20, 40])
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_weights_of_huge_scores_add_up(scale: float, count: int) -> None:
    case = make(edges_of([count, count], 9), 2, 9, 4, 16, values=False, features=False)
    with torch.no_grad():
        case.value.fill_(1.0)
    out = _triton.forward(replace(inputs_of(case), scale=scale))
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("count", [3, 40])
def test_scores_of_ten_thousand_keep_their_weights(count: int) -> None:
    """A log-sum-exp in float32 would be off by 1e-3 there."""
    case = make(edges_of([count], 9), 1, 9, 1, 1, values=False, features=False)
    with torch.no_grad():
        case.query.fill_(128.0)
        case.key.fill_(80.0)[::2] += 1 / 128  # scores are 10,240 and 10,241 exactly
    assert_is_the_reference(case)


@pytest.mark.parametrize("heads", [1, 3, 4, 12])
def test_dropout_keeps_what_philox_says(heads: int) -> None:
    """One edge a target: its weight is 1 before dropout, and the output is the factor."""
    count, p = 40, 0.35
    edges = torch.stack([torch.randint(7, (count,)), torch.randperm(count)]).to(DEVICE)
    case = make(edges, count, 7, heads, 3, values=False, features=False)
    with torch.no_grad():
        case.value.fill_(1.0)
    inputs = inputs_of(case, p)
    out = _triton.forward(inputs)
    assert inputs.seed is not None
    numbers = torch.arange(count, device=DEVICE)
    factors = keep_edges(inputs.seed, numbers, heads, p, torch.float32)
    assert 0 < int((factors == 0).sum()) < factors.numel()
    torch.testing.assert_close(out[edges[1], :, 0], factors, rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(out.sum(), case.value)
    want = torch.zeros(7, heads, device=DEVICE).index_add(0, edges[0], factors)
    torch.testing.assert_close(grad[..., 0], want)


def test_everything_dropped() -> None:
    case = make(edges_of([2, 20], 5), 2, 5)
    out, *grads = all_of(case, 1.0)
    assert not out.any() and not any(g.any() for g in grads)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_companions_change_no_bit(dropout_p: float) -> None:
    """The first edges have the same numbers, hence the same dropout."""
    edges, others = edges_of([2, 0, 20, 3, 40, 1], 9), edges_of([1, 3, 18, 0, 70], 4)
    shift = torch.tensor([[9], [6]], device=DEVICE)
    both = make(torch.cat([edges, others + shift], 1), 11, 13)
    alone = make(edges, 6, 9)
    for name in ("query", "key", "value"):
        size = getattr(alone, name).size(0)
        setattr(alone, name, getattr(both, name).detach()[:size].clone().requires_grad_())
    first = edges.size(1)
    alone.biases = (
        EdgeMask(
            edges,
            *(
                x.detach()[:first].clone().requires_grad_()
                for x in (mask_of(both).values, mask_of(both).features)
                if x is not None
            ),
        ),
    )
    for a, b in zip(all_of(alone, dropout_p), all_of(both, dropout_p), strict=True):
        assert torch.equal(a, b[: a.size(0)])


@pytest.mark.usefixtures("small_parts")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy in the interpreter
@pytest.mark.parametrize("poison", [INF, float("nan")])
def test_what_is_no_number_reaches_only_what_it_is_joined_to(poison: float) -> None:
    """Even and odd nodes are not joined, and share tiles."""
    degrees = [3, 3, 2, 1, 20, 20, 0, 0, 40, 40]
    edges = edges_of(degrees, 6)
    edges[0] = edges[0] * 2 + edges[1] % 2
    case = make(edges, 10, 12)
    before = all_of(case, 0.3)
    ill = {"query": torch.arange(10) % 2 == 0, "key": torch.arange(12) % 2 == 0}
    ill |= {"value": ill["key"], "out": ill["query"]}
    on_edges = edges[1].cpu() % 2 == 0
    with torch.no_grad():
        for name, leaf in case.leaves.items():
            leaf[ill.get(name, on_edges).to(DEVICE)] = poison
    after = all_of(case, 0.3)
    assert after[0][[0, 2, 4, 8]].isnan().all()
    assert not after[0][[6, 7]].any()  # nothing to attend to
    for name, a, b in zip(["out", *case.leaves], after, before, strict=True):
        well = ~ill.get(name, on_edges).to(DEVICE)
        assert a[well].isfinite().all() and torch.equal(a[well], b[well]), name
    # a node without edges: targets 6 and 7, sources 10 and 11
    grads = dict(zip(["out", *case.leaves], after, strict=True))
    assert not grads["query"][6].any()
    assert not grads["key"][10].any() and not grads["value"][10].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("poison", [INF, float("nan")])
def test_what_comes_back_as_no_number_reaches_only_what_it_is_joined_to(poison: float) -> None:
    edges = edges_of([3, 0, 20, 2, 0, 20], 6)
    edges[0] = edges[0] * 2 + edges[1] % 2
    case = make(edges, 6, 12)
    out, leaves = attend(case), case.leaves
    grad = torch.randn_like(out)
    want = torch.autograd.grad(out, list(leaves.values()), grad, retain_graph=True)
    grad[[0, 2, 4]] = poison
    got = torch.autograd.grad(out, list(leaves.values()), grad)
    for name, a, b in zip(leaves, got, want, strict=True):
        well = (edges[1] if a.size(0) == edges.size(1) else torch.arange(a.size(0))) % 2 == 1
        assert torch.equal(a[well], b[well]), name
    assert not got[0][4].any() and not got[1][10].any() and not got[2][10].any()  # no edges


@pytest.mark.parametrize("poison", [INF, -INF, float("nan")])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_key_is_not_swallowed(poison: float) -> None:
    edges = torch.tensor([[0, 1, 2], [0, 0, 0]], device=DEVICE)
    case = make(edges, 1, 3, 1, 1, values=False, features=False)
    with torch.no_grad():
        case.query.fill_(1.0)
        case.key[1] = poison
    out = attend(case)
    if poison == -INF:
        scores = case.key.detach()[[0, 2], 0, 0]
        want = scores.softmax(0) @ case.value.detach()[[0, 2], 0, 0]
        torch.testing.assert_close(out.detach().view(()), want)
    else:
        assert out.isnan().all()


@pytest.mark.parametrize(
    ("queries", "keys", "edges"),
    [(0, 0, None), (3, 0, None), (0, 3, None), (3, 2, None), (1, 1, ONE_NODE)],
)
def test_hardly_anything(queries: int, keys: int, edges: list[list[int]] | None) -> None:
    index = torch.tensor(edges or [[], []], dtype=torch.int64, device=DEVICE)
    assert_is_the_reference(make(index, queries, keys))


def test_no_heads() -> None:
    assert attend(make(edges_of([2, 3], 5), 2, 5, heads=0)).shape == (2, 0, 4)


def test_parts_of_a_joined_projection_are_read_where_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edges = edges_of([2, 7, 0, 18], 4)
    joined = torch.randn(4, 3, 2, 5, device=DEVICE, requires_grad=True)
    case, apart = (make(edges, 4, 4, channels=5, values=False, features=False) for _ in range(2))
    leaves = [x.detach().clone().requires_grad_() for x in joined.unbind(1)]
    apart.query, apart.key, apart.value = leaves
    want = gradients(attend(apart), leaves)
    case.query, case.key, case.value = joined.unbind(1)
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "contiguous", None)
        out = attend(case)
    out, together = gradients(out, [joined])
    assert torch.equal(out, want[0]) and torch.equal(together, torch.stack(want[1:], 1))


def test_any_strides() -> None:
    case = make(edges_of([2, 7, 0, 18], 5), 4, 5)
    leaves = list(case.leaves.values())
    out = attend(case)
    cotangent = torch.randn(out.shape, device=DEVICE)
    want = [out, *torch.autograd.grad(out, leaves, cotangent)]
    odd = [torch.stack([x.detach()] * 2, -1)[..., 0].requires_grad_() for x in leaves]
    assert not any(x.is_contiguous() for x in odd)
    case.query, case.key, case.value = odd[:3]
    case.biases = (EdgeMask(mask_of(case).edges, *odd[3:]),)
    out = attend(case)
    cotangent = torch.stack([cotangent] * 2, -1)[..., 0]
    got = [out, *torch.autograd.grad(out, odd, cotangent)]
    assert all(map(torch.equal, got, want))
    # the gradient of a sum has strides of zero
    summed = torch.autograd.grad(attend(case).sum(), odd)
    ones = torch.autograd.grad(attend(case), odd, torch.ones_like(out))
    assert all(map(torch.equal, summed, ones))


def test_offsets_past_32_bits() -> None:
    """The rows of a few nodes and edges, so far apart that 32 bits do not count to them."""
    far = 2**30
    edges = torch.tensor([[0, 1, 2, 2], [0, 0, 1, 2]], device=DEVICE)
    case = make(edges, 3, 3, 1, 4, torch.float16)
    want = all_of(case, 0.3)
    room = torch.empty(3 * far + 8, dtype=torch.float16, device=DEVICE)  # touched here and there
    for name in ("query", "key", "value"):
        apart = room.as_strided((3, 1, 4), (far, 4, 1)).copy_(getattr(case, name).detach())
        assert apart.stride(0) * 2 >= 2**31
        before = getattr(case, name)
        setattr(case, name, apart.requires_grad_())
        assert all(map(torch.equal, all_of(case, 0.3), want)), name
        setattr(case, name, before)
    values, features = mask_of(case).values, mask_of(case).features
    assert features is not None
    apart = room.as_strided((4, 1, 4), (far, 4, 1)).copy_(features.detach())
    case.biases = (EdgeMask(edges, values, apart.requires_grad_()),)
    assert all(map(torch.equal, all_of(case, 0.3), want))


def test_only_the_gradients_that_are_needed() -> None:
    case = make(edges_of([2, 7, 0, 18], 5), 4, 5)
    for want, (name, leaf) in zip(all_of(case, 0.3)[1:], case.leaves.items(), strict=True):
        for other in case.leaves.values():
            other.requires_grad_(other is leaf)
        (got,) = gradients(attend(case, 0.3), [leaf])[1:]
        assert torch.equal(got, want), name


@pytest.mark.usefixtures("small_parts")
def test_only_one_gradient_at_hubs() -> None:
    case = make(edges_of(HUBS, 3), 6, 3)
    wanted = dict(zip(case.leaves, all_of(case)[1:], strict=True))
    for name in ("key", "0.EdgeMask.values"):
        for other, leaf in case.leaves.items():
            leaf.requires_grad_(other == name)
        (got,) = gradients(attend(case), [case.leaves[name]])[1:]
        assert torch.equal(got, wanted[name])


def test_there_is_no_second_derivative() -> None:
    case = make(edges_of([2, 7], 5), 2, 5)
    (grad,) = torch.autograd.grad(attend(case).sum(), case.query, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative; pass backend='sparse'"):
        grad.sum().backward()


def test_an_edit_between_forward_and_backward_is_seen() -> None:
    case = make(edges_of([2, 7], 5), 2, 5)
    out = attend(case)
    with torch.no_grad():
        case.key.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_more_edges_than_32_bits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_programs, "MAX_COUNT", 6)
    with pytest.raises(NotImplementedError, match="32 bits.*6 edges.*'sparse'"):
        attend(make(edges_of([2, 4], 5), 2, 5))


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        ("mods-features", "cannot call a 'ScoreMod'"),
        ("edge-on-mask-repeats", "adds up over repeated edges"),
        ("additive-mask", "must lie on the very edges"),
    ],
)
def test_it_says_what_it_cannot_do(bias: str, says: str) -> None:
    layout = layout_of([1, 5, 3], "sorted", DEVICE)
    case = Case(layout, layout, torch.float32)
    BIASES[bias](case)
    assert says in str(_triton.unsupported(inputs_of(case)))


def arguments(extras: str, dtype: torch.dtype = torch.float32) -> list:
    """Of the forward op."""
    case = make(edges_of([2, 7, 0, 18], 6), 4, 6, dtype=dtype)
    mask = mask_of(case)
    seed = torch.tensor([5], device=DEVICE) if "seed" in extras else None
    return [
        *(x.detach() for x in (case.query, case.key, case.value)),
        mask.values.detach() if "values" in extras else None,  # type: ignore[union-attr]
        mask.features.detach() if "features" in extras else None,  # type: ignore[union-attr]
        *(mask.edges, seed, 0.5, 0.3 if seed is not None else 0.0),
    ]


@needs_gpu
@pytest.mark.parametrize("extras", ["", "values seed", "values features seed"])
def test_the_op_is_what_it_says(extras: str) -> None:
    """Schema, fakes and tracing."""
    given = arguments(extras, torch.bfloat16 if extras == "values seed" else torch.float32)
    torch.library.opcheck(OPS.edge_attention, tuple(given))
    out, stats = OPS.edge_attention(*given)
    for needs in ([x is not None for x in given[:5]], [False, True, False, False, False]):
        call = (torch.randn_like(out), out, stats, *given, needs)
        torch.library.opcheck(OPS.edge_attention_backward, call)


@needs_gpu
def test_eager_code_and_the_op_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(edges_of([2, 7, 0, 18], 6), 4, 6)
    directly = all_of(case, 0.3)
    monkeypatch.setattr(_fused_edges, "has_raw_memory", lambda x: False)
    assert all(map(torch.equal, directly, all_of(case, 0.3)))


@needs_gpu
@pytest.mark.parametrize(
    ("place", "wrong", "says"),
    [
        (0, torch.randn(4, 2, 5), "'key' must have shape"),
        (0, torch.randn(2, 2, 4), "arget index"),
        (0, torch.randn(4, 8), "'query' must have shape"),
        (0, torch.randn(4, 2, 257), "at most 256"),
        (1, torch.randn(2, 2, 4), "'value' must have shape"),
        (2, torch.randn(6, 2, 4).double(), "'value' must have"),
        (3, torch.randn(26, 2), "'values' must have shape"),
        (3, torch.ones(27, 2).long(), "'values' must have"),
        (4, torch.randn(27, 1, 4), "'features' must have"),
        (5, torch.tensor([[0] * 26 + [6], [0] * 27]), "source index"),
        (5, torch.tensor([[0] * 27, [0] * 26 + [-1]]), "arget index"),
        (6, torch.tensor([1, 2]), "'seed' must have shape"),
        (6, torch.tensor([1.0]), "'seed' must have"),
        (8, 1.5, "'dropout_p' must lie in"),
    ],
)
def test_the_op_checks_what_it_is_given(place: int, wrong: object, says: str) -> None:
    """What lies behind an op reads addresses. (On a GPU an index stops the device instead.)"""
    given = arguments("values features seed")
    out, stats = OPS.edge_attention(*given)
    given[place] = wrong.to(DEVICE) if isinstance(wrong, Tensor) else wrong
    if "index" in says and DEVICE == "cuda":
        return
    with pytest.raises((ValueError, IndexError), match=says):
        OPS.edge_attention(*given)
    with pytest.raises((ValueError, IndexError), match=says):
        OPS.edge_attention_backward(torch.randn_like(out), out, stats, *given, [True] * 5)


@needs_gpu
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_backward_op_checks_what_autograd_kept(place: int) -> None:
    given = arguments("")
    out, stats = OPS.edge_attention(*given)
    kept = [torch.randn_like(out), out, stats]
    kept[place] = kept[place][:3]
    with pytest.raises(ValueError, match="must have shape"):
        OPS.edge_attention_backward(*kept, *given, [True] * 5)


@needs_gpu
def test_the_op_refuses_other_types() -> None:
    x = torch.randn(2, 2, 3, device=DEVICE, dtype=torch.float64)
    edges = torch.tensor([[0], [1]], device=DEVICE)
    with pytest.raises(NotImplementedError, match="float32.*float16.*bfloat16.*got torch.float64"):
        OPS.edge_attention(x, x, x, None, None, edges, None, 1.0, 0.0)


def along(
    values: bool, features: bool
) -> Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]:
    def attention(qkv: Tensor, edges: Tensor, values: Tensor, features: Tensor) -> Tensor:
        query, key, value = qkv.unbind(1)
        mask = EdgeMask(edges, values, features)
        layout = GraphLayout.of(None, qkv.size(0), None, qkv.device)
        inputs = _inputs(query, key, value, layout, (mask,), None, None, 0.0)
        assert _triton.unsupported(inputs) is None
        return _triton.forward(inputs)

    return attention


@needs_gpu
@pytest.mark.parametrize("extras", [False, True])
def test_traced_code_sees_one_graph_for_all_batches(extras: bool) -> None:
    attention = along(extras, extras)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    traced = torch.compile(attention, fullgraph=True, backend=counter, dynamic=True)
    for degrees in ([3, 2, 0, 1], [4, 20, 0, 2, 1], [7, 6, 1, 1, 0, 2]):
        nodes = len(degrees)
        edges = edges_of(degrees, nodes)
        leaves = [torch.randn(nodes, 3, 2, 8, device=DEVICE, requires_grad=True)]
        if extras:
            count = edges.size(1)
            leaves.append(torch.randn(count, 2, device=DEVICE, requires_grad=True))
            leaves.append(torch.randn(count, 2, 8, device=DEVICE, requires_grad=True))
        rest = leaves[1:] if extras else [None, None]
        got, want = (f(leaves[0], edges, *rest) for f in (traced, attention))
        for a, b in zip(gradients(got, leaves), gradients(want, leaves), strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


def test_nothing_of_the_size_of_all_edges_is_kept() -> None:
    """Only tensors that were given, the output and two numbers for each query and head."""
    case = make(edges_of([30, 30], 5), 2, 5, features=False)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        out = attend(case)
    given = [*case.leaves.values(), out]
    new = [x for x in saved if not any(x.data_ptr() == y.data_ptr() for y in given)]
    assert sum(x.numel() for x in new if x.is_floating_point()) == 2 * 2 * 2


def test_launches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of molecules takes one kernel forward and two backward."""
    names = []
    launch_each = launch._launch_all

    def count(launches: list[launch.Launch], shared: dict[str, object]) -> None:
        names.extend(each.kernel.fn.__name__ for each in launches if each.grid)
        launch_each(launches, shared)

    monkeypatch.setattr(launch, "_launch_all", count)
    edges = edges_of([4, 1, 2, 3, 3], 5)
    case = make(edges, 5, 5, values=False, features=False)
    attend(case).sum().backward()
    assert names == ["edge_forward", "edge_backward_queries", "edge_backward_keys"]
