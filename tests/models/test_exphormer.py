"""`Exphormer`: counts, presets, its layer against the formula, and the checks of every model."""

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_gt import GraphLayout
from pyg_gt.models import Exphormer, ExphormerLayer, NodeHead
from pyg_gt.models.ogb_encoders import ATOM_SIZES, BOND_SIZES
from pyg_gt.nn import InteractionGraph
from pyg_gt.transforms import AddExpanderEdges
from tests.models.checks import check_batch_independence, check_model, close, make_eval, ring

F, H, V = 8, 2, 2

COUNTS = [
    (Exphormer.peptides_func, {"atom_rows": 173}, 445_866),
    (Exphormer.peptides_func, {}, 445_914),
    (Exphormer.peptides_struct, {"atom_rows": 173}, 425_899),
    (Exphormer.peptides_struct, {}, 425_971),
    (Exphormer.pascalvoc_sp, {}, 509_013),  # published as 509k
]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("preset", "arguments", "published"), COUNTS)
def test_published_counts(preset, arguments, published) -> None:
    model = preset(**arguments)
    assert count(model) == published
    if arguments:
        assert model.recipe.parameters == published


def sample(preset, num_nodes: int, seed: int = 0) -> Data:
    """Random features of the preset's set, and its transforms applied."""
    generator = torch.Generator().manual_seed(100 * num_nodes + seed)
    edge_index = ring(num_nodes, seed)
    num_edges = edge_index.size(1)
    if preset.__name__ == "pascalvoc_sp":
        x = torch.randn(num_nodes, 14, generator=generator)
        edge_attr = torch.rand(num_edges, 2, generator=generator)
    else:
        sizes = [n - 1 if n == 5 else n for n in ATOM_SIZES]
        x, edge_attr = (
            torch.stack([torch.randint(n, (rows,), generator=generator) for n in columns], 1)
            for columns, rows in ((sizes, num_nodes), (BOND_SIZES, num_edges))
        )
    data = Data(x, edge_index, edge_attr)
    for transform in preset().recipe.transforms:
        data = transform(data)
    return data


PRESETS = [Exphormer.peptides_func, Exphormer.peptides_struct, Exphormer.pascalvoc_sp]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_presets_run_on_what_their_transforms_add(preset) -> None:
    model = preset(num_layers=2)
    batch = Batch.from_data_list([sample(preset, n) for n in (5, 12, 1)])
    out = model(batch)
    rows = 18 if preset == Exphormer.pascalvoc_sp else 3
    assert out.size(0) == rows and bool(out.isfinite().all())
    out.sum().backward()
    for transform in model.recipe.transforms:
        lacks = batch.clone()
        del lacks[transform.attr_name]
        with pytest.raises(ValueError, match=type(transform).__name__):
            model(lacks)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_what_nobody_reads_is_left_out_of_lean_models(preset) -> None:
    batch = Batch.from_data_list([sample(preset, n) for n in (5, 12)])
    idle = {}
    for lean in (False, True):
        model = preset(lean=lean, hidden_channels=64, num_layers=2)
        model(batch).sum().backward()
        idle[lean] = [name for name, p in model.named_parameters() if p.grad is None]
    norm = ["layers.1.local.bn_edge_e.weight", "layers.1.local.bn_edge_e.bias"]
    vector = [] if preset == Exphormer.pascalvoc_sp else ["unused_expander.weight"]
    assert idle == {False: vector + norm, True: []}


def small(**arguments) -> Exphormer:
    return Exphormer(4, F, 2, 1, **{"heads": H, "num_virtual_nodes": V, **arguments})


# all nodes of a graph of up to 17 are neighbours, however they are numbered
expand = AddExpanderEdges(16)


def graph(num_nodes: int, seed: int) -> Data:
    generator = torch.Generator().manual_seed(1000 * num_nodes + seed)
    edge_index = ring(num_nodes, seed)
    x = torch.randn(num_nodes, 4, generator=generator)
    return expand(Data(x, edge_index, torch.randn(edge_index.size(1), F, generator=generator)))


@pytest.mark.parametrize("local", ["gatedgcn", "gcn"])
def test_checks_of_every_model(local) -> None:
    check_model(lambda: small(local=local), graph, expand)


@pytest.mark.parametrize("expander", [True, False])
def test_checks_without_virtual_nodes(expander) -> None:
    check_batch_independence(lambda: small(num_virtual_nodes=0, expander=expander), graph)


def test_unsorted_graphs() -> None:
    model = make_eval(lambda: small(head=NodeHead(F, 3)))
    batch = Batch.from_data_list([graph(5, 0), graph(4, 1)])
    order = torch.randperm(9)
    moved = Data(batch.x[order], batch=batch.batch[order], edge_attr=batch.edge_attr)
    for name in ("edge_index", "expander_edge_index"):
        moved[name] = order.argsort()[batch[name]]
    with torch.no_grad():
        close(model(moved), model(batch)[order])


class Formula(torch.nn.Module):
    """The layer, edge by edge and head by head, on nodes `x` and virtual nodes."""

    def __init__(self, layer: ExphormerLayer) -> None:
        super().__init__()
        self.layer = layer

    def attend(self, x, edge_index, edge_attr):
        conv, rows = self.layer.attn, []
        q, k, v = (lin(x) for lin in (conv.lin_query, conv.lin_key, conv.lin_value))
        e = conv.lin_edge(edge_attr)
        for i in range(x.size(0)):
            mine = (edge_index[1] == i).nonzero().flatten().tolist()
            heads = []
            for c in torch.arange(F).view(H, F // H):
                scores = [
                    (q[i, c] * k[edge_index[0, n], c] * e[n, c]).sum() / (F // H) ** 0.5
                    for n in mine
                ]
                scores = torch.stack(scores).clamp(-5, 5).softmax(0)
                heads.append(scores @ v[edge_index[0, mine]][:, c])
            rows.append(torch.cat(heads))
        return torch.stack(rows)

    def forward(self, x, edge_index, edge_attr, interactions):
        layer, n = self.layer, interactions.num_nodes
        gcn = layer.local
        gates = [
            gcn.D(x[i]) + gcn.E(x[j]) + gcn.C(edge_attr[number])
            for number, (j, i) in enumerate(edge_index.t().tolist())
        ]
        rows = []
        for i in range(n):
            top = bottom = 0.0
            for number, (j, target) in enumerate(edge_index.t().tolist()):
                if target == i:
                    top = top + gates[number].sigmoid() * gcn.B(x[j])
                    bottom = bottom + gates[number].sigmoid()
            rows.append(gcn.A(x[i]) + top / (bottom + 1e-6))
        local = x[:n] + self.norm(gcn.bn_node_x, torch.stack(rows)).relu()  # its only residual
        edges = edge_attr + self.norm(gcn.bn_edge_e, torch.stack(gates)).relu()
        attended = self.attend(x, interactions.edge_index, interactions.edge_attr)
        h = self.norm(layer.norm1, local) + self.norm(layer.norm2, x[:n] + attended[:n])
        h = self.norm(layer.norm3, h + layer.mlp[3](layer.mlp[0](h).relu()))
        return torch.cat([h, attended[n:]]), edges

    @staticmethod
    def norm(norm, h):
        mean, var = h.mean(0), h.var(0, unbiased=False)
        return (h - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias


def test_the_layer_is_the_formula() -> None:
    layer = ExphormerLayer(F, H).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    module = InteractionGraph(F, num_virtual_nodes=V).double()
    batch = torch.tensor([0, 1, 0, 1, 1])
    edge_index = torch.tensor([[0, 2, 1, 3, 4, 1], [2, 0, 3, 1, 1, 4]])
    expander = torch.tensor([[0, 2, 3, 4], [2, 0, 4, 3]])
    x = torch.randn(5, F, dtype=torch.double, requires_grad=True)
    edge_attr = torch.randn(6, F, dtype=torch.double, requires_grad=True)
    interactions = module(x, edge_index, edge_attr, batch, expander)
    results = []
    for each in (copy.deepcopy(layer), Formula(layer)):
        outs = each(interactions.x, edge_index, edge_attr, interactions)
        weights = [torch.linspace(-1, 1, out.numel()).view_as(out).double() for out in outs]
        leaves = [x, edge_attr, *module.parameters(), *each.parameters()]
        grads = torch.autograd.grad(outs, leaves, weights, retain_graph=True)
        results.append([*outs, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    assert results[0][0].shape == (5 + 2 * V, F)


def test_dropout_is_in_the_layer() -> None:
    model = small(dropout=0.5)
    data = graph(6, 0)
    assert not torch.equal(model(data), model(data))
    model.eval()
    assert torch.equal(model(data), model(data))


def test_layers_compile() -> None:
    layers = torch.nn.ModuleList(ExphormerLayer(F, H) for _ in range(2)).eval()
    module = InteractionGraph(F, num_virtual_nodes=V)

    def run(x, edge_index, edge_attr, layout, expander):
        interactions = module(x, edge_index, edge_attr, layout, expander)
        x = interactions.x
        for layer in layers:
            x, edge_attr = layer(x, edge_index, edge_attr, interactions)
        return x

    batch = Batch.from_data_list([graph(5, 0), graph(4, 1)])
    x, layout = torch.randn(9, F), GraphLayout.from_batch(batch.batch)
    args = x, batch.edge_index, batch.edge_attr, layout, batch.expander_edge_index
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*args), run(*args))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="did you mean 'gcn'"):
        small(local="GCNConv")
    with pytest.raises(ValueError, match="divisible by 'heads'"):
        small(heads=3)
    with pytest.raises(ValueError, match="'num_virtual_nodes' must be"):
        small(num_virtual_nodes=-1)
    with pytest.raises(ValueError, match=r"'dropout' must be a number in \[0, 1\]"):
        small(dropout=1.5)
    data = graph(4, 0)
    del data["edge_attr"]
    with pytest.raises(ValueError, match="reads 'data.edge_attr'"):
        small()(data)
    data = graph(4, 0)
    del data["expander_edge_index"]
    with pytest.raises(ValueError, match="AddExpanderEdges"):
        small()(data)
    assert small(expander=False)(data).shape == (1, 1)
