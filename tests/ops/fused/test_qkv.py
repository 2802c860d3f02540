"""One tensor of query, key and value against three."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad as func_grad

from pyg_gt import GraphLayout, attention, qkv_attention
from pyg_gt.ops import AttentionBias

from ..cases import BIASES, CPU, SIZES, Case, dtype_of, layout_of, tolerance_of

H, C = 2, 3
BACKENDS = ["reference", CPU, "sdpa"]


def case_of(backend: str, bias: str = "none", order: str = "sorted") -> tuple[Case, Tensor]:
    """A case, and the tensor that its query, key and value are parts of."""
    torch.manual_seed(0)
    layout = layout_of(SIZES, order)
    case = Case(layout, layout, dtype_of(backend), heads=H, channels=C)
    BIASES[bias](case)
    qkv = torch.stack([x.detach() for x in (case.query, case.key, case.value)], 1)
    return case, qkv.requires_grad_()


def results(run: Callable[[], Tensor], qkv: Tensor, case: Case) -> list[Tensor]:
    """The output, and the gradients of ``qkv`` and of all biases."""
    torch.manual_seed(1)  # of the dropout
    out = run()
    parts = {"query", "key", "value"}
    biases = [x for name, x in case.leaves.items() if name not in parts]
    wave = torch.arange(out.numel()).view(out.shape).cos().to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, [qkv, *biases], wave)]


def check_same(
    backend: str, case: Case, qkv: Tensor, biases: tuple[AttentionBias, ...], dropout_p: float
) -> None:
    rest: dict[str, object] = {"scale": 0.3, "dropout_p": dropout_p, "backend": backend}
    got = results(lambda: qkv_attention(qkv, case.layout, biases, **rest), qkv, case)
    want = results(lambda: attention(*qkv.unbind(1), case.layout, biases, **rest), qkv, case)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("bias", ["none", "additive", "mask-values", "edge-on-mask"])
@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_it_is_attention_of_the_parts(
    backend: str, bias: str, order: str, dropout_p: float
) -> None:
    case, qkv = case_of(backend, bias, order)
    check_same(backend, case, qkv, case.biases, dropout_p)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_reference(backend: str) -> None:
    """Also in the gradients, with a tensor whose channels do not lie side by side."""
    case, dense = case_of(backend, "pair", "unsorted")
    qkv = dense.detach().transpose(0, 3).contiguous().transpose(0, 3).requires_grad_()
    wide, _ = case_of("reference", "pair", "unsorted")
    leaf = dense.detach().double().requires_grad_()
    got = results(lambda: qkv_attention(qkv, case.layout, case.biases, backend=backend), qkv, case)
    want = results(
        lambda: attention(*leaf.unbind(1), wide.layout, wide.biases, backend="reference"),
        leaf, wide,
    )  # fmt: skip
    tolerance = tolerance_of(backend)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_gradient(backend: str) -> None:
    case, qkv = case_of(backend)
    with torch.no_grad():
        got = qkv_attention(qkv, case.layout, backend=backend)
        assert torch.equal(got, attention(*qkv.unbind(1), case.layout, backend=backend))
    assert not got.requires_grad


@pytest.mark.compiled
def test_a_batch_of_gradients_and_second_derivatives() -> None:
    case, qkv = case_of("cpu", "pair")
    out = qkv_attention(qkv, case.layout, case.biases, backend="cpu")
    waves = torch.randn(4, *out.shape)
    (got,) = torch.autograd.grad(out, qkv, waves, is_grads_batched=True, retain_graph=True)
    for wave, one in zip(waves, got, strict=True):
        (want,) = torch.autograd.grad(out, qkv, wave, retain_graph=True)
        torch.testing.assert_close(one, want)
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
    with pytest.raises(NotImplementedError, match="'cpu' backend has no second derivative"):
        gradient.sum().backward()


@pytest.mark.compiled
def test_hooks_on_saved_tensors() -> None:
    case, qkv = case_of("cpu")
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
        out = qkv_attention(qkv, case.layout, backend="cpu")
    (got,) = torch.autograd.grad(out.sum(), qkv)
    (want,) = torch.autograd.grad(attention(*qkv.unbind(1), case.layout).sum(), qkv)
    torch.testing.assert_close(got, want)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x.flatten()):
        out = qkv_attention(qkv, case.layout, backend="cpu")
    with pytest.raises(ValueError, match="a saved tensor"):
        out.sum().backward()


def test_a_transform_of_torch_func() -> None:
    case, qkv = case_of("reference")
    got = func_grad(lambda x: qkv_attention(x, case.layout).square().sum())(qkv.detach())
    out = attention(*qkv.unbind(1), case.layout).square().sum()
    torch.testing.assert_close(got, torch.autograd.grad(out, qkv)[0])


@pytest.mark.compiled
def test_traced_code() -> None:
    case, qkv = case_of("cpu")
    run = torch.compile(
        lambda x, layout: qkv_attention(x, layout), fullgraph=True, backend="aot_eager"
    )
    got, want = run(qkv, case.layout), qkv_attention(qkv, case.layout)
    torch.testing.assert_close(got, want)
    grads = (torch.autograd.grad(x.square().sum(), qkv)[0] for x in (got, want))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("qkv", "message"),
    [
        (torch.randn(5, 2, H, C), r"\[num_nodes, 3, heads, head_channels\] .got \[5, 2, 2, 3\]"),
        (torch.randn(5, 3 * H * C), r"got \[5, 18\]"),
        ([1, 2], "got list"),
        (torch.randn(4, 3, H, C), "4 nodes, but its layout describes 5"),
        (torch.zeros(5, 3, H, C, dtype=torch.int64), "floating-point"),
    ],
)
def test_bad_input_is_named(qkv: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qkv_attention(qkv, GraphLayout.from_sizes([2, 3]))


def test_attention_does_not_take_one_tensor_for_three() -> None:
    qkv, layout = torch.randn(5, 3, H, C), GraphLayout.from_sizes([2, 3])
    with pytest.raises(ValueError, match="'query' must be a tensor of shape"):
        attention(qkv, None, None, layout)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'key' must be a tensor .*got NoneType"):
        attention(qkv[:, 0], None, qkv[:, 2], layout)  # type: ignore[arg-type]
