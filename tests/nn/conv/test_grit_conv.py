"""`GRITConv` is the formula of GRIT."""

import pytest
import torch
from torch.nn.functional import batch_norm, layer_norm
from torch_geometric.nn import global_add_pool

from pyg_gt import GraphLayout
from pyg_gt.nn import GRITConv
from pyg_gt.nn.message_passing.pair_messages import complete_edge_index

SIZES = (3, 1, 0, 4)
BATCH = torch.arange(4).repeat_interleave(torch.tensor(SIZES))
UNSORTED = torch.tensor([3, 0, 1, 3, 0, 3, 0, 3])


class Loops(torch.nn.Module):
    """One pair after another, in the words of the paper."""

    def __init__(self, conv: GRITConv, norm: str | None = "batch_norm") -> None:
        super().__init__()
        # the names of the parameters are those of the layer, in the same order
        for name, module in conv.named_children():
            setattr(self, name, module)
        self.deg_coef, self.heads, self.norm = conv.deg_coef, conv.heads, norm

    def _normalized(self, module, h):
        if self.norm is None:
            return h
        if self.norm == "layer_norm":
            return layer_norm(h, h.shape[1:], module.weight, module.bias)
        return batch_norm(h, None, None, module.weight, module.bias, training=True)

    def forward(self, x, pair_attr, batch, degree):
        a, H, N = self.attention, self.heads, x.size(0)
        C = x.size(1) // H
        sent = torch.zeros(N, H, C, dtype=x.dtype)
        hidden, p = torch.zeros_like(pair_attr), 0
        for graph in batch.unique().tolist():
            nodes = (batch == graph).nonzero().view(-1).tolist()
            for i in nodes:
                scores, messages = [], []
                for j in nodes:
                    both = (a.Q(x[i]) + a.K(x[j])).view(H, C)
                    scale_and_shift = a.E(pair_attr[p]).view(H, 2 * C)
                    t = both * scale_and_shift[:, :C]
                    root = torch.sqrt(t.relu()) - torch.sqrt((-t).relu())
                    e = (root + scale_and_shift[:, C:]).relu()
                    hidden = hidden.index_copy(0, torch.tensor([p]), e.view(1, -1))
                    scores.append(torch.einsum("hd,dh->h", e, a.Aw[..., 0]).clamp(-5, 5))
                    row = torch.einsum("hd,dhc->hc", e, a.VeRow)
                    messages.append(a.V(x[j]).view(H, C) + row)
                    p += 1
                alpha = torch.stack(scores).softmax(0)
                out = (alpha.unsqueeze(-1) * torch.stack(messages)).sum(0)
                sent = sent.index_copy(0, torch.tensor([i]), out.unsqueeze(0))
        out = sent.flatten(1)
        scaled = torch.stack([out, out * torch.log(degree.double() + 1).view(-1, 1)], -1)
        h = x + self.O_h((scaled * self.deg_coef).sum(-1))
        h = self._normalized(self.batch_norm1_h, h)
        h = h + self.FFN_h_layer2(self.FFN_h_layer1(h).relu())
        e = pair_attr + self.O_e(hidden)
        return self._normalized(self.batch_norm2_h, h), self._normalized(self.batch_norm1_e, e)


def inputs(batch=BATCH, channels=8):
    num_pairs = int(batch.bincount().square().sum())
    x = torch.randn(batch.numel(), channels, dtype=torch.double)
    pair_attr = torch.randn(num_pairs, channels, dtype=torch.double)
    return x, pair_attr, batch, torch.randint(0, 4, batch.shape)


def randomised(conv):
    """In float64, also the norms and constant terms."""
    for parameter in conv.double().parameters():
        torch.nn.init.normal_(parameter)
    return conv


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", None])
@pytest.mark.parametrize("batch", [BATCH, UNSORTED], ids=["sorted", "unsorted"])
def test_formula(batch, norm, agree):
    conv = randomised(GRITConv(8, heads=2, norm=norm))
    agree(conv, Loops(conv, norm), *inputs(batch))


def test_scores_are_clamped(agree):
    conv = randomised(GRITConv(8, heads=2))
    with torch.no_grad():
        conv.attention.Aw.mul_(100)
    agree(conv, Loops(conv), *inputs())


def test_exact_zeros(agree):
    """Nothing is infinite where a product is zero, and the gradient there is none."""
    conv = randomised(GRITConv(8, heads=2, norm=None))
    x, pair_attr, batch, degree = inputs()
    with torch.no_grad():
        conv.attention.E.bias.zero_()
    x[:3], pair_attr[::2] = 0, 0
    agree(conv, Loops(conv, None), x, pair_attr, batch, degree)
    agree(conv, Loops(conv, None), 0 * x, 0 * pair_attr, batch, degree)
    x, pair_attr = (0 * x).requires_grad_(), (0 * pair_attr).requires_grad_()
    outs = conv(x, pair_attr, batch, degree)
    grads = torch.autograd.grad(sum(out.square().sum() for out in outs), [x, *conv.parameters()])
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_second_derivatives():
    conv = randomised(GRITConv(4, heads=2, norm="layer_norm"))
    x, pair_attr, batch, degree = inputs(torch.tensor([0, 0, 1]), 4)

    def call(x, pair_attr):
        return conv(x, pair_attr, batch, degree)

    arguments = x.requires_grad_(), pair_attr.requires_grad_()
    assert torch.autograd.gradgradcheck(call, arguments)


def test_attention_weights():
    conv = randomised(GRITConv(8, heads=2, attn_dropout=0.5))
    for batch in (BATCH, UNSORTED):
        x, pair_attr, batch, degree = inputs(batch)
        layout = GraphLayout.from_batch(batch)
        *_, (pairs, alpha) = conv(x, pair_attr, layout, degree, return_attention_weights=True)
        assert torch.equal(pairs, complete_edge_index(layout))
        assert alpha.shape == (pairs.size(1), 2)
        sums = torch.zeros(x.size(0), 2, dtype=torch.double).index_add(0, pairs[1], alpha)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_dropout():
    """What is dropped is scaled, in the places where the official code drops."""
    conv = randomised(GRITConv(8, heads=2, dropout=1.0, norm=None))
    x, pair_attr, batch, degree = inputs()
    h, pairs = conv(x, pair_attr, batch, degree)
    torch.testing.assert_close(h, x + conv.O_h.bias + conv.FFN_h_layer2.bias)
    torch.testing.assert_close(pairs, pair_attr + conv.O_e.bias)
    conv = randomised(GRITConv(8, heads=2, attn_dropout=1.0, norm=None))
    silent = randomised(GRITConv(8, heads=2, norm=None))
    silent.load_state_dict(conv.state_dict())
    with torch.no_grad():
        for name in ("V.weight", "VeRow"):
            silent.attention.get_parameter(name).zero_()
    torch.testing.assert_close(
        conv(x, pair_attr, batch, degree)[0], silent(x, pair_attr, batch, degree)[0]
    )
    evaluated = conv.eval()(x, pair_attr, batch, degree)[0]
    assert not torch.equal(evaluated, silent(x, pair_attr, batch, degree)[0])


def test_graphs_do_not_see_each_other():
    conv = randomised(GRITConv(8, heads=2)).eval()
    x, pair_attr, batch, degree = inputs()
    h, pairs = conv(x, pair_attr, batch, degree)
    alone_h, alone_pairs = conv(x[-4:], pair_attr[-16:], None, degree[-4:])
    torch.testing.assert_close(h[-4:], alone_h)
    torch.testing.assert_close(pairs[-16:], alone_pairs)


@pytest.mark.parametrize("training", [True, False])
def test_one_node_and_none(training):
    conv = GRITConv(8, heads=2).double().train(training)
    for num_nodes in (1, 0):
        x, pair_attr = torch.randn(num_nodes, 8).double(), torch.randn(num_nodes, 8).double()
        h, pairs = conv(x, pair_attr, degree=torch.zeros(num_nodes))
        assert h.shape == pairs.shape == (num_nodes, 8)
        assert bool(h.isfinite().all() and pairs.isfinite().all())


def test_without_pair_output():
    conv = GRITConv(8, heads=2, pair_output=False).double()
    h, pairs = conv(*inputs())
    assert pairs is None
    h.square().sum().backward()
    assert all(p.grad is not None for p in conv.parameters())
    full = GRITConv(8, heads=2)
    assert set(full.state_dict()) - set(conv.state_dict()) == {
        *(f"O_e.{name}" for name in ("weight", "bias")),
        *(f"batch_norm1_e.{name}" for name in ("weight", "bias", "running_mean")),
        *(f"batch_norm1_e.{name}" for name in ("running_var", "num_batches_tracked")),
    }


def test_state_dict_and_new_weights():
    conv, other = (GRITConv(8, heads=2, act="gelu").double().eval() for _ in range(2))
    arguments = inputs()
    before = conv(*arguments)[0]
    assert not torch.equal(before, other(*arguments)[0])
    other.load_state_dict(conv.state_dict())
    assert torch.equal(before, other(*arguments)[0])
    old = {name: p.clone() for name, p in conv.named_parameters() if "norm" not in name}
    conv.reset_parameters()
    assert all(not torch.equal(p, conv.get_parameter(name)) for name, p in old.items())
    assert repr(conv) == "GRITConv(8, heads=2)"


def test_bfloat16():
    torch.manual_seed(0)
    conv = GRITConv(16, heads=2)
    x, pair_attr, batch, degree = inputs(channels=16)
    x, pair_attr = x.float(), pair_attr.float()
    want = conv(x, pair_attr, batch, degree)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, pairs = conv(x, pair_attr, batch, degree)
    (out.float().square().sum() + pairs.float().square().sum()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in conv.parameters())
    assert float((out - want).detach().abs().max()) < 0.2
    half = conv.bfloat16()
    h, pairs = half(x.bfloat16(), pair_attr.bfloat16(), batch, degree)
    assert h.dtype == pairs.dtype == torch.bfloat16


def test_compiled():
    torch.compiler.reset()
    conv = GRITConv(8, heads=2, norm="layer_norm").double()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (BATCH, UNSORTED, torch.tensor([0, 0, 1, 1, 1])):
        x, pair_attr, batch, degree = inputs(batch)
        x.requires_grad_()
        results = []
        for call in (compiled, conv):
            h, pairs = call(x, pair_attr, batch, degree)
            loss = global_add_pool(h, batch).square().sum() + pairs.square().sum()
            results.append([h, pairs, *torch.autograd.grad(loss, [x, *conv.parameters()])])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
    torch.compiler.reset()


def test_bad_input():
    conv = GRITConv(8, heads=2).double()
    x, pair_attr, batch, degree = inputs()
    with pytest.raises(ValueError, match="26 in all .got 25 rows."):
        conv(x, pair_attr[1:], batch, degree)
    with pytest.raises(ValueError, match="'degree' must have shape .8."):
        conv(x, pair_attr, batch)
    with pytest.raises(ValueError, match="'degree' must have shape .8."):
        conv(x, pair_attr, batch, degree[1:])
    with pytest.raises(ValueError, match="'degree' must have shape .8."):
        conv(x, pair_attr, batch, degree.bool())
    with pytest.raises(ValueError, match=r"'pair_attr' must be .*\[P, 8\]"):
        conv(x, pair_attr[:, 1:], batch, degree)
    with pytest.raises(ValueError, match=r"'x' must be .*\[N, 8\]"):
        conv(x[:, 1:], pair_attr, batch, degree)
    with pytest.raises(ValueError, match="divisible by 'heads'"):
        GRITConv(8, heads=3)
    with pytest.raises(ValueError, match="'norm' must be 'batch_norm'"):
        GRITConv(8, heads=2, norm="batch")
    with pytest.raises(ValueError, match="'attn_dropout'"):
        GRITConv(8, heads=2, attn_dropout=1.5)
    with pytest.raises(ValueError, match="'pair_output' must be True or False"):
        GRITConv(8, heads=2, pair_output="yes")
