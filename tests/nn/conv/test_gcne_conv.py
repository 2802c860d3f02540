"""`GCNEConv` and `GNNPlusBlock` are the formulas of GNN+."""

import pytest
import torch
from torch.nn.functional import gelu, relu

from pyg_gt.nn import GatedGCNConv, GCNEConv, GNNPlusBlock

EDGES = torch.tensor([[0, 1, 1, 1, 2, 5, 4], [1, 0, 0, 2, 2, 3, 1]])


def inputs(channels=4, width=4):
    x = torch.randn(6, channels, dtype=torch.double)
    return x, torch.randn(EDGES.size(1), width, dtype=torch.double)


class Loops(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.lin, self.bias = conv.lin, conv.bias

    def forward(self, x, edge_index, edge_attr):
        rows = [torch.zeros(self.lin.out_channels, dtype=x.dtype) for _ in x]
        rows[0] = rows[0] + 0 * (self.lin(x).sum() + edge_attr.sum())  # all have a gradient
        for (j, i), e in zip(edge_index.t().tolist(), edge_attr, strict=True):
            rows[i] = rows[i] + relu(self.lin.weight @ x[j] + e)
        out = torch.stack(rows)
        return out if self.bias is None else out + self.bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("edges", [EDGES, EDGES[:, :0]])
def test_formula(bias, edges, agree):
    conv = GCNEConv(3, 4, bias=bias).double()
    if bias:
        torch.nn.init.normal_(conv.bias)
    x, edge_attr = inputs(3)
    agree(conv, Loops(conv), x, edges, edge_attr[: edges.size(1)])


def test_lazy_and_bad_input():
    conv = GCNEConv(-1, 4).double()
    x, edge_attr = inputs(3)
    assert conv(x, EDGES, edge_attr).shape == (6, 4)
    conv.reset_parameters()
    with pytest.raises(ValueError, match=r"'edge_attr' must be .*\[E, 4\]"):
        conv(x, EDGES, edge_attr[:, :2])
    with pytest.raises(ValueError, match="'edge_attr'"):
        conv(x, EDGES, None)
    with pytest.raises(ValueError, match="'out_channels'"):
        GCNEConv(3, 0)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("ffn", [True, False])
def test_block_by_hand(residual, norm, ffn):
    conv = GCNEConv(4, 4)
    block = GNNPlusBlock(4, conv, act="gelu", norm=norm, residual=residual, ffn=ffn).double()
    x, edge_attr = inputs()

    def batch_norm(module, h):
        h = (h - h.mean(0)) / (h.var(0, unbiased=False) + module.eps).sqrt()
        return h * module.weight + module.bias

    h = conv(x, EDGES, edge_attr)
    h = gelu(batch_norm(block.norm, h) if norm else h)
    h = x + h if residual else h
    if ffn:
        h = batch_norm(block.ffn["norm1"], h)
        two = block.ffn["linear2"](gelu(block.ffn["linear1"](h)))
        h = batch_norm(block.ffn["norm2"], h + two)
    torch.testing.assert_close(block(x, EDGES, edge_attr=edge_attr), h)


def test_block_around_a_convolution_that_is_whole():
    conv = GatedGCNConv(4, 4)
    block = GNNPlusBlock(4, conv, ffn=False, activated=True).double().eval()
    x, edge_attr = inputs()
    for ours, theirs in zip(
        block(x, EDGES, edge_attr=edge_attr), conv(x, EDGES, edge_attr), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_block_drops_and_draws_anew():
    block = GNNPlusBlock(4, GCNEConv(4, 4), dropout=1.0, norm=False, ffn=False).double()
    x, edge_attr = inputs()
    assert torch.equal(block(x, EDGES, edge_attr=edge_attr), x)
    before = block.conv.lin.weight.clone()
    block.reset_parameters()
    assert not torch.equal(before, block.conv.lin.weight)
    assert repr(block).startswith("GNNPlusBlock(4, conv=GCNEConv(4, 4)")
    with pytest.raises(ValueError, match="'x' must be"):
        block(x[:, :2], EDGES, edge_attr=edge_attr)
    with pytest.raises(ValueError, match="'conv' must be a module"):
        GNNPlusBlock(4, GCNEConv)
    with pytest.raises(ValueError, match="'dropout'"):
        GNNPlusBlock(4, GCNEConv(4, 4), dropout=2)
