"""Pair encoders inside `torch.compile`: one graph for all batches, checks when it runs."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.nn import FullTransformerConv

from .graphs import ENCODERS, GRAPHS, HEADS, bias_of, edge_path, join

CHANNELS = 4


class Model(torch.nn.Module):
    def __init__(self, names):
        super().__init__()
        self.encoders = torch.nn.ModuleList(ENCODERS[name](torch.float32) for name in names)
        self.conv = FullTransformerConv(CHANNELS, CHANNELS // HEADS, HEADS)

    def forward(self, x, data, batch):
        biases = tuple(bias_of(encoder, data, batch) for encoder in self.encoders)
        return self.conv(x, data.edge_index, batch=batch, biases=biases)


def batches(count):
    """Batches of other sizes each."""
    for i in range(count):
        data = join([*GRAPHS, *GRAPHS[1 : 3 + i % 4], GRAPHS[5]][i % 3 :], dtype=torch.float32)
        yield torch.randn(data.num_nodes, CHANNELS), data


def gradients(model, *args):
    model.zero_grad()
    out = model(*args)
    out.square().mean().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("form", ["batch", "layout"])
@pytest.mark.parametrize("name", ENCODERS)
def test_one_graph_and_at_most_two_compilations(name, form):
    model = Model([name])
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for x, data in batches(6):
        batch = data.batch if form == "batch" else GraphLayout.from_batch(data.batch)
        ours, theirs = gradients(compiled, x, data, batch), gradients(model, x, data, batch)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


def test_inductor():
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler on CPU, and there is none")
    model = Model(ENCODERS)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for x, data in batches(2):
        args = x, data, data.batch
        for a, b in zip(gradients(compiled, *args), gradients(model, *args), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_bad_values_are_found_when_compiled_code_runs():
    model = Model(["edge_path"])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    x, data = next(batches(1))
    compiled(x, data, data.batch)
    data.pair_distance_edges[1, 1] = 100
    with pytest.raises(IndexError, match="Found edge 100 .* of pair 1"):
        compiled(x, data, data.batch)


def test_one_graph_without_batch_and_an_edge_layout_compile():
    data, encoder = join([GRAPHS[1]]), edge_path()
    compiled = torch.compile(
        lambda edges, batch: (
            encoder(data.pair_distance_edges, data.edge_attr, edges, batch).values
        ),
        backend="aot_eager",
        fullgraph=True,
    )
    want = bias_of(encoder, data, data.batch).values
    torch.testing.assert_close(compiled(data.edge_index, None), want)
    edges = EdgeLayout.of(data.edge_index, data.num_nodes)
    torch.testing.assert_close(compiled(edges, GraphLayout.from_batch(data.batch)), want)


@pytest.mark.parametrize("form", ["batch", "one graph", "known numbers"])
def test_the_op(form):
    data = join(GRAPHS[1:2] if form == "one graph" else GRAPHS)
    batch = None if form == "one graph" else data.batch
    known = len(GRAPHS) if form == "known numbers" else -1
    call = (data.pair_distance_edges, data.edge_index, batch, known)
    torch.library.opcheck(torch.ops.pyg_gt.path_rows, call)


def test_tensors_without_values_have_a_shape():
    data, encoder = join(), edge_path().to("meta")
    args = data.pair_distance_edges, data.edge_attr, data.edge_index, data.batch
    values = encoder(*(x.to("meta") for x in args)).values
    assert values.shape == (data.num_pairs, HEADS) and values.is_meta
