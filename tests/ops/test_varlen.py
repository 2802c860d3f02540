"""The ``varlen`` backend: the real kernels on a GPU, everything around them without one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import GraphLayout, attention, explain_choice
from pyg_gt.ops import _varlen, _varlen_packed
from pyg_gt.testing import assert_same_attention

from .cases import Case, layout_of

OPS = torch.ops.pyg_gt
TYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
LAYOUTS = {
    "self": ([1, 5, 3, 0, 70], None),
    "queries and keys": ([1, 5, 3, 0, 70], [2, 0, 4, 3, 6]),  # each alone in one graph
    "one graph": ([9], [4]),
    "no node": ([], None),
    "empty graphs": ([0, 0], None),
    "no key": ([0, 0], [3, 2]),
    "no query": ([3, 2], [0, 0]),
    "no pair": ([0, 4], [3, 0]),
}


def weights_of(
    query: Tensor, key: Tensor, ptrs: tuple[Tensor, Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """``[H, Nq, Nk]`` and ``lse [H, Nq]`` over the whole batch at once."""
    assert all(p.dtype == torch.int32 for p in ptrs)
    queries, keys = (torch.repeat_interleave(p.diff()) for p in ptrs)
    scores = scale * torch.einsum("ihc,jhc->hij", query.float(), key.float())
    scores = scores.masked_fill(queries[:, None] != keys, float("-inf"))
    lse = scores.logsumexp(2)
    return (scores - lse[..., None]).exp(), lse


def can_read(*tensors: Tensor) -> bool:
    """What the kernels want of an address: channels side by side, rows of 16 bytes."""
    return all(
        x.stride(2) == 1 and x.size(2) % 8 == 0 and x.data_ptr() % 16 == 0
        and all(s % 8 == 0 for s in x.stride()[:2])
        for x in tensors
    )  # fmt: skip


@torch.autocast("cpu", enabled=False)
def emulated(
    query: Tensor, key: Tensor, value: Tensor, ptrs: tuple[Tensor, Tensor],
    most: tuple[int, int], scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """In place of ``flash``. A query without keys gets NaN: what nobody wrote."""
    assert can_read(query, key, value)
    assert most == tuple(int(p.diff().max()) for p in ptrs) and min(most) > 0
    weights, lse = weights_of(query, key, ptrs, scale)
    return torch.einsum("hij,jhc->ihc", weights, value.float()).to(query.dtype), lse


@torch.autocast("cpu", enabled=False)
def emulated_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
    ptrs: tuple[Tensor, Tensor], most: tuple[int, int], scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """In place of ``flash_backward``; rows without a partner are NaN."""
    assert can_read(grad, query, key, value, out) and lse.is_contiguous()
    weights, again = weights_of(query, key, ptrs, scale)
    torch.testing.assert_close(lse, again)
    weights = weights.nan_to_num(0.0)
    d, q, k, v, o = (x.float() for x in (grad, query, key, value, out))
    slopes = torch.einsum("ihc,jhc->hij", d, v)
    slopes = weights * (slopes - (d * o).sum(2).t().nan_to_num(0.0)[..., None]) * scale
    dq, dk = torch.einsum("hij,jhc->ihc", slopes, k), torch.einsum("hij,ihc->jhc", slopes, q)
    dv = torch.einsum("hij,ihc->jhc", weights, d)
    queries, keys = (p.diff() for p in ptrs)
    dq[torch.repeat_interleave(keys == 0, queries)] = float("nan")
    for x in (dk, dv):
        x[torch.repeat_interleave(queries == 0, keys)] = float("nan")
    return dq.to(grad.dtype), dk.to(grad.dtype), dv.to(grad.dtype)


@pytest.fixture
def emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_varlen, "_DEVICE", "cpu")
    monkeypatch.setattr(_varlen_packed, "flash", emulated)
    monkeypatch.setattr(_varlen_packed, "flash_backward", emulated_backward)


DEVICES = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)], indirect=True
)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels themselves on a GPU, their emulation elsewhere."""
    if request.param == "cpu":
        request.getfixturevalue("emulation")
    return request.param


def case_of(
    name: str, order: str, dtype: torch.dtype, device: str, channels: int = 8, heads: int = 2
) -> Case:
    sizes, query_sizes = LAYOUTS[name]
    layout = layout_of(sizes, order, device)
    query_layout = layout if query_sizes is None else layout_of(query_sizes, order, device)
    return Case(query_layout, layout, dtype, heads=heads, channels=channels)


def assert_same(case: Case, scale: float | None = None) -> None:
    assert_same_attention(
        "varlen", case.query, case.key, case.value, case.layout,
        query_layout=case.query_layout, scale=scale,
    )  # fmt: skip


@DEVICES
@TYPES
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_the_reference(name: str, order: str, dtype: torch.dtype, device: str) -> None:
    case = case_of(name, order, dtype, device)
    assert_same(case)
    out = case.attention("varlen")
    assert out.dtype == dtype and out.is_contiguous()
    gradients = torch.autograd.grad(out.float().square().sum(), list(case.leaves.values()))
    assert all(x.isfinite().all() for x in (out, *gradients))


@DEVICES
def test_a_node_without_a_partner_gets_zeros(device: str) -> None:
    for order in ("sorted", "unsorted"):
        case = case_of("queries and keys", order, torch.bfloat16, device)
        out = case.attention("varlen")
        dq, dk, dv = torch.autograd.grad(out.float().sin().sum(), list(case.leaves.values()))
        no_keys, no_queries = case.query_layout.batch == 3, case.layout.batch == 1
        assert no_keys.sum() == 3 and no_queries.sum() == 5
        for x, alone in ((out, no_keys), (dq, no_keys), (dk, no_queries), (dv, no_queries)):
            assert not x[alone].any() and x[~alone].any()


@DEVICES
@pytest.mark.parametrize("channels", [1, 3, 8, 13, 64, 250, 256])
def test_any_width_and_its_scale(channels: int, device: str) -> None:
    for scale in (None, 0.3):
        assert_same(case_of("self", "unsorted", torch.bfloat16, device, channels), scale)
    case = case_of("self", "sorted", torch.bfloat16, device, channels)
    default = attention(case.query, case.key, case.value, case.layout, backend="varlen")
    given = case.attention("varlen", scale=channels**-0.5)
    assert torch.equal(default, given)


@DEVICES
@pytest.mark.parametrize("channels", [8, 16, 13])
@pytest.mark.parametrize(("extra", "first"), [(0, 0), (3, 3), (8, 3)])
def test_parts_of_a_joined_projection(channels: int, extra: int, first: int, device: str) -> None:
    """Rows that lie apart, with ``extra`` channels in between, and begin at odd addresses."""
    layout = layout_of([3, 40, 0, 2], device=device)
    width = 3 * 2 * channels + extra
    joined = torch.randn(layout.num_nodes, width, device=device).bfloat16().requires_grad_()

    def run(backend: str) -> list[Tensor]:
        parts = joined[:, first : width - extra + first].view(-1, 3, 2, channels).unbind(1)
        out = attention(*parts, layout, backend=backend)
        wave = torch.arange(out.numel(), device=device).view(out.shape).cos().bfloat16()
        return [out, *torch.autograd.grad(out, joined, wave)]

    for got, want in zip(run("varlen"), run("reference"), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=3e-2)


@DEVICES
def test_a_gradient_of_any_strides(device: str) -> None:
    case = case_of("self", "sorted", torch.bfloat16, device)
    leaves = list(case.leaves.values())
    seeds = [
        torch.ones((), device=device).bfloat16().expand(case.query.shape),  # of a plain sum
        torch.randn(*reversed(case.query.shape), device=device).bfloat16().permute(2, 1, 0),
    ]
    for seed in seeds:
        got = torch.autograd.grad(case.attention("varlen"), leaves, seed)
        want = torch.autograd.grad(case.attention("varlen"), leaves, seed.contiguous())
        assert all(map(torch.allclose, got, want))


@DEVICES
def test_autocast(device: str) -> None:
    layout = layout_of([4, 9], device=device)
    linear = torch.nn.Linear(6, 3 * 2 * 8).to(device)
    x = torch.randn(13, 6, device=device)

    def run(backend: str) -> list[Tensor]:
        with torch.autocast(device, dtype=torch.bfloat16):
            parts = linear(x).view(-1, 3, 2, 8).unbind(1)
            out = attention(*parts, layout, backend=backend)
        assert out.dtype == torch.bfloat16
        parameters = list(linear.parameters())
        return [out.detach(), *torch.autograd.grad(out.float().sin().sum(), parameters)]

    got, want = run("varlen"), run("reference")
    assert got[1].dtype == torch.float32
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=3e-2, atol=3e-2 * float(b.abs().max()))


@DEVICES
def test_deterministic_algorithms_are_refused_when_there_is_a_gradient(device: str) -> None:
    case = case_of("self", "sorted", torch.bfloat16, device)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(NotImplementedError, match="backward is not deterministic"):
            case.attention("varlen")
        with torch.no_grad():
            case.attention("varlen")
    finally:
        torch.use_deterministic_algorithms(False)


@DEVICES
def test_a_second_derivative_is_refused_in_words(device: str) -> None:
    case = case_of("self", "sorted", torch.bfloat16, device)
    first = torch.autograd.grad(case.attention("varlen").sum(), case.query, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative; pass backend='refer"):
        torch.autograd.grad(first[0].sum(), case.key)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": torch.float32}, "float16 or bfloat16 (got torch.float32)"),
        ({"channels": 264}, "at most 256 channels per head (got 264)"),
        ({"graphs": 70_000}, "at most 65,535 graphs (got 70,000)"),
        ({"dropout_p": 0.5}, "no dropout (got 0.5)"),
    ],
)
def test_what_it_refuses(changes: dict, reason: str, emulation: None) -> None:
    layout = GraphLayout.from_sizes([2, *[0] * (changes.get("graphs", 1) - 1)])
    shape = (2, 1, changes.get("channels", 8))
    x = torch.randn(shape, dtype=changes.get("dtype", torch.bfloat16))
    p = changes.get("dropout_p", 0.0)
    assert reason in explain_choice(x, x, x, layout, dropout_p=p)["varlen"]


def test_torch_func_is_refused(emulation: None) -> None:
    case = case_of("self", "sorted", torch.bfloat16, "cpu")

    def run(query: Tensor) -> Tensor:
        return attention(query, case.key, case.value, case.layout, backend="varlen").sum()

    with pytest.raises(NotImplementedError, match="no rule for 'torch.func'"):
        torch.func.grad(run)(case.query.detach())


def arguments(case: Case, known: bool) -> tuple:
    """Of the op: layouts by their batch vectors, numbers of graphs known or not."""
    same = case.query_layout is case.layout
    graphs = case.layout.num_graphs if known else -1
    return (
        *(x.detach() for x in (case.query, case.key, case.value)),
        None if same else case.query_layout.batch, -2 if same else graphs,
        case.layout.batch, graphs, 0.5,
    )  # fmt: skip


@DEVICES
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", LAYOUTS)
def test_schema_and_fakes(name: str, known: bool, device: str) -> None:
    for order, channels in product(("sorted", "unsorted"), (8, 3)):
        case = case_of(name, order, torch.bfloat16, device, channels)
        given = arguments(case, known)
        torch.library.opcheck(OPS.varlen, given)
        out, lse = OPS.varlen(*given)
        grad = torch.randn(*reversed(out.shape), device=device).bfloat16().permute(2, 1, 0)
        call = (grad, *given[:3], out, lse, *given[3:])
        torch.library.opcheck(OPS.varlen_backward, call)


def test_tags() -> None:
    for op in (OPS.varlen.default, OPS.varlen_backward.default):
        assert torch.Tag.pt2_compliant_tag in op.tags and torch.Tag.cudagraph_unsafe in op.tags


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(9, 2, 8), "'query' must be float16 or bfloat16 .got torch.float32"),
        (0, torch.zeros(9, 2, 0).bfloat16(), "C from 1 to 256"),
        (1, torch.zeros(9, 1, 8).bfloat16(), "'key' must have shape .9, 2, 8. and type"),
        (2, torch.zeros(9, 2, 8).half(), "'value' must have shape"),
        (0, torch.zeros(8, 2, 8).bfloat16(), "8 queries, but their layout is the keys'"),
        (5, torch.zeros(8).long(), "describes 8 nodes"),
    ],
)
def test_the_op_checks_what_it_is_given(
    position: int, wrong: Tensor, message: str, emulation: None
) -> None:
    layout = layout_of([4, 5])
    given = list(arguments(Case(layout, layout, torch.bfloat16, channels=8), known=False))
    given[position] = wrong
    with pytest.raises((ValueError, NotImplementedError), match=message):
        OPS.varlen(*given)


def test_the_backward_op_checks_what_hooks_hand_back(emulation: None) -> None:
    layout = layout_of([4, 5])
    given = arguments(Case(layout, layout, torch.bfloat16, channels=8), known=False)
    out, lse = OPS.varlen(*given)
    for wrong in ((out[:8], out, lse), (out, out.float(), lse), (out, out, lse.t())):
        grad, saved, stats = wrong
        with pytest.raises(ValueError, match="must have shape .* and type"):
            OPS.varlen_backward(grad, *given[:3], saved, stats, *given[3:])


@DEVICES
@pytest.mark.filterwarnings(
    "ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning"
)
@pytest.mark.parametrize("cross", [False, True])
def test_one_graph_under_compile(cross: bool, device: str) -> None:
    """Whatever the sizes of the graphs: one node forward, one backward."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def model(query: Tensor, key: Tensor, value: Tensor, batch: Tensor, other: Tensor) -> Tensor:
        layout = GraphLayout.of(batch, key.size(0))
        query_layout = GraphLayout.of(other, query.size(0)) if cross else None
        return attention(
            query, key, value, layout, query_layout=query_layout, backend="varlen"
        ).sin()

    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for sizes in ([3, 5, 9], [20, 2, 1, 7], [6, 6]):
        layout = layout_of(sizes, "unsorted", device)
        query_layout = layout_of(sizes[::-1], "unsorted", device) if cross else layout
        case = Case(query_layout, layout, torch.bfloat16, channels=8)
        given = [*case.leaves.values(), layout.batch.clone(), query_layout.batch.clone()]
        for x in given:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        results = []
        for call in (compiled, model):
            out = call(*given)
            results.append([out, *torch.autograd.grad(out.sum(), list(case.leaves.values()))])
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2)
    assert counter.frame_count == 1


@pytest.mark.cuda
@TYPES
@pytest.mark.parametrize("sizes", [[23] * 300, [500, 80, 444], [4000]])
def test_the_kernels_on_larger_graphs(sizes: list[int], dtype: torch.dtype) -> None:
    layout = layout_of(sizes, device="cuda")
    assert_same(Case(layout, layout, dtype, heads=4, channels=16))


@pytest.mark.cuda
def test_another_stream() -> None:
    case = case_of("self", "sorted", torch.bfloat16, "cuda")
    want = case.attention("varlen")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = case.attention("varlen")
    torch.cuda.synchronize()
    assert torch.equal(got, want)


def test_other_arguments_of_torch_are_an_objection(
    monkeypatch: pytest.MonkeyPatch, emulation: None
) -> None:
    """An operator that is private may change; then another backend is taken."""
    assert _varlen_packed.is_as_known()
    q = torch.randn(3, 2, 8, dtype=torch.bfloat16)
    layout = GraphLayout.of(None, 3)
    assert explain_choice(q, q, q, layout)["varlen"].startswith("could run")
    given = _varlen_packed._GIVEN
    name = "_flash_attention_backward"
    for changed in (given[name][:-1], (*given[name][:-1], "another"), (*given[name], "more")):
        monkeypatch.setattr(_varlen_packed, "_GIVEN", {**given, name: changed})
        _varlen_packed.is_as_known.cache_clear()
        try:
            assert "takes other arguments" in explain_choice(q, q, q, layout)["varlen"]
        finally:
            _varlen_packed.is_as_known.cache_clear()
