"""The Triton kernels of full attention against the reference; run by ``test_triton_full``.

Without a GPU triton's interpreter must be switched on before triton is imported, so these tests
have a process of their own: ``TRITON_INTERPRET=1 pytest tests/ops/kernels/triton/full_cases.py``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import (
    EdgeBias,
    EdgeMask,
    GraphLayout,
    PairBias,
    TableBias,
    attention,
    qkv_attention,
)
from pyg_gt.ops import AttentionBias
from pyg_gt.ops import dispatch as _dispatch
from pyg_gt.ops._backends import reference as _reference
from pyg_gt.ops._backends import triton as _triton
from pyg_gt.ops._fused import full as _fused_full
from pyg_gt.ops._kernels.triton.availability import interprets
from pyg_gt.ops._kernels.triton.full import launches
from pyg_gt.ops._kernels.triton.full.attention import MAX_TABLE_ROWS
from pyg_gt.ops.dispatch import _inputs
from pyg_gt.ops.inputs import Inputs

from ...cases import BIASES, Case, layout_of, random_edges

INF = float("inf")
DEVICE = "cpu" if interprets() else "cuda"
OPS = torch.ops.pyg_gt
SAME = -2
needs_gpu = pytest.mark.skipif(interprets(), reason="on a CPU the op runs other kernels")
# the interpreter cuts float32 to bfloat16 where a GPU rounds
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

LAYOUTS = {
    "small": ([5, 64, 1, 23, 0, 17], None),
    "large": ([70, 3], None),
    "cross": ([3, 4, 9, 0, 20], [2, 0, 70, 5, 6]),
    "latents": ([100, 30, 0], [4, 4, 4]),
    "more queries than keys": ([3, 0], [80, 70]),
    "queries without keys": ([0, 2], [66, 1]),
    "keys without queries": ([66, 2], [0, 1]),
}


@pytest.fixture(autouse=True)
def multiply_and_add_rounds_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; the interpreter rounds the product too."""
    if not interprets():
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def create_fma(self: object, *factors_and_sum: TensorHandle) -> TensorHandle:
        x, y, z = (each.data for each in factors_and_sum)
        made = (x.astype("float64") * y + z).astype(z.dtype)
        return TensorHandle(made, factors_and_sum[2].dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", create_fma)


def make(
    name: str = "small",
    order: str = "unsorted",
    dtype: torch.dtype = torch.float32,
    heads: int = 1,
    channels: int = 8,
    bias: str = "none",
) -> Case:
    sizes, query_sizes = LAYOUTS[name]
    layout = layout_of(sizes, order, DEVICE)
    query_layout = layout if query_sizes is None else layout_of(query_sizes, order, DEVICE)
    case = Case(query_layout, layout, dtype, heads=heads, channels=channels)
    BIASES[bias](case)
    return case


def inputs_of(case: Case, dropout_p: float = 0.0, scale: float | None = None) -> Inputs:
    torch.manual_seed(7)  # of the dropout
    return _inputs(
        case.query, case.key, case.value, case.layout, case.biases, case.query_layout, scale,
        dropout_p,
    )  # fmt: skip


def attend(case: Case, dropout_p: float = 0.0, scale: float | None = None) -> Tensor:
    inputs = inputs_of(case, dropout_p, scale)
    assert _triton.unsupported(inputs) is None
    return _triton.forward(inputs)


def attend_joined(case: Case, qkv: Tensor, dropout_p: float = 0.0) -> Tensor:
    """With query, key and value of the case as parts of one tensor."""
    torch.manual_seed(7)
    inputs = _inputs(qkv, None, None, case.layout, case.biases, None, 0.3, dropout_p)
    return _triton.forward(inputs)


def gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    wave = torch.arange(out.numel(), device=out.device).view(out.shape).cos().to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, wave)]


def in_double(case: Case) -> Case:
    wide = Case(case.query_layout, case.layout, heads=case.heads, channels=case.channels)
    fields = ("query", "key", "value")
    for field in fields:
        setattr(wide, field, getattr(case, field).detach().double().requires_grad_())
    wide.biases = tuple(map(bias_in_double, case.biases))
    return wide


def bias_in_double(bias: AttentionBias) -> AttentionBias:
    return type(bias)(
        **{
            name: x.detach().double().requires_grad_() if is_float(x) else x
            for name, x in vars(bias).items()
        }
    )


def is_float(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def assert_is_the_reference(
    case: Case,
    dropout_p: float = 0.0,
    tolerance: float | None = None,
    scale: float | None = None,
) -> None:
    """Outputs and every gradient, against float64 with the same seed of the dropout."""
    tolerance = TOLERANCE[case.query.dtype] if tolerance is None else tolerance
    for name, error in errors(case, dropout_p, scale).items():
        assert error <= tolerance, name


def errors(case: Case, dropout_p: float = 0.0, scale: float | None = None) -> dict[str, float]:
    """The largest of the output and of each gradient, beside its largest number or 1."""
    got = gradients(attend(case, dropout_p, scale), list(case.leaves.values()))
    wide = in_double(case)
    out = _reference.forward(inputs_of(wide, dropout_p, scale))
    want = gradients(out, list(wide.leaves.values()))
    found = {}
    for name, a, b in zip(["out", *case.leaves], got, want, strict=True):
        assert a.shape == b.shape
        if b.numel():
            size = max(1.0, float(b.abs().max()))
            found[name] = float((a.double() - b).abs().max()) / size
    return found


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("bias", ["none", "additive"])
@pytest.mark.parametrize("name", ["small", "large", "cross"])
def test_it_is_the_reference(name: str, bias: str, dropout_p: float) -> None:
    assert_is_the_reference(make(name, heads=2, bias=bias), dropout_p)


@pytest.mark.parametrize("name", list(LAYOUTS)[3:])
def test_uneven_sides(name: str) -> None:
    assert_is_the_reference(make(name, bias="pair"), 0.3)


@pytest.mark.parametrize("bias", ["pair", "table-int32"])
def test_sorted_nodes(bias: str) -> None:
    assert_is_the_reference(make("large", "sorted", bias=bias), 0.3)


@pytest.mark.parametrize("channels", [1, 3, 16, 20, 64, 200, 256])
def test_head_widths(channels: int) -> None:
    sizes = [9, 33, 1] if channels < 100 else [9, 18]  # the latter in tiles at 256
    case = Case(*[layout_of(sizes, "unsorted", DEVICE)] * 2, torch.float32, channels=channels)
    BIASES["pair"](case)
    assert_is_the_reference(case, 0.3)


def test_a_wide_head_in_several_tiles() -> None:
    case = Case(*[layout_of([40], "unsorted", DEVICE)] * 2, torch.float32, channels=130)
    assert_is_the_reference(case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["small", "large"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    case = make(name, dtype=dtype, bias="additive")
    assert attend(case).dtype == dtype
    assert_is_the_reference(case, 0.3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_biases_of_another_type(dtype: torch.dtype) -> None:
    case = make("large")
    for bias in ("pair", "table-uint8"):
        other = Case(case.query_layout, case.layout, dtype, heads=1)
        BIASES[bias](other)
        case.biases = other.biases
        assert_is_the_reference(case, tolerance=None if dtype == torch.float64 else 3e-2)


@pytest.mark.parametrize("name", ["small", "large"])
def test_pairs_that_are_forbidden(name: str) -> None:
    case = make(name, "sorted", bias="pair-inf")
    assert not attend(case)[0].any()
    assert_is_the_reference(case, 0.3)


def negated(x: Tensor) -> Tensor:
    """``x`` as a view whose numbers are not those in memory."""
    view = torch.complex(x.detach(), -x.detach()).conj().imag
    assert view.is_neg() and torch.equal(view, x)
    return view


def assert_a_negated_gradient_is_read(leaf: Tensor, out: Tensor) -> None:
    wave = torch.arange(out.numel(), device=DEVICE).view(out.shape).cos()
    grads = [torch.autograd.grad(out, leaf, g, retain_graph=True) for g in (wave, negated(wave))]
    assert torch.equal(*grads[0], *grads[1])


@pytest.mark.parametrize("name", ["query", "key", "value", "pair", "table-uint8", "edge"])
@pytest.mark.parametrize("sizes", ["small", "large"])
def test_numbers_that_are_negated_when_they_are_read(sizes: str, name: str) -> None:
    case = make(sizes, "sorted", bias="none" if name in ("query", "key", "value") else name)
    want = attend(case)
    if name in ("query", "key", "value"):
        setattr(case, name, negated(getattr(case, name)))
    else:
        (bias,) = case.biases
        floats = {k: x for k, x in vars(bias).items() if is_float(x)}
        case.biases = (replace(bias, **{k: negated(x) for k, x in floats.items()}),)
        assert floats
    got = attend(case)
    assert torch.equal(got, want)
    assert_a_negated_gradient_is_read(case.key if name == "query" else case.query, got)


@pytest.mark.parametrize("sizes", [[40], [70]])
def test_scores_of_ten_thousand_keep_their_weights(sizes: list[int]) -> None:
    """A log-sum-exp in float32 would be off by 1e-3 there."""
    layout = GraphLayout.from_sizes(sizes, DEVICE)
    case = Case(layout, layout, torch.float32, heads=1, channels=1)
    with torch.no_grad():
        case.query.fill_(128.0)
        case.key.fill_(80.0)[::2] += 1 / 128  # scores are 10,240 and 10,241 exactly
    assert_is_the_reference(case)


@pytest.mark.parametrize("scale", [-0.7, 0.0])
@pytest.mark.parametrize("bias", ["none", "pair-inf"])
@pytest.mark.parametrize("name", ["small", "large"])
def test_a_scale_that_is_not_positive(name: str, bias: str, scale: float) -> None:
    assert_is_the_reference(make(name, "sorted", bias=bias), 0.3, scale=scale)


@pytest.mark.skipif(not interprets(), reason="a GPU cuts numbers itself")
@pytest.mark.parametrize("name", ["small", "large"])
def test_three_products_in_tf32_are_as_good_as_float32(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With factors cut as tensor cores cut them; the interpreter takes them as they are."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def cut(x: TensorHandle) -> TensorHandle:
        assert x.data.dtype == "float32"
        return TensorHandle((x.data.view("int32") & -8192).view("float32"), x.dtype)

    def create_dot(self: object, a: TensorHandle, b: TensorHandle, *rest: object) -> TensorHandle:
        return multiply(self, cut(a), cut(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    case = make(name, heads=2, channels=16, bias="pair")
    assert max(errors(case, 0.3).values()) < 2e-6
    monkeypatch.setattr(launches, "_precision", lambda dtype: "tf32")
    assert max(errors(case, 0.3).values()) > 1e-4  # of a single product


@pytest.mark.parametrize("rows", [1, 17, 129])
@pytest.mark.parametrize("name", ["small", "large"])
def test_tables(name: str, rows: int) -> None:
    """Those of more rows than the kernels go through take another way."""
    assert (rows > MAX_TABLE_ROWS) == (rows == 129)
    case = make(name)
    for dtype in (torch.uint8, torch.int64):
        index = torch.randint(rows, (case.pairs(),)).to(DEVICE, dtype)
        case.biases = (TableBias(case.leaf(rows, 1), index),)
        assert_is_the_reference(case)


@pytest.mark.parametrize("index", ["uint8", "int16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_indices_with_dropout(dtype: torch.dtype, index: str) -> None:
    """On a GPU, 8 bits made triton lay out products wrongly."""
    case = Case(*[layout_of([5, 20, 35], "unsorted", DEVICE)] * 2, dtype, heads=1, channels=8)
    BIASES[f"table-{index}"](case)
    assert_is_the_reference(case, 0.3)


def test_several_biases_of_one_kind_add_up() -> None:
    case = make(bias="additive")
    first = case.biases
    BIASES["additive"](case)
    case.biases += first
    assert_is_the_reference(case)


def test_one_edge_set_with_two_biases() -> None:
    case = make("cross")
    edges = random_edges(case.query_layout, case.layout, repeats=True)
    case.biases = tuple(EdgeBias(edges, case.leaf(edges.size(1), 1)) for _ in range(2))
    assert_is_the_reference(case)


@pytest.mark.parametrize("name", ["small", "large", "cross"])
@pytest.mark.parametrize("kind", ["head by head", "one for all heads", "every second"])
def test_pair_values_are_read_as_they_lie(kind: str, name: str) -> None:
    case = make(name, heads=2)
    count = num_pairs_of(case)
    if kind == "head by head":
        case.biases = (PairBias(case.leaf(2, count).t()),)
    elif kind == "one for all heads":
        case.biases = (PairBias(case.leaf(count, 1).expand(-1, 2)),)
    else:
        case.biases = (PairBias(case.leaf(count, 4)[:, ::2]),)
    assert_is_the_reference(case)


def test_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "_passes_32_bits", lambda *_: True)
    for name in ("small", "large"):
        assert_is_the_reference(make(name, bias="additive"))


def test_parts_of_a_joined_projection_are_read_where_they_lie() -> None:
    layout = layout_of([25, 70], "unsorted", DEVICE)
    joined = torch.randn(95, 3, 2, 16, device=DEVICE, requires_grad=True)
    case, apart = (Case(layout, layout, torch.float32, channels=16) for _ in range(2))
    case.query, case.key, case.value = joined.unbind(1)
    leaves = [x.detach().clone().requires_grad_() for x in joined.unbind(1)]
    apart.query, apart.key, apart.value = leaves
    assert all(launches.with_dense_channels(x) is x for x in joined.unbind(1))
    want = gradients(attend(apart), leaves)
    out, together = gradients(attend(case), [joined])
    assert torch.equal(out, want[0]) and torch.equal(together, torch.stack(want[1:], 1))


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("bias", ["none", "additive"])
@pytest.mark.parametrize(
    ("name", "dtype", "channels"),
    [
        ("small", torch.float32, 8), ("large", torch.float32, 8), ("large", torch.bfloat16, 16),
        ("small", torch.float16, 3),
    ],
)  # fmt: skip
def test_one_gradient_of_query_key_and_value(
    name: str, dtype: torch.dtype, channels: int, bias: str, dropout_p: float
) -> None:
    """Of the whole tensor, bit for bit what is put together from three."""
    case = make(name, heads=2, channels=channels, bias=bias, dtype=dtype)
    parts = [x.detach() for x in (case.query, case.key, case.value)]
    qkv = torch.stack(parts, 1).requires_grad_()
    leaves = [x for x in case.leaves.values() if all(x is not y for y in
              (case.query, case.key, case.value))]  # fmt: skip
    got = gradients(attend_joined(case, qkv, dropout_p), [qkv, *leaves])
    case.query, case.key, case.value = qkv.unbind(1)
    want = gradients(attend(case, dropout_p, 0.3), [qkv, *leaves])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert got[1].is_contiguous() and got[1].shape == qkv.shape


def batches_of_gradients(
    out: Tensor, leaves: list[Tensor], waves: Tensor
) -> list[tuple[Tensor, ...]]:
    """One batch; none by the interpreter, which says so: the op behind it runs other kernels."""
    if interprets():
        with pytest.raises(NotImplementedError, match="one gradient at a time"):
            torch.autograd.grad(out, leaves, waves, is_grads_batched=True, retain_graph=True)
        return []
    return [torch.autograd.grad(out, leaves, waves, is_grads_batched=True, retain_graph=True)]


def test_one_gradient_in_unusual_calls() -> None:
    """A scale below zero, a batch of gradients, a refused second derivative, no gradient."""
    case = make("small", heads=2)
    qkv = torch.stack([x.detach() for x in (case.query, case.key, case.value)], 1)
    qkv.requires_grad_()
    for scale in (-0.4, 0.3):
        inputs = _inputs(qkv, None, None, case.layout, (), None, scale, 0.0)
        got = gradients(_triton.forward(inputs), [qkv])
        inputs = _inputs(*qkv.unbind(1), case.layout, (), None, scale, 0.0)
        for a, b in zip(got, gradients(_triton.forward(inputs), [qkv]), strict=True):
            assert torch.equal(a, b)
    out = attend_joined(case, qkv)
    waves = torch.randn(2, *out.shape, device=DEVICE)
    for some in batches_of_gradients(out, [qkv], waves):
        for wave, one in zip(waves, some[0], strict=True):
            assert torch.equal(one, torch.autograd.grad(out, qkv, wave, retain_graph=True)[0])
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
    with pytest.raises(NotImplementedError, match="'triton' backend has no second derivative"):
        gradient.sum().backward()
    with torch.no_grad():
        assert torch.equal(attend_joined(case, qkv), out)


def test_the_backward_pass_in_the_calling_thread() -> None:
    """On a GPU torch has another one for it."""
    case = make("small", heads=2, bias="pair")
    results = []
    for multithreaded in (True, False, True, False):
        with torch.autograd.set_multithreading_enabled(multithreaded):
            results.append(gradients(attend(case, 0.3), list(case.leaves.values())))
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


def test_channels_that_do_not_lie_side_by_side() -> None:
    case = make("cross", heads=2)
    for name in ("query", "key", "value"):
        x = getattr(case, name).detach().transpose(1, 2).contiguous().transpose(1, 2)
        assert x.stride(2) != 1
        setattr(case, name, x.requires_grad_())
    assert_is_the_reference(case)
    out = attend(case)
    grad = torch.randn(out.shape, device=DEVICE)
    other = grad.transpose(1, 2).contiguous().transpose(1, 2)
    leaves = [case.query, case.key, case.value]
    got = torch.autograd.grad(out, leaves, other, retain_graph=True)
    assert all(map(torch.equal, got, torch.autograd.grad(out, leaves, grad)))


def test_an_expanded_gradient() -> None:
    case = make()
    leaves = [case.query, case.key, case.value]
    got = torch.autograd.grad(attend(case).sum(), leaves)  # its gradient has strides of zero
    want = torch.autograd.grad(attend(case), leaves, torch.ones_like(case.query))
    assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_companions_change_no_bit(dropout_p: float) -> None:
    """The first graph has the same numbers of its rows, hence the same dropout."""
    case = make("large", "sorted", bias="pair")
    both = gradients(attend(case, dropout_p), list(case.leaves.values()))
    one = Case(*[GraphLayout.from_sizes([70], DEVICE)] * 2, torch.float32, channels=8)
    for name in ("query", "key", "value"):
        setattr(one, name, getattr(case, name).detach()[:70].clone().requires_grad_())
    (bias,) = case.biases
    assert isinstance(bias, PairBias)
    one.biases = (PairBias(bias.values.detach()[: 70 * 70].clone().requires_grad_()),)
    alone = gradients(attend(one, dropout_p), list(one.leaves.values()))
    assert all(torch.equal(a, b[: a.size(0)]) for a, b in zip(alone, both, strict=True))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy in the interpreter
@pytest.mark.parametrize(("name", "poison"), [("small", INF), ("large", float("nan"))])
def test_what_is_no_number_stays_in_its_graph(name: str, poison: float) -> None:
    case = make(name, "sorted", bias="pair")
    before = gradients(attend(case, 0.3), list(case.leaves.values()))
    nodes, pairs = (5, 25) if name == "small" else (70, 4900)
    with torch.no_grad():
        for leaf in case.leaves.values():
            leaf[: pairs if leaf.dim() == 2 else nodes] = poison
    after = gradients(attend(case, 0.3), list(case.leaves.values()))
    assert after[0][:nodes].isnan().all()
    for a, b in zip(after, before, strict=True):
        first = pairs if a.dim() == 2 else nodes
        assert torch.equal(a[first:], b[first:])


@pytest.mark.parametrize("sizes", [[0], [0, 0], [1]])
def test_hardly_any_nodes(sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes, DEVICE)
    case = Case(layout, layout, torch.float32)
    BIASES["table-int64"](case)
    assert_is_the_reference(case)


def test_no_heads() -> None:
    out = attend(make("large", heads=0))
    assert out.shape == (73, 0, 8)


def test_everything_dropped() -> None:
    case = make()
    out, *grads = gradients(attend(case, 1.0), list(case.leaves.values()))
    assert not out.any() and not any(g.any() for g in grads)


def test_only_the_gradients_that_are_wanted() -> None:
    case = make(bias="additive")
    for leaf in case.leaves.values():
        leaf.requires_grad_(leaf is case.key)
    (grad,) = torch.autograd.grad(attend(case).sum(), case.key)
    assert grad.shape == case.key.shape


@needs_gpu
@pytest.mark.parametrize("name", ["small", "large"])
def test_eager_code_and_the_op_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(name, heads=2, bias="additive")
    directly = gradients(attend(case, 0.3), list(case.leaves.values()))
    monkeypatch.setattr(_fused_full, "has_raw_memory", lambda x: False)
    by_op = gradients(attend(case, 0.3), list(case.leaves.values()))
    assert all(map(torch.equal, directly, by_op))


def test_a_batch_of_gradients() -> None:
    case = make(bias="additive")
    leaves = list(case.leaves.values())
    out = attend(case, 0.3)
    waves = torch.randn(2, *out.shape, device=DEVICE)
    each = [torch.autograd.grad(out, leaves, wave, retain_graph=True) for wave in waves]
    for got in batches_of_gradients(out, leaves, waves):
        for found, wanted in zip(got, zip(*each, strict=True), strict=True):
            assert torch.equal(found, torch.stack(wanted))


def test_hooks_that_hand_back_other_tensors() -> None:
    """The backward pass takes nothing to be as it was left."""
    case = make("large", bias="additive")

    def smaller(x: Tensor) -> Tensor:
        return x.half() if x.is_floating_point() else x

    hooks = torch.autograd.graph.saved_tensors_hooks
    with hooks(smaller, lambda x: x):
        out = attend(case)
    with pytest.raises(ValueError, match="float16"):
        out.sum().backward()
    leaves = list(case.leaves.values())
    want = torch.autograd.grad(attend(case).sum(), leaves)
    with hooks(lambda x: x, lambda x: torch.stack([x, x], -1)[..., 0]):
        out = attend(case)  # the same numbers, not side by side
    assert all(map(torch.equal, torch.autograd.grad(out.sum(), leaves), want))


@needs_gpu
def test_fake_tensors_see_an_op() -> None:
    from torch._subclasses import FakeTensorMode

    case = make(bias="pair")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        query = mode.from_tensor(case.query.detach())
        inputs = _inputs(query, query, query, case.layout, case.biases, None, None, 0.0)
        assert _triton.forward(inputs).shape == query.shape


def test_there_is_no_second_derivative() -> None:
    case = make()
    (grad,) = torch.autograd.grad(attend(case).sum(), case.query, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def arguments(extras: str, dtype: torch.dtype = torch.float32) -> tuple:
    """Of the forward op."""
    batch = torch.tensor([1, 0, 3, 1, 0, 1], device=DEVICE)
    query_batch = torch.tensor([0, 1, 1, 2], device=DEVICE)
    cross, graphs = "cross" in extras, 4 if "cross" in extras else -1
    queries, pairs = (4, 8) if cross else (6, 14)
    edges = torch.tensor([[1, 4, 0, 0], [0, 0, 1, 1]] if cross else [[1, 4, 4], [1, 1, 4]])
    q, k, v = (torch.randn(n, 2, 3, device=DEVICE).to(dtype) for n in (queries, 6, 6))
    values, index = torch.randn(pairs, 2).to(DEVICE, dtype), torch.randint(5, (pairs,))
    return (
        *(q, k, v),
        values if "pairs" in extras else None,
        torch.randn(5, 2, device=DEVICE) if "table" in extras else None,
        torch.randn(edges.size(1), 2, device=DEVICE) if "edges" in extras else None,
        index.to(DEVICE) if "table" in extras else None,
        edges.to(DEVICE) if "edges" in extras else None,
        torch.tensor([5], device=DEVICE) if "seed" in extras else None,
        *(query_batch if cross else None, graphs if cross else SAME),
        *(batch, graphs, 0.5, 0.3 if "seed" in extras else 0.0),
    )


CALLS = ["", "pairs seed", "cross pairs table edges seed"]


@needs_gpu
@pytest.mark.parametrize("extras", CALLS)
def test_the_op_is_what_it_says(extras: str) -> None:
    """Schema, fakes and tracing."""
    given = arguments(extras, torch.bfloat16 if "pairs" in extras else torch.float32)
    torch.library.opcheck(OPS.full_attention, given)
    out, stats = OPS.full_attention(*given)
    needs = [x is not None for x in given[3:6]]
    call = (torch.randn_like(out), *given[:3], out, stats, *given[3:], needs)
    torch.library.opcheck(OPS.full_attention_backward, call)


@needs_gpu
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (1, torch.randn(6, 2, 4)),
        (3, torch.randn(13, 2)),
        (3, torch.randn(14, 3)),
        (4, None),
        (4, torch.randn(5, 1)),
        (5, torch.randn(2, 2)),
        (8, torch.tensor([5, 5])),
        (14, 1.5),
    ],
)
def test_the_op_checks_what_it_is_given(place: int, wrong: object) -> None:
    given = list(arguments("pairs table edges seed"))
    given[place] = wrong.to(DEVICE) if isinstance(wrong, Tensor) else wrong
    with pytest.raises(ValueError):
        OPS.full_attention(*given)


@needs_gpu
def test_traced_code_sees_one_graph_for_all_batches() -> None:
    def attention(qkv: Tensor, batch: Tensor, pairs: Tensor) -> Tensor:
        query, key, value = qkv.unbind(1)
        layout = GraphLayout.of(batch, qkv.size(0))
        inputs = _inputs(query, key, value, layout, (PairBias(pairs),), None, None, 0.0)
        assert _triton.unsupported(inputs) is None
        return _triton.forward(inputs)

    counter = CompileCounterWithBackend("aot_eager")
    traced = torch.compile(attention, fullgraph=True, backend=counter, dynamic=True)
    for sizes in ([3, 2], [4, 5, 0, 2], [70, 6]):
        layout = layout_of(sizes, "unsorted", DEVICE)
        leaves = [
            torch.randn(layout.num_nodes, 3, 2, 8, device=DEVICE, requires_grad=True),
            torch.randn(layout.num_pairs, 2, device=DEVICE, requires_grad=True),
        ]
        got, want = (f(leaves[0], layout.batch, leaves[1]) for f in (traced, attention))
        for a, b in zip(gradients(got, leaves), gradients(want, leaves), strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


KNOWN = {
    "full": lambda case: (),
    "mask": lambda case: (EdgeMask(random_edges(case.query_layout, case.layout, repeats=True)),),
    "mask with more": lambda case: (mask_with_more(case),),
    "table": lambda case: (table_of(case),),
    "all but a mask": lambda case: (PairBias(case.leaf(num_pairs_of(case), 2)), edges_of(case),
                                    table_of(case)),
    "mask and table": lambda case: (EdgeMask(random_edges(case.query_layout, case.layout)),
                                    table_of(case)),
}  # fmt: skip


def num_pairs_of(case: Case) -> int:
    return sum(a * b for a, b in zip(case.query_layout.sizes, case.layout.sizes, strict=True))


def table_of(case: Case) -> TableBias:
    index = torch.arange(num_pairs_of(case), dtype=torch.uint8, device=DEVICE) % 3
    return TableBias(case.leaf(3, case.heads), index)


def edges_of(case: Case) -> EdgeBias:
    edges = random_edges(case.query_layout, case.layout)
    return EdgeBias(edges, case.leaf(edges.size(1), case.heads))


def mask_with_more(case: Case) -> EdgeMask:
    edges = random_edges(case.query_layout, case.layout, repeats=True)
    count = edges.size(1)
    return EdgeMask(edges, case.leaf(count, case.heads), case.leaf(count, case.heads, 8))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each check of all arguments."""
    made: list[int] = []
    check = _dispatch.checked
    monkeypatch.setattr(_dispatch, "checked", lambda *args: made.append(1) or check(*args))
    return made


@pytest.mark.parametrize("query_sizes", [[5, 3], [2, 4]])
@pytest.mark.parametrize("kind", list(KNOWN))
def test_every_call_on_a_layout_is_checked_and_gives_the_same(
    kind: str, query_sizes: list[int], checks: list[int]
) -> None:
    query_layout = layout = layout_of([5, 3], "unsorted", DEVICE)
    if query_sizes != [5, 3]:
        query_layout = layout_of(query_sizes, "unsorted", DEVICE)
    case = Case(query_layout, layout, torch.float32, heads=2, channels=8)
    case.biases = KNOWN[kind](case)
    for p in (0.0, 0.3):
        torch.manual_seed(3)
        want = case.attention("reference", dropout_p=p)
        results = []
        checks.clear()
        for made in range(1, 4):
            torch.manual_seed(3)
            out = case.attention("triton", dropout_p=p)
            assert len(checks) == made
            results.append(gradients(out, list(case.leaves.values())))
        for other in results[1:]:
            assert all(map(torch.equal, other, results[0]))
        torch.testing.assert_close(results[0][0], want, rtol=0, atol=3e-5)
    for kwargs in ({"scale": 0.3}, {"dropout_p": 0.2}):
        torch.manual_seed(3)
        want = case.attention("reference", **kwargs)
        torch.manual_seed(3)
        torch.testing.assert_close(case.attention("triton", **kwargs), want, rtol=0, atol=3e-5)
    for bias in case.biases:
        if isinstance(bias, TableBias):  # the rows that were read before do not hold any more
            bias.index[0] = 1
            want = case.attention("reference")
            torch.testing.assert_close(case.attention("triton"), want, rtol=0, atol=3e-5)
    arguments = case.layout, case.biases
    more = {"query_layout": case.query_layout, "backend": "triton"}
    wrong = [case.query, case.key, case.value[:, :1]]
    with pytest.raises(ValueError, match="'key' and 'value' must have one shape"):
        attention(*wrong, *arguments, **more)
    with pytest.raises(ValueError, match="'dropout_p' must lie in"):
        attention(case.query, case.key, case.value, *arguments, dropout_p=1.5, **more)
    with pytest.raises(ValueError, match="'key' has 7 nodes, but its layout describes 8"):
        attention(case.query, case.key[1:], case.value[1:], *arguments, **more)


@pytest.mark.parametrize("kind", list(KNOWN))
def test_one_tensor_and_its_parts_give_the_same(kind: str, checks: list[int]) -> None:
    layout = layout_of([5, 3], "unsorted", DEVICE)
    case = Case(layout, layout, torch.float32, heads=2, channels=8)
    case.biases = KNOWN[kind](case)
    qkv = torch.stack([x.detach() for x in (case.query, case.key, case.value)], 1)
    leaves = [qkv.requires_grad_(), *list(case.leaves.values())[3:]]

    def run(whole: bool) -> list[Tensor]:
        torch.manual_seed(3)
        arguments = layout, case.biases
        more = {"dropout_p": 0.3, "backend": "triton"}
        if whole:
            return gradients(qkv_attention(qkv, *arguments, **more), leaves)
        return gradients(attention(*qkv.unbind(1), *arguments, **more), leaves)

    results = [run(whole) for whole in (True, True, False, True, False)]
    assert len(checks) == 5
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))
    with pytest.raises(ValueError, match="'qkv' must be a tensor of shape"):
        qkv_attention(qkv[:, :2], layout, case.biases, backend="triton")
    with pytest.raises(ValueError, match="7 nodes, but its layout describes 8"):
        qkv_attention(qkv[1:], layout, case.biases, backend="triton")


def test_transforms_are_refused_after_a_plain_call_too() -> None:
    case = make("small")
    case.attention("triton")
    before = (case.query, case.key, case.value)
    with torch.autograd.forward_ad.dual_level():
        key = torch.autograd.forward_ad.make_dual(case.key.detach(), torch.ones_like(case.key))
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            attention(case.query, key, case.value, case.layout, backend="triton")
    with pytest.raises(NotImplementedError, match="no rule for 'torch.func'"):
        torch.func.grad(lambda q: attention(q, *before[1:], case.layout, backend="triton").sum())(
            case.query.detach()
        )
    assert torch.equal(case.attention("triton"), case.attention("triton"))
