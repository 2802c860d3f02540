"""Every scale: zero, negative, tiny and huge ones give the reference's numbers in float64."""

import pytest
import torch

from pyg_gt import attention
from pyg_gt.ops.dispatch import BACKENDS

from .cases import BIASES, CPU, Case, make_case, unsupported

SCALES = (0.0, -0.0, -0.3, -1.0, 1e-30, -1e-30, 1e-40, 20.0, -20.0)
# functions of scores are not the scale's business
KINDS = [bias for bias in BIASES if "mod" not in bias and bias != "everything"]
RUN = [name for name in BACKENDS if name not in ("reference", "triton", "cpu")]


def results(case: Case, backend: str, scale: float, dropout_p: float) -> list[torch.Tensor]:
    """The output and all gradients."""
    torch.manual_seed(3)
    out = attention(
        case.query, case.key, case.value, case.layout, case.biases, scale=scale,
        query_layout=case.query_layout, dropout_p=dropout_p, backend=backend,
    )  # fmt: skip
    if not case.grad:
        return [out]
    wave = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device="cpu").view_as(out)
    leaves = list(case.leaves.values())
    grads = torch.autograd.grad(out, leaves, wave, allow_unused=True)
    made = (torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True))
    return [out.detach(), *made]


def in_double(case: Case) -> Case:
    """The same numbers in float64."""
    wide = make_case("none", grad=case.grad)
    wide.layout, wide.query_layout = case.layout, case.query_layout

    def doubled(x: object) -> object:
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            return x.detach().double().requires_grad_(case.grad)
        return x

    for name in ("query", "key", "value"):
        setattr(wide, name, doubled(getattr(case, name)))
    wide.biases = tuple(
        type(b)(**{name: doubled(x) for name, x in vars(b).items()}) for b in case.biases
    )
    return wide


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("bias", KINDS)
@pytest.mark.parametrize("backend", [CPU, *RUN])
def test_any_scale(backend: str, bias: str, dtype: torch.dtype, dropout_p: float) -> None:
    case = make_case(bias, "unsorted", "cross", dtype, grad=backend != "flex")
    reason = unsupported(case, backend, dropout_p)
    if reason is not None:
        pytest.skip(reason)
    if backend == "sdpa" and dropout_p > 0:
        pytest.skip("it draws from torch's generator on a CPU")
    tolerance = 2e-4 if dtype == torch.float32 else 3e-2  # scores of 100, to 24 bits
    for scale in SCALES:
        got = results(case, backend, scale, dropout_p)
        want = results(in_double(case), "reference", scale, dropout_p)
        for a, b in zip(got, want, strict=True):
            size = max(1.0, float(b.abs().max())) if b.numel() else 1.0
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * size)


@pytest.mark.compiled
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 8, 16, 17])
@pytest.mark.parametrize("count", [1, 2, 7, 16, 33])
def test_any_scale_along_edges_of_any_number(heads: int, count: int) -> None:
    """Numbers of edges are filled up to whole vectors; what is filled in is never a score."""
    from pyg_gt import EdgeMask, GraphLayout

    layout = GraphLayout.from_sizes([5])
    q, k, v = torch.randn(3, 5, heads, 8).unbind()
    edges = torch.stack([torch.randint(5, (count,)), torch.randint(3, (count,))])
    for scale in SCALES:
        for values in (None, torch.randn(count, heads)):
            mask = (EdgeMask(edges, values),)
            got = attention(q, k, v, layout, mask, scale=scale, backend="cpu")
            want = attention(q, k, v, layout, mask, scale=scale, backend="reference")
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
