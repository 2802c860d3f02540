"""What is edited in place between forward and backward raises as torch's own operations do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import TransformerConv

from pyg_gt import EdgeBias, EdgeLayout, EdgeMask, GraphLayout, PairBias, TableBias, attention
from pyg_gt.nn import FullTransformerConv, MaskedTransformerConv
from pyg_gt.ops.dispatch import BACKENDS, _inputs

from .cases import CPU, dtype_of

RUN = [name for name in BACKENDS if name not in ("triton", "flex", "cpu")]
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 0, 4, 5, 3, 2]])
FIELDS = {
    "query": "none", "key": "none", "value": "none", "pairs": "pair", "table": "table",
    "index": "table", "edges": "edge", "edge values": "edge", "mask": "mask",
    "mask values": "mask", "features": "features", "seed": "mask", "seed of pairs": "none",
}  # fmt: skip
LEAVES = [name for name in FIELDS if name not in ("index", "edges", "mask")]


def tensors_of(kind: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], tuple[object, ...]]:
    """Everything that a call reads, by name, and its biases."""
    made = {name: torch.randn(6, 2, 4, dtype=dtype) for name in ("query", "key", "value")}
    values, features = torch.randn(7, 2, dtype=dtype), torch.randn(7, 2, 4, dtype=dtype)
    if kind == "pair":
        made["pairs"] = torch.randn(18, 2, dtype=dtype)
        return made, (PairBias(made["pairs"]),)
    if kind == "table":
        made |= {"table": torch.randn(4, 2, dtype=dtype), "index": torch.randint(4, (18,))}
        return made, (TableBias(made["table"], made["index"]),)
    if kind == "edge":
        made |= {"edges": EDGES.clone(), "edge values": values}
        return made, (EdgeBias(made["edges"], values),)
    if kind in ("mask", "features"):
        made |= {"mask": EDGES.clone(), "mask values": values}
        more = features if kind == "features" else None
        if more is not None:
            made["features"] = more
        return made, (EdgeMask(made["mask"], values, more),)
    return made, ()


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("backend", [CPU, *RUN])
def test_an_edit_before_the_backward_pass(backend: str, field: str) -> None:
    """An error, or the gradients of the forward pass where nothing of the field was needed."""
    is_seed = field.startswith("seed")
    gradients = []
    for edit in (False, True):
        torch.manual_seed(0)
        tensors, biases = tensors_of(FIELDS[field], dtype_of(backend))
        leaves = {n: x.clone().requires_grad_() for n, x in tensors.items() if n in LEAVES}
        # a leaf cannot be edited: what is handed over is made of it
        given = {n: leaves[n] * 1 if n in leaves else x for n, x in tensors.items()}
        parts = [given[name] for name in ("query", "key", "value")]
        layout = GraphLayout.from_sizes([3, 3])
        made = tuple(
            type(b)(**{f: next((given[n] for n, x in tensors.items() if x is v), None)
                       for f, v in vars(b).items()})
            for b in biases
        )  # fmt: skip
        inputs = _inputs(*parts, layout, made, None, None, 0.3 if is_seed else 0.0)
        reason = BACKENDS[backend].unsupported(inputs)
        if reason is not None:
            pytest.skip(reason)
        if is_seed:
            out, edited = BACKENDS[backend].forward(inputs), inputs.seed
        else:
            out, edited = attention(*parts, layout, made, backend=backend), given[field]
        assert edited is not None
        if edit:
            with torch.no_grad():
                edited.copy_(edited.flip(-1) if edited.numel() > 1 else edited + 1)
        try:
            gradients.append(torch.autograd.grad(out.sum(), list(leaves.values())))
        except RuntimeError as error:
            assert edit and "modified by an inplace operation" in str(error)
            return
    assert field not in ("edges", "mask"), "PyG's layers raise here"
    for kept, right in zip(*gradients, strict=True):
        assert torch.equal(kept, right)


@pytest.mark.parametrize("backend", [CPU, *RUN])
def test_a_batch_edited_before_the_backward_pass(backend: str) -> None:
    """A layout owns its numbers: the gradients are those of the forward pass."""
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    x = torch.randn(6, 2, 4, dtype=dtype_of(backend), requires_grad=True)
    grads = []
    for edit in (False, True):
        given = batch.clone()
        layout = GraphLayout.of(given, 6)
        try:
            out = attention(x, x, x, layout, backend=backend)
        except NotImplementedError as error:
            pytest.skip(str(error))
        if edit:
            given.copy_(torch.tensor([0, 1, 1, 1, 1, 1]))
        grads.append(torch.autograd.grad(out.square().sum(), x)[0])
    assert torch.equal(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edit", ["edges", "features"])
@pytest.mark.parametrize("kind", [TransformerConv, MaskedTransformerConv, FullTransformerConv])
def test_layers_raise_as_pygs_does(
    kind: Callable[..., torch.nn.Module], edit: str, dtype: torch.dtype
) -> None:
    layer = kind(4, 4, heads=2, edge_dim=3).to(dtype)
    x = torch.randn(6, 4, dtype=dtype)
    edges, features = EDGES.clone(), torch.randn(7, 3, dtype=dtype)
    loss = layer(x, edges, features).square().sum()
    if edit == "edges":
        edges.copy_(edges.flip(1))
    else:
        features.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["mask", "bias"])
def test_a_checkpoint_outlives_the_callers_edges(kind: str) -> None:
    """What is saved must not depend on what still lives when a segment runs again."""
    q, w = torch.randn(6, 2, 4, requires_grad=True), torch.randn(7, 2, requires_grad=True)

    def run(edges: EdgeLayout) -> Tensor:
        bias = EdgeMask(edges, w) if kind == "mask" else EdgeBias(edges, w)
        return attention(q, q, q, GraphLayout.of(None, 6), bias, backend="cpu")

    def segment() -> Tensor:
        edges = EdgeLayout.of(EDGES.clone(), 6)  # whose tensor dies here
        assert isinstance(edges, EdgeLayout)
        return checkpoint(run, edges, use_reentrant=False)

    got = torch.autograd.grad(segment().square().sum(), (q, w))
    want = torch.autograd.grad(run(EdgeLayout.of(EDGES, 6)).square().sum(), (q, w))
    assert all(map(torch.equal, got, want))
