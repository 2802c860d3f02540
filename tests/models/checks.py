"""Checks that every model passes: `check_model(make_model, make_graph)`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch_geometric.data import Batch, Data

MakeModel = Callable[[], torch.nn.Module]
# makes a graph of so many nodes, with all that the model reads, from a seed
MakeGraph = Callable[[int, int], Data]

TOLERANCE = 1e-5


def ring(num_nodes: int, seed: int, chords: int = 1) -> Tensor:
    """``[2, E]``: a ring (an edge of two nodes, nothing of one) and random chords, both ways."""
    generator = torch.Generator().manual_seed(1000 * num_nodes + seed)
    edges = {(i, (i + 1) % num_nodes) for i in range(num_nodes)}
    for _ in range(chords):
        i, j = torch.randint(num_nodes, (2,), generator=generator).tolist()
        edges.add((i, j))
    pairs = sorted({pair for i, j in edges if i != j for pair in ((i, j), (j, i))})
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t().contiguous()


def without_edges(data: Data) -> Data:
    """The same nodes; encodings are the caller's to add again."""
    data = data.clone()
    num_edges = data.num_edges
    for key, value in data:
        if key == "edge_index":
            data[key] = value[:, :0]
        elif isinstance(value, Tensor) and key.startswith("edge") and value.size(0) == num_edges:
            data[key] = value[:0]
    return data


def make_eval(make_model: MakeModel) -> torch.nn.Module:
    """A model in evaluation whose batch norms have statistics, and which is no constant."""
    torch.manual_seed(0)
    model = make_model()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def close(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal to a tolerance relative to the largest entry."""
    scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


def check_learns(
    make_model: MakeModel, make_graph: MakeGraph, lr: float = 3e-3, steps: int = 400
) -> None:
    """Eight tiny graphs with labels by chance: the loss of training goes to nearly nothing."""
    torch.manual_seed(2)
    model = make_model().train()
    batch = Batch.from_data_list([make_graph(4 + i % 3, i) for i in range(8)])
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    first, loss = None, torch.tensor(1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        out = model(batch)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(out, labels)
        first = float(loss.detach()) if first is None else first
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.01:
            return
    raise AssertionError(f"the loss went from {first} to {float(loss)} only")


def check_batch_independence(make_model: MakeModel, make_graph: MakeGraph) -> None:
    """A graph of 20 nodes alone, between others, and beside one of 500."""
    model = make_eval(make_model)
    small, large = make_graph(20, 0), make_graph(500, 1)
    with torch.no_grad():
        alone = model(Batch.from_data_list([small]))
        close(model(small), alone)  # a Data, too
        close(model(Batch.from_data_list([small, large]))[:1], alone)
        close(model(Batch.from_data_list([large, small, make_graph(3, 2)]))[1:2], alone)


def check_order_of_graphs(make_model: MakeModel, make_graph: MakeGraph) -> None:
    """Graphs in another order give their predictions in that order."""
    model = make_eval(make_model)
    graphs = [make_graph(n, n) for n in (5, 1, 9, 6)]
    order = [2, 0, 3, 1]
    with torch.no_grad():
        out = model(Batch.from_data_list(graphs))
        close(model(Batch.from_data_list([graphs[i] for i in order])), out[order])


def check_state_dict(make_model: MakeModel, make_graph: MakeGraph) -> None:
    """Weights and statistics go to another model, strictly."""
    model = make_eval(make_model)
    other = make_model().eval()
    batch = Batch.from_data_list([make_graph(5, 0), make_graph(3, 1)])
    with torch.no_grad():
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(batch), model(batch))
        other.reset_parameters()
        assert not torch.equal(other(batch), model(batch))


def check_small_graphs(make_model: MakeModel, make_graph: MakeGraph) -> None:
    """One node, alone and between others, in training and in evaluation."""
    torch.manual_seed(0)
    model = make_model()
    for graphs in ([make_graph(1, 0)], [make_graph(1, 0), make_graph(4, 1), make_graph(2, 2)]):
        for training in (True, False):
            out = model.train(training)(Batch.from_data_list(graphs))
            assert out.size(0) == len(graphs) and bool(out.isfinite().all())
            out.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def check_bfloat16(make_model: MakeModel, make_graph: MakeGraph) -> None:
    """Under autocast outputs and gradients are finite, and near those of float32."""
    torch.manual_seed(0)
    model = make_model().train()
    batch = Batch.from_data_list([make_graph(n, n) for n in (6, 9, 4)])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch)
    out.float().sum().backward()
    assert bool(out.isfinite().all())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(bool(g.isfinite().all()) for g in grads)


def permuted(data: Data, order: Tensor) -> Data:
    """The graph with its nodes renumbered, ``new[i] = old[order[i]]``, and edges reversed in
    order; encodings of pairs are the caller's to make again."""
    data = data.clone()
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel())
    num_nodes, num_edges = data.num_nodes, data.num_edges
    for key, value in list(data):
        if key == "edge_index":
            data[key] = inverse[value].flip(1)
        elif isinstance(value, Tensor) and value.dim() > 0 and not key.startswith("pair"):
            if key.startswith("edge") and value.size(0) == num_edges:
                data[key] = value.flip(0)
            elif value.size(0) == num_nodes:
                data[key] = value[order]
    return data


def check_model(
    make_model: MakeModel,
    make_graph: MakeGraph,
    again: Callable[[Data], Data] = lambda data: data,
    **learning: float,
) -> None:
    """All checks.

    Args:
        make_model: a small model with one output a graph or more, without dropout.
        make_graph: a graph of so many nodes, from a seed, with all that the model reads.
        again: computes the encodings of a graph whose nodes or edges have changed anew.
        learning: `lr` and `steps` of `check_learns`.
    """
    check_learns(make_model, make_graph, **learning)
    check_batch_independence(make_model, make_graph)
    check_order_of_graphs(make_model, make_graph)
    check_state_dict(make_model, make_graph)
    check_small_graphs(make_model, make_graph)
    check_bfloat16(make_model, make_graph)
    model = make_eval(make_model)
    graph = make_graph(9, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        close(model(again(permuted(graph, order))), model(graph), 1e-4)
        bare = again(without_edges(graph))
        pair = Batch.from_data_list([bare, graph])
        close(model(pair)[1:], model(Batch.from_data_list([graph])))
        assert bool(model(bare).isfinite().all())


def check_compiled(make_model: MakeModel, make_graph: MakeGraph) -> None:
    """Compiled whole, without a break, a few times for all batches: outputs and gradients."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model = make_model().train()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for sizes in ((5, 7, 3), (4, 9, 6, 2), (8, 2), (3, 3, 3, 3, 3)):
        batch = Batch.from_data_list([make_graph(n, i) for i, n in enumerate(sizes)])
        results = []
        for call in (compiled, model):
            state = {name: buffer.clone() for name, buffer in model.named_buffers()}
            out = call(batch)
            grads = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
            results.append([out.detach(), *(g for g in grads if g is not None)])
            model.load_state_dict(state, strict=False)
        for a, b in zip(*results, strict=True):
            close(a, b, 1e-4)
    assert counter.frame_count <= 2, counter.frame_count
    torch.compiler.reset()
