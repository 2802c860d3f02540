"""The compiled backend behind its ops: nothing unchecked reaches an address, in any mode."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    PairBias,
    TableBias,
    attention,
    explain_choice,
    native,
)
from pyg_gt.nn import GPSConv, MaskedTransformerConv
from pyg_gt.ops import dropout as _philox
from pyg_gt.ops._kernels.cpu import full as _cpu_full
from pyg_gt.ops._kernels.cpu.edges_library import EDGES
from pyg_gt.ops._kernels.cpu.full import FULL
from pyg_gt.testing import assert_same_attention

from ..cases import BIASES, Case, layout_of, make_case, unsupported

pytestmark = [
    pytest.mark.compiled,
]
OPS = torch.ops.pyg_gt
SAME = -2
NAMES = (
    "query key value pairs table edge_values index edges seed query_batch query_graphs batch "
    "graphs scale dropout_p"
).split()


def given(**changes: object) -> dict:
    """Arguments of ``cpu_full``: graphs of 3 and 2 nodes, every bias, dropout."""
    torch.manual_seed(0)
    arguments = {
        **{name: torch.randn(5, 2, 4) for name in ("query", "key", "value")},
        "pairs": torch.randn(13, 2),
        "table": torch.randn(3, 2),
        "edge_values": torch.randn(4, 2),
        "index": torch.randint(3, (13,)),
        "edges": torch.tensor([[0, 1, 2, 4], [1, 1, 0, 3]]),
        "seed": torch.tensor([9]),
        "query_batch": None,
        "query_graphs": SAME,
        "batch": torch.tensor([0, 0, 0, 1, 1]),
        "graphs": 2,
        "scale": 0.5,
        "dropout_p": 0.25,
    }
    assert list(arguments) == NAMES
    return {**arguments, **changes}


def forward(**changes: object) -> tuple[Tensor, Tensor]:
    return OPS.full_attention(*given(**changes).values())


def backward(**changes: object) -> tuple[Tensor, ...]:
    """The op, with what the forward pass gives for arguments that fit."""
    out, stats = forward()
    first = {"grad": torch.ones(5, 2, 4), "out": out, "stats": stats, "needs": [True] * 3}
    first = {name: changes.pop(name, x) for name, x in first.items()}
    query, key, value, *rest = given(**changes).values()
    return OPS.full_attention_backward(
        first["grad"], query, key, value, first["out"], first["stats"], *rest, first["needs"]
    )


def test_without_a_change_they_run() -> None:
    assert forward()[0].shape == (5, 2, 4)
    shapes = [list(x.shape) for x in backward()]
    assert shapes == [[5, 2, 4]] * 3 + [[13, 2], [3, 2], [4, 2]]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({n: torch.ones(5, 2, 4).int() for n in NAMES[:3]}, NotImplementedError, "int32"),
        ({n: torch.randn(5, 2, 0) for n in NAMES[:3]}, ValueError, "and channels"),
        ({n: torch.randn(5, 8) for n in NAMES[:3]}, ValueError, "must have shape"),
        ({"query": torch.randn(6, 2, 4)}, ValueError, "6 queries, but their layout is the keys'"),
        ({"query": torch.randn(4, 2, 4)}, ValueError, "4 queries, but their layout is the keys'"),
        (
            {"query": torch.randn(6, 2, 4), "query_graphs": -1, "query_batch": given()["batch"]},
            ValueError,
            "'batch' describes 5 nodes, but there are 6",
        ),
        ({"query": torch.randn(5, 2, 4).bfloat16()}, ValueError, "'key' must have.*bfloat16"),
        ({"key": torch.randn(5, 2, 4).bfloat16()}, ValueError, "'key' must have.*float32"),
        ({"key": torch.randn(5, 2, 3)}, ValueError, r"'key' must have shape \[5, 2, 4\]"),
        ({"key": torch.randn(5, 3, 4)}, ValueError, r"'key' must have shape \[5, 2, 4\]"),
        ({"value": torch.randn(4, 2, 4)}, ValueError, r"'value' must have shape \[5, 2, 4\]"),
        ({"value": torch.randn(5, 2, 4).double()}, ValueError, "'value' must have.*float64"),
        ({"pairs": torch.randn(12, 2)}, ValueError, "12 pairs, but the layout has 13"),
        ({"pairs": torch.randn(13, 1)}, ValueError, r"'pairs' must have shape \[13, 2\]"),
        ({"pairs": torch.ones(13, 2).int()}, ValueError, "'pairs' must have.*int32"),
        ({"table": torch.randn(3, 3)}, ValueError, r"'table' must have shape \[3, 2\]"),
        ({"table": torch.ones(3, 2).int()}, ValueError, "'table' must have.*int32"),
        ({"table": None}, ValueError, "'table' needs an 'index'"),
        ({"index": None}, ValueError, "'table' needs an 'index'"),
        ({"index": torch.zeros(12).long()}, ValueError, "12 pairs, but the layout has 13"),
        ({"index": torch.zeros(13)}, ValueError, "vector of uint8"),
        ({"index": torch.zeros(13, dtype=torch.int8)}, ValueError, "vector of uint8"),
        ({"index": torch.full((13,), 3)}, IndexError, "table index 3.*3 rows"),
        ({"index": torch.full((13,), -1)}, IndexError, "table index -1"),
        ({"edges": None}, ValueError, "'edge_values' need 'edges'"),
        ({"edge_values": None}, ValueError, "'edge_values' need 'edges'"),
        ({"edge_values": torch.randn(3, 2)}, ValueError, r"'edge_values' must .*\[4, 2\]"),
        ({"edge_values": torch.ones(4, 2).int()}, ValueError, "'edge_values' must.*int32"),
        ({"edges": torch.tensor([[0, 1, 2, 5], [1, 1, 0, 3]])}, IndexError, "source index 5"),
        ({"edges": torch.tensor([[0, 1, 2, 4], [1, 1, 0, -1]])}, IndexError, "target index -1"),
        ({"edges": torch.tensor([[0, 1, 2, 4], [1, 1, 0, 2]])}, ValueError, "joins node 4"),
        ({"edges": torch.zeros(4).long()}, ValueError, r"shape \[2, E\]"),
        ({"seed": torch.tensor([1, 2])}, ValueError, r"'seed' must have shape \[1\]"),
        ({"seed": torch.tensor(1)}, ValueError, r"'seed' must have shape \[1\]"),
        ({"seed": torch.tensor([1.0])}, ValueError, "'seed' must have.*int64"),
        ({"seed": torch.tensor([], dtype=torch.int64)}, ValueError, "'seed' must have"),
        ({"batch": torch.tensor([0, 0, 0, 1])}, ValueError, "describes 4 nodes"),
        ({"batch": torch.tensor([0, 0, -1, 1, 1])}, ValueError, "negative"),
        ({"graphs": 1}, ValueError, "only 1 graphs"),
        ({"dropout_p": -0.1}, ValueError, "'dropout_p' must lie"),
        ({"dropout_p": 1.5}, ValueError, "'dropout_p' must lie"),
        ({"dropout_p": float("nan")}, ValueError, "'dropout_p' must lie"),
    ],
)
def test_ops_check_what_they_are_handed(
    changes: dict, error: type[Exception], says: str
) -> None:
    """They can be called by anybody, and what lies behind them reads addresses."""
    with pytest.raises(error, match=says):
        forward(**changes)
    with pytest.raises((error, ValueError), match=f"{says}|'grad' must have"):
        backward(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grad": torch.ones(4, 2, 4)}, "'grad' must have shape"),
        ({"grad": torch.ones(5, 2, 4).int()}, "'grad' must have.*int32"),
        ({"out": torch.ones(5, 1, 4)}, "'out' must have shape"),
        ({"out": torch.ones(5, 2, 4).bfloat16()}, "'out' must have.*bfloat16"),
        ({"stats": torch.ones(5, 2, 1)}, r"'stats' must have shape \[5, 2, 2\]"),
        ({"stats": torch.ones(5, 2, 2).bfloat16()}, "'stats' must have.*bfloat16"),
        ({"needs": [True]}, "'needs' must hold 3"),
        ({"needs": [True] * 4}, "'needs' must hold 3"),
    ],
)
def test_the_backward_op_checks_what_the_forward_op_gave(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        backward(**changes)


def test_any_strides_and_any_sign_of_the_scale() -> None:
    wide = {n: torch.randn(5, 4, 2).transpose(1, 2) for n in NAMES[:3]}
    wide |= {n: torch.stack([given()[n]] * 2, -1)[..., 0] for n in NAMES[3:7]}
    wide["edges"] = given()["edges"].t().contiguous().t()
    wide["seed"] = torch.tensor([9, 8])[::2]
    out, stats = forward(**wide, scale=-0.5)
    dense = {n: x.contiguous() for n, x in wide.items()}
    want, want_stats = forward(**dense, scale=-0.5)
    assert torch.equal(out, want) and torch.equal(stats, want_stats)
    odd = {"out": out.transpose(1, 2).contiguous().transpose(1, 2), "stats": stats}
    odd["grad"] = torch.ones(1).expand(5, 2, 4)
    grads = backward(**wide, **odd, scale=-0.5)
    wants = backward(**dense, out=want, stats=stats, scale=-0.5)
    assert all(map(torch.equal, grads, wants))


def test_a_gradient_of_another_type() -> None:
    """As autocast may hand it back."""
    grads = backward(grad=torch.ones(5, 2, 4).bfloat16())
    assert all(map(torch.equal, grads, backward()))


@pytest.mark.parametrize("name", [*NAMES[:6], "grad"])
def test_a_negated_view_and_zeros_without_memory(name: str) -> None:
    """Their numbers are not those in memory; at the op and behind the door of ``attention``."""
    x = given()
    source = torch.randn(5, 2, 4) if name == "grad" else x[name]
    negated = torch.complex(source, -source).conj().imag
    assert negated.is_neg() and torch.equal(negated, source)
    views = [(negated, source)]
    if name not in ("grad", "edge_values"):
        views.append((torch._efficientzerotensor(source.shape), torch.zeros(source.shape)))

    def run(changed: Tensor) -> list[Tensor]:
        now = {**x, name: changed}
        biases = (
            PairBias(now["pairs"]),
            TableBias(now["table"], x["index"]),
            EdgeBias(x["edges"], now["edge_values"]),
        )
        leaf = now["value"] if name == "query" else now["query"]
        leaf.requires_grad_()
        torch.manual_seed(3)
        out = attention(
            now["query"], now["key"], now["value"], GraphLayout.from_batch(x["batch"]), biases,
            dropout_p=0.25, backend="cpu",
        )  # fmt: skip
        grad = changed if name == "grad" else torch.ones_like(out)
        found = [out.detach(), *torch.autograd.grad(out, leaf, grad)]
        return found + list(backward(**{name: changed}))

    for view, plain in views:
        for got, want in zip(run(view), run(plain), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("row", [0, 1])
def test_an_edit_that_torch_does_not_see_is_not_read(row: int) -> None:
    """Through numpy: a caller's tensor is checked again, and a layout's own goes unread."""
    edges = torch.tensor([[0, 1, 2, 4], [1, 1, 0, 3]])
    x = given(edges=edges)
    OPS.full_attention(*x.values())
    edges.numpy()[row, 2] = 2**40
    with pytest.raises(IndexError, match="index 1099511627776"):
        OPS.full_attention(*x.values())
    layout, q = GraphLayout.of(None, 5), x["query"]
    edges.numpy()[row, 2] = 0
    mask = (EdgeMask(EdgeLayout.of(edges.clone(), 5)),)
    want = attention(q, q, q, layout, mask, backend="cpu")
    mask[0].edges.edge_index.numpy()[row, 2] = 2**40
    mask[0].edges.ends.numpy()[row, 2] = 2**30
    assert torch.equal(attention(q, q, q, layout, mask, backend="cpu"), want)


@pytest.mark.parametrize("bias", ["additive", "mask-values-features-repeats"])
def test_a_batch_of_gradients(bias: str) -> None:
    case = make_case(bias, dtype=torch.float32)
    leaves = list(case.leaves.values())
    out = case.attention("cpu")
    waves = torch.randn(3, *out.shape)
    got = torch.autograd.grad(out, leaves, waves, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(out, leaves, wave, retain_graph=True) for wave in waves]
    for found, wanted in zip(got, zip(*each, strict=True), strict=True):
        assert torch.equal(found, torch.stack(wanted))


@pytest.mark.parametrize("bias", ["additive", "mask-values-features-repeats"])
def test_hooks_that_hand_back_other_tensors(bias: str) -> None:
    """The backward pass takes nothing to be as it was left."""
    case = make_case(bias, dtype=torch.float32)

    def smaller(x: Tensor) -> Tensor:
        return x.half() if x.is_floating_point() else x

    with torch.autograd.graph.saved_tensors_hooks(smaller, lambda x: x):
        out = case.attention("cpu")
    with pytest.raises((ValueError, NotImplementedError), match="float16"):
        out.sum().backward()
    packed = torch.autograd.graph.saved_tensors_hooks(
        lambda x: x, lambda x: torch.stack([x, x], -1)[..., 0]
    )
    want = torch.autograd.grad(case.attention("cpu").sum(), list(case.leaves.values()))
    with packed:  # the same numbers, not side by side
        out = case.attention("cpu")
    got = torch.autograd.grad(out.sum(), list(case.leaves.values()))
    assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_are_computed_in_torch_operations(dtype: torch.dtype) -> None:
    """As on a machine without a compiler: a program is exported for whatever runs it."""
    names = [*NAMES[:6]]
    call = {n: x.to(dtype) if n in names else x for n, x in given().items()}
    torch.library.opcheck(OPS.full_attention, tuple(call.values()))
    out, stats = OPS.full_attention(*call.values())
    exact = {n: x.double() if n in names else x for n, x in call.items()}
    want = OPS.full_attention(*exact.values())
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want[0], rtol=2e-3, atol=2e-3)
    query, key, value, *rest = call.values()
    backward = torch.ones_like(out), query, key, value, out, stats, *rest, [True] * 3
    torch.library.opcheck(OPS.full_attention_backward, backward)


def test_without_a_compiler_the_ops_compute_in_torch_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = given(dropout_p=0.0, seed=None)
    leaves = [x[n].requires_grad_() for n in NAMES[:6]]
    want = OPS.full_attention(*x.values())[0]
    wants = torch.autograd.grad(want.square().sum(), leaves)
    monkeypatch.setenv(native.SWITCH, "0")
    got = OPS.full_attention(*x.values())[0]
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got.square().sum(), leaves), wants, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for_is_differentiated() -> None:
    needs = [False, True, False]
    assert [x.numel() for x in backward(needs=needs)[3:]] == [0, 6, 0]


class Watched:
    """A compiled library that notes which functions are asked for."""

    def __init__(self, library: object, calls: list[str]) -> None:
        self.library = library
        self.calls = calls

    def __getattr__(self, name: str) -> object:
        self.calls.append(name)
        return getattr(self.library, name)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows at each call of a compiled function."""
    calls: list[str] = []
    for library in (FULL, EDGES):
        watched = Watched(library.get(), calls)
        monkeypatch.setattr(library, "get", lambda watched=watched: watched)
    return calls


def test_tensors_without_values_do_not_reach_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = count_calls(monkeypatch)
    q = torch.randn(5, 2, 4)
    attention(q, q, q, GraphLayout.of(None, 5), backend="cpu")
    assert calls == ["full_forward"]
    with FakeTensorMode():
        q = torch.randn(5, 2, 4, requires_grad=True)
        edges = torch.tensor([[0, 1], [1, 2]])
        for biases in ((), (EdgeMask(edges),), (PairBias(torch.randn(25, 2)),)):
            layout = GraphLayout.of(None, 5)
            assert explain_choice(q, q, q, layout, biases)["cpu"] == "chosen"
            attention(q, q, q, layout, biases, dropout_p=0.5).sum().backward()
    assert calls == ["full_forward"]


@pytest.mark.parametrize("bias", ["none", "mask-values"])
def test_nothing_of_the_kernel_is_called_while_tracing(
    monkeypatch: pytest.MonkeyPatch, bias: str
) -> None:
    """``int(p * 2^32)`` of a traced number would be that of an earlier p."""
    traced = []

    def watching(dropout_p: float) -> int:
        traced.append(torch.compiler.is_compiling())
        return _philox.threshold(dropout_p)

    monkeypatch.setattr(_cpu_full, "threshold", watching)
    case = make_case(bias, dtype=torch.float32)
    mask = case.biases

    def run(q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
        return attention(q, k, v, case.layout, mask, dropout_p=p, backend="cpu")

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for p in (0.3, 0.6, 0.5):
        results = []
        for function in (run, compiled):
            torch.manual_seed(2)
            out = function(case.query, case.key, case.value, p)
            results.append([out, *torch.autograd.grad(out.sum(), [case.query, case.value])])
        assert all(map(torch.equal, *results))
    assert not any(traced) and bool(traced) == (bias == "none")


def test_inference_mode_and_no_grad_give_the_same_bits() -> None:
    for bias in ("additive", "mask-values-features-repeats"):
        case = make_case(bias, "unsorted", "cross", torch.float32)
        want = case.attention("cpu")
        for mode in (torch.inference_mode, torch.no_grad):
            with mode():
                out = case.attention("cpu")
            assert not out.requires_grad and torch.equal(out, want)


class Marked(Tensor):
    """A subclass without behaviour, as PyG has some for indices."""


def test_a_subclass_of_tensors() -> None:
    for bias in ("none", "mask"):
        case = make_case(bias, dtype=torch.float32, grad=False)
        want = case.attention("cpu")
        case.query, case.value = (x.as_subclass(Marked) for x in (case.query, case.value))
        assert torch.equal(case.attention("cpu").as_subclass(Tensor), want)


LAYERS = {
    "gps": lambda: GPSConv(8, None, 2),
    "masked": lambda: MaskedTransformerConv(8, 4, 2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_copies_of_a_layer_that_has_run(name: str, copied: Callable) -> None:
    layer = LAYERS[name]()
    x, edges = torch.randn(9, 8), torch.randint(9, (2, 20))
    layer(x, edges).sum().backward()
    assert torch.equal(copied(layer).eval()(x, edges), layer.eval()(x, edges))


FORKED = """
import os, sys, torch
from pyg_gt import EdgeMask, GraphLayout, attention

def run(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layout = GraphLayout.from_sizes([40] * 50)
    q, k, v = (torch.randn(2000, 4, 16, requires_grad=True) for _ in range(3))
    edges = torch.arange(2000).view(50, 40)[:, torch.randint(40, (2, 400))]
    edges = edges.transpose(0, 1).flatten(1)
    results = []
    for biases in ((), (EdgeMask(edges),)):
        out = attention(q, k, v, layout, biases, dropout_p=0.1, backend="cpu")
        results += [out, *torch.autograd.grad(out.sum(), (q, k, v))]
    return results

want = run(2)
child = os.fork()
if child == 0:
    os._exit(0 if all(map(torch.equal, run(1), want)) else 3)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code)
"""


def test_a_forked_child_runs_it_on_one_thread() -> None:
    """As the workers of a ``DataLoader`` do, after their parent has run it on two."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_failing_compiler_is_an_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FULL, "why_not", lambda: "the compiler is tired")
    case = make_case("none", dtype=torch.float32)
    assert unsupported(case, "cpu") == "the compiler is tired"
    with pytest.raises(NotImplementedError, match="'cpu' cannot run.*the compiler is tired"):
        case.attention("cpu")
    case.attention("auto")
    # attention along edges is another library
    assert unsupported(make_case("mask", dtype=torch.float32), "cpu") is None


def test_the_switch_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("mask", dtype=torch.float32)
    monkeypatch.setenv(native.SWITCH, "0")
    assert "switched off" in str(unsupported(case, "cpu"))
    monkeypatch.setenv(native.SWITCH, "1")
    assert unsupported(case, "cpu") is None


def test_wide_heads() -> None:
    layout = layout_of([3, 40])
    case = Case(layout, layout, torch.float32, heads=1, channels=300)
    BIASES["mask-values"](case)
    mask, case.biases = case.biases, ()
    for biases in ((), mask):
        assert_same_attention("cpu", case.query, case.key, case.value, layout, biases)


@pytest.mark.parametrize("name", ["key", "value", "pairs", "mask values", "features"])
def test_a_tensor_without_memory_beside_a_plain_query(name: str) -> None:
    """No address is taken of it: it would be zero, which means that nothing is there."""
    x = given()
    edges = x["edges"]
    fields = {
        "key": x["key"], "value": x["value"], "pairs": x["pairs"],
        "mask values": torch.randn(4, 2), "features": torch.randn(4, 2, 4),
    }  # fmt: skip
    with FakeTensorMode() as mode:
        fields[name] = mode.from_tensor(fields[name])
    biases: tuple = ()
    if name == "pairs":
        biases = (PairBias(fields["pairs"]),)
    elif name in ("mask values", "features"):
        biases = (EdgeMask(edges, fields["mask values"], fields["features"]),)
    layout = GraphLayout.from_batch(x["batch"])
    with pytest.raises(AssertionError, match="FakeTensor"):  # torch's own words
        attention(x["query"], fields["key"], fields["value"], layout, biases, backend="cpu")
