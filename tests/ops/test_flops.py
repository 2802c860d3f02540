"""Whoever looks on sees the ops of attention, and counts its products."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from pyg_gt import EdgeLayout, EdgeMask, GraphLayout, attention, qkv_attention
from pyg_gt.nn import FullTransformerConv, GPSConv, MaskedTransformerConv, TransformerBlock
from pyg_gt.ops.dispatch import BACKENDS

from .cases import CPU, Case, layout_of, make_case, unsupported

OPS = torch.ops.pyg_gt
FUSED = [CPU, "sdpa"]
SAME = -2


def count(call: Any, *leaves: Tensor) -> tuple[int, int]:
    """Of the forward pass, and of the backward."""
    with FlopCounterMode(display=False) as counter:
        out = call()
        forward = counter.get_total_flops()
        if leaves:
            torch.autograd.grad(out.sum(), leaves)
    return forward, counter.get_total_flops() - forward


@pytest.mark.parametrize("bias", ["none", "pair", "table-uint8", "edge", "additive"])
@pytest.mark.parametrize("backend", FUSED)
def test_the_products_of_all_pairs_are_counted(backend: str, bias: str) -> None:
    case = make_case(bias, dtype=torch.float32)
    assert unsupported(case, backend) is None
    flops = 2 * case.pairs() * case.heads * case.channels
    leaves = case.query, case.key, case.value
    assert count(lambda: case.attention(backend), *leaves) == (2 * flops, 5 * flops)


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("bias", ["mask", "mask-values-repeats", "mask-features", "edge-on-mask"])
@pytest.mark.parametrize("backend", [CPU])
def test_the_products_along_edges_are_counted(backend: str, bias: str, p: float) -> None:
    case = make_case(bias, dtype=torch.float32)
    (mask,) = (bias for bias in case.biases if isinstance(bias, EdgeMask))
    edges = mask.edges.num_edges if isinstance(mask.edges, EdgeLayout) else mask.edges.size(1)
    flops = 2 * edges * case.heads * case.channels
    leaves = case.query, case.key, case.value
    forward_and_backward = count(lambda: case.attention(backend, dropout_p=p), *leaves)
    assert forward_and_backward == (2 * flops, 5 * flops)


@pytest.mark.parametrize("backend", FUSED)
def test_one_graph_counts_as_torch_counts_its_own_attention(backend: str) -> None:
    q, k, v = torch.randn(3, 30, 4, 8).requires_grad_().unbind()
    heads_first = [x.detach().transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
    aten = torch.ops.aten
    forward = flop_registry[aten._scaled_dot_product_flash_attention](
        *heads_first, out_val=heads_first[0]
    )
    backward = flop_registry[aten._scaled_dot_product_flash_attention_backward](
        heads_first[0], *heads_first, out_val=heads_first[0]
    )
    layout = GraphLayout.of(None, 30)
    call = functools.partial(attention, q, k, v, layout, backend=backend)
    assert count(call, q, k, v) == (forward, backward)
    qkv = torch.randn(30, 3, 4, 8, requires_grad=True)
    call = functools.partial(qkv_attention, qkv, layout, backend=backend)
    assert count(call, qkv) == (forward, backward)


def test_the_definition_counts_its_products() -> None:
    """In torch operations: two forward, and four backward, since it keeps the weights."""
    layout = layout_of([3, 5, 0, 2])  # a product with one number is none for torch
    case = Case(layout, layout, torch.float32)
    flops = 2 * case.pairs() * case.heads * case.channels
    leaves = case.query, case.key, case.value
    assert count(lambda: case.attention("reference"), *leaves) == (2 * flops, 4 * flops)


def test_gather_and_scatter_count_no_product() -> None:
    """As in PyG, where torch counts nothing of what is done edge by edge either."""
    case = make_case("mask", dtype=torch.float32)
    assert count(lambda: case.attention("sparse"), case.query) == (0, 0)


def test_without_values_pairs_are_told_by_what_has_a_row_each() -> None:
    """Compilers ask with tensors that hold no numbers."""
    formula = flop_registry[OPS.full_attention]
    backward = flop_registry[OPS.full_attention_backward]
    with FakeTensorMode():
        q = torch.randn(12, 2, 8)
        batch, pairs = torch.zeros(12, dtype=torch.int64), torch.randn(70, 2)
        nothing = (None,) * 5
        rest = None, SAME, batch
        flops = 2 * 2 * 8
        assert formula(q, q, q, pairs, *nothing, *rest, -1, 0.5, 0.0) == 2 * 70 * flops
        # otherwise as if all graphs were of one size
        assert formula(q, q, q, None, *nothing, *rest, 3, 0.5, 0.0) == 2 * 48 * flops
        assert formula(q, q, q, None, *nothing, *rest, -1, 0.5, 0.0) == 2 * 144 * flops
        one = None, *nothing, None, SAME, None, 1, 0.5, 0.0
        assert formula(q, q, q, *one) == 2 * 144 * flops
        assert backward(q, q, q, q, q, q, *one, [False] * 3) == 5 * 144 * flops


class Names(TorchDispatchMode):
    """Of all operations, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("bias", ["none", "additive", "mask-values-repeats"])
@pytest.mark.parametrize("backend", FUSED)
def test_a_mode_sees_the_ops_and_changes_no_number(backend: str, bias: str, p: float) -> None:
    case = make_case(bias, dtype=torch.float32)
    if unsupported(case, backend, p) is not None:
        assert (backend, bias, p) == ("sdpa", "mask-values-repeats", 0.5)
        return
    results = []
    for watched in (False, True):
        torch.manual_seed(1)
        names = Names()
        with names if watched else torch.enable_grad():
            out = case.attention(backend, dropout_p=p)
            leaves = list(case.leaves.values())
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
        ours = [name for name in names.seen if name.startswith("pyg_gt.")]
        assert len(ours) == 2 * watched, names.seen
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("backend", ["auto", *FUSED])
def test_a_policy_of_checkpoints_can_keep_what_attention_gave(backend: str) -> None:
    case = make_case("none", dtype=torch.float32)
    kept = [OPS.full_attention.default, OPS.bucketed.default]

    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        keep = op in kept
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    want = torch.autograd.grad(case.attention(backend).square().sum(), [case.query, case.value])
    for keeps in (True, False):
        names = Names()
        context = functools.partial(
            create_selective_checkpoint_contexts,
            policy if keeps else lambda *args, **kwargs: CheckpointPolicy.MUST_RECOMPUTE,
        )
        out = checkpoint(lambda: case.attention(backend), use_reentrant=False, context_fn=context)
        with names:
            got = torch.autograd.grad(out.square().sum(), [case.query, case.value])
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        again = [name for name in names.seen if name in ("pyg_gt.full_attention.default",
                                                         "pyg_gt.bucketed.default")]  # fmt: skip
        assert len(again) == (0 if keeps else 1)


def test_layers_count_their_attention() -> None:
    torch.manual_seed(0)
    x, batch = torch.randn(9, 16), torch.tensor([0] * 5 + [1] * 4)
    edges = torch.tensor([[0, 1, 2, 5, 6], [1, 2, 0, 6, 5]])
    pairs, linear = 5 * 5 + 4 * 4, 2 * 9 * 16 * 16
    attends = 2 * 2 * pairs * 16
    no_edges = torch.empty(2, 0, dtype=torch.int64)
    block = TransformerBlock(16, heads=2, ffn_channels=32).eval()
    for layer, given, expected in (
        (GPSConv(16, None, heads=2), (x, no_edges, batch), 4 * linear + 4 * linear + attends),
        (block, (x, batch), 4 * linear + 4 * linear + attends),
        (FullTransformerConv(16, 8, heads=2), (x, None, None, batch), 4 * linear + attends),
        (MaskedTransformerConv(16, 8, heads=2), (x, edges), 4 * linear + 2 * 2 * 5 * 16),
    ):
        with torch.no_grad():
            forward, _ = count(functools.partial(layer.eval(), *given))
        assert forward == expected, layer


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_backend_fails_while_somebody_counts(backend: str) -> None:
    layout = layout_of([1, 5, 0, 7])
    case = Case(layout, layout, torch.float32, grad=False)
    if unsupported(case, backend) is None and backend != "flex":
        want = case.attention(backend)
        with FlopCounterMode(display=False):
            assert torch.equal(case.attention(backend), want)
    else:
        with FlopCounterMode(display=False), pytest.raises(NotImplementedError):
            case.attention(backend)


def test_flex_says_that_it_cannot_be_watched() -> None:
    layout = layout_of([1, 5, 0, 7])
    case = Case(layout, layout, torch.float32, grad=False)
    with Names(), pytest.raises(NotImplementedError, match="'TorchDispatchMode' does not see"):
        case.attention("flex")
