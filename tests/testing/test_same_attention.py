"""The helper for backends and functions finds what is wrong, and says what and where."""

import pytest
import torch

from pyg_gt import GraphLayout, PairBias, ScoreMod
from pyg_gt.ops._backends import sdpa as _sdpa
from pyg_gt.testing import assert_same_attention

LAYOUT = GraphLayout.from_sizes([2, 3])


def tensors() -> list[torch.Tensor]:
    return [torch.randn(5, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def test_the_same_passes() -> None:
    bias = PairBias(torch.randn(13, 2, dtype=torch.float64, requires_grad=True))
    slope = torch.randn(2, dtype=torch.float64, requires_grad=True)
    mod = ScoreMod(lambda score, graph, head, q, k: score * slope[head])
    assert_same_attention("sdpa", *tensors(), LAYOUT, (bias, mod), captured=(slope,), scale=2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out + 1e-6, "the output on 'sdpa' differs from the reference by 1e-06"),
        (lambda out: out * float("nan"), "the output on 'sdpa' differs .* by nan"),
        (lambda out: out[:4], r"the output on 'sdpa' is \[4, 2, 4\] .* expected \[5, 2, 4\]"),
        (lambda out: out.float(), "the output on 'sdpa' is .* torch.float32, expected .*float64"),
        (lambda out: out.detach() + 2 * (out - out.detach()), "the gradient of query on 'sdpa'"),
    ],
)
def test_what_differs_is_named(
    monkeypatch: pytest.MonkeyPatch, change: object, message: str
) -> None:
    forward = _sdpa.forward
    monkeypatch.setattr(_sdpa, "forward", lambda inputs: change(forward(inputs)))
    with pytest.raises((AssertionError, RuntimeError), match=message):
        assert_same_attention("sdpa", *tensors(), LAYOUT)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("bias", r"the gradient of biases\[0\].PairBias.values on 'sdpa'"),
        ("captured", r"the gradient of captured\[0\] on 'sdpa'"),
    ],
)
def test_the_gradients_of_biases_are_compared(
    monkeypatch: pytest.MonkeyPatch, field: str, message: str
) -> None:
    bias = PairBias(torch.randn(13, 2, dtype=torch.float64, requires_grad=True))
    slope = torch.randn(2, dtype=torch.float64, requires_grad=True)
    mod = ScoreMod(lambda score, graph, head, q, k: score * slope[head])
    wrong = {"bias": bias.values, "captured": slope}[field]
    forward = _sdpa.forward
    monkeypatch.setattr(
        _sdpa, "forward", lambda inputs: forward(inputs) + (wrong - wrong.detach()).sum()
    )
    with pytest.raises(AssertionError, match=message):
        assert_same_attention("sdpa", *tensors(), LAYOUT, (bias, mod), captured=(slope,))


def test_a_backend_that_cannot_says_so() -> None:
    with pytest.raises(NotImplementedError, match="'sparse' cannot run"):
        assert_same_attention("sparse", *tensors(), LAYOUT)
