"""What all encoders of nodes share."""

import copy
import pickle

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import GraphLayout
from pyg_gt.nn import (
    DegreeEncoder,
    LaplacianEncoder,
    RandomWalkEncoder,
    SignNetEncoder,
    StableEncoder,
)

K, F = 4, 6

MAKE = {
    "deepset": lambda: LaplacianEncoder(K, F, post_layers=1),
    "linear": lambda: LaplacianEncoder(K, F, kind="linear"),
    "sign net": lambda: SignNetEncoder(F, 8, num_layers=2),
    "stable": lambda: StableEncoder(F, 3, 8, num_layers=2),
    "random walk": lambda: RandomWalkEncoder(K, F, num_layers=2),
    "degree": lambda: DegreeEncoder(2, F),
}
PRINTED = {
    "deepset": "LaplacianEncoder(4, 6, kind='deepset')",
    "linear": "LaplacianEncoder(4, 6, kind='linear')",
    "sign net": "SignNetEncoder(6, phi=GIN(2, 8, num_layers=2))",
    "stable": "StableEncoder(6, num_filters=3, rho=GIN(3, 6, num_layers=2))",
    "random walk": "RandomWalkEncoder(4, 6, num_layers=2)",
    "degree": "DegreeEncoder(2, 6)",
}
SPECTRAL = ["deepset", "linear", "sign net", "stable"]
every = pytest.mark.parametrize("name", MAKE)


def inputs(name, data, pairs):
    """What the encoder reads, from a batch and its eigenpairs."""
    if name == "degree":
        return [
            torch.stack([data.edge_index[i].bincount(minlength=data.num_nodes) for i in (1, 0)], 1)
        ]
    if name == "random walk":
        return [pairs[0]]
    return [*pairs, data.batch if name in ("deepset", "linear") else data.edge_index]


@every
def test_copies_pickles_and_states_give_the_same(name, batched):
    args = inputs(name, *batched())
    layer = MAKE[name]().double().eval()
    want = layer(*args)
    assert want.shape == (len(args[0]), F) and want.dtype == torch.float64
    assert copy.deepcopy(layer)(*args).equal(want)
    assert pickle.loads(pickle.dumps(layer))(*args).equal(want)
    other = MAKE[name]().double().eval()
    other.load_state_dict(layer.state_dict())
    assert other(*args).equal(want)
    assert str(layer) == PRINTED[name]


@every
def test_reset_parameters_draws_anew(name):
    layer = MAKE[name]()
    before = {key: p.clone() for key, p in layer.named_parameters()}
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(7.0)
    layer.reset_parameters()
    for key, p in layer.named_parameters():
        assert not (p == 7.0).any(), key
        if p.dim() > 1:
            assert not p.equal(before[key]), key


@every
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_no_nodes_and_no_edges(name, training, batched):
    data, pairs = batched("no edge")
    layer = MAKE[name]().double().train(training)
    assert layer(*inputs(name, data, pairs)).shape == (3, F)
    data.edge_index = data.edge_index[:, :0]
    data.batch, data.num_nodes = data.batch[:0], 0
    out = layer(*inputs(name, data, [pair[:0] for pair in pairs]))
    assert out.shape == (0, F)
    out.sum().backward()


@every
def test_gradients_are_finite_and_reach_every_weight(name, batched):
    args = inputs(name, *batched())
    args = [a.requires_grad_() if a.is_floating_point() else a for a in args]
    layer = MAKE[name]().double()
    layer(*args).square().sum().backward()
    for key, p in layer.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), key
        # biases of the stable encoder that zero columns feel as much cancel
        assert p.grad.abs().max() > 1e-9 or (name == "stable" and p.dim() == 1), key
    for a in args:
        assert not a.requires_grad or a.grad is None or a.grad.isfinite().all()


@pytest.mark.parametrize("name", [*SPECTRAL, "random walk"])
def test_gradcheck(name, batched):
    data, pairs = batched("path", "pair", "one node")
    layer = MAKE[name]().double().eval()
    args = [a.requires_grad_() if a.is_floating_point() else a for a in inputs(name, data, pairs)]
    assert torch.autograd.gradcheck(layer, args)


@every
def test_order_of_nodes_does_not_matter(name, batched):
    data, pairs = batched()
    layer = MAKE[name]().double().eval()
    want = layer(*inputs(name, data, pairs))
    order = torch.randperm(data.num_nodes)
    data.edge_index = order.argsort()[data.edge_index]
    data.batch = data.batch[order]
    out = layer(*inputs(name, data, [pair[order] for pair in pairs]))
    torch.testing.assert_close(out, want[order], rtol=1e-11, atol=1e-12)


@every
def test_companions_in_the_batch_do_not_matter(name, batched):
    names = ["disconnected", "cycle", "one node", "grid"]
    layer = MAKE[name]().double().eval()
    data, pairs = batched(*names)
    together = layer(*inputs(name, data, pairs))
    alone = [layer(*inputs(name, *batched(one))) for one in names]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SPECTRAL)
def test_masked_entries_do_not_matter(name, batched):
    data, pairs = batched("disconnected", "one node", "pair")
    vectors, values, mask = pairs
    layer = MAKE[name]().double().eval()
    want = layer(*inputs(name, data, pairs))
    assert not mask.all() and not mask.any(1).all()
    for garbage in (1e6, float("nan")):
        vectors, values = (x.detach().masked_fill(~mask, garbage) for x in (vectors, values))
        vectors.requires_grad_()
        out = layer(*inputs(name, data, [vectors, values, mask]))
        assert out.equal(want)
        if name != "linear":
            out.sum().backward()
            assert all(p.grad.isfinite().all() for p in layer.parameters())
            assert vectors.grad[~mask].eq(0).all()


@pytest.mark.parametrize("name", SPECTRAL)
def test_wrong_eigenpairs(name, batched):
    data, (vectors, values, mask) = batched("path")
    layer = MAKE[name]().double()
    last = inputs(name, data, [vectors, values, mask])[-1]
    for bad in (vectors[:, 0], vectors.long()):
        with pytest.raises(ValueError, match="'vectors' must be floating-point of shape"):
            layer(bad, values, mask, last)
    with pytest.raises(ValueError, match=r"'values' must have .* \[4, 4\] \(got \[4\]\)"):
        layer(vectors, values[0], mask, last)
    with pytest.raises(ValueError, match=r"'mask' must have the shape .* \(got \[3, 4\]\)"):
        layer(vectors, values, mask[1:], last)
    with pytest.raises(ValueError, match="'mask' must be of type torch.bool"):
        layer(vectors, values, mask.float(), last)


@every
def test_autocast(name, batched):
    data, pairs = batched()
    pairs = [x.float() if x.is_floating_point() else x for x in pairs]
    layer = MAKE[name]().eval()
    args = inputs(name, data, pairs)
    want = layer(*args)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(*args)
    torch.testing.assert_close(out.float(), want, rtol=0.05, atol=0.05)
    out.float().sum().backward()


@pytest.mark.cuda
@every
def test_gives_the_same_on_cuda(name, batched):
    data, pairs = batched()
    layer = MAKE[name]().double().eval()
    want = layer(*inputs(name, data, pairs))
    layer.cuda()
    data, pairs = data.cuda(), [pair.cuda() for pair in pairs]
    args = inputs(name, data, pairs)
    torch.testing.assert_close(layer(*args).cpu(), want)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(*args).cpu(), want)
    layer.train()
    layer(*args).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@every
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compiles_to_one_graph(name, training, batched):
    torch.compiler.reset()
    layer = MAKE[name]().double().train(training)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for names in (["cycle", "pair"], ["grid", "path", "disconnected"], ["path", "path", "cycle"]):
        args = inputs(name, *batched(*names))
        torch.manual_seed(0)
        out = compiled(*args)
        out.sum().backward()
        if training and name == "random walk":
            continue  # the statistics have moved
        torch.manual_seed(0)
        torch.testing.assert_close(out, layer(*args))
    assert counter.frame_count <= 2
    torch.compiler.reset()


def test_compiled_signs_with_a_layout(batched):
    torch.compiler.reset()
    layer = LaplacianEncoder(K, F).double()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    data, pairs = batched("cycle", "grid")
    layout = GraphLayout.from_batch(data.batch, num_graphs=5)
    torch.manual_seed(0)
    out = compiled(*pairs, layout)
    torch.manual_seed(0)
    torch.testing.assert_close(out, layer(*pairs, data.batch))
    torch.compiler.reset()
