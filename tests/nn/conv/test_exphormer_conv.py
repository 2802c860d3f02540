"""`ExphormerConv` is the formula of its paper."""

import copy

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import to_torch_csr_tensor

from pyg_gt import EdgeLayout
from pyg_gt.nn import ExphormerConv

F, C, H, D = 6, 3, 2, 4

# repeated edges, a self-loop, a node that hears nothing (5)
EDGES = torch.tensor([[0, 1, 1, 1, 2, 5, 4], [1, 0, 0, 2, 2, 3, 1]])


class Formula(torch.nn.Module):
    """Node by node and head by head, with the weights of a layer."""

    def __init__(self, conv):
        super().__init__()
        for name, child in conv.named_children():
            self.add_module(name, child)
        self.concat, self.clamp = conv.concat, conv.clamp

    def forward(self, x, edge_index, edge_attr=None):
        rows = []
        q, k, v = (lin(x).view(-1, H, C) for lin in (self.lin_query, self.lin_key, self.lin_value))
        e = None if edge_attr is None else self.lin_edge(edge_attr).view(-1, H, C)
        for i in range(x.size(0)):
            mine = (edge_index[1] == i).nonzero().flatten().tolist()
            heads = []
            for h in range(H):
                if not mine:
                    heads.append(x.new_zeros(C))
                    continue
                scores = []
                for n in mine:
                    factor = 1.0 if e is None else e[n, h]
                    score = (q[i, h] * k[edge_index[0, n], h] * factor).sum() / C**0.5
                    if self.clamp is not None:
                        score = score.clamp(-self.clamp, self.clamp)
                    scores.append(score)
                weights = torch.stack(scores).softmax(0)
                heads.append(weights @ v[edge_index[0, mine], h])
            rows.append(torch.cat(heads) if self.concat else torch.stack(heads).mean(0))
        return torch.stack(rows)


def layer(scale=1.0, **kwargs):
    conv = ExphormerConv(F, C, heads=H, edge_dim=D, **kwargs).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.normal_().mul_(scale)
    return conv


def inputs(n=6, edges=EDGES):
    return (
        torch.randn(n, F, dtype=torch.float64),
        edges,
        torch.randn(edges.size(1), D, dtype=torch.float64),
    )


@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize("clamp", [5.0, 0.5, None])
def test_outputs_and_gradients_are_the_formulas(clamp, concat, agree):
    conv = layer(0.7, clamp=clamp, concat=concat)
    agree(conv, Formula(conv), *inputs())


def test_constant_terms_and_no_edge_features(agree):
    conv = layer(bias=True)
    assert len([p for p in conv.parameters() if p.dim() == 1]) == 4
    agree(conv, Formula(conv), *inputs())
    conv = ExphormerConv(F, C, heads=H).double()
    assert conv.lin_edge is None
    agree(conv, Formula(conv), *inputs()[:2])


def test_the_authors_softmax_differs_by_what_they_add_to_its_sum():
    conv = layer()
    x, edge_index, edge_attr = inputs()
    got, (index, alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
    assert index.equal(edge_index)
    q, k, v = (lin(x).view(-1, H, C) for lin in (conv.lin_query, conv.lin_key, conv.lin_value))
    e = conv.lin_edge(edge_attr).view(-1, H, C)
    source, target = edge_index
    w = ((q[target] * k[source] * e).sum(-1) / C**0.5).clamp(-5, 5).exp()  # [E, H]
    top = torch.zeros(6, H, C, dtype=x.dtype).index_add(0, target, w.unsqueeze(-1) * v[source])
    total = torch.zeros(6, H, dtype=x.dtype).index_add(0, target, w)
    want = (top / (total + 1e-6).unsqueeze(-1)).flatten(1)
    torch.testing.assert_close(got, want, rtol=1.5e-4, atol=0)
    assert not torch.allclose(got, want, rtol=1e-9, atol=0)
    torch.testing.assert_close(alpha, w / total[target])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_of_a_thousand_are_exact(dtype):
    """One head of one channel, so that scores are products of three numbers."""
    conv = ExphormerConv(1, 1, edge_dim=1, clamp=None).to(dtype)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(1.0)
    source = torch.tensor([1, 2, 3, 1, 2, 3])
    edge_index = torch.stack([source, torch.tensor([0, 0, 0, 4, 4, 4])])
    x = torch.tensor([[10.0], [10.0], [-10.0], [10.0], [10.0]], dtype=dtype, requires_grad=True)
    factor = [10.0, 10.0, 9.99, -10.0, 10.0, -10.0]  # scores of node 0: 1000, -1000, 999
    edge_attr = torch.tensor(factor, dtype=dtype).view(-1, 1).requires_grad_()
    out, (_, alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
    expected = torch.tensor([1000.0, -1000.0, 999.0], dtype=torch.float64).softmax(0)
    torch.testing.assert_close(alpha[:3, 0].double(), expected, rtol=1e-4, atol=1e-12)
    # of node 4 all scores are -1000, so that all weights are equal
    torch.testing.assert_close(alpha[3:, 0], torch.full((3,), 1 / 3, dtype=dtype))
    torch.testing.assert_close(out[4, 0], torch.tensor(10 / 3, dtype=dtype))
    out.sum().backward()
    assert x.grad.isfinite().all() and edge_attr.grad.isfinite().all()


def test_half_precision_multiplies_in_single():
    conv = ExphormerConv(1, 1, edge_dim=1, clamp=None).half()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(1.0)
    x = torch.tensor([[300.0], [300.0], [299.0]]).half()
    edge_index = torch.tensor([[1, 2], [0, 0]])
    edge_attr = torch.tensor([[0.001], [0.001]]).half()
    out, (_, alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
    small = edge_attr[0].double()  # 0.001 is not a number of half precision
    want = (torch.tensor([90000.0, 89700.0]).double() * small).softmax(0)
    torch.testing.assert_close(alpha[:, 0].double(), want, rtol=2e-3, atol=1e-4)
    assert out.dtype == torch.float16 and out.isfinite().all()


FORMS = {
    "EdgeIndex": lambda e, n: EdgeIndex(e, sparse_size=(n, n)),
    "EdgeLayout": lambda e, n: EdgeLayout.of(e, n),
    "int32": lambda e, n: e.int(),
    "csr": lambda e, n: to_torch_csr_tensor(e.flip(0), size=(n, n)),
    "SparseTensor": lambda e, n: SparseTensor(row=e[1], col=e[0], sparse_sizes=(n, n)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_edge_set(form):
    edges = torch.tensor([[1, 2, 0, 5, 1], [0, 1, 2, 2, 5]])  # target by target
    conv = layer()
    x, edge_index, edge_attr = inputs(edges=edges)
    want = conv(x, edge_index, edge_attr)
    given = FORMS[form](edge_index, 6)
    out, (index, alpha) = conv(x, given, edge_attr, return_attention_weights=True)
    torch.testing.assert_close(out, want)
    assert index.equal(edges) and alpha.shape == (5, H)


def test_values_of_a_sparse_adjacency_are_edge_features():
    edges = torch.tensor([[1, 2, 0], [0, 1, 2]])
    conv = layer()
    x, edge_index, edge_attr = inputs(3, edges)
    adjacency = SparseTensor(row=edges[1], col=edges[0], value=edge_attr, sparse_sizes=(3, 3))
    torch.testing.assert_close(conv(x, adjacency), conv(x, edge_index, edge_attr))


@pytest.mark.parametrize("nodes", [0, 1, 4])
def test_no_edges(nodes, agree):
    conv = layer()
    given = inputs(nodes, torch.empty(2, 0, dtype=torch.long))
    out = conv(*given)
    assert out.equal(torch.zeros(nodes, H * C, dtype=torch.float64))
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters() if p.grad is not None)


def test_one_node_attends_to_itself():
    conv = layer()
    x, edge_index, edge_attr = inputs(1, torch.tensor([[0], [0]]))
    torch.testing.assert_close(conv(x, edge_index, edge_attr), conv.lin_value(x))


def test_order_of_nodes_and_of_edges():
    conv = layer()
    x, edge_index, edge_attr = inputs()
    want = conv(x, edge_index, edge_attr)
    nodes, edges = torch.randperm(6), torch.randperm(7)
    moved = nodes.argsort()[edge_index[:, edges]]
    torch.testing.assert_close(conv(x[nodes], moved, edge_attr[edges]), want[nodes])


def test_dropout_leaves_weights_and_keeps_the_mean():
    conv = layer(dropout=0.5)
    x, edge_index, edge_attr = inputs()
    want = conv.eval()(x, edge_index, edge_attr)
    conv.train()
    outs = []
    for _ in range(2000):
        out, (_, alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
        outs.append(out)
    outs = torch.stack(outs)
    assert outs.std(0)[:4].min() > 0.01
    torch.testing.assert_close(outs.mean(0), want, rtol=0.1, atol=0.1)
    total = torch.zeros(6, H, dtype=torch.float64).index_add(0, edge_index[1], alpha)
    torch.testing.assert_close(total[:4], torch.ones(4, H, dtype=torch.float64))


def test_lazy_widths_and_saved_weights():
    torch.manual_seed(1)
    lazy = ExphormerConv(-1, C, heads=H, edge_dim=-1)
    x, edge_index, edge_attr = (t.float() if t.is_floating_point() else t for t in inputs())
    lazy(x, edge_index, edge_attr)
    eager = ExphormerConv(F, C, heads=H, edge_dim=D)
    eager.load_state_dict(lazy.state_dict())
    assert eager(x, edge_index, edge_attr).equal(lazy(x, edge_index, edge_attr))
    assert sorted(eager.state_dict()) == [
        "lin_edge.weight", "lin_key.weight", "lin_query.weight", "lin_value.weight",
    ]  # fmt: skip
    before = copy.deepcopy(eager.state_dict())
    eager.reset_parameters()
    assert not any(before[name].equal(value) for name, value in eager.state_dict().items())
    assert repr(eager) == "ExphormerConv(6, 3, heads=2)"


def test_explainers_mask_its_edges():
    conv = layer()
    x, edge_index, edge_attr = inputs()
    conv.explain = True
    conv._edge_mask = torch.nn.Parameter(torch.full((7,), -100.0, dtype=torch.float64))
    conv._apply_sigmoid = True
    conv._loop_mask = torch.ones(7, dtype=torch.bool)
    assert conv(x, edge_index, edge_attr).abs().max() < 1e-12


def test_it_is_one_graph_of_compiled_code():
    conv = layer().float()
    x, edge_index, edge_attr = (t.float() if t.is_floating_point() else t for t in inputs())
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    out = compiled(x, edge_index, edge_attr)
    torch.testing.assert_close(out, conv(x, edge_index, edge_attr))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"in_channels": 0}, "'in_channels' must be a whole number"),
        ({"heads": 1.5}, "'heads' must be a whole number"),
        ({"edge_dim": 0}, "'edge_dim' must be a whole number"),
        ({"clamp": 0}, r"'clamp' must be a finite number above 0, or None .* \(got 0\)"),
        ({"clamp": float("inf")}, "'clamp' must be"),
        ({"clamp": True}, "'clamp' must be"),
        ({"clamp": float("nan")}, "'clamp' must be"),
        ({"dropout": 2}, r"'dropout' must be a number in \[0, 1\]"),
        ({"concat": "no"}, "'concat' must be True or False"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        ExphormerConv(**{"in_channels": F, "out_channels": C, **arguments})


def test_inputs_that_do_not_fit():
    conv = layer()
    x, edge_index, edge_attr = inputs()
    for given, words in (
        ((x[:, :3], edge_index, edge_attr), r"'x' must be .* \[N, 6\]"),
        ((x, edge_index), r"needs 'edge_attr' of shape \[7, 4\] \(got None\)"),
        ((x, edge_index, edge_attr[:, 0]), r"needs 'edge_attr' of shape"),
        ((x, edge_index, edge_attr[:, :2]), r"'edge_attr' must be .* \[E, 4\]"),
        ((x, edge_index, edge_attr[:3]), "has 3 rows, but there are 7 edges"),
        ((x, edge_index[0], edge_attr), r"'edge_index' must have shape \[2, E\]"),
    ):
        with pytest.raises(ValueError, match=words):
            conv(*given)
    with pytest.raises(IndexError, match="target index 6"):
        conv(x, torch.tensor([[0], [6]]), edge_attr[:1])
    with pytest.raises(ValueError, match="made without 'edge_dim'"):
        ExphormerConv(F, C).double()(x, edge_index, edge_attr)
