"""`EGTConv` is the formula of EGT."""

import math

import pytest
import torch
from torch.nn.functional import elu

from pyg_gt import GraphLayout
from pyg_gt.nn import EGTConv
from pyg_gt.nn.message_passing.pair_messages import complete_edge_index

SIZES = (3, 1, 0, 4)
BATCH = torch.arange(4).repeat_interleave(torch.tensor(SIZES))
UNSORTED = torch.tensor([3, 0, 1, 3, 0, 3, 0, 3])
VIRTUAL = torch.tensor([True, False, False, False, False, True, False, False])


class Loops(torch.nn.Module):
    """One query after another, in the words of the paper."""

    def __init__(self, conv: EGTConv) -> None:
        super().__init__()
        for name, module in conv.named_children():
            setattr(self, name, module)
        self.heads, self.scale_degree = conv.heads, conv.scale_degree

    def forward(self, x, pair_attr, batch, is_virtual=None):
        H, F = self.heads, x.size(1)
        q, k, v = self.lin_QKV(self.mha_ln_h(x)).chunk(3, dim=1)
        bar = self.mha_ln_e(pair_attr)
        rows, updates, p = [None] * x.size(0), [], 0
        for graph in batch.unique().tolist():
            nodes = (batch == graph).nonzero().view(-1).tolist()
            for i in nodes:
                e = bar[p : p + len(nodes)]
                p += len(nodes)
                # heads vary fastest: the channels of head h are h, h + H, h + 2 H, ...
                scores = torch.stack(
                    [
                        torch.stack([q[i, h::H] @ k[j, h::H] for h in range(H)]) for j in nodes
                    ]
                )  # fmt: skip
                scores = (scores / math.sqrt(F // H)).clamp(-5, 5) + self.lin_E(e)
                gates = torch.sigmoid(self.lin_G(e))
                alpha = scores.softmax(0) * gates
                out = torch.stack([alpha[:, c % H] @ v[nodes, c] for c in range(F)])
                if self.scale_degree and not (is_virtual is not None and is_virtual[i]):
                    out = out * torch.log(1 + gates.sum(0)).repeat(F // H)
                rows[i] = out
                updates.append(self.lin_O_e(scores))
        h = x + self.lin_O_h(torch.stack(rows))
        h = h + self.lin_W_h_2(elu(self.lin_W_h_1(self.ffn_ln_h(h))))
        f = pair_attr + torch.cat(updates)
        return h, f + self.lin_W_e_2(elu(self.lin_W_e_1(self.ffn_ln_e(f))))


def inputs(batch=BATCH, channels=8, pair_channels=6):
    num_pairs = int(batch.bincount().square().sum())
    x = torch.randn(batch.numel(), channels, dtype=torch.double)
    return x, torch.randn(num_pairs, pair_channels, dtype=torch.double), batch


def randomised(conv):
    for parameter in conv.double().parameters():
        torch.nn.init.normal_(parameter)
    return conv


@pytest.mark.parametrize("scale_degree", [True, False])
@pytest.mark.parametrize("batch", [BATCH, UNSORTED], ids=["sorted", "unsorted"])
def test_formula(batch, scale_degree, agree):
    conv = randomised(EGTConv(8, 6, heads=2, scale_degree=scale_degree))
    agree(conv, Loops(conv), *inputs(batch))
    agree(conv, Loops(conv), *inputs(batch), VIRTUAL)


def test_clamped_and_large_scores(agree):
    """Products are clamped, what pairs add is not; nothing overflows."""
    conv = randomised(EGTConv(8, 6, heads=2))
    with torch.no_grad():
        conv.lin_QKV.weight.mul_(30)
        conv.lin_E.weight.mul_(300)
    out, pairs = agree(conv, Loops(conv), *inputs(), rtol=1e-7, atol=1e-7)
    assert bool(out.isfinite().all() and pairs.isfinite().all())


def test_attention_weights():
    conv = randomised(EGTConv(8, 6, heads=2, attn_dropout=0.5))
    with torch.no_grad():
        conv.lin_G.weight.zero_()
        conv.lin_G.bias.zero_()  # gates of one half
    for batch in (BATCH, UNSORTED):
        x, pair_attr, batch = inputs(batch)
        layout = GraphLayout.from_batch(batch)
        *_, (pairs, alpha) = conv(x, pair_attr, layout, return_attention_weights=True)
        assert torch.equal(pairs, complete_edge_index(layout))
        sums = torch.zeros(x.size(0), 2, dtype=torch.double).index_add(0, pairs[1], alpha)
        torch.testing.assert_close(sums, torch.full_like(sums, 0.5))


def test_dropout():
    conv = randomised(EGTConv(8, 6, heads=2, dropout=1.0, pair_dropout=1.0))
    x, pair_attr, batch = inputs()
    assert all(map(torch.equal, conv(x, pair_attr, batch), (x, pair_attr)))
    conv = randomised(EGTConv(8, 6, heads=2, attn_dropout=1.0))
    silent = randomised(EGTConv(8, 6, heads=2))
    silent.load_state_dict(conv.state_dict())
    with torch.no_grad():
        silent.lin_QKV.weight[16:].zero_()
        silent.lin_QKV.bias[16:].zero_()
    want = silent(x, pair_attr, batch)[0]
    torch.testing.assert_close(conv(x, pair_attr, batch)[0], want)
    assert not torch.equal(conv.eval()(x, pair_attr, batch)[0], want)


def test_graphs_do_not_see_each_other():
    conv = randomised(EGTConv(8, 6, heads=2, scale_degree=True))
    x, pair_attr, batch = inputs()
    h, pairs = conv(x, pair_attr, batch)
    alone_h, alone_pairs = conv(x[-4:], pair_attr[-16:])
    torch.testing.assert_close(h[-4:], alone_h)
    torch.testing.assert_close(pairs[-16:], alone_pairs)


def test_one_node_and_none():
    conv = EGTConv(8, 6, heads=2).double()
    for num_nodes in (1, 0):
        x, pair_attr = torch.randn(num_nodes, 8).double(), torch.randn(num_nodes, 6).double()
        h, pairs = conv(x, pair_attr)
        assert h.shape == (num_nodes, 8) and pairs.shape == (num_nodes, 6)
        assert bool(h.isfinite().all() and pairs.isfinite().all())


def test_without_pair_output():
    conv = EGTConv(8, 6, heads=2, pair_output=False).double()
    h, pairs = conv(*inputs())
    assert pairs is None
    h.square().sum().backward()
    assert all(p.grad is not None for p in conv.parameters())
    extra = set(EGTConv(8, 6, heads=2).state_dict()) - set(conv.state_dict())
    assert {name.split(".")[0] for name in extra} == {
        *("lin_O_e", "ffn_ln_e", "lin_W_e_1", "lin_W_e_2"),
    }


def test_state_dict_and_new_weights():
    make = [EGTConv(8, 6, 2, act="gelu", ffn_channels=5, pair_ffn_channels=7) for _ in range(2)]
    conv, other = (each.double() for each in make)
    assert conv.lin_W_h_1.out_features == 5 and conv.lin_W_e_1.out_features == 7
    arguments = inputs()
    before = conv(*arguments)[0]
    assert not torch.equal(before, other(*arguments)[0])
    other.load_state_dict(conv.state_dict())
    assert torch.equal(before, other(*arguments)[0])
    old = {name: p.clone() for name, p in conv.named_parameters() if "_ln_" not in name}
    conv.reset_parameters()
    assert all(not torch.equal(p, conv.get_parameter(name)) for name, p in old.items())
    assert repr(conv) == "EGTConv(8, pair_channels=6, heads=2)"


def test_bfloat16():
    torch.manual_seed(0)
    conv = EGTConv(16, 6, heads=2, scale_degree=True)
    x, pair_attr, batch = inputs(channels=16)
    x, pair_attr = x.float(), pair_attr.float()
    want = conv(x, pair_attr, batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, pairs = conv(x, pair_attr, batch)
    (out.float().square().sum() + pairs.float().square().sum()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in conv.parameters())
    assert float((out - want).detach().abs().max()) < 0.1
    h, pairs = conv.bfloat16()(x.bfloat16(), pair_attr.bfloat16(), batch)
    assert h.dtype == pairs.dtype == torch.bfloat16


def test_compiled():
    torch.compiler.reset()
    conv = EGTConv(8, 6, heads=2, scale_degree=True).double()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (BATCH, UNSORTED, torch.tensor([0, 0, 1, 1, 1])):
        x, pair_attr, batch = inputs(batch)
        x.requires_grad_()
        results = []
        for call in (compiled, conv):
            h, pairs = call(x, pair_attr, batch)
            loss = h.square().sum() + pairs.square().sum()
            results.append([h, pairs, *torch.autograd.grad(loss, [x, *conv.parameters()])])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
    torch.compiler.reset()


def test_bad_input():
    conv = EGTConv(8, 6, heads=2).double()
    x, pair_attr, batch = inputs()
    with pytest.raises(ValueError, match="26 in all .got 25 rows."):
        conv(x, pair_attr[1:], batch)
    with pytest.raises(ValueError, match=r"'pair_attr' must be .*\[P, 6\]"):
        conv(x, pair_attr[:, 1:], batch)
    with pytest.raises(ValueError, match=r"'x' must be .*\[N, 8\]"):
        conv(x[:, 1:], pair_attr, batch)
    for virtual in (VIRTUAL[1:], VIRTUAL.long(), True):
        with pytest.raises(ValueError, match="'is_virtual' must be a bool for each node"):
            conv(x, pair_attr, batch, virtual)
    with pytest.raises(ValueError, match="divisible by 'heads'"):
        EGTConv(8, 6, heads=3)
    with pytest.raises(ValueError, match="'pair_channels'"):
        EGTConv(8, 0, heads=2)
    with pytest.raises(ValueError, match="'pair_dropout'"):
        EGTConv(8, 6, heads=2, pair_dropout=-1)
