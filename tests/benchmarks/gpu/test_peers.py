"""The peers of the GPU benchmark compute attention."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import operators, peers
from pyg_gt import GraphLayout, PairBias, TableBias, attention


@pytest.mark.parametrize("kind", ["none", "TableBias", "PairBias"])
@pytest.mark.parametrize("sizes", [[3, 1, 5], [4], [2, 2]])
def test_the_padded_peer_is_attention(kind: str, sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes)
    joined = torch.randn(layout.num_nodes, 3, 2, 4, dtype=torch.float64)
    values = torch.randn(layout.num_pairs, 2, dtype=torch.float64)
    index = torch.randint(3, (layout.num_pairs,), dtype=torch.uint8)
    bias = {"none": None, "TableBias": TableBias(values[:3], index), "PairBias": PairBias(values)}
    peer = peers.Padded(layout, joined.dtype, bias[kind])
    biases = () if bias[kind] is None else (bias[kind],)
    want = torch.empty_like(joined[:, 0])
    start = at = 0
    for n in sizes:
        q, k, v = (joined[start : start + n, i].transpose(0, 1) for i in range(3))
        scores = q @ k.transpose(1, 2) / 2
        added = {"none": torch.zeros(1, 2), "TableBias": values[index.long()], "PairBias": values}
        if biases:
            scores = scores + added[kind][at : at + n * n].view(n, n, 2).permute(2, 0, 1)
        want[start : start + n] = (scores.softmax(-1) @ v).transpose(0, 1)
        start, at = start + n, at + n * n
    torch.testing.assert_close(peer(joined, 0.0), want)
    if kind == "none":
        torch.testing.assert_close(peers.DenseMask(layout)(joined, 0.0), want)


def test_the_private_operator_takes_these_arguments() -> None:
    """Shapes alone: it computes on a GPU, where the benchmark compares it with the reference."""
    layout = GraphLayout.from_sizes([3, 5]).to("meta")
    joined = torch.empty(8, 3, 4, 16, device="meta", requires_grad=True)
    out = peers.Efficient(layout)(joined, 0.5)
    assert out.shape == (8, 4, 16) and out.requires_grad


@pytest.mark.cuda
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_the_private_operator_on_a_gpu(p: float) -> None:
    config = operators.Config("molecules x 4", 16, torch.float32, "plain")
    one = operators.Case(config, "cuda", True)
    runs, _ = one.candidates()
    assert one.problem().difference("efficient ragged", runs["efficient ragged"]) < 5e-4
    assert runs["efficient ragged"](p).isfinite().all()


def packed(query: Tensor, key: Tensor, value: Tensor, *sizes: object) -> Tensor:
    """What ``varlen_attn`` is documented to compute, a loop over sequences."""
    ptr_q, ptr_k, max_q, max_k = sizes
    assert ptr_q.dtype == ptr_k.dtype == torch.int32
    assert max_q == int(ptr_q.diff().max()) and max_k == int(ptr_k.diff().max())
    parts = []
    for i in range(ptr_q.numel() - 1):
        q, k, v = (
            x[ptr[i] : ptr[i + 1]].transpose(0, 1)
            for x, ptr in ((query, ptr_q), (key, ptr_k), (value, ptr_k))
        )
        weights = (q @ k.transpose(1, 2) / query.size(-1) ** 0.5).softmax(-1)
        parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts)


def test_varlen_is_handed_the_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around an emulation of torch's function, which runs on a GPU alone."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", packed)
    layout = GraphLayout.from_sizes([3, 1, 5])
    joined = torch.randn(9, 3, 2, 8, dtype=torch.float64)
    want = attention(*joined.unbind(1), layout, backend="reference")
    torch.testing.assert_close(peers.Varlen(layout)(joined, 0.0), want)


def test_varlen_takes_these_arguments() -> None:
    """Shapes alone, also of the backward pass."""
    pytest.importorskip("torch.nn.attention.varlen")
    layout = GraphLayout.from_sizes([3, 5]).to("meta")
    joined = torch.empty(8, 3, 4, 16, device="meta", dtype=torch.bfloat16, requires_grad=True)
    out = peers.Varlen(layout)(joined, 0.0)
    (grad,) = torch.autograd.grad(out.sum(), joined)
    assert out.shape == (8, 4, 16) and grad.shape == joined.shape


@pytest.mark.parametrize(
    ("dtype", "device", "p", "words"),
    [
        (torch.bfloat16, "cpu", 0.0, "it needs a CUDA device"),
        (torch.float32, "cuda", 0.0, "it needs float16 or bfloat16 .got torch.float32."),
        (torch.float16, "cuda", 0.5, "it has no dropout .got 0.5."),
        (torch.float16, "cuda", 0.0, None),
    ],
)
def test_what_varlen_refuses(dtype: torch.dtype, device: str, p: float, words: str | None) -> None:
    pytest.importorskip("torch.nn.attention.varlen")
    joined = SimpleNamespace(dtype=dtype, is_cuda=device == "cuda")
    reason = peers.Varlen.unsupported(joined, p)
    assert (reason is None) == (words is None)
    assert words is None or re.fullmatch(words, reason)


def test_peers_that_cannot_run_say_why() -> None:
    layout = GraphLayout.from_sizes([3, 5])
    joined = torch.randn(8, 3, 2, 8)
    runs, objections = peers.peers_of(joined, layout)
    assert set(runs) == {"pyg padded", "sdpa dense mask"}
    assert set(objections) == {"efficient ragged", "varlen"}
    bias = PairBias(torch.randn(layout.num_pairs, 2))
    runs, objections = peers.peers_of(joined, layout, bias)
    assert set(runs) == {"pyg padded"} and set(objections) == set(peers.PEERS_OF_GRAPHS[1:])
    runs, objections = peers.peers_of(joined, layout, names=("pyg padded", "varlen"))
    assert set(runs) == {"pyg padded"} and set(objections) == {"varlen"}


@pytest.mark.cuda
def test_varlen_on_a_gpu() -> None:
    config = operators.Config("molecules x 4", 16, torch.bfloat16, "plain")
    one = operators.Case(config, "cuda", True)
    runs, _ = one.candidates()
    assert one.problem().difference("varlen", runs["varlen"]) < 5e-2
