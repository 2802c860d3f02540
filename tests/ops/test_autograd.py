"""Second derivatives, forward mode, torch.func, and tensors that hold no values."""

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
    explain_choice,
)

from .cases import BIASES, CPU, Case, dtype_of, layout_of, make_case, unsupported

TWICE = [
    ("reference", "none"),
    ("reference", "additive"),
    ("reference", "mods"),
    ("reference", "mask-values-features-repeats"),
    ("sparse", "mask-values-features-repeats"),
    ("sparse", "edge-on-mask"),
    ("sdpa", "mods"),
]
NO_SECOND = [
    pytest.param("cpu", bias, marks=pytest.mark.compiled)
    for bias in ("none", "additive", "mask", "mask-values-features-repeats")
]


def function_of(case: Case, backend: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Attention as a function of every tensor it reads."""
    leaves = list(case.leaves.values())

    def run(query: Tensor, key: Tensor, value: Tensor, *fields: Tensor) -> Tensor:
        rest = list(fields)
        biases = []
        for bias in case.biases:
            changed = {
                name: rest.pop(0)
                for name, x in vars(bias).items()
                if isinstance(x, Tensor) and x.is_floating_point()
            }
            biases.append(type(bias)(**{**vars(bias), **changed}))
        return attention(
            query, key, value, case.layout, biases, query_layout=case.query_layout,
            backend=backend,
        )  # fmt: skip

    return run, leaves[: len(leaves) - len(case.captured)]


@pytest.mark.parametrize(("backend", "bias"), TWICE)
def test_second_derivatives(backend: str, bias: str) -> None:
    layout = layout_of([2, 0, 3], "unsorted")
    case = Case(layout_of([1, 2, 2], "unsorted"), layout)
    BIASES[bias](case)
    run, leaves = function_of(case, backend)
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("backend", "bias"), [("sdpa", "none"), *NO_SECOND])
def test_second_derivatives_are_refused_in_words(backend: str, bias: str, joined: bool) -> None:
    case = make_case(bias, dtype=dtype_of(backend))
    if joined:
        whole = torch.randn(16, 3, 2, 3, dtype=case.dtype, requires_grad=True)
        case.query, case.key, case.value = whole.unbind(1)
    for leaf in case.leaves.values():
        out = case.attention(backend).square().sum()
        (gradient,) = torch.autograd.grad(out, leaf, create_graph=True)
        message = f"'{backend}' backend has no second derivative.*('sparse'|'reference')"
        with pytest.raises(NotImplementedError, match=message):
            gradient.sum().backward()
    # nor may a part of it pass for the whole
    out = case.attention(backend).square().sum() + case.query.pow(3).sum()
    (gradient,) = torch.autograd.grad(out, case.query, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(gradient.sum(), case.query)


@pytest.mark.parametrize(("backend", "bias"), TWICE)
def test_forward_mode(backend: str, bias: str) -> None:
    case = make_case(bias, "unsorted", "cross")
    run, leaves = function_of(case, backend)
    tangents = [torch.randn_like(x) for x in leaves]
    with forward_ad.dual_level():
        out = run(*map(forward_ad.make_dual, leaves, tangents))
        got = forward_ad.unpack_dual(out).tangent
    # <w, J t> = <J^T w, t>
    wave = torch.randn_like(got)
    gradients = torch.autograd.grad(run(*leaves), leaves, wave)
    want = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    torch.testing.assert_close((got * wave).sum(), want)
    assert want.abs() > 1e-3


@pytest.mark.parametrize(
    ("bias", "which"),
    [
        *((bias, i) for bias in ("pair", "table-int64", "mask-values") for i in range(4)),
        *(("none", i) for i in range(3)),
    ],
)
def test_forward_mode_finds_a_backend_that_can(bias: str, which: int) -> None:
    """In float32 without gradients, where every backend but these would run."""
    case = make_case(bias, dtype=torch.float32, grad=False)
    run, leaves = function_of(case, "auto")
    tangent = torch.randn_like(leaves[which])
    plain = list(leaves)

    def moved(step: float) -> Tensor:
        shifted = [x.double() for x in plain]
        shifted[which] += step * tangent
        double = make_case(bias, grad=False)
        double.biases = case.biases
        double_run, _ = function_of(double, "reference")
        return double_run(*shifted)

    with forward_ad.dual_level():
        leaves[which] = forward_ad.make_dual(leaves[which], tangent)
        got = forward_ad.unpack_dual(run(*leaves)).tangent
        assert got is not None
        for backend in ("sdpa", "cpu"):
            named, _ = function_of(case, backend)
            with pytest.raises(NotImplementedError, match=f"'{backend}'.*forward-mode"):
                named(*leaves)
        if bias != "pair":
            named, _ = function_of(case, "flex")
            with pytest.raises(NotImplementedError, match="'flex'.*forward-mode"):
                named(*leaves)
    want = (moved(1e-4) - moved(-1e-4)) / 2e-4
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-4)
    assert want.abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("backend", "bias"), [*TWICE, ("auto", "none"), ("auto", "pair"), ("auto", "mask-values")]
)
def test_vmap(backend: str, bias: str, dtype: torch.dtype) -> None:
    case = make_case(bias, "unsorted", "cross", dtype, grad=False)
    run, leaves = function_of(case, backend)
    stacked = [torch.stack([x, x.sin(), 2 * x]) for x in leaves]
    got = torch.vmap(run)(*stacked)
    want = torch.stack([run(*xs) for xs in zip(*stacked, strict=True)])
    torch.testing.assert_close(got, want)
    over_values = torch.vmap(run, (None, None, 0, *[None] * (len(leaves) - 3)))
    got = over_values(*leaves[:2], stacked[2], *leaves[3:])
    torch.testing.assert_close(
        got, torch.stack([run(*leaves[:2], v, *leaves[3:]) for v in stacked[2]])
    )


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad, torch.func.jacfwd])
@pytest.mark.parametrize("backend", ["sdpa", "flex", CPU])
def test_a_backend_that_is_no_torch_function_says_so(
    backend: str, transform: Callable[..., Callable[..., Tensor]]
) -> None:
    case = make_case("none", dtype=torch.float32, grad=False)
    run, (q, k, v) = function_of(case, backend)
    query = q[None] if transform is torch.func.vmap else q
    with pytest.raises(NotImplementedError, match=f"'{backend}'.*torch.func"):
        transform(lambda x: run(x, k, v).sum())(query)


@pytest.mark.parametrize("bias", ["none", "additive", "mods", "mask-values"])
def test_torch_func_grad_finds_a_backend_that_can(bias: str) -> None:
    case = make_case(bias, dtype=torch.float32, grad=False)
    run, leaves = function_of(case, "auto")
    got = torch.func.grad(lambda *xs: run(*xs).square().sum(), argnums=(0, 1, 2))(*leaves)
    leaves[:3] = [x.requires_grad_() for x in leaves[:3]]
    want = torch.autograd.grad(run(*leaves).square().sum(), leaves[:3])
    torch.testing.assert_close(got, want)


def arguments(device: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"query": (9, 2, 4), "key": (9, 2, 4), "value": (9, 2, 4), "pairs": (29, 2)}
    found = {n: torch.randn(*s, dtype=dtype).to(device) for n, s in shapes.items()}
    found["batch"] = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2]).to(device)
    found["edges"] = torch.tensor([[0, 2, 5, 8], [1, 3, 5, 7]]).to(device)
    found["values"] = torch.randn(4, 2, dtype=dtype).to(device)
    found["features"] = torch.randn(4, 2, 4, dtype=dtype).to(device)
    found["index"] = torch.randint(5, (29,)).to(device)
    found["table"] = torch.randn(5, 2, dtype=dtype).to(device)
    return found


def call(x: dict[str, Tensor], biases: str, backend: str = "auto") -> Tensor:
    made = {
        "none": (),
        "no batch": (),
        "pair": (PairBias(x["pairs"]),),
        "table": (TableBias(x["table"], x["index"]),),
        "mask": (EdgeMask(x["edges"], x["values"]),),
        "features": (EdgeMask(x["edges"], None, x["features"]),),
        "mod": (ScoreMod(lambda score, graph, head, q, k: score * 2),),
    }[biases]
    batch = None if biases == "no batch" else x["batch"]
    layout = GraphLayout.of(batch, 9, device=x["query"].device)
    return attention(x["query"], x["key"], x["value"], layout, made, backend=backend)


@pytest.mark.parametrize("biases", ["none", "no batch", "pair", "table", "mask", "features"])
def test_meta_tensors_give_shapes_and_gradients(biases: str) -> None:
    x = arguments("meta", torch.bfloat16)
    for name, tensor in x.items():
        x[name] = tensor.requires_grad_() if tensor.is_floating_point() else tensor
    out = call(x, biases)
    assert (out.shape, out.dtype, out.device.type) == ((9, 2, 4), torch.bfloat16, "meta")
    (gradient,) = torch.autograd.grad(out.sum(), x["key"])
    assert gradient.shape == (9, 2, 4) and gradient.is_meta


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("biases", ["none", "no batch", "pair", "table", "mask", "features"])
def test_fake_tensors_give_shapes_and_leave_nothing_behind(
    biases: str, dtype: torch.dtype
) -> None:
    with FakeTensorMode():
        x = arguments("cpu", dtype)
        x = {n: t.requires_grad_() if t.is_floating_point() else t for n, t in x.items()}
        out = call(x, biases)
        assert (out.shape, out.dtype, out.device.type) == ((9, 2, 4), dtype, "cpu")
        assert type(out).__name__ == "FakeTensor"
        (gradient,) = torch.autograd.grad(out.sum(), x["key"])
        assert type(gradient).__name__ == "FakeTensor" and gradient.shape == (9, 2, 4)
    x = arguments("cpu", dtype)
    out = call(x, biases)
    assert type(out) is Tensor
    torch.testing.assert_close(out, call(x, biases, "reference"))


@pytest.mark.parametrize("mode", ["meta", "fake"])
def test_what_needs_values_is_refused_in_words(mode: str) -> None:
    def check(x: dict[str, Tensor]) -> None:
        with pytest.raises(NotImplementedError, match="'reference'.*without values"):
            call(x, "none", "reference")
        with pytest.raises(NotImplementedError, match="No backend can.*sdpa: a 'ScoreMod' needs"):
            call(x, "mod")
        layout = GraphLayout.of(x["batch"], 9)
        mod = ScoreMod(lambda score, graph, head, q, k: score)
        lines = explain_choice(x["query"], x["key"], x["value"], layout, (mod,))
        assert "chosen" not in lines.values()

    if mode == "meta":
        check(arguments("meta"))
    else:
        with FakeTensorMode():
            check(arguments("cpu"))


@pytest.mark.parametrize("bias", ["none", "pair", "edge", "mods", "mask-values-repeats"])
@pytest.mark.parametrize("order", ["sorted", "unsorted", "one graph"])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "sparse", CPU])
def test_training_may_follow_an_evaluation_in_inference_mode(
    backend: str, order: str, bias: str
) -> None:
    """What an evaluation has made and cached must not be an inference tensor."""
    batch = None if order == "one graph" else layout_of([4, 0, 5], order).batch.clone()
    layout = GraphLayout.of(batch, 9)
    case = Case(layout, layout, dtype_of(backend))
    BIASES[bias](case)
    if (reason := unsupported(case, backend)) is not None:
        pytest.skip(reason)
    wanted = torch.autograd.grad(case.attention(backend).sum(), list(case.leaves.values()))
    batch = None if batch is None else batch.clone()
    case.biases = tuple(
        type(b)(b.edges.int(), b.values) if isinstance(b, (EdgeBias, EdgeMask)) else b
        for b in case.biases
    )
    GraphLayout.of(None, 2)  # puts the last layout of one graph out of the cache
    with torch.inference_mode():
        case.layout = case.query_layout = GraphLayout.of(batch, 9)
        case.attention(backend)
    case.layout = case.query_layout = GraphLayout.of(batch, 9)
    gradients = torch.autograd.grad(case.attention(backend).sum(), list(case.leaves.values()))
    torch.testing.assert_close(gradients, wanted)


def test_a_batch_made_in_inference_mode() -> None:
    with torch.inference_mode():
        batch = torch.tensor([0, 1, 0, 1, 1])
        edges = torch.tensor([[0, 1, 3], [2, 3, 4]])
        q, k, v = torch.randn(3, 5, 2, 4).unbind()
        first = attention(q, k, v, GraphLayout.of(batch, 5))
        batch[0] = 1
        second = attention(q, k, v, GraphLayout.of(batch, 5))
        assert not torch.equal(first, second)  # nothing was remembered of the old values
        want = attention(q, k, v, GraphLayout.from_batch(torch.tensor([1, 1, 0, 1, 1])))
        assert torch.equal(second, want)
        mask = (EdgeMask(edges),)
        first = attention(q, k, v, GraphLayout.of(None, 5), mask)
        edges[0, 0] = 4
        assert not torch.equal(first, attention(q, k, v, GraphLayout.of(None, 5), mask))
    q, k, v = (x.clone().requires_grad_() for x in (q, k, v))
    got = attention(q, k, v, GraphLayout.of(batch, 5))
    assert torch.equal(got, want)
    got.sum().backward()  # the layout of an inference tensor can be saved
    assert q.grad is not None and q.grad.any()


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_layouts_made_inside_a_transform_hold_plain_tensors(
    transform: Callable[..., Callable[..., Tensor]],
) -> None:
    """Its wrappers have no memory, and die with it; eager code finds the layouts again."""
    batch, edges = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([[0, 1, 3], [2, 3, 4]])
    x = torch.randn(5, 2, 4)

    def run(x: Tensor, batch: Tensor, edges: Tensor) -> Tensor:
        layout = GraphLayout.of(batch, 5)
        assert isinstance(layout, GraphLayout)
        found = EdgeLayout.of(edges, 5)
        made.append((layout, found))
        return attention(x, x, x, layout, (EdgeMask(found),)).sum()

    made: list[tuple[GraphLayout, EdgeLayout]] = []
    transform(run)(x, batch, edges)
    made.clear()
    transform(lambda x: run(x, batch, edges))(x)
    for layout, found in made:
        tensors = layout.ptr, layout.batch, layout.pos, layout.order, found.edge_index
        assert all(t.data_ptr() for t in tensors)
    assert GraphLayout.of(batch, 5) is layout and EdgeLayout.of(edges, 5) is found
    want = attention(x, x, x, layout, (EdgeMask(edges),), backend="reference")
    torch.testing.assert_close(attention(x, x, x, layout, (EdgeMask(edges),)), want)
