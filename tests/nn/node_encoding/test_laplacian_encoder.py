"""`LaplacianEncoder`: the two formulas, and a sign for each graph and column."""

import pytest
import torch

from pyg_gt import GraphLayout
from pyg_gt.nn import LaplacianEncoder

K, F = 4, 6


def signs_of(batch, num_nodes, seed=1, k=16):
    """The signs that a layer draws: it is made to return its vectors, which are all 1."""
    layer = LaplacianEncoder(k, k, kind="linear")
    torch.nn.init.eye_(layer.encoder.weight)
    torch.nn.init.zeros_(layer.encoder.bias)
    torch.manual_seed(seed)
    ones = torch.ones(num_nodes, k)
    return layer(ones, ones, ones.bool(), batch)


def test_deepset_is_graphgps(batched):
    _, (vectors, values, mask) = batched()
    ours = LaplacianEncoder(K, F, num_layers=3, post_layers=2).double().eval()
    nn = torch.nn
    a, b, c = ours.encoder.lins
    theirs = nn.Sequential(
        nn.Linear(2, 2 * F), nn.ReLU(), nn.Linear(2 * F, 2 * F), nn.ReLU(),
        nn.Linear(2 * F, F), nn.ReLU(),
    ).double()  # fmt: skip
    for i, lin in zip((0, 2, 4), (a, b, c), strict=True):
        theirs[i].load_state_dict(lin.state_dict())
    post = nn.Sequential(nn.Linear(F, 2 * F), nn.ReLU(), nn.Linear(2 * F, F), nn.ReLU()).double()
    for i, lin in zip((0, 2), ours.post.lins, strict=True):
        post[i].load_state_dict(lin.state_dict())

    want = []
    for node in range(len(vectors)):
        total = torch.zeros(F, dtype=torch.float64)
        for j in range(K):
            if mask[node, j]:
                total = total + theirs(torch.stack([vectors[node, j], values[node, j]]))
        want.append(post(total))
    torch.testing.assert_close(ours(vectors, values, mask), torch.stack(want))


def test_linear_is_a_linear_map_of_the_vectors(batched):
    _, (vectors, values, mask) = batched()
    ours = LaplacianEncoder(K, F, kind="linear").double().eval()
    theirs = torch.nn.Linear(K, F).double()
    theirs.load_state_dict(ours.encoder.state_dict())
    torch.testing.assert_close(ours(vectors, values, mask), theirs(vectors))


@pytest.mark.parametrize("kind", ["deepset", "linear"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_signs_are_drawn_in_training_only(kind, training, batched):
    data, pairs = batched("cycle", "grid", "path")
    layer = LaplacianEncoder(K, F, kind=kind).double().train(training)
    first, second = layer(*pairs, data.batch), layer(*pairs, data.batch)
    assert first.equal(second) is not training
    torch.manual_seed(5)
    third = layer(*pairs, data.batch)
    torch.manual_seed(5)
    assert layer(*pairs, data.batch).equal(third)


def test_a_drawn_sign_is_one_of_two(batched):
    data, (vectors, values, mask) = batched("cycle", "grid")
    layer = LaplacianEncoder(K, F).double()
    flips = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * K)
    layer.eval()
    known = torch.stack([layer(vectors * flip, values, mask) for flip in flips])
    layer.train()
    out = layer(vectors, values, mask, data.batch)
    for g in range(2):
        nodes = data.batch == g
        assert any(torch.allclose(out[nodes], one[nodes]) for one in known)


@pytest.mark.parametrize("form", ["tensor", "int32", "layout", "unsorted", "empty graphs"])
def test_signs_are_per_graph_and_column(form):
    batch = torch.tensor([0, 0, 0, 1, 2, 2, 2])
    given = batch
    if form == "int32":
        given = batch.int()
    if form == "layout":
        given = GraphLayout.from_batch(batch, num_graphs=9)
    if form == "unsorted":
        given = batch = batch[torch.tensor([4, 0, 3, 5, 1, 6, 2])]
    if form == "empty graphs":  # numbers beyond the number of nodes
        given = batch = batch * 700 + 3
    signs = signs_of(given, 7)
    assert signs.abs().eq(1).all()
    rows = []
    for g in batch.unique():
        here = signs[batch == g]
        assert here.eq(here[0]).all()
        rows.append(tuple(here[0].tolist()))
        assert 0 < here[0].gt(0).sum() < 16  # not one sign for all columns
    assert len(set(rows)) == 3


def test_one_graph_has_one_sign_a_column():
    signs = signs_of(None, 5)
    assert signs.abs().eq(1).all() and signs.eq(signs[0]).all()
    assert 0 < signs[0].gt(0).sum() < 16


def test_signs_are_fair_and_independent():
    graphs, k = 2000, 4
    signs = signs_of(torch.arange(graphs), graphs, k=k)
    close = 5 / graphs**0.5
    assert signs.mean(0).abs().max() < close
    products = signs.t() @ signs / graphs - torch.eye(k)
    assert products.abs().max() < close
    assert (signs[1:] * signs[:-1]).mean(0).abs().max() < close


def test_batch_is_not_read_in_evaluation():
    ones = torch.ones(3, K)
    layer = LaplacianEncoder(K, F).eval()
    want = layer(ones, ones, ones.bool())
    assert layer(ones, ones, ones.bool(), torch.tensor([0, 0, 1])).equal(want)


def test_bad_arguments():
    with pytest.raises(ValueError, match="'deepset' or 'linear' \\(got 'transformer'\\)"):
        LaplacianEncoder(K, F, kind="transformer")
    ones = torch.ones(3, K)
    with pytest.raises(ValueError, match=r"\[N, 4\] \(got torch.float32 of shape \[3, 3\]\)"):
        LaplacianEncoder(K, F)(ones[:, 1:], ones[:, 1:], ones[:, 1:].bool())
    with pytest.raises(ValueError, match="describes 2 nodes"):
        LaplacianEncoder(K, F)(ones, ones, ones.bool(), torch.tensor([0, 1]))
