"""Compiled attention along edges: the numbers of the reference, at any size and for any thread."""

import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import EdgeMask, GraphLayout, attention, native
from pyg_gt.ops._kernels.cpu import edges as _cpu_edges
from pyg_gt.ops._kernels.cpu.edges import EDGES
from pyg_gt.ops.dropout import draw_seed, keep_edges

OPS = torch.ops.pyg_gt
INF = float("inf")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="compiling is for POSIX systems"),
]


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    try:
        native.find_compiler()
    except native.Unavailable as error:
        pytest.skip(str(error))
    assert EDGES.why_not() is None


@dataclass
class Case:
    """One attention along edges, its tensors drawn in float64."""

    num_dst: int
    num_src: int
    edges: Tensor
    heads: int = 4
    channels: int = 16
    with_values: bool = False
    with_features: bool = False
    dropout_p: float = 0.0
    scale: float = 0.3
    tensors: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        h, c, e = self.heads, self.channels, self.edges.size(1)
        sizes = {"query": (self.num_dst, h, c), "key": (self.num_src, h, c)}
        sizes["value"] = sizes["key"]
        if self.with_values:
            sizes["values"] = (e, h)
        if self.with_features:
            sizes["features"] = (e, h, c)
        self.tensors = {
            name: torch.randn(*size, dtype=torch.float64) for name, size in sizes.items()
        }

    def leaves(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors in another type."""
        return {n: x.to(dtype).detach().requires_grad_() for n, x in self.tensors.items()}

    def seed(self) -> Tensor | None:
        """What the next call of ``attention`` would draw."""
        return draw_seed(torch.device("cpu")) if self.dropout_p > 0 else None

    def ours(self, leaves: dict[str, Tensor]) -> Tensor:
        return self.attention(leaves, "cpu")

    def reference(self, leaves: dict[str, Tensor]) -> Tensor:
        return self.attention(leaves, "reference")

    def attention(self, leaves: dict[str, Tensor], backend: str) -> Tensor:
        mask = EdgeMask(self.edges, leaves.get("values"), leaves.get("features"))
        return attention(
            leaves["query"], leaves["key"], leaves["value"], GraphLayout.of(None, self.num_src),
            mask, query_layout=GraphLayout.of(None, self.num_dst), scale=self.scale,
            dropout_p=self.dropout_p, backend=backend,
        )  # fmt: skip


def random_edges(num_dst: int, num_src: int, count: int) -> Tensor:
    """Some of them stand twice; the last target has none."""
    count = count if num_dst > 1 and num_src > 0 else 0
    source = torch.randint(max(num_src, 1), (count,))
    return torch.stack([source, torch.randint(max(num_dst - 1, 1), (count,))])


def assert_same(case: Case, dtype: torch.dtype = torch.float32, tolerance: float = 2e-5) -> None:
    """Outputs and all gradients are the reference's, computed in float64 from the same numbers."""
    ours = case.leaves(dtype)
    theirs = {name: x.detach().double().requires_grad_() for name, x in ours.items()}
    torch.manual_seed(11)
    out = case.ours(ours)
    torch.manual_seed(11)
    want = case.reference(theirs)
    assert out.dtype == dtype and out.shape == want.shape
    cotangent = torch.randn(want.shape).to(dtype)
    grads = torch.autograd.grad(out, list(ours.values()), cotangent)
    wanted = torch.autograd.grad(
        want, list(theirs.values()), cotangent.double(), allow_unused=True
    )
    torch.testing.assert_close(out.double(), want, rtol=tolerance, atol=tolerance)
    for (name, x), grad, right in zip(ours.items(), grads, wanted, strict=True):
        assert grad.dtype == x.dtype, name
        right = torch.zeros_like(grad).double() if right is None else right
        message = f"the gradient of '{name}'"
        torch.testing.assert_close(
            grad.double(), right, rtol=tolerance, atol=tolerance,
            msg=lambda text, message=message: f"{message}: {text}",
        )  # fmt: skip


@given(
    num_dst=st.integers(0, 9),
    num_src=st.integers(0, 9),
    count=st.sampled_from([0, 1, 2, 7, 40, 150]),
    heads=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17]),
    channels=st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 32, 33, 40, 64, 256]),
    with_values=st.booleans(),
    with_features=st.booleans(),
    dropout_p=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
@example(8, 9, 40, 8, 8, True, True, 0.3, 0)  # the shapes that have code of their own
@example(8, 9, 40, 4, 16, True, True, 0.3, 1)
@example(8, 9, 40, 2, 32, True, True, 0.3, 2)
@example(8, 9, 40, 1, 64, True, True, 0.3, 3)
def test_the_reference_s_numbers(
    num_dst: int,
    num_src: int,
    count: int,
    heads: int,
    channels: int,
    with_values: bool,
    with_features: bool,
    dropout_p: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    edges = random_edges(num_dst, num_src, count)
    case = Case(num_dst, num_src, edges, heads, channels, with_values, with_features, dropout_p)
    case.scale = channels**-0.5
    assert_same(case)


@pytest.mark.parametrize("channels", [5, 8, 16, 32, 64])
@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_bfloat16(channels: int, dropout_p: float) -> None:
    case = Case(8, 9, random_edges(8, 9, 60), 4, channels, True, True, dropout_p)
    case.scale = channels**-0.5
    assert_same(case, torch.bfloat16, tolerance=0.04)


def test_bfloat16_with_values_in_float32() -> None:
    case = Case(8, 9, random_edges(8, 9, 60), with_values=True)
    leaves = case.leaves(torch.bfloat16)
    leaves["values"] = case.tensors["values"].float().requires_grad_()
    out = case.ours(leaves)
    (grad,) = torch.autograd.grad(out.sum(), leaves["values"])
    assert out.dtype == torch.bfloat16 and grad.dtype == torch.float32
    wide = {n: x.detach().double().requires_grad_() for n, x in leaves.items()}
    (want,) = torch.autograd.grad(case.reference(wide).sum(), wide["values"])
    torch.testing.assert_close(grad.double(), want, rtol=1e-4, atol=1e-4)


def test_only_the_gradients_that_are_needed() -> None:
    case = Case(8, 9, random_edges(8, 9, 60), with_values=True, with_features=True)
    leaves = case.leaves(torch.float32)
    names = list(leaves)
    all_grads = torch.autograd.grad(case.ours(leaves).sum(), list(leaves.values()))
    for name, want in zip(names, all_grads, strict=True):
        alone = {n: x if n == name else x.detach() for n, x in leaves.items()}
        (grad,) = torch.autograd.grad(case.ours(alone).sum(), alone[name])
        assert torch.equal(grad, want), name


@pytest.mark.parametrize("heads", [2, 4])
def test_minus_infinity_means_no_edge(heads: int) -> None:
    edges = torch.tensor([[0, 1, 2, 3, 0, 1], [0, 0, 0, 1, 1, 2]])
    case = Case(4, 4, edges, heads, with_values=True)
    case.tensors["values"][[1, 5]] = -INF  # one of three, and all that target 2 has
    assert_same(case)
    leaves = case.leaves(torch.float32)
    out = case.ours(leaves)
    grads = dict(zip(leaves, torch.autograd.grad(out.sum(), list(leaves.values())), strict=True))
    assert (out[2:] == 0).all()
    assert all(grad.isfinite().all() for grad in grads.values())
    assert (grads["values"][[1, 5]] == 0).all() and (grads["value"][1] == 0).all()


def test_scores_of_ten_thousand() -> None:
    case = Case(3, 4, torch.tensor([[0, 1, 2, 3, 0, 1], [0, 0, 0, 1, 1, 2]]), with_values=True)
    case.tensors["values"] = torch.tensor([1e4, 1e4, -1e4, -1e4, -1e4, 1e4]).double()[:, None]
    case.tensors["values"] = case.tensors["values"].repeat(1, 4)
    # what float32 can tell apart at ten thousand
    assert_same(case, tolerance=2e-3)


@pytest.mark.parametrize("scale", [1e4, 1e12, 1e30])
def test_weights_of_huge_scores_add_up(scale: float) -> None:
    case = Case(30, 40, random_edges(30, 40, 400), scale=scale)
    case.tensors["value"][:] = 1.0
    leaves = case.leaves(torch.float32)
    has_edges = torch.zeros(30).index_fill(0, case.edges[1], 1.0)
    want = has_edges[:, None, None].expand(30, 4, 16)
    torch.testing.assert_close(case.ours(leaves), want)


@pytest.mark.parametrize("name", ["query", "key", "value", "values", "features"])
@pytest.mark.parametrize("channels", [5, 16])
def test_nan_comes_out(name: str, channels: int) -> None:
    edges = torch.tensor([[0, 1, 2, 3, 3], [0, 0, 0, 1, 1]])
    case = Case(2, 4, edges, 4, channels, True, True)
    case.tensors[name][1 if name != "query" else 0] = float("nan")
    leaves = case.leaves(torch.float32)
    out = case.ours(leaves)
    assert out[0].isnan().all() and out[1].isfinite().all()
    (grad,) = torch.autograd.grad(out.sum(), leaves["query"])
    assert grad[0].isnan().all() and grad[1].isfinite().all()


@pytest.mark.parametrize("value", [INF, -INF, float("nan")])
def test_an_infinite_key_is_not_swallowed(value: float) -> None:
    case = Case(1, 3, torch.tensor([[0, 1, 2], [0, 0, 0]]), 1, 1)
    case.tensors["query"][:] = 1.0
    case.tensors["key"][1] = value
    leaves = case.leaves(torch.float32)
    want = case.reference(case.leaves(torch.float64))
    torch.testing.assert_close(case.ours(leaves).double(), want, equal_nan=True)


def test_views_of_a_joined_projection_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(9, 9, random_edges(9, 9, 60))
    want = case.ours(case.leaves(torch.float32))
    joined = torch.stack([case.tensors[n] for n in ("query", "key", "value")], 1).float()
    apart = torch.stack([case.tensors[n] for n in ("query", "key", "value")], 2).float()
    monkeypatch.setattr(Tensor, "contiguous", None)
    for views in (joined.unbind(1), apart.unbind(2)):
        leaves = dict(zip(("query", "key", "value"), views, strict=True))
        assert torch.equal(case.ours(leaves), want)


def test_any_strides() -> None:
    case = Case(8, 9, random_edges(8, 9, 60), with_values=True, with_features=True)
    leaves = case.leaves(torch.float32)
    want = case.ours(leaves)
    cotangent = torch.randn(want.shape)
    grads = torch.autograd.grad(want, list(leaves.values()), cotangent)
    odd = {
        n: torch.stack([x.detach(), x.detach()], -1)[..., 0].requires_grad_()
        for n, x in leaves.items()
    }
    assert not any(x.is_contiguous() for x in odd.values())
    out = case.ours(odd)
    assert torch.equal(out, want)
    cotangent = torch.stack([cotangent, cotangent], -1)[..., 0]
    for grad, right in zip(
        torch.autograd.grad(out, list(odd.values()), cotangent), grads, strict=True
    ):
        assert torch.equal(grad, right)
    # the gradient of a sum has strides of zero
    torch.autograd.grad(case.ours(leaves).sum(), leaves["query"])


def test_a_hub() -> None:
    """One target, and then one source, with ten thousand edges."""
    many = torch.randint(50, (10_000,))
    hub = torch.full_like(many, 3)
    some = torch.randint(50, (2, 100))
    for ends in ([many, hub], [hub, many]):
        edges = torch.cat([torch.stack(ends), some], 1)
        assert_same(Case(50, 50, edges, 2, 8, True, dropout_p=0.3))


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, dropout_p: float) -> None:
    edges = torch.cat([random_edges(500, 400, 6000), torch.tensor([[7], [3]]).repeat(1, 900)], 1)
    case = Case(500, 400, edges, 4, 16, True, True, dropout_p)
    leaves = case.leaves(dtype)

    def run() -> list[Tensor]:
        torch.manual_seed(3)
        out = case.ours(leaves)
        return [out, *torch.autograd.grad(out.square().sum(), list(leaves.values()))]

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 8])
def test_dropout_keeps_what_philox_says(heads: int) -> None:
    """One edge a target: its weight is 1 before dropout, and the output is the factor."""
    count, p = 300, 0.35
    edges = torch.stack([torch.randint(7, (count,)), torch.randperm(count)])
    case = Case(count, 7, edges, heads, 3, dropout_p=p)
    case.tensors["value"][:] = 1.0
    leaves = case.leaves(torch.float32)
    torch.manual_seed(8)
    out = case.ours(leaves)
    torch.manual_seed(8)
    factors = keep_edges(case.seed(), torch.arange(count), heads, p, torch.float32)
    torch.testing.assert_close(out[edges[1], :, 0], factors, rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(out.sum(), leaves["value"])
    want = torch.zeros(7, heads).index_add(0, edges[0], factors)
    torch.testing.assert_close(grad[..., 0], want)


def test_dropout_drops_the_same_weights_in_the_backward_pass() -> None:
    case = Case(5, 6, random_edges(5, 6, 40), 2, 4, True, True, dropout_p=0.5)
    leaves = case.leaves(torch.float32)

    def loss(leaves: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(4)
        return case.ours(leaves).double().square().sum()

    grads = torch.autograd.grad(loss(leaves), list(leaves.values()))
    step = 1e-2
    for name, grad in zip(leaves, grads, strict=True):
        way = torch.randn_like(grad)
        ends = [
            loss({n: x.detach() + (s * step * way if n == name else 0) for n, x in leaves.items()})
            for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(
            slope, (grad.double() * way).sum(), rtol=2e-2, atol=2e-2, msg=name
        )


def arguments(name: str, dtype: torch.dtype) -> list[object]:
    case = Case(5, 6, random_edges(5, 6, 20), 2, 5, "values" in name, "features" in name)
    x = {n: t.to(dtype) for n, t in case.tensors.items()}
    seed = torch.tensor([9]) if "dropout" in name else None
    return [
        x["query"], x["key"], x["value"], x.get("values"), x.get("features"), case.edges, seed,
        0.5, 0.3 if seed is not None else 0.0,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "values", "features", "values features dropout"])
def test_ops(name: str, dtype: torch.dtype) -> None:
    call = arguments(name, dtype)
    torch.library.opcheck(OPS.edge_attention, tuple(call))
    grad = torch.randn(5, 2, 5).to(dtype)
    saved = OPS.edge_attention(*call)
    for needs in ([True] * 3 + [x is not None for x in call[3:5]], [False, True, False] * 2):
        torch.library.opcheck(OPS.edge_attention_backward, (grad, *saved, *call, needs[:5]))


@pytest.mark.parametrize(
    ("place", "wrong", "says"),
    [
        (0, torch.randn(5, 2, 4), "'key' must have shape"),
        (0, torch.randn(4, 2, 5), "a target index|Found target index"),
        (1, torch.randn(2, 2, 5), "'value' must have shape"),
        (2, torch.randn(6, 2, 5).double(), "'value' must have"),
        (3, torch.zeros(20, 2).int(), "'values' must have"),
        (3, torch.randn(19, 2), "'values' must have shape"),
        (4, torch.zeros(20, 2, 5).int(), "'features' must have"),
        (5, torch.tensor([[0, 6], [0, 0]]), "Found source index 6"),
        (5, torch.tensor([[0, 1], [0, -1]]), "Found target index -1"),
        (6, torch.tensor([1, 2]), "'seed' must have shape"),
        (6, torch.tensor([1.0]), "'seed' must have"),
    ],
)
def test_ops_check_what_they_are_handed(place: int, wrong: Tensor, says: str) -> None:
    """What lies behind an op reads addresses."""
    call = arguments("values features dropout", torch.float32)
    call[5] = torch.stack([torch.arange(20) % 6, torch.arange(20) % 5])
    call[place] = wrong
    if place == 5:
        call[3] = call[4] = None
    with pytest.raises((ValueError, IndexError), match=says):
        OPS.edge_attention(*call)
    with pytest.raises((ValueError, IndexError), match=f"{says}|'grad' must have"):
        saved = torch.randn(5, 2, 5), torch.zeros(5, 2, 2)
        OPS.edge_attention_backward(torch.randn(5, 2, 5), *saved, *call, [True] * 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_ops_compute_other_types_in_torch_operations(dtype: torch.dtype) -> None:
    call = [
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in arguments("values features dropout", torch.float32)
    ]
    call[4] = call[4].bfloat16()  # features of a type of their own, too
    torch.library.opcheck(OPS.edge_attention, tuple(call))
    out, stats = OPS.edge_attention(*call)
    want = OPS.edge_attention(*[
        x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in call
    ])[0]  # fmt: skip
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want, rtol=2e-3, atol=2e-3)
    backward = torch.randn_like(out), out, stats, *call, [True] * 5
    torch.library.opcheck(OPS.edge_attention_backward, backward)


def test_ops_refuse_empty_heads() -> None:
    x = torch.randn(2, 0, 3)
    edges = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="with heads"):
        OPS.edge_attention(x, x, x, None, None, edges, None, 1.0, 0.0)


def test_more_edges_than_32_bits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu_edges, "_MOST", 5)
    case = Case(4, 4, random_edges(4, 4, 6))
    with pytest.raises(NotImplementedError, match="32 bits.*6 edges.*'sparse'"):
        case.ours(case.leaves(torch.float32))


@pytest.mark.parametrize("features", [False, True])
def test_one_node_in_a_compiled_graph(features: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def run(x: dict[str, Tensor], edges: Tensor) -> Tensor:
        layout = GraphLayout.of(None, x["key"].size(0))
        query_layout = GraphLayout.of(None, x["query"].size(0))
        mask = EdgeMask(edges, None, x.get("features"))
        return attention(
            x["query"], x["key"], x["value"], layout, mask, query_layout=query_layout, scale=0.3,
            backend="cpu",
        )  # fmt: skip

    compiled = torch.compile(run, backend=counter, fullgraph=True, dynamic=True)
    for num_dst, num_src, count in ((6, 7, 30), (11, 9, 50)):
        edges = random_edges(num_dst, num_src, count)
        case = Case(num_dst, num_src, edges, with_features=features)
        leaves = case.leaves(torch.float32)
        out, want = compiled(leaves, edges), run(leaves, edges)
        assert torch.equal(out, want)
        grads = (torch.autograd.grad(x.sum(), list(leaves.values())) for x in (out, want))
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    # the question whether there is a compiler is a graph of its own, of no node
    (graph,) = (g.graph for g in counter.graphs if g.graph.nodes)
    assert sum("pyg_gt" in str(node.target) for node in graph.nodes) == 1


def test_no_second_derivative() -> None:
    case = Case(4, 4, random_edges(4, 4, 6))
    leaves = case.leaves(torch.float32)
    (grad,) = torch.autograd.grad(
        case.ours(leaves).square().sum(), leaves["query"], create_graph=True
    )
    with pytest.raises(NotImplementedError, match="'cpu' backend.*'sparse'"):
        grad.sum().backward()


def test_an_edit_between_forward_and_backward_is_seen() -> None:
    case = Case(4, 4, random_edges(4, 4, 6))
    leaves = case.leaves(torch.float32)
    out = case.ours(leaves)
    with torch.no_grad():
        leaves["key"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_nothing_of_the_size_of_all_messages_is_made() -> None:
    peak = Path("/proc/self/clear_refs")
    if not os.access(peak, os.W_OK):
        pytest.skip("the peak of this process cannot be set back")
    case = Case(100, 100, random_edges(100, 100, 400_000), with_values=True)
    leaves = case.leaves(torch.float32)
    case.ours(leaves)  # the order of the edges is kept
    peak.write_text("5")
    before = peak_memory()
    case.ours(leaves).sum().backward()
    messages = 400_000 * case.heads * case.channels * 4
    assert peak_memory() - before < messages / 3


def peak_memory() -> int:
    """Of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_ends_that_another_thread_writes_to_are_read_once() -> None:
    """What was checked is what is used: no list of edges names a node that is not there."""
    nodes, count = 50, 20_000
    ends = torch.randint(nodes, (2, count), dtype=torch.int32)
    right, stop = ends.numpy().copy(), threading.Event()

    def write() -> None:
        numbers = ends.numpy()
        while not stop.is_set():
            numbers[:, ::7] = 2**31 - 1
            numbers[:] = right

    thread = threading.Thread(target=write)
    thread.start()
    refused = 0
    library, spare = EDGES.get(), EDGES.get().edges_spare()
    try:
        for _ in range(300):
            ptr, source, number = (
                torch.empty(n, dtype=torch.int32) for n in (nodes + 1, *(count + spare,) * 2)
            )
            at, *lists = (x.data_ptr() for x in (ends, ptr, source, number))
            most = library.edges_by_target(at, at + 4 * count, count, nodes, nodes, *lists)
            if most < 0:
                refused += 1
                continue
            assert ptr[0] == 0 and ptr[-1] == count and ptr.diff().min() >= 0
            assert ptr.diff().max() == most
            assert 0 <= source[:count].min() and source[:count].max() < nodes
            assert torch.equal(number[:count].sort().values, torch.arange(count).int())
    finally:
        stop.set()
        thread.join()
    assert 0 < refused


SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-march=native", "-fopenmp"), ()], ids=["native", "baseline"])
def test_sanitizers(flags: tuple[str, ...], tmp_path: Path) -> None:
    """No step outside of a buffer, no undefined behaviour, the numbers of plain loops."""
    program = tmp_path / "edges"
    here = Path(__file__).parent / "csrc" / "edges_main.cpp"
    include = Path(_cpu_edges.__file__).parent / "csrc"
    command = [*native.find_compiler(), "-std=c++17", "-O1", "-g", "-Wno-psabi"]
    command += [*SANITIZERS, *flags]
    done = subprocess.run(
        [*command, f"-I{include}", str(here), "-o", str(program)], capture_output=True, text=True
    )
    if "cannot find" in done.stderr:
        pytest.skip("this compiler comes without sanitizers")
    assert done.returncode == 0, done.stderr
    # libgomp keeps its threads
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([str(program)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "0 failures" in done.stdout, done.stdout + done.stderr
