"""Every backend is the reference in outputs and all gradients; the reference is the formula."""

import pytest
import torch

from pyg_gt.ops import _buckets
from pyg_gt.ops._dispatch import BACKENDS
from pyg_gt.testing import assert_same_attention

from .cases import BIASES, INF, Case, by_hand, layout_of, make_case, unsupported

OTHERS = [name for name in BACKENDS if name != "reference"]
DTYPES = {"flex": torch.float32, "varlen": torch.bfloat16}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
# a gradient that is zero here would be zero in a wrong backend, too
NO_GRADIENT = {"mask-no-edges"}


def assert_same(case: Case, backend: str, tolerance: float | None = None) -> None:
    if (reason := unsupported(case, backend)) is not None:
        pytest.skip(reason)
    assert_same_attention(
        backend, case.query, case.key, case.value, case.layout, case.biases,
        query_layout=case.query_layout, captured=case.captured, tolerance=tolerance,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("bias", BIASES)
def test_reference_is_the_formula(bias: str, order: str, kind: str) -> None:
    case = make_case(bias, order, kind)
    leaves = case.leaves
    want = by_hand(case, scale=0.7)
    got = case.attention("reference", scale=0.7)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
    if bias in NO_GRADIENT:
        assert not got.any()
        return
    wave = torch.randn_like(want)
    wanted = torch.autograd.grad(want, list(leaves.values()), wave)
    gradients = torch.autograd.grad(got, list(leaves.values()), wave)
    for name, a, b in zip(leaves, gradients, wanted, strict=True):
        assert b.abs().max() > 1e-3, name
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("backend", OTHERS)
def test_backend_is_the_reference(
    backend: str, bias: str, order: str, kind: str, device: str
) -> None:
    case = make_case(bias, order, kind, DTYPES.get(backend, torch.float64), device)
    assert_same(case, backend)
