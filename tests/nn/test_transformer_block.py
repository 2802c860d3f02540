"""`TransformerBlock` is torch's encoder layer, one graph at a time, without padding."""

import copy
import pickle

import pytest
import torch
from torch.nn import TransformerEncoderLayer

from pyg_gt import EdgeMask, GraphLayout, PairBias
from pyg_gt.nn import TransformerBlock

F, H = 8, 2


def layer(**options):
    """torch's layer, with no weight at a special value."""
    options = {"dim_feedforward": 13, "dropout": 0.0, "batch_first": True, **options}
    result = TransformerEncoderLayer(F, H, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return result


def nodes(n=16):
    return torch.randn(n, F, dtype=torch.float64)


class OneByOne(torch.nn.Module):
    """torch's layer on each graph by itself; parameters are named as in the block."""

    def __init__(self, encoder):
        super().__init__()
        for name, child in encoder.named_children():
            self.add_module(name, child)
        self.encoder = [encoder]

    def forward(self, x, batch):
        out = torch.zeros_like(x)
        for graph in batch.unique():
            here = (batch == graph).nonzero().flatten()
            out = out.index_put((here,), self.encoder[0](x[here].unsqueeze(0)).squeeze(0))
        return out

    def train(self, mode=True):
        self.encoder[0].train(mode)
        return super().train(mode)


OPTIONS = [
    {},
    {"norm_first": True},
    {"activation": "gelu"},
    {"activation": "gelu", "norm_first": True, "dim_feedforward": 5},
    {"bias": False},
    {"bias": False, "norm_first": True},
    {"activation": torch.nn.functional.silu},
    {"activation": torch.nn.PReLU(dtype=torch.float64)},
    {"layer_norm_eps": 0.1},
]


def name(options):
    """Without the address of a function, so that every process finds the same tests."""
    return ",".join(f"{key}={getattr(value, '__name__', value)}" for key, value in options.items())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_outputs_and_gradients_are_torchs(options, training, agree, batch_of, fused_calls):
    batch, _ = batch_of()
    theirs = layer(**options).train(training)
    ours = TransformerBlock.from_torch(theirs)
    assert ours.training is training
    agree(ours, OneByOne(theirs), nodes(), batch)
    assert len(fused_calls) == 1


@pytest.mark.parametrize("form", ["unsorted", "layout", "none"])
def test_every_form_of_batch(form, agree, batch_of):
    batch, _ = batch_of()
    theirs = layer()
    ours = TransformerBlock.from_torch(theirs)
    given = batch
    if form == "unsorted":
        given = batch = batch[torch.randperm(16)]
    if form == "layout":
        given = GraphLayout.from_batch(batch)
    if form == "none":
        given, batch = None, torch.zeros(16, dtype=torch.int64)
    one_by_one = OneByOne(theirs)
    agree(lambda x: ours(x, given), lambda x: one_by_one(x, batch), nodes())


def test_torchs_padded_batch_gives_the_same(batch_of):
    from torch_geometric.utils import to_dense_batch

    batch, _ = batch_of((1, 5, 3, 7))
    theirs = layer().train()
    x = nodes()
    dense, mask = to_dense_batch(x, batch)
    want = theirs(dense, src_key_padding_mask=~mask)[mask]
    torch.testing.assert_close(TransformerBlock.from_torch(theirs)(x, batch), want)


def test_weights_are_copies():
    theirs = layer(activation=torch.nn.PReLU(dtype=torch.float64))
    ours = TransformerBlock.from_torch(theirs)
    shared = {p.data_ptr() for p in theirs.parameters()}
    assert shared.isdisjoint(p.data_ptr() for p in ours.parameters())
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("ffn_channels", [None, 5])
def test_state_dicts_load_both_ways(ffn_channels):
    ours = TransformerBlock(F, H, ffn_channels).double()
    theirs = layer(dim_feedforward=4 * F if ffn_channels is None else ffn_channels)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("norm_first", [False, True])
def test_gated_mlp_against_the_formula(norm_first, agree, batch_of):
    batch, _ = batch_of()
    ours = TransformerBlock(F, H, 5, act="silu", gated=True, norm_first=norm_first).double()
    assert ours.linear1.weight.shape == (10, F)

    def formula(x):
        def attend(h):
            parts = [h[batch == g] for g in batch.unique()]
            return torch.cat([ours.self_attn(p, p, p)[0] for p in parts])

        def feed_forward(h):
            w, b = ours.linear1.weight, ours.linear1.bias
            gated = torch.nn.functional.silu(h @ w[:5].t() + b[:5]) * (h @ w[5:].t() + b[5:])
            return gated @ ours.linear2.weight.t() + ours.linear2.bias

        if norm_first:
            x = x + attend(ours.norm1(x))
            return x + feed_forward(ours.norm2(x))
        x = ours.norm1(x + attend(x))
        return ours.norm2(x + feed_forward(x))

    agree(lambda x: ours(x, batch), formula, nodes())


def test_biases_reach_the_scores(batch_of):
    batch, edge_index = batch_of((3, 4))
    ours = TransformerBlock(F, H).double()
    x = nodes(7)
    # a mask against torch's own, head by head the same
    allowed = torch.zeros(7, 7, dtype=torch.bool)
    allowed[edge_index[1], edge_index[0]] = True
    allowed.fill_diagonal_(True)
    edges = allowed.t().nonzero().t()
    assert not bool(allowed[:3, :3].all() and allowed[3:, 3:].all())
    theirs = TransformerEncoderLayer(F, H, 4 * F, 0.0, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    want = theirs(x.unsqueeze(0), src_mask=~allowed).squeeze(0)
    torch.testing.assert_close(ours(x, batch, biases=(EdgeMask(edges),)), want)
    assert not torch.allclose(ours(x, batch), want)

    values = torch.randn(49, H, dtype=torch.float64)
    added = values.view(7, 7, H).permute(2, 0, 1)
    want = theirs(x.unsqueeze(0), src_mask=added).squeeze(0)
    torch.testing.assert_close(ours(x, None, biases=(PairBias(values),)), want)


def test_dropout_is_torchs_in_places_and_rates():
    theirs = layer(dropout=0.25)
    theirs.dropout1.p, theirs.self_attn.dropout = 0.5, 0.75
    ours = TransformerBlock.from_torch(theirs)
    assert [ours.dropout.p, ours.dropout1.p, ours.dropout2.p] == [0.25, 0.5, 0.25]
    assert ours.self_attn.dropout == 0.75
    ours = TransformerBlock(F, H, dropout=0.1)
    assert [ours.dropout.p, ours.dropout1.p, ours.dropout2.p] == [0.1] * 3
    assert ours.self_attn.dropout == 0.1


def test_dropout_has_torchs_mean_and_variance():
    theirs = layer(dropout=0.3, norm_first=True)
    ours = TransformerBlock.from_torch(theirs)
    copies = 4000
    x = nodes(3)
    with torch.no_grad():
        many = x.repeat(copies, 1)
        mine = ours(many, torch.arange(copies).repeat_interleave(3)).view(copies, 3, F)
        want = theirs(x.expand(copies, 3, F))
    spread = want.std(0)
    assert (mine.mean(0) - want.mean(0)).abs().le(7 * spread / copies**0.5).all()
    torch.testing.assert_close(mine.std(0), spread, rtol=0.1, atol=1e-9)


def test_copies_and_pickles_give_the_same(batch_of):
    batch, _ = batch_of()
    ours = TransformerBlock.from_torch(layer(activation="gelu"))
    x = nodes()
    want = ours(x, batch)
    assert copy.deepcopy(ours)(x, batch).equal(want)
    assert pickle.loads(pickle.dumps(ours))(x, batch).equal(want)


def test_reset_parameters_draws_anew():
    ours = TransformerBlock(F, H)
    before = {name: p.clone() for name, p in ours.named_parameters()}
    with torch.no_grad():
        for p in ours.parameters():
            p.fill_(7.0)
    ours.reset_parameters()
    for name, p in ours.named_parameters():
        assert not (p == 7.0).any(), name
        if p.dim() > 1:
            assert not p.equal(before[name]), name
    TransformerBlock.from_torch(layer(bias=False)).reset_parameters()


def test_an_attention_that_was_replaced_runs_on_a_padded_batch(agree, batch_of):
    batch, _ = batch_of((1, 5, 3, 7))
    theirs = layer()
    ours = TransformerBlock.from_torch(theirs)
    forward = ours.self_attn.forward
    ours.self_attn.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    with pytest.warns(UserWarning, match="padded batch.*'attn.forward' was replaced"):
        agree(ours, OneByOne(theirs), nodes(), batch)


def test_printed_form():
    assert str(TransformerBlock(F, H)) == "TransformerBlock(8, heads=2)"


def test_bad_arguments(batch_of):
    with pytest.raises(ValueError, match="got 8 channels, 3 heads"):
        TransformerBlock(F, 3)
    with pytest.raises(ValueError, match="got 'Linear'"):
        TransformerBlock.from_torch(torch.nn.Linear(1, 1))

    class Own(TransformerEncoderLayer):
        pass

    with pytest.raises(ValueError, match="got 'Own'"):
        TransformerBlock.from_torch(Own(F, H))
    ours = TransformerBlock(F, H).double()
    batch, _ = batch_of()
    with pytest.raises(ValueError, match="describes 15 nodes"):
        ours(nodes(), batch[:15])
    with pytest.raises(ValueError, match="negative"):
        ours(nodes(), batch - 1)
    with pytest.raises(ValueError, match="integers"):
        ours(nodes(), batch.float())
    with pytest.raises(ValueError, match="Unknown backend 'nope'"):
        TransformerBlock(F, H, backend="nope")
    ours.self_attn = torch.nn.Identity()
    with pytest.raises(ValueError, match="cannot run its attention: 'attn' is a 'Identity'"):
        ours(nodes(), batch)


def test_dropout_of_each_place_is_its_own():
    ours = TransformerBlock(F, H, dropout=0.1, attn_dropout=0.2, act_dropout=0.3)
    rates = [ours.self_attn.dropout, *(getattr(ours, f"dropout{i}").p for i in ("", 1, 2))]
    assert rates == [0.2, 0.3, 0.1, 0.1]
    same = TransformerBlock(F, H, dropout=0.1)
    assert same.self_attn.dropout == same.dropout.p == 0.1
    x = torch.randn(5, F)
    # everything but the residual is dropped inside the MLP: its bias is left
    ours = TransformerBlock(F, H, norm_first=True, act_dropout=1.0)
    with torch.no_grad():
        attended = x + ours._attend(ours.norm1(x), GraphLayout.of(None, 5), ())
        torch.testing.assert_close(ours(x), attended + ours.linear2.bias)
    for name in ("attn_dropout", "act_dropout"):
        with pytest.raises(ValueError, match=f"'{name}' must be a number in"):
            TransformerBlock(F, H, **{name: 1.5})
