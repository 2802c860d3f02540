"""Attention against torch and PyG, which know nothing of this package."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import TransformerConv
from torch_geometric.utils import scatter, softmax, to_dense_batch

from pyg_gt import EdgeMask, GraphLayout, PairBias, attention

from .cases import CPU, Case, dtype_of, layout_of, make_case, tolerance_of

FULL = ["reference", "sdpa", CPU]


def assert_close(backend: str, actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance_of(backend))


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("backend", FULL)
def test_scaled_dot_product_attention_graph_by_graph(
    backend: str, with_bias: bool, order: str
) -> None:
    layout = layout_of([1, 5, 3, 0, 7, 110], order)
    case = Case(layout, layout, dtype_of(backend))
    if with_bias:
        case.biases = (PairBias(case.leaf(case.pairs(), case.heads)),)
    leaves = list(case.leaves.values())
    want, at = torch.zeros_like(case.query), 0
    for graph, n in enumerate(layout.sizes):
        nodes = (layout.batch == graph).nonzero().squeeze(1)
        q, k, v = (x[nodes].transpose(0, 1) for x in (case.query, case.key, case.value))
        mask = None
        if with_bias:
            mask = case.biases[0].values[at : at + n * n].view(n, n, 2).permute(2, 0, 1)
        at += n * n
        if n:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            want = want.index_copy(0, nodes, out.transpose(0, 1))
    got = case.attention(backend)
    wave = torch.randn_like(got)
    assert_close(
        backend,
        [got, *torch.autograd.grad(got, leaves, wave)],
        [want, *torch.autograd.grad(want, leaves, wave)],
    )


@pytest.mark.parametrize("backend", FULL)
def test_multihead_attention_with_a_padding_mask(backend: str) -> None:
    """As PyG's ``GPSConv`` calls it, on a dense batch."""
    layout = GraphLayout.from_sizes([4, 9, 2])
    dtype = dtype_of(backend)
    x = torch.randn(15, 12, dtype=dtype, requires_grad=True)
    module = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=dtype)
    dense, mask = to_dense_batch(x, layout.batch)
    want = module(dense, dense, dense, key_padding_mask=~mask, need_weights=False)[0][mask]

    q, k, v = F.linear(x, module.in_proj_weight, module.in_proj_bias).view(15, 3, 3, 4).unbind(1)
    got = module.out_proj(attention(q, k, v, layout, backend=backend).flatten(1))
    leaves = [x, *module.parameters()]
    wave = torch.randn_like(got)
    assert_close(
        backend,
        [got, *torch.autograd.grad(got, leaves, wave)],
        [want, *torch.autograd.grad(want, leaves, wave)],
    )


@pytest.mark.parametrize("backend", ["reference", "sdpa", "sparse", CPU])
def test_pygs_softmax_and_scatter_along_edges(backend: str) -> None:
    case = make_case("mask-values-repeats", "unsorted", "cross", dtype_of(backend))
    (mask,) = case.biases
    assert isinstance(mask, EdgeMask)
    source, target = mask.edges
    scores = (case.query[target] * case.key[source]).sum(-1) * 3**-0.5 + mask.values
    n = case.query.size(0)
    weights = softmax(scores, target, num_nodes=n)
    want = scatter(weights.unsqueeze(-1) * case.value[source], target, dim_size=n, reduce="sum")
    got = case.attention(backend)
    leaves = list(case.leaves.values())
    wave = torch.randn_like(got)
    assert_close(
        backend,
        [got, *torch.autograd.grad(got, leaves, wave)],
        [want, *torch.autograd.grad(want, leaves, wave)],
    )


@pytest.mark.parametrize("backend", ["reference", "sparse", CPU])
def test_transformer_conv_with_edge_features(backend: str) -> None:
    dtype = dtype_of(backend)
    conv = TransformerConv(5, 4, heads=2, edge_dim=3, root_weight=False).to(dtype)
    x = torch.randn(9, 5, dtype=dtype, requires_grad=True)
    edge_index = torch.randint(9, (2, 30))  # 30 of 81: some stand twice
    edge_attr = torch.randn(30, 3, dtype=dtype, requires_grad=True)
    want = conv(x, edge_index, edge_attr)
    q, k, v = (lin(x).view(-1, 2, 4) for lin in (conv.lin_query, conv.lin_key, conv.lin_value))
    mask = EdgeMask(edge_index, features=conv.lin_edge(edge_attr).view(-1, 2, 4))
    got = attention(q, k, v, GraphLayout.of(None, 9), (mask,), backend=backend).flatten(1)
    leaves = [x, edge_attr]
    wave = torch.randn_like(got)
    assert_close(
        backend,
        [got, *torch.autograd.grad(got, leaves, wave)],
        [want, *torch.autograd.grad(want, leaves, wave)],
    )
