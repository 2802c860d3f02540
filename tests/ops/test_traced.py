"""What ``torch.jit.trace`` and ``make_fx`` record: right for other graphs too, or refused."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.nn import GINConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import EdgeBias, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias, attention
from pyg_gt.nn import FullTransformerConv, GPSConv, MaskedTransformerConv, TransformerBlock
from pyg_gt.ops.dispatch import BACKENDS

from .cases import CPU

# what tracers say of sizes that are compared, and of themselves
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
]
RUN = [name for name in BACKENDS if name not in ("triton", "cpu")]


def batch_of(sizes: list[int]) -> tuple[Tensor, Tensor]:
    """A batch vector, and edges inside its graphs: 12 where there are 6 nodes."""
    batch = torch.repeat_interleave(torch.tensor(sizes))
    pairs = (batch[:, None] == batch[None]).nonzero().t()
    count = 12 if batch.numel() == 6 else pairs.size(1) * 2 // 3
    return batch, pairs[:, torch.randperm(pairs.size(1))[:count]]


# the first is the example; 'make_fx' fixes numbers of nodes and edges, and says so
SIZES = [3, 3], [1, 5], [6], [2, 1, 4, 2], [4]
SAME = 3


def inputs_of(sizes: list[int], bias: str) -> tuple[Tensor, ...]:
    batch, edges = batch_of(sizes)
    q, k, v = torch.randn(3, batch.numel(), 2, 4).unbind()
    pairs, count = sum(n * n for n in sizes), edges.size(1)
    rest: dict[str, tuple[Tensor, ...]] = {
        "none": (),
        "pair": (torch.randn(pairs, 2),),
        "table": (torch.randn(4, 2), torch.randint(4, (pairs,))),
        "edge": (edges, torch.randn(count, 2)),
        "mask": (edges,),
        "mask-values": (edges, torch.randn(count, 2)),
        "mask-features": (edges, torch.randn(count, 2), torch.randn(count, 2, 4)),
        "mod": (),
    }
    return q, k, v, batch, *rest[bias]


KINDS: dict[str, Any] = {
    "none": None, "pair": PairBias, "table": TableBias, "edge": EdgeBias, "mask": EdgeMask,
    "mask-values": EdgeMask, "mask-features": EdgeMask, "mod": None,
}  # fmt: skip


def function_of(backend: str, bias: str, whole: bool) -> Callable[..., Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor, batch: Tensor, *fields: Tensor) -> Tensor:
        layout = GraphLayout.of(None if whole else batch, q.size(0))
        biases: tuple[Any, ...] = ()
        if bias == "mod":
            biases = (ScoreMod(lambda s, g, h, i, j: s * 2),)
        elif KINDS[bias] is not None:
            biases = (KINDS[bias](*fields),)
        return attention(q, k, v, layout, biases, backend=backend)

    return run


def check(
    function: Callable[..., Any],
    examples: list[tuple[Tensor, ...]],
    record: Callable[..., Callable[..., Any]],
) -> bool:
    """Whether it could be recorded; then it gives what ``function`` does, for all examples."""
    want = [function(*args) for args in examples]  # which also remembers the example's layout
    try:
        recorded = record(function, examples[0])
    except RuntimeError as error:  # of which NotImplementedError is one
        assert "trac" in str(error)
        return False
    for args, right in zip(examples, want, strict=True):
        torch.testing.assert_close(recorded(*args), right)
    return True


def by_jit(function: Any, args: tuple[Tensor, ...]) -> Callable[..., Any]:
    traced: Callable[..., Any] = torch.jit.trace(function, args, check_trace=False)
    return traced


def by_fx(function: Any, args: tuple[Tensor, ...]) -> Callable[..., Any]:
    made: Callable[..., Any] = make_fx(function)(*args)
    return made


@pytest.mark.parametrize("record", [by_jit, by_fx])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("bias", KINDS)
@pytest.mark.parametrize("backend", ["auto", CPU, *RUN])
def test_attention(
    backend: str, bias: str, grad: bool, whole: bool, record: Callable[..., Any]
) -> None:
    if whole and bias in ("pair", "table"):
        pytest.skip("a bias of the pairs of a batch")
    sizes = SIZES if record is by_jit else SIZES[:SAME]
    examples = [inputs_of(each, bias) for each in sizes]
    function = function_of(backend, bias, whole)
    with torch.set_grad_enabled(grad):
        if grad:
            for args in examples:
                for x in args[:3]:
                    x.requires_grad_()
        try:
            function(*examples[0])
        except NotImplementedError as error:
            pytest.skip(str(error))
        done = check(function, examples, record)
    if backend in ("auto", "cpu", "sdpa") and bias != "mod":
        # by 'cpu', edges inside graphs are checked with numbers of nodes that would be constants
        alone = bias == "mask-features" or (backend == "cpu" and bias.startswith("mask"))
        # by 'sdpa', an 'autograd.Function' is handed a list
        listed = backend == "sdpa" and bias == "edge" and grad
        assert done or (record is by_jit and (listed or (alone and not whole)))


class Model(torch.nn.Module):
    """A layer called by position."""

    def __init__(self, layer: torch.nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, *args: Tensor) -> Any:
        """Whatever the layer gives."""
        return self.call(self.layer, *args)


def gps(**kwargs: Any) -> torch.nn.Module:
    """Swapped, as users have it."""
    conv = GINConv(torch.nn.Linear(8, 8))
    return pyg_gt.swap(PyGGPSConv(8, conv, heads=2, norm=None, **kwargs))


def hooked(layer: Any) -> torch.nn.Module:
    layer.register_message_forward_hook(lambda *args: None)
    made: torch.nn.Module = layer
    return made


LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], Callable[..., Any]]] = {
    "gps": (gps, lambda m, x, b, e: m(x, e, b)),
    "gps-none": (gps, lambda m, x, b, e: m(x, e)),
    "gps-hook": (lambda: hooked(GPSConv(8, None, heads=2)), lambda m, x, b, e: m(x, e, b)),
    "gps-performer": (lambda: gps(attn_type="performer"), lambda m, x, b, e: m(x, e, b)),
    "gps-padded": (
        lambda: gps(attn_kwargs={"add_bias_kv": True}), lambda m, x, b, e: m(x, e, b),
    ),
    "masked": (lambda: MaskedTransformerConv(8, 4, 2), lambda m, x, b, e: m(x, e)),
    "masked-beta": (lambda: MaskedTransformerConv(8, 4, 2, beta=True), lambda m, x, b, e: m(x, e)),
    "masked-hook": (lambda: hooked(MaskedTransformerConv(8, 4, 2)), lambda m, x, b, e: m(x, e)),
    "masked-edge": (
        lambda: MaskedTransformerConv(8, 4, 2, edge_dim=8),
        lambda m, x, b, e: m(x, e, x[e[0]] - x[e[1]]),
    ),
    "full": (lambda: FullTransformerConv(8, 4, 2), lambda m, x, b, e: m(x, batch=b)),
    "full-edge": (
        lambda: FullTransformerConv(8, 4, 2, edge_dim=8),
        lambda m, x, b, e: m(x, e, x[e[0]], batch=b),
    ),
    "full-weights": (
        lambda: FullTransformerConv(8, 4, 2),
        lambda m, x, b, e: m(x, batch=b, return_attention_weights=True)[0],
    ),
    "block": (lambda: TransformerBlock(8, 2), lambda m, x, b, e: m(x, b)),
    "block-first": (lambda: TransformerBlock(8, 2, norm_first=True), lambda m, x, b, e: m(x, b)),
}  # fmt: skip
REFUSED = ("gps-hook", "gps-performer", "gps-padded", "full-weights")


@pytest.mark.compiled
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:global attention runs on a padded batch")
def test_layers_by_trace(name: str, grad: bool) -> None:
    make, call = LAYERS[name]
    model = Model(make().eval(), call)
    examples = []
    for sizes in SIZES:
        batch, edges = batch_of(sizes)
        examples.append((torch.randn(batch.numel(), 8), batch, edges))
    with torch.set_grad_enabled(grad):
        assert check(model, examples, by_jit) == (name not in REFUSED)
        if name in REFUSED:
            return
        traced: Any = by_jit(model, examples[0])
        if grad:
            weights = list(model.parameters())
            for args in examples:
                got, want = (
                    torch.autograd.grad(f(*args).square().sum(), weights, allow_unused=True)
                    for f in (traced, model)
                )
                torch.testing.assert_close(got, want)
            return
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        for args in examples:
            torch.testing.assert_close(loaded(*args), model(*args))


@pytest.mark.parametrize("record", [by_jit, by_fx])
@pytest.mark.parametrize("make", [GraphLayout.from_ptr, GraphLayout.from_sizes])
def test_layouts_from_numbers_that_would_be_constants(
    make: Callable[[Tensor], GraphLayout], record: Callable[..., Any]
) -> None:
    numbers = torch.tensor([0, 3, 6] if make == GraphLayout.from_ptr else [3, 3])
    with pytest.raises(RuntimeError, match="trace.*constants"):
        record(lambda x, p: attention(x, x, x, make(p)), (torch.randn(6, 2, 4), numbers))


@pytest.mark.parametrize("kind", ["gps", "block"])
def test_hooks_on_attention_are_refused_in_a_trace(kind: str) -> None:
    """They are shown a padded batch, whose size would be a constant of the trace."""
    layer = GPSConv(8, None, heads=2, norm=None) if kind == "gps" else TransformerBlock(8, 2)
    (hooked_one,) = (
        m for m in layer.eval().modules() if isinstance(m, torch.nn.MultiheadAttention)
    )
    hooked_one.register_forward_hook(lambda *args: None)
    x, batch = torch.randn(6, 8), torch.tensor([0, 0, 0, 1, 1, 1])
    none = torch.empty(2, 0, dtype=torch.int64)
    args = (x, none, batch) if kind == "gps" else (x, batch)
    layer(*args)
    with pytest.raises(RuntimeError, match="hooks on attention.*trace"):
        torch.jit.trace(layer, args, check_trace=False)
