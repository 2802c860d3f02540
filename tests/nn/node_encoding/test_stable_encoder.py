"""`StableEncoder`: the formula on dense matrices, any basis of an eigenspace, small changes."""

import pytest
import torch
from torch_geometric.nn import GAT, MLP

from pyg_gt import EdgeLayout
from pyg_gt.nn import SignNetEncoder, StableEncoder
from pyg_gt.nn.node_encoding import component_pairs

F, M = 3, 5


def encoder(**options):
    layer = StableEncoder(F, M, hidden_channels=16, num_layers=2, **options).double()
    with torch.no_grad():  # or else a network this small may be linear where the pairs lie
        layer.phi.lins[-1].weight.mul_(20)
    return layer


def dense(layer, vectors, values, mask, edge_index, component):
    """The formula with all pairs of nodes, each component's vectors in columns of their own."""
    parts = []
    for c in component.unique():
        nodes = (component == c).nonzero().flatten()
        k = int(mask[nodes[0]].sum())
        V = torch.zeros(len(vectors), k, dtype=torch.float64)
        V[nodes] = vectors[nodes, :k]
        phi = layer.phi(values[nodes[0], :k].view(1, k, 1))[0]  # [k, m]
        parts.append(torch.einsum("il,lm,jl->ijm", V, phi, V))
    W = sum(parts)
    zero = layer.rho(torch.zeros_like(W[:, 0]), edge_index)
    out = torch.zeros_like(zero)
    for j in range(len(vectors)):
        out = out + layer.rho(W[:, j], edge_index) - zero
    return out


COMPONENTS = {
    "cycle": [0] * 8,
    "grid": [0] * 9,
    "pair": [0] * 2,
    "one node": [0],
    "no edge": [0, 1, 2],
    "disconnected": [0] * 5 + [1] * 3 + [2] * 2,
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_is_the_dense_formula_with_its_gradients(name, batched):
    data, pairs = batched(name)
    component = torch.tensor(COMPONENTS[name])
    layer = encoder()
    out = layer(*pairs, data.edge_index)
    want = dense(layer, *pairs, data.edge_index, component)
    torch.testing.assert_close(out, want)
    weight = torch.randn_like(out)
    grads = [
        torch.autograd.grad((x * weight).sum(), list(layer.parameters())) for x in (out, want)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    if name not in ("one node", "no edge"):
        assert out.abs().max() > 1e-5 and grads[0][0].abs().max() > 1e-5


def test_other_networks(batched):
    data, pairs = batched("disconnected")
    component = torch.tensor(COMPONENTS["disconnected"])
    layer = encoder(phi=MLP([1, 4, M], norm=None, act="tanh"), rho=GAT(M, F, 1))
    want = dense(layer, *pairs, data.edge_index, component)
    torch.testing.assert_close(layer(*pairs, data.edge_index), want)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_signs_do_not_matter(training, batched):
    data, (vectors, values, mask) = batched()
    layer = encoder().train(training)
    want = layer(vectors, values, mask, data.edge_index)
    assert want.abs().max() > 1e-5
    flipped = vectors.clone()
    flipped[:, 1] *= -1
    flipped[-2:, 0] *= -1  # the last component alone
    assert not flipped.equal(vectors)
    out = layer(flipped, values, mask, data.edge_index)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "k"), [("cycle", 6), ("grid", 8), ("complete", 4)])
def test_the_basis_of_an_eigenspace_does_not_matter(name, k, eigenpairs):
    edge_index, (vectors, values, mask) = eigenpairs(name, k)
    rotated = vectors.clone()
    sizes = []
    for value in values[0].round(decimals=9).unique():
        space = ((values[0] - value).abs() < 1e-6).nonzero().flatten()
        size = len(space)
        sizes.append(size)
        basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
        rotated[:, space] = vectors[:, space] @ basis
    assert max(sizes) > 1 and sum(sizes) == k
    assert (rotated.abs() - vectors.abs()).abs().max() > 0.1

    layer = encoder()
    want = layer(vectors, values, mask, edge_index)
    out = layer(rotated, values, mask, edge_index)
    assert want.abs().max() > 1e-5
    torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-12)
    # what is invariant to signs only sees a difference
    sign_net = SignNetEncoder(F).double()
    want = sign_net(vectors, values, mask, edge_index)
    assert not torch.allclose(sign_net(rotated, values, mask, edge_index), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "k"), [("cycle", 6), ("grid", 8), ("complete", 4)])
def test_small_changes_of_the_weights_are_small_changes(name, k, eigenpairs):
    layer, sign_net = encoder(), SignNetEncoder(F).double()
    edge_index, pairs = eigenpairs(name, k)
    want, other = layer(*pairs, edge_index), sign_net(*pairs, edge_index)
    changes, others = [], []
    for noise in (1e-3, 1e-5, 1e-7):
        _, pairs = eigenpairs(name, k, noise)
        changes.append((layer(*pairs, edge_index) - want).abs().max() / noise)
        others.append((sign_net(*pairs, edge_index) - other).abs().max() / noise)
    # at most in proportion to the noise, though the noise picks the basis of an eigenspace
    assert 0 < min(changes) and max(changes) < 10
    assert others[-1] > 1000 * others[0]


def test_a_node_without_eigenpair_is_zero(batched):
    data, pairs = batched("one node", "path", "no edge")
    out = encoder()(*pairs, data.edge_index)
    assert out[[0, 5, 6, 7]].eq(0).all()
    assert out[1:5].ne(0).any()


def test_complete_graphs_are_not_wiped_out(eigenpairs):
    edge_index, pairs = eigenpairs("complete", 4)
    assert encoder()(*pairs, edge_index).abs().max() > 1e-5


def test_size_of_the_result_does_not_grow_with_the_graph():
    n = 320
    nodes = torch.arange(n)
    ring = torch.stack([nodes, (nodes + 1) % n])
    edge_index = torch.cat([ring, ring.flip(0)], 1)
    waves = torch.arange(1, 4)
    angle = 2 * torch.pi * nodes.double().unsqueeze(1) * waves / n
    vectors = torch.cat([angle.cos(), angle.sin()], 1) * (2 / n) ** 0.5
    values = (1 - (2 * torch.pi * waves.double() / n).cos()).repeat(2).expand(n, -1)
    layer = StableEncoder(F).double()
    out = layer(vectors, values, torch.ones(n, 6, dtype=torch.bool), edge_index)
    zero = layer.rho(torch.zeros(n, 16, dtype=torch.float64), edge_index)
    assert (n * zero).abs().max() > 10
    assert out.abs().max() < 1


def test_autocast_changes_nothing(batched):
    data, (vectors, values, mask) = batched()
    layer = encoder().float()
    args = vectors.float(), values.float(), mask, data.edge_index
    want = layer(*args)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(*args).equal(want)


def test_pairs_are_made_once_for_an_edge_set(monkeypatch, batched):
    made = []
    make = component_pairs._make
    monkeypatch.setattr(component_pairs, "_make", lambda *args: made.append(1) or make(*args))
    data, pairs = batched()
    for _ in range(3):
        encoder()(*pairs, data.edge_index)
    encoder()(*pairs, EdgeLayout.of(data.edge_index, data.num_nodes))
    assert len(made) == 1


def test_op_keeps_its_promises(batched):
    data, _ = batched()
    for edges, n in ((data.edge_index, data.num_nodes), (torch.empty(2, 0).long(), 0)):
        torch.library.opcheck(component_pairs._make_op, (edges, n))


def test_op_refuses_nodes_that_are_not_there():
    for edges in ([[0], [3]], [[-1], [0]]):
        with pytest.raises(ValueError):
            component_pairs._make_op(torch.tensor(edges), 3)


def test_bad_arguments(batched):
    data, pairs = batched("path")
    with pytest.raises(IndexError):
        encoder()(*pairs, data.edge_index + 1)
    with pytest.raises(ValueError, match=r"'phi' must give shape \[4, 4, 5\] \(got \[4, 4, 2\]\)"):
        encoder(phi=MLP([1, 2], norm=None))(*pairs, data.edge_index)
    with pytest.raises(ValueError, match=r"'rho' must give shape \[16, 3\] \(got \[16, 2\]\)"):
        encoder(rho=GAT(M, 2, 1))(*pairs, data.edge_index)
