"""Ten layers share one layout, and `torch.compile` makes one graph for all batches."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch_geometric.nn import GINConv, TransformerConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.nn import FullTransformerConv, TransformerBlock

F, H = 8, 2


class Model(torch.nn.Module):
    """GPS layers with and without a local part, and a `TransformerConv`."""

    def __init__(self, num_layers, dropout=0.0):
        super().__init__()
        self.attn = TransformerConv(F, F // H, heads=H, edge_dim=F, dropout=dropout)
        self.layers = torch.nn.ModuleList(
            PyGGPSConv(
                F,
                GINConv(torch.nn.Linear(F, F)) if i == 0 else None,
                heads=H,
                attn_kwargs={"dropout": dropout},
            )
            for i in range(num_layers - 1)
        )

    def forward(self, x, edge_index, edge_attr, batch):
        x = self.attn(x, edge_index, edge_attr)
        for layer in self.layers:
            x = layer(x, edge_index, batch)
        return x


class Own(torch.nn.Module):
    """The layers that PyG has no twin of."""

    def __init__(self):
        super().__init__()
        self.full = FullTransformerConv(F, F // H, heads=H, edge_dim=F)
        self.block = TransformerBlock(F, H, norm_first=True)

    def forward(self, x, edge_index, edge_attr, batch):
        return self.block(self.full(x, edge_index, edge_attr, batch), batch)


def model_of(*args, **kwargs):
    torch.manual_seed(0)
    return pyg_gt.swap(Model(*args, **kwargs))


def batches(count, device="cpu"):
    """Batches of other sizes each: nodes, edges, graphs, and nodes of a graph."""
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        n = 50 + 13 * i
        batch = torch.arange(n) // (5 + i % 3)
        nodes = torch.randint(n, (2 * n + i,), generator=generator)
        edge_index = torch.stack([nodes, torch.searchsorted(batch, batch[nodes])])
        x, edge_attr = (torch.randn(k, F, generator=generator) for k in (n, 2 * n + i))
        yield x, edge_index, edge_attr, batch


def gradients(model, args):
    model.zero_grad()
    out = model(*args)
    out.square().mean().backward()
    return out.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_close(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    assert len(ours[1]) == len(theirs[1])
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.fixture
def layouts(monkeypatch):
    """Grows by one whenever a layout is made of a batch vector."""
    made = []
    function = GraphLayout.from_batch.__func__

    def counted(cls, *args, **kwargs):
        made.append(1)
        return function(cls, *args, **kwargs)

    monkeypatch.setattr(GraphLayout, "from_batch", classmethod(counted))
    return made


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_ten_layers_make_one_layout_per_batch(layouts):
    model = model_of(10)
    for count, args in enumerate(batches(5), start=1):
        gradients(model, args)
        assert len(layouts) == count


def test_ten_layers_order_the_edges_once_per_batch(monkeypatch):
    made = []
    fill = EdgeLayout._fill
    monkeypatch.setattr(
        EdgeLayout,
        "_fill",
        lambda self, *args, **kwargs: (made.append(1), fill(self, *args, **kwargs))[1],
    )
    layers = torch.nn.ModuleList(TransformerConv(F, F) for _ in range(10))
    pyg_gt.swap(layers)
    for count, (x, edge_index, _, _) in enumerate(batches(3), start=1):
        for layer in layers:
            x = layer(x, edge_index)
        x.sum().backward()
        assert len(made) == count


def test_ten_compiled_layers_train_on_twenty_batches_with_two_compilations_and_one_layout(layouts):
    model, eager = model_of(10), model_of(10)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for count, args in enumerate(batches(20), start=1):
        layouts.clear()
        found = gradients(compiled, args)
        assert len(layouts) == 1
        if count in (1, 2, 20):
            assert_close(found, gradients(eager, args))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
def test_two_compilations_at_most_in_each_mode(grad, training, layouts):
    model = model_of(3, dropout=0.3).train(training)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch.set_grad_enabled(grad):
        for count, args in enumerate(batches(20), start=1):
            out = compiled(*args)
            if grad:
                out.sum().backward()
            assert len(layouts) == count
            if not training:
                torch.testing.assert_close(out, model(*args), rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


def test_dropout_in_compiled_code_differs_from_step_to_step():
    model = model_of(1, dropout=0.5)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    args = next(batches(1))
    torch.manual_seed(3)
    first, second = compiled(*args), compiled(*args)
    assert not torch.allclose(first, second)
    torch.manual_seed(3)
    assert compiled(*args).equal(first)


def test_full_attention_and_the_block_compile_too():
    torch.manual_seed(0)
    model = Own()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for args in batches(20):
        assert_close(gradients(compiled, args), gradients(model, args))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("form", ["layout", "none", "unsorted"])
def test_every_form_of_batch_compiles(form):
    torch.manual_seed(0)
    model = pyg_gt.swap(PyGGPSConv(F, None, heads=H, norm="layer_norm"))
    model.norm1 = model.norm2 = model.norm3 = None
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for x, edge_index, _, batch in batches(3):
        given = {
            "layout": lambda batch=batch: GraphLayout.from_batch(batch),
            "none": lambda: None,
            "unsorted": lambda batch=batch: batch[torch.randperm(batch.numel())],
        }[form]()
        torch.testing.assert_close(compiled(x, edge_index, given), model(x, edge_index, given))


def test_inductor():
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler on CPU, and there is none")
    model, eager = model_of(2), model_of(2)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for args in batches(3):
        assert_close(gradients(compiled, args), gradients(eager, args))


def test_messages_cannot_be_listed_in_compiled_code_and_that_is_said():
    model = FullTransformerConv(F, F)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    x, _, _, batch = next(batches(1))
    with pytest.raises(Exception, match="call this layer outside of 'torch.compile'"):
        compiled(x, batch=batch, return_attention_weights=True)


def test_bad_values_are_found_when_compiled_code_runs():
    model = model_of(2)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    x, edge_index, edge_attr, batch = next(batches(1))
    compiled(x, edge_index, edge_attr, batch)
    with pytest.raises(ValueError, match="negative"):
        compiled(x, edge_index, edge_attr, batch - 1)
    with pytest.raises(IndexError, match="source index 50"):
        compiled(x, edge_index + (edge_index == 49), edge_attr, batch)
