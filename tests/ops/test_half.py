"""Half precision: products are made in float32, and gradients are as exact as their type."""

import pytest
import torch
from torch import Tensor

from pyg_gt import EdgeMask, GraphLayout, attention
from pyg_gt.nn import FullTransformerConv, GPSConv, MaskedTransformerConv

HALF = [torch.float16, torch.bfloat16]
EDGES = torch.tensor([[0, 1, 2, 0, 3, 4, 1], [1, 2, 0, 2, 4, 3, 0]])


def large(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Products of 90,000, which float16 cannot hold; the values are small."""
    q = torch.full((5, 2, 4), 300.0)
    q[1::2] *= -1
    q[:, 1] = torch.linspace(250, 300, 20).view(5, 4)
    return q.to(dtype), q.flip(0).to(dtype), torch.linspace(-1, 1, 40).view(5, 2, 4).to(dtype)


def want_of(*tensors: Tensor, scale: float, features: Tensor | None = None) -> Tensor:
    """In float64, which rounds nothing away."""
    mask = (EdgeMask(EDGES, None, None if features is None else features.double()),)
    layout = GraphLayout.from_sizes([5])
    wide = [x.double() for x in tensors]
    return attention(*wide, layout, mask, scale=scale, backend="reference")


@pytest.mark.parametrize("how", ["vmap", "second", "compile", "eager", "func"])
@pytest.mark.parametrize("with_features", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_products_of_half_precision(dtype: torch.dtype, with_features: bool, how: str) -> None:
    q, k, v = large(dtype)
    features = torch.full((7, 2, 4), 40.0, dtype=dtype) if with_features else None
    mask, layout = (EdgeMask(EDGES, None, features),), GraphLayout.from_sizes([5])

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, layout, mask, scale=1e-5, backend="sparse")

    want = want_of(q, k, v, scale=1e-5, features=features)
    if how == "vmap":
        got = torch.vmap(run)(q[None], k[None], v[None])[0]
    elif how == "compile":
        got = torch.compile(run, backend="aot_eager", fullgraph=True)(q, k, v)
    elif how == "func":
        got = torch.func.vjp(run, q, k, v)[0]
    else:
        got = run(q, k, v)
    torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=1e-2)
    if how != "second":
        return
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    (first,) = torch.autograd.grad(run(*leaves).float().sum(), leaves[2], create_graph=True)
    out = want_of(*wide, scale=1e-5, features=features).sum()
    (right,) = torch.autograd.grad(out, wide[2], create_graph=True)
    torch.testing.assert_close(first.double(), right, rtol=1e-2, atol=1e-2)
    (second,) = torch.autograd.grad(first.float().square().sum(), leaves[0])
    (wanted,) = torch.autograd.grad(right.square().sum(), wide[0])
    torch.testing.assert_close(second.double(), wanted, rtol=5e-2, atol=5e-2 * wanted.abs().max())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("kind", ["masked", "full", "gps"])
def test_returned_and_hooked_weights(kind: str, edge_dim: int | None, dtype: torch.dtype) -> None:
    """The other route of each layer, where messages are seen."""
    x = torch.ones(5, 4)
    x[1::2] = -1
    edge_attr = None if edge_dim is None else torch.ones(7, 3)
    batch = torch.zeros(5, dtype=torch.long)

    def layer(dtype: torch.dtype) -> torch.nn.Module:
        torch.manual_seed(0)
        made: torch.nn.Module
        if kind == "gps":
            made = GPSConv(4, None, heads=2, norm=None).eval()
            with torch.no_grad():
                made.attn.in_proj_weight[:8] = 75.0
            made.register_message_forward_hook(lambda *args: None)
        else:
            cls = MaskedTransformerConv if kind == "masked" else FullTransformerConv
            made = cls(4, 4, heads=2, edge_dim=edge_dim)
            with torch.no_grad():
                for part in (made.lin_query, made.lin_key):
                    part.weight.fill_(75.0)
                    part.bias.zero_()
        return made.to(dtype)

    def run(dtype: torch.dtype) -> tuple[Tensor, ...]:
        attr = None if edge_attr is None else edge_attr.to(dtype)
        if kind == "gps":
            return (layer(dtype)(x.to(dtype), EDGES, batch),)
        kwargs = {} if kind == "masked" else {"batch": batch}
        out, (_, alpha) = layer(dtype)(
            x.to(dtype), EDGES, attr, return_attention_weights=True, **kwargs
        )
        return out, alpha

    for got, want in zip(run(dtype), run(torch.float64), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [[30] * 8, [300, 0, 1, 80], [700]], ids=["30", "mixed", "700"])
@pytest.mark.parametrize("along_edges", [False, True])
@pytest.mark.parametrize(
    "backend", [pytest.param("cpu", marks=pytest.mark.compiled), "sdpa", "sparse", "reference"]
)
def test_gradients_in_bfloat16(
    backend: str, along_edges: bool, sizes: list[int], dropout_p: float, sharpness: float
) -> None:
    """Of inputs that bfloat16 holds, against float64: no more than the result is rounded by."""
    if backend == "sparse" and not along_edges:
        pytest.skip("it attends along edges")
    if backend == "sdpa" and dropout_p > 0:
        pytest.skip("it draws from torch's generator on a CPU")
    if backend == "reference" and along_edges:
        pytest.skip("one row of all edges for each node of 700")
    layout = GraphLayout.from_sizes(sizes)
    n = layout.num_nodes
    q, k, v, wave = (torch.randn(n, 2, 16).bfloat16() for _ in range(4))
    v = v + 2  # outputs far from zero are rounded more
    biases: tuple[EdgeMask, ...] = ()
    if along_edges:
        target = torch.arange(n).repeat_interleave(8)
        start, size = (x[layout.batch[target]] for x in (layout.ptr[:-1], layout.ptr.diff()))
        source = start + torch.randint(10**6, target.shape) % size
        biases = (EdgeMask(torch.stack([source, target])),)
    wanted_by = "sparse" if along_edges else "reference"
    grads = []
    for dtype, name in ((torch.bfloat16, backend), (torch.float64, wanted_by)):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        torch.manual_seed(5)
        out = attention(
            *leaves, layout, biases, scale=sharpness / 4, dropout_p=dropout_p, backend=name
        )
        grads.append(torch.autograd.grad(out, leaves, wave.to(dtype)))
    for got, want in zip(*grads, strict=True):
        norm = want.flatten(1).norm(dim=1)
        error = (got.double() - want).flatten(1).norm(dim=1) / norm.clamp(min=1e-3 * norm.max())
        assert error.quantile(0.95) < 0.004 and error.max() < 0.02
