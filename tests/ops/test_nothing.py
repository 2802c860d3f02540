"""Batches in which nothing attends to anything can be trained on all the same."""

import pytest
import torch

from pyg_gt import EdgeMask, GraphLayout, PairBias, ScoreMod, attention

from .cases import CPU


@pytest.mark.parametrize("backend", ["reference", "sdpa", "sparse", CPU])
@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("needs", ["query", "key", "value", "bias"])
@pytest.mark.parametrize(
    ("queries", "keys"), [((0, 0), (0, 0)), ((2, 0), (0, 3)), ((0, 0), (2, 1))]
)
def test_a_loss_has_gradients(
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    needs: str,
    backend: str,
    function: bool,
) -> None:
    query_layout, layout = GraphLayout.from_sizes(queries), GraphLayout.from_sizes(keys)
    along_edges = backend == "sparse"
    tensors = {
        "query": torch.randn(sum(queries), 2, 4),
        "key": torch.randn(sum(keys), 2, 4),
        "value": torch.randn(sum(keys), 2, 4),
        "bias": torch.randn(0, 2),
    }
    leaf = tensors[needs].requires_grad_()
    none = torch.empty(2, 0, dtype=torch.int64)
    bias: tuple = (EdgeMask(none, tensors["bias"]) if along_edges else PairBias(tensors["bias"]),)
    if function:
        if along_edges or backend == "cpu":
            pytest.skip("no function of scores there")
        bias = (*bias, ScoreMod(lambda score, graph, head, query, key: 2 * score))
    out = attention(
        tensors["query"], tensors["key"], tensors["value"], layout, bias,
        query_layout=query_layout, backend=backend,
    )  # fmt: skip
    assert not out.any()
    (grad,) = torch.autograd.grad(out.sum(), leaf)
    assert grad.shape == leaf.shape and not grad.any()


@pytest.mark.parametrize("backend", ["sparse", "sdpa", CPU])
def test_a_negated_view_is_read_as_it_is(backend: str) -> None:
    """What '.imag' of a conjugate is, and what forward-mode derivatives give."""
    edges = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 0]])
    q, k, v = torch.randn(3, 3, 2, 4).unbind()
    values = torch.randn(4, 2)
    layout = GraphLayout.of(None, 3)
    want = attention(q, k, v, layout, EdgeMask(edges, -values), backend="reference")
    mask = EdgeMask(edges, torch._neg_view(values))
    torch.testing.assert_close(attention(q, k, v, layout, mask, backend=backend), want)
