"""What the tests of layers share: a comparison of two modules, and batches of small graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

import pyg_gt

# one node, many nodes, no node at all, and two sizes that share a bucket
SIZES = (1, 5, 3, 0, 7)


def run(module: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[Tensor | None]]:
    """The outputs, and the gradients of every floating-point input and of every parameter."""
    leaves, spec = tree_flatten((args, kwargs))
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.layout == torch.strided:
            leaves[i] = leaf.detach().clone().requires_grad_()
    args, kwargs = tree_unflatten(leaves, spec)
    out = module(*args, **kwargs)
    ends = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.requires_grad]
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in ends]
    starts = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    if isinstance(module, torch.nn.Module):
        starts += [p for _, p in sorted(module.named_parameters()) if p.requires_grad]
    if not ends:
        return out, [None] * len(starts)
    return out, list(torch.autograd.grad(ends, starts, weights, allow_unused=True))


@pytest.fixture(scope="session")
def agree() -> Callable[..., Any]:
    """Checks that two modules give the same outputs and gradients; returns the outputs.

    Parameters are compared in the order of their names. A parameter without a gradient in one
    module must have none in the other.
    """

    def check(
        ours: Any, theirs: Any, *args: Any, rtol: float = 1e-9, atol: float = 1e-11, **kwargs: Any
    ) -> Any:
        out, grads = run(ours, args, kwargs)
        want, want_grads = run(theirs, args, kwargs)
        close = {"rtol": rtol, "atol": atol}
        outs, wants = tree_leaves(out), tree_leaves(want)
        assert len(outs) == len(wants)
        for a, b in zip(outs, wants, strict=True):
            torch.testing.assert_close(a, b, **close)
        assert len(grads) == len(want_grads)
        for a, b in zip(grads, want_grads, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, **close)
        return out

    return check


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., tuple[Tensor, Tensor]]:
    """Makes ``batch [N]`` and a random ``edge_index [2, 3 N]`` inside graphs of these sizes."""

    def make(sizes: tuple[int, ...] = SIZES, seed: int = 3) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        edges = []
        start = 0
        for n in sizes:
            if n > 0:
                edges.append(start + torch.randint(0, n, (2, 3 * n), generator=generator))
            start += n
        batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        return batch, torch.cat(edges, dim=1)

    return make


@pytest.fixture(scope="session")
def all_pairs() -> Callable[[Tensor], Tensor]:
    """Lists the complete graph of each graph: ``[2, P]``, source above target, in flat order."""

    def make(batch: Tensor) -> Tensor:
        source, target = [], []
        for graph in range(int(batch.max()) + 1 if batch.numel() else 0):
            nodes = (batch == graph).nonzero().flatten().tolist()
            for query in nodes:
                for key in nodes:
                    source.append(key)
                    target.append(query)
        return torch.tensor([source, target], dtype=torch.int64)

    return make


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one name each time a layer takes the fused route."""
    calls: list[str] = []

    def counted(door: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            calls.append(door)
            return function(*args, **kwargs)

        return call

    for door, function in (
        ("conv.full_transformer_conv.attention", pyg_gt.attention),
        ("conv.masked_transformer_conv.attention", pyg_gt.attention),
        ("attention.multihead.qkv_attention", pyg_gt.qkv_attention),
        ("attention.multihead.attention", pyg_gt.attention),
    ):
        monkeypatch.setattr(f"pyg_gt.nn.{door}", counted(door, function))
    return calls
