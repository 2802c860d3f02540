"""`GatedGCNConv` is the formula of its paper, as GraphGPS runs it."""

import copy

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn import BatchNorm, MessagePassing
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import (
    to_torch_coo_tensor,
    to_torch_csc_tensor,
    to_torch_csr_tensor,
)

from pyg_gt.nn import GatedGCNConv, GPSConv

F = 4

# repeated edges, a self-loop, a node that hears nothing (5)
EDGES = torch.tensor([[0, 1, 1, 1, 2, 5, 4], [1, 0, 0, 2, 2, 3, 1]])


class Formula(torch.nn.Module):
    """Edge by edge, with the weights of a layer."""

    def __init__(self, conv):
        super().__init__()
        for name, child in conv.named_children():
            self.add_module(name, child)
        self.residual = conv.residual

    def forward(self, x, edge_index, edge_attr):
        raw, rows = [], []
        for e, (j, i) in enumerate(edge_index.t().tolist()):
            raw.append(self.D(x[i]) + self.E(x[j]) + self.C(edge_attr[e]))
        for i in range(x.size(0)):
            top = bottom = torch.zeros(self.A.out_channels, dtype=x.dtype)
            for e, (j, target) in enumerate(edge_index.t().tolist()):
                if target == i:
                    top = top + raw[e].sigmoid() * self.B(x[j])
                    bottom = bottom + raw[e].sigmoid()
            rows.append(self.A(x[i]) + top / (bottom + 1e-6))
        h = self.batch_norm(self.bn_node_x, torch.stack(rows)).relu()
        gates = torch.stack(raw) if raw else edge_attr.new_empty(0, self.A.out_channels)
        e = self.batch_norm(self.bn_edge_e, gates).relu()
        return (x + h, edge_attr + e) if self.residual else (h, e)

    def batch_norm(self, norm, h):
        if not self.training or h.size(0) <= 1:  # PyG's BatchNorm(allow_single_element=True)
            mean, var = norm.running_mean, norm.running_var
        else:
            mean, var = h.mean(0), h.var(0, unbiased=False)
        return (h - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias


def layer(*args, **kwargs):
    conv = GatedGCNConv(*args, **kwargs).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for norm in filter(None, (conv.bn_node_x, conv.bn_edge_e)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    return conv


def inputs(n=6, edges=EDGES, channels=F):
    return (
        torch.randn(n, channels, dtype=torch.float64),
        edges,
        torch.randn(edges.size(1), channels, dtype=torch.float64),
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("residual", [True, False])
def test_outputs_and_gradients_are_the_formulas(residual, training, agree):
    conv = layer(F, F, residual=residual).train(training)
    agree(conv, Formula(conv).train(training), *inputs())


def test_other_width_without_residual(agree):
    conv = layer(3, 5, residual=False)
    x, edge_attr = agree(conv, Formula(conv), *inputs(channels=3))
    assert (x.shape, edge_attr.shape) == ((6, 5), (7, 5))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("nodes", [1, 2, 6])
@pytest.mark.parametrize("edges", [0, 1, 2])
def test_few_nodes_and_few_edges(edges, nodes, training, agree):
    conv = layer(F, F).train(training)
    formula = Formula(copy.deepcopy(conv)).train(training)
    index = torch.tensor([[0, nodes - 1], [nodes - 1, 0]])[:, :edges]
    given = inputs(nodes, index)
    before = {name: b.clone() for name, b in conv.named_buffers()}
    x, edge_attr = agree(lambda *args: conv(*args), formula.forward, *given)
    assert (x.shape, edge_attr.shape) == ((nodes, F), (edges, F))
    for name, buffer in conv.named_buffers():  # a row without variance leaves no trace
        rows = nodes if "node" in name else edges
        assert buffer.equal(before[name]) == (not training or rows <= 1), name


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_no_nodes(training):
    conv = layer(F, F).train(training)
    x, edge_attr = conv(*inputs(0, torch.empty(2, 0, dtype=torch.int64)))
    assert (x.shape, edge_attr.shape) == ((0, F), (0, F))
    (x.sum() + edge_attr.sum()).backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters() if p.grad is not None)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_its_norm_is_pygs_batch_norm_that_allows_a_single_row(rows, agree):
    ours = layer(F, F).bn_edge_e
    theirs = BatchNorm(F, allow_single_element=True).double()
    theirs.module.load_state_dict(ours.state_dict())
    agree(ours, theirs, torch.randn(rows, F, dtype=torch.float64))
    assert list(ours.state_dict()) == list(torch.nn.BatchNorm1d(F).state_dict())


FORMS = {
    "EdgeIndex": lambda e, n: EdgeIndex(e, sparse_size=(n, n)),
    "int32": lambda e, n: e.int(),
    "csr": lambda e, n: to_torch_csr_tensor(e.flip(0), size=(n, n)),
    "csc": lambda e, n: to_torch_csc_tensor(e.flip(0), size=(n, n)),
    "coo": lambda e, n: to_torch_coo_tensor(e.flip(0), size=(n, n), is_coalesced=False),
    "uncoalesced coo": lambda e, n: torch.sparse_coo_tensor(
        e.flip(0), torch.ones(e.size(1)), (n, n)
    ),
    "SparseTensor": lambda e, n: SparseTensor(row=e[1], col=e[0], sparse_sizes=(n, n)),
}


class SeenByPyG(MessagePassing):
    """The sources and targets of an edge set in the order in which PyG reads them."""

    def forward(self, edge_index, num_nodes):
        nodes = torch.arange(num_nodes).unsqueeze(1)
        self.propagate(edge_index, x=nodes, size=(num_nodes, num_nodes))
        return self.seen

    def message(self, x_i, x_j):
        self.seen = torch.cat([x_j, x_i], 1).t()
        return x_j.float()


@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("edges", [EDGES, EDGES[:, :1], EDGES[:, :0]], ids=["7", "1", "0"])
def test_sparse_matrices_have_their_edges_in_pygs_order(edges, form, training, agree):
    if form == "SparseTensor":
        pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    edges = edges.unique(dim=1)
    edges = edges[:, torch.randperm(edges.size(1))]
    given = FORMS[form](edges, 6)
    if form == "csc":  # of which PyG sends no messages: column by column, as it stores them
        listed = edges[:, (edges[0] * 6 + edges[1]).argsort()]
    elif form == "uncoalesced coo":  # as PyG's 'to_edge_index' reads it
        listed = edges
    else:
        listed = SeenByPyG()(given, 6)
    x, _, edge_attr = inputs(edges=edges)
    conv = layer(F, F).train(training)
    formula = Formula(copy.deepcopy(conv)).train(training)
    agree(lambda x, a: conv(x, given, a), lambda x, a: formula(x, listed, a), x, edge_attr)
    with pytest.raises(ValueError, match=rf"of shape \[{edges.size(1)}, F\]"):
        conv(x, given, torch.randn(edges.size(1) + 1, F, dtype=torch.float64))


@pytest.mark.parametrize("form", ["coo", "SparseTensor"])
def test_values_of_a_sparse_matrix_stand_in_for_edge_features(form, agree):
    x, edges, edge_attr = inputs()
    conv = layer(F, F)
    if form == "coo":
        given = torch.sparse_coo_tensor(edges.flip(0), edge_attr, (6, 6, F))
        order = torch.arange(7)
    else:
        pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
        given = SparseTensor(row=edges[1], col=edges[0], value=edge_attr, sparse_sizes=(6, 6))
        order = (edges[1] * 6 + edges[0]).argsort(stable=True)
    want = copy.deepcopy(conv)(x, edges[:, order], edge_attr[order])
    torch.testing.assert_close(conv(x, given), want)


def test_a_callers_coo_matrix_is_not_marked_as_coalesced():
    x, edges, edge_attr = inputs()
    given = torch.sparse_coo_tensor(edges.flip(0), torch.ones(7), (6, 6))
    layer(F, F)(x, given, edge_attr)
    assert not given.is_coalesced()


def test_the_values_of_a_coo_matrix_get_gradients_or_are_refused():
    x, edges, edge_attr = inputs()
    given = torch.sparse_coo_tensor(edges.flip(0), edge_attr, (6, 6, F)).requires_grad_()
    conv = layer(F, F)
    with pytest.raises(ValueError, match="must be coalesced"):
        conv(x, given)
    sum(out.sum() for out in conv(x, given.coalesce())).backward()
    assert given.grad.to_dense().abs().sum() > 0


def test_running_statistics_move():
    conv = layer(F, F)
    x, edge_index, edge_attr = inputs()
    want = torch.nn.BatchNorm1d(F).double()
    want.load_state_dict(conv.bn_edge_e.state_dict())
    want(conv.D(x)[edge_index[1]] + conv.E(x)[edge_index[0]] + conv.C(edge_attr))
    conv(x, edge_index, edge_attr)
    torch.testing.assert_close(conv.bn_edge_e.running_mean, want.running_mean)
    torch.testing.assert_close(conv.bn_edge_e.running_var, want.running_var)


def test_dropout_zeroes_its_share_of_both_updates_in_training_alone():
    conv = layer(F, F, residual=False)
    given = inputs(100, torch.randint(100, (2, 1000)))
    full = [(h > 0).double().mean() for h in conv(*given)]
    want = conv.eval()(*given)
    conv.dropout = 0.4
    torch.testing.assert_close(conv(*given), want, rtol=0, atol=0)
    for share, h in zip(full, conv.train()(*given), strict=True):
        assert abs((h > 0).double().mean() - 0.6 * share) < 0.05


def test_lazy_channels_are_derived_from_the_first_input():
    conv = GatedGCNConv(-1, 5, residual=False)
    conv(torch.randn(6, 3), EDGES, torch.randn(7, 2))
    assert conv.A.weight.shape == conv.B.weight.shape == conv.E.weight.shape == (5, 3)
    assert conv.C.weight.shape == (5, 2)
    conv = GatedGCNConv(-1, F)
    x, _ = conv(torch.randn(6, F), EDGES, torch.randn(7, F))
    assert x.shape == (6, F)


def test_permutation_of_nodes_and_edges():
    conv = layer(F, F).eval()
    x, edge_index, edge_attr = inputs()
    want_x, want_edges = conv(x, edge_index, edge_attr)
    nodes, edges = torch.randperm(6), torch.randperm(7)
    new_x, new_edges = conv(x[nodes], nodes.argsort()[edge_index][:, edges], edge_attr[edges])
    torch.testing.assert_close(new_x, want_x[nodes])
    torch.testing.assert_close(new_edges, want_edges[edges])


def test_reset_parameters_draws_anew():
    conv = layer(F, F)
    with torch.no_grad():
        for p in conv.parameters():
            p.fill_(7.0)
    conv.reset_parameters()
    assert not any((p == 7.0).any() for p in conv.parameters())
    assert conv.bn_node_x.running_mean.eq(0).all()


def test_it_sends_messages_and_prints_its_channels():
    conv = GatedGCNConv(3, 5, residual=False)
    assert isinstance(conv, MessagePassing)
    assert str(conv) == "GatedGCNConv(3, 5)"


def test_bad_input():
    with pytest.raises(ValueError, match="as many channels out as in .got 3 and 5."):
        GatedGCNConv(3, 5)
    conv = layer(F, F)
    x, edge_index, edge_attr = inputs()
    with pytest.raises(IndexError, match="larger than 5"):
        conv(x, edge_index + 1, edge_attr)
    with pytest.raises(IndexError, match="negative"):
        conv(x, edge_index - 1, edge_attr)
    with pytest.raises(ValueError, match="integer"):
        conv(x, edge_index.double(), edge_attr)
    for wrong, got in ((None, "None"), (edge_attr[:1], r"\[1, 4\]"), (edge_attr[:, 0], r"\[7\]")):
        with pytest.raises(ValueError, match=rf"of shape \[7, F\] \(got {got}\)"):
            conv(x, edge_index, wrong)


def test_a_lazy_residual_that_does_not_fit_is_an_error():
    # one channel would broadcast in silence
    with pytest.raises(ValueError, match="residual"):
        GatedGCNConv(-1, F)(torch.randn(6, 1), EDGES, torch.randn(7, F))
    with pytest.raises(ValueError, match="residual"):
        GatedGCNConv(-1, F)(torch.randn(6, F), EDGES, torch.randn(7, 1))


@pytest.mark.parametrize("edge_output", [True, False])
def test_nodes_and_edges_have_switches_of_their_own(edge_output, agree):
    conv = layer(F, F, residual=False, edge_residual=True, edge_output=edge_output, act="gelu")
    given = inputs()
    both = GatedGCNConv(F, F, residual=False, act="gelu").double()
    both.load_state_dict(conv.state_dict(), strict=edge_output)
    x, update = both(*given)
    out = conv(*given)
    if not edge_output:
        assert conv.bn_edge_e is None
        torch.testing.assert_close(out, x)
        return
    torch.testing.assert_close(out[0], x)
    torch.testing.assert_close(out[1], given[2] + update)
    conv.edge_dropout = 1.0
    assert torch.equal(conv.train()(*given)[1], given[2])
    assert not torch.equal(conv(*given)[0], torch.zeros_like(x))


def test_inside_gps_conv_each_residual_is_there_once():
    """The published layer: the local part's residual and dropout are those of its GatedGCN."""
    torch.manual_seed(0)
    local = GatedGCNConv(F, F, residual=False, edge_residual=True)
    gps = GPSConv(F, local, heads=2).double().eval()
    x, edge_index, edge_attr = inputs()
    out, edges = gps(x, edge_index, edge_attr=edge_attr)
    own = GatedGCNConv(F, F).double().eval()
    own.load_state_dict(local.state_dict())
    h, e = own(x, edge_index, edge_attr)
    q, k, v = torch.nn.functional.linear(x, gps.attn.in_proj_weight).chunk(3, 1)
    rows = [
        (q[:, i : i + 2] @ k[:, i : i + 2].t() / 2**0.5).softmax(1) @ v[:, i : i + 2]
        for i in (0, 2)
    ]
    a = gps.norm2(gps.attn.out_proj(torch.cat(rows, 1)) + x)
    total = gps.norm1(h) + a
    torch.testing.assert_close(out, gps.norm3(total + gps.mlp(total)))
    torch.testing.assert_close(edges, e)
