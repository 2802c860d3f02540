"""Norms over the nodes of each graph are compiled and trained, with PyG's numbers."""

import copy
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch_geometric.nn import GINConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import GraphLayout
from pyg_gt.nn import GPSConv

F, H = 8, 2


class MeanNorm(torch.nn.Module):
    """A norm of a user's, which asks for the number of graphs."""

    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def reset_parameters(self):
        pass

    def forward(self, x, batch, batch_size=None):
        batch_size = int(batch.max()) + 1 if batch_size is None else batch_size
        total = x.new_zeros(batch_size, x.size(1)).index_add(0, batch, x)
        return self.weight * (x - total[batch])


NORMS = {
    "layer_norm": {},
    "layer_norm of nodes": {"mode": "node"},
    "graph_norm": {},
    "instance_norm": {},
    "instance_norm tracked": {"affine": True, "track_running_stats": True},
    "pair_norm": {},
    "pair_norm scaled": {"scale_individually": True},
    "mean_subtraction_norm": {},
    "batch_norm": {},
    "own": {},
}


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def pair_of_layers(name, local=False, **kwargs):
    """Ours and PyG's, with the same weights."""
    torch.manual_seed(0)
    conv = GINConv(torch.nn.Linear(F, F)) if local else None
    norm, options = name.split()[0], NORMS[name]
    if name == "own":
        norm = MeanNorm(F)
    if name in ("pair_norm", "pair_norm scaled", "mean_subtraction_norm"):
        # PyG's resolver hands a width to norms that take none
        theirs = PyGGPSConv(F, conv, heads=H, norm="layer_norm")
        from torch_geometric.nn import MeanSubtractionNorm, PairNorm

        for i in (1, 2, 3):
            made = MeanSubtractionNorm() if norm.startswith("mean") else PairNorm(**options)
            setattr(theirs, f"norm{i}", made)
    else:
        theirs = PyGGPSConv(F, conv, heads=H, norm=norm, norm_kwargs=options)
    theirs = theirs.double()
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    for key, value in kwargs.items():
        setattr(ours, key, value)
    return ours, theirs


def batches(count):
    """Batches of other sizes each; one has a graph without nodes in the middle."""
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        n = 20 + 7 * i
        batch = torch.arange(n) // (4 + i % 3)
        if i == 2:
            batch = batch + (batch > 1)
        x = torch.randn(n, F, generator=generator, dtype=torch.float64)
        edge_index = torch.randint(4, (2, 3 * n), generator=generator)
        yield x, edge_index, batch


def gradients(layer, x, *args):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    out = layer(x, *args)
    out.square().mean().backward()
    return [out.detach(), x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", NORMS)
def test_compiled_norms_train_with_pygs_numbers(name):
    ours, theirs = pair_of_layers(name, local=name == "layer_norm")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ours, backend=counter, fullgraph=True, dynamic=True)
    for args in batches(4):
        found, want = gradients(compiled, *args), gradients(theirs, *args)
        assert len(found) == len(want)
        for a, b in zip(found, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
        for module in (*ours.modules(), *theirs.modules()):
            if name == "instance_norm tracked" and hasattr(module, "running_mean"):
                # PyG's keeps the graph of a step in its statistics: the next backward would fail
                module.running_mean = module.running_mean.detach()
                module.running_var = module.running_var.detach()
    assert counter.frame_count <= 2
    for (key, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


@pytest.mark.parametrize("name", ["layer_norm", "graph_norm", "instance_norm tracked"])
def test_in_eval_mode_without_gradients(name):
    ours, theirs = (layer.eval() for layer in pair_of_layers(name))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ours, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for args in batches(4):
            torch.testing.assert_close(compiled(*args), theirs(*args))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("form", ["none", "unsorted", "layout"])
def test_every_form_of_batch(form):
    ours, _ = pair_of_layers("graph_norm", norm_first=form != "unsorted")
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=True)
    for x, edge_index, batch in batches(2):
        given = {
            "none": None,
            "unsorted": batch[torch.randperm(batch.numel())],
            "layout": GraphLayout.from_batch(batch),
        }[form]
        found = gradients(compiled, x, edge_index, given)
        for a, b in zip(found, gradients(ours, x, edge_index, given), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["layer_norm", "instance_norm"])
def test_inductor(name):
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler on CPU, and there is none")
    ours, theirs = pair_of_layers(name)
    compiled = torch.compile(ours, fullgraph=True, dynamic=True)
    for args in batches(3):
        for a, b in zip(gradients(compiled, *args), gradients(theirs, *args), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_four_layers_read_the_batch_once(monkeypatch):
    made = []
    function = GraphLayout.from_batch.__func__
    monkeypatch.setattr(
        GraphLayout,
        "from_batch",
        classmethod(
            lambda cls, *args, **kwargs: (made.append(1), function(cls, *args, **kwargs))[1]
        ),
    )

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(
                GPSConv(F, None, heads=H, norm="graph_norm") for _ in range(4)
            )

        def forward(self, x, edge_index, batch):
            for layer in self.layers:
                x = layer(x, edge_index, batch)
            return x

    model = Model().double()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for count, args in enumerate(batches(3), start=1):
        gradients(compiled, *args)
        assert len(made) == count
    assert counter.frame_count <= 2


def test_eager_code_calls_norms_as_pyg_does(batch_of):
    batch, edge_index = batch_of((3, 4))
    x = torch.randn(7, F, dtype=torch.float64)
    seen = []
    for layer in pair_of_layers("layer_norm"):
        layer.norm2.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(sorted(kwargs)), with_kwargs=True
        )
        layer(x, edge_index, batch)
    assert seen == [["batch"], ["batch"]]


def test_the_op_counts_the_graphs_that_the_batch_names():
    sizes = torch.ops.pyg_gt.graph_sizes
    assert sizes(torch.tensor([2, 0, 2])).tolist() == [1, 0, 2]
    assert sizes(torch.tensor([1], dtype=torch.int32)).tolist() == [0, 1]
    assert sizes(torch.empty(0, dtype=torch.int64)).tolist() == []
    torch.library.opcheck(sizes, (torch.tensor([2, 0, 2]),))
    with pytest.raises(ValueError, match="negative"):
        sizes(torch.tensor([-1, 0]))
