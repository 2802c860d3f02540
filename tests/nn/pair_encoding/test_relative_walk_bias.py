"""`RelativeWalkBias` against its formula, pair by pair."""

import pytest
import torch

from pyg_gt.nn import RelativeWalkBias
from pyg_gt.nn.pair_encoding import relative_walk_bias

from .graphs import HEADS, WALK_LENGTH, join, walk, walk_hidden, walks_of


def by_hand(encoder, data):
    """``[P, H]``, one probability at a time."""
    rows = []
    for n, edges in data.graphs:
        for chances in walks_of(n, edges):
            features = torch.tensor(chances, dtype=torch.float64)
            if encoder.lin_hidden is not None:
                hidden = encoder.lin_hidden.bias
                for k, chance in enumerate(chances):
                    hidden = hidden + chance * encoder.lin_hidden.weight[:, k]
                features = torch.where(hidden > 0, hidden, 0.0)
            rows.append(sum(f * w for f, w in zip(features, encoder.lin.weight.t(), strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize("make", [walk, walk_hidden])
def test_values_and_gradients_are_those_of_the_formula(make):
    data, encoder = join(), make()
    got, want = encoder(data.pair_walk).values, by_hand(encoder, data)
    assert got.shape == (data.num_pairs, HEADS)
    torch.testing.assert_close(got, want)
    waves, leaves = torch.randn_like(got), list(encoder.parameters())
    assert len(leaves) == (1 if encoder.lin_hidden is None else 3)
    for ours, theirs in zip(
        torch.autograd.grad(got, leaves, waves),
        torch.autograd.grad(want, leaves, waves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def results(encoder, pair_walk):
    values = encoder(pair_walk).values
    leaves = [pair_walk, *encoder.parameters()]
    first = torch.autograd.grad(values.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), leaves)
    return [values, *first, *second]


def test_some_pairs_at_a_time_give_the_same_and_keep_no_hidden_layer(monkeypatch):
    data, encoder = join(), walk_hidden()
    pair_walk = data.pair_walk.requires_grad_()
    want = results(encoder, pair_walk)
    with torch.no_grad():
        plain = encoder(pair_walk).values
    kept = []

    def saved():
        kept.clear()
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x: (kept.append(x.shape[0]), x)[1], lambda x: x
        )
        with hooks:
            return encoder(pair_walk)

    saved()
    assert data.num_pairs in kept
    monkeypatch.setattr(relative_walk_bias, "_HIDDEN_AT_ONCE", 7 * encoder.hidden_channels)
    saved()
    assert data.num_pairs not in kept
    for a, b in zip(results(encoder, pair_walk), want, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pair_walk).values, plain)
    monkeypatch.setattr(relative_walk_bias, "_HIDDEN_AT_ONCE", 1)  # less than one pair
    torch.testing.assert_close(encoder(pair_walk).values, plain)


@pytest.mark.parametrize("make", [walk, walk_hidden])
def test_probabilities_may_be_stored_in_half_precision(make):
    data, encoder = join(), make(torch.float32)
    got = encoder(data.pair_walk.half()).values
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, encoder(data.pair_walk.float()).values, rtol=0.0, atol=5e-3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="'walk_length' must be .* at least 1 .got 0"):
        RelativeWalkBias(0, 2)
    with pytest.raises(ValueError, match="'hidden_channels' must be .* at least 1 .got 0"):
        RelativeWalkBias(4, 2, 0)
    encoder = RelativeWalkBias(WALK_LENGTH, HEADS)
    with pytest.raises(ValueError, match=r"'AddRelativeRandomWalkPE\(4\)' makes it"):
        encoder(torch.zeros(3, WALK_LENGTH + 1))
    with pytest.raises(ValueError, match=r"floating-point.*got shape \[3, 4\], torch.int64"):
        encoder(torch.zeros(3, WALK_LENGTH, dtype=torch.int64))


def test_printed_form():
    assert str(RelativeWalkBias(8, 4)) == "RelativeWalkBias(8, heads=4, hidden_channels=None)"
    assert str(RelativeWalkBias(8, 4, 16)) == "RelativeWalkBias(8, heads=4, hidden_channels=16)"
