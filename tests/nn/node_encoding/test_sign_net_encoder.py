"""`SignNetEncoder`: the formula, and that no sign matters."""

import pytest
import torch
from torch_geometric.nn import GAT, GIN, MLP

from pyg_gt.nn import SignNetEncoder

F, C = 6, 8


def encoder(phi="gin"):
    """One encoder for each kind of phi."""
    if phi == "mlp":
        return SignNetEncoder(F, C, phi=MLP([2, 5, C], norm=None)).double()
    if phi == "batch norm":
        return SignNetEncoder(F, C, phi=GIN(2, C, 2, norm="batch_norm")).double()
    if phi == "gat":
        return SignNetEncoder(F, C, phi=GAT(2, C, 1, edge_dim=None)).double()
    return SignNetEncoder(F, C, num_layers=2).double()


def edges_of(phi, data):
    return None if phi == "mlp" else data.edge_index


PHIS = ["gin", "mlp", "gat", "batch norm"]


@pytest.mark.parametrize("phi", ["gin", "mlp", "gat"])
def test_is_the_formula_column_by_column(phi, batched):
    data, (vectors, values, mask) = batched()
    ours = encoder(phi)

    def one(column, sign):
        x = torch.stack([sign * vectors[:, column], values[:, column]], dim=1)
        return ours.phi(x) if phi == "mlp" else ours.phi(x, data.edge_index)

    total = torch.zeros(data.num_nodes, C, dtype=torch.float64)
    for j in range(vectors.size(1)):
        total = total + mask[:, j : j + 1] * (one(j, 1) + one(j, -1))
    a, b = ours.rho.lins
    want = (total @ a.weight.t() + a.bias).relu() @ b.weight.t() + b.bias
    out = ours(vectors, values, mask, edges_of(phi, data))
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("phi", PHIS)
def test_signs_do_not_matter(phi, training, batched):
    data, (vectors, values, mask) = batched()
    ours = encoder(phi).train(training)
    want = ours(vectors, values, mask, edges_of(phi, data))
    flip = torch.ones(vectors.size(1), dtype=torch.float64)
    flip[::2] = -1
    for signs in (flip, -flip, -torch.ones(1, dtype=torch.float64)):
        out = ours(vectors * signs, values, mask, edges_of(phi, data))
        torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    # each component has a sign of its own
    _, (vectors, values, mask) = data, batched("disconnected")[1]
    edges = batched("disconnected")[0].edge_index if phi != "mlp" else None
    want = ours(vectors, values, mask, edges)
    vectors[5:8] *= -1
    vectors[8:, 0] *= -1
    torch.testing.assert_close(ours(vectors, values, mask, edges), want, rtol=1e-12, atol=1e-12)


def test_relative_signs_of_neighbours_do_matter(batched):
    data, (vectors, values, mask) = batched("path")
    ours = encoder()
    out = ours(vectors, values, mask, data.edge_index)
    assert not torch.allclose(ours(vectors.abs(), values, mask, data.edge_index), out)


def test_order_and_number_of_columns_do_not_matter(batched):
    data, (vectors, values, mask) = batched("disconnected")
    ours = encoder()
    want = ours(vectors, values, mask, data.edge_index)
    order = torch.tensor([2, 0, 3, 1])
    out = ours(vectors[:, order], values[:, order], mask[:, order], data.edge_index)
    torch.testing.assert_close(out, want)
    wide = [torch.nn.functional.pad(t, (0, 3)) for t in (vectors, values, mask)]
    torch.testing.assert_close(ours(*wide, data.edge_index), want)


def test_sparse_adjacency(batched):
    data, pairs = batched("grid")
    adjacency = torch.sparse_coo_tensor(data.edge_index.flip(0), torch.ones(24), (9, 9))
    ours = encoder()
    torch.testing.assert_close(ours(*pairs, adjacency.coalesce()), ours(*pairs, data.edge_index))


def test_bad_arguments(batched):
    data, pairs = batched("path")
    with pytest.raises(ValueError, match="needs 'edge_index' \\(got None\\)"):
        encoder()(*pairs)
    with pytest.raises(IndexError):
        encoder()(*pairs, data.edge_index + 1)
    wrong = SignNetEncoder(F, C, phi=MLP([2, 3], norm=None)).double()
    with pytest.raises(ValueError, match=r"\[32, 8\] in all \(got \[32, 3\]\)"):
        wrong(*pairs)
