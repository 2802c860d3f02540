"""`LatentTransformerConv` is torch's attention, graph by graph, between latents and nodes."""

import copy
import pickle

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch_geometric.nn import GINConv

import pyg_gt
from pyg_gt import GraphLayout
from pyg_gt.nn import GPSConv, LatentTransformerConv

F, L, H = 8, 3, 2
SIZES = (1, 5, 3, 0, 7)
CPU = pytest.param("cpu", marks=pytest.mark.compiled)


class Formula(torch.nn.Module):
    """Graph by graph, by `torch.nn.MultiheadAttention` with its own forward."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, batch):
        conv, rows, places = self.conv, [], []
        for graph in range(int(batch.max()) + 1):
            mine = (batch == graph).nonzero().flatten()
            if mine.numel() == 0:
                continue
            nodes = conv.norm_nodes(x[mine])
            z = conv.latents
            z = z + conv.read(conv.norm_latents(z), nodes, nodes, need_weights=False)[0]
            z = z + self.mlp(conv.latent_mlp, z)
            for block in conv.latent_layers:
                h = block.norm1(z)
                z = z + block.self_attn(h, h, h, need_weights=False)[0]
                h = block.linear1(block.norm2(z))
                z = z + block.linear2(torch.nn.functional.gelu(h))
            z = conv.norm_answers(z)
            out = conv.write(nodes, z, z, need_weights=False)[0]
            if conv.residual:
                out = x[mine] + out
                out = out + self.mlp(conv.mlp, out)
            rows.append(out)
            places.append(mine)
        return torch.empty_like(x).index_copy(0, torch.cat(places), torch.cat(rows))

    @staticmethod
    def mlp(mlp, x):
        norm, first, _, _, last, _ = mlp
        return last(torch.nn.functional.gelu(first(norm(x))))


def layer(dtype=torch.double, **kwargs):
    torch.manual_seed(1)
    conv = LatentTransformerConv(F, L, heads=H, **kwargs).to(dtype)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return conv


def nodes(sizes=SIZES, dtype=torch.double):
    batch = torch.repeat_interleave(torch.tensor(sizes))
    return torch.randn(batch.numel(), F, dtype=dtype), batch


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("num_latent_layers", [0, 2])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
def test_outputs_and_gradients_are_the_formulas(order, num_latent_layers, residual, agree):
    conv = layer(num_latent_layers=num_latent_layers, residual=residual)
    x, batch = nodes()
    if order == "unsorted":
        batch = batch[torch.randperm(batch.numel())]
    formula = Formula(conv)
    ours = copy.deepcopy(formula)
    ours.forward = lambda x, batch: ours.conv(x, batch)
    agree(ours, formula, x, batch)


@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa", CPU])
def test_backends(backend):
    conv = layer(torch.float, num_latent_layers=1, backend=backend)
    x, batch = nodes(dtype=torch.float)
    torch.testing.assert_close(conv(x, batch), Formula(conv)(x, batch), rtol=1e-4, atol=1e-5)


def test_every_form_of_batch():
    conv = layer()
    x, batch = nodes()
    want = conv(x, batch)
    assert conv(x, GraphLayout.from_batch(batch)).equal(want)
    with_empty = GraphLayout.from_batch(batch, num_graphs=9)
    torch.testing.assert_close(conv(x, with_empty), want)
    one = torch.zeros_like(batch)
    assert conv(x).equal(conv(x, one))


def test_a_graph_gets_what_it_gets_alone():
    conv = layer()
    x, batch = nodes()
    out = conv(x, batch)
    for graph in (0, 1, 2, 4):
        torch.testing.assert_close(out[batch == graph], conv(x[batch == graph]))
    other = torch.where((batch == 1).unsqueeze(1), 100 * torch.randn_like(x), x)
    assert conv(other, batch)[batch != 1].equal(out[batch != 1])


@pytest.mark.parametrize("num_nodes", [0, 1])
def test_few_nodes(num_nodes):
    conv = layer(num_latent_layers=1)
    x = torch.randn(num_nodes, F, dtype=torch.double)
    out = conv(x)
    assert out.shape == (num_nodes, F)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters() if p.grad is not None)


def test_attention_weights_are_torchs():
    conv = layer()
    x, batch = nodes()
    out, (read, write) = conv(x, batch, return_attention_weights=True)
    assert out.equal(conv(x, batch))
    asked = []
    conv._attend = lambda *args: (asked.append(args), type(conv)._attend(conv, *args))[1]
    conv(x, batch)
    for (pairs, alpha), (attn, query, key, query_layout, layout) in zip(
        (read, write), asked, strict=True
    ):
        assert pairs.shape == (2, x.size(0) * L) and alpha.shape == (x.size(0) * L, H)
        for graph in (0, 1, 2, 4):
            targets = (query_layout.batch == graph).nonzero().flatten()
            sources = (layout.batch == graph).nonzero().flatten()
            k = key[sources]
            want = attn(query[targets], k, k, average_attn_weights=False)[1]  # [H, Nq, Nk]
            got = torch.zeros_like(want)
            for (source, target), weight in zip(pairs.t().tolist(), alpha, strict=True):
                if target in targets.tolist() and source in sources.tolist():
                    got[:, targets.tolist().index(target), sources.tolist().index(source)] = weight
            torch.testing.assert_close(got, want)


def test_it_is_the_global_part_of_gps():
    attn = layer(torch.float, residual=False)
    conv = GPSConv(F, GINConv(torch.nn.Linear(F, F)), attn=attn, norm=None)
    x, batch = nodes(dtype=torch.float)
    edge_index = torch.tensor([[1, 2, 3], [2, 1, 4]])
    local = conv.conv(x, edge_index) + x
    h = local + attn(x, batch) + x
    torch.testing.assert_close(conv(x, edge_index, batch), h + conv.mlp(h))
    before = attn.latents.clone()
    conv.reset_parameters()
    assert conv.attn is attn and not attn.latents.equal(before)


def test_dropout_is_for_training():
    conv = layer(dropout=0.5, num_latent_layers=1)
    x, batch = nodes()
    assert not conv(x, batch).equal(conv(x, batch))
    conv.eval()
    torch.testing.assert_close(conv(x, batch), Formula(conv)(x, batch))


def test_saved_and_drawn_anew():
    conv = layer(num_latent_layers=1)
    x, batch = nodes()
    other = LatentTransformerConv(F, L, heads=H, num_latent_layers=1).double()
    other.load_state_dict(conv.state_dict())
    assert other(x, batch).equal(conv(x, batch))
    assert pickle.loads(pickle.dumps(conv))(x, batch).equal(conv(x, batch))
    before = copy.deepcopy(conv.state_dict())
    conv.reset_parameters()
    same = [name for name, value in conv.state_dict().items() if before[name].equal(value)]
    assert same == []
    assert conv.latents.std() < 0.05
    assert repr(conv) == "LatentTransformerConv(8, num_latents=3, heads=2)"


def test_layers_share_the_layout_of_latents(monkeypatch):
    made = []
    function = GraphLayout.from_sizes.__func__
    monkeypatch.setattr(
        GraphLayout,
        "from_sizes",
        classmethod(lambda cls, *args: (made.append(1), function(cls, *args))[1]),
    )
    x, batch = nodes()
    layers = [layer() for _ in range(3)]
    for _ in range(2):
        for each in layers:
            x = each(x, batch)
    assert len(made) == 1


def test_compiled_code_takes_a_layout():
    layers = torch.nn.ModuleList(layer(torch.float).eval() for _ in range(2))

    def run(x, batch):
        for each in layers:
            x = each(x, batch)
        return x

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, backend=counter, fullgraph=True, dynamic=True)
    for sizes in (SIZES, (4, 2, 6), (3, 3, 3, 3, 3, 3), (9, 1)):
        x, batch = nodes(sizes, torch.float)
        layout = GraphLayout.from_batch(batch)
        torch.testing.assert_close(compiled(x, layout), run(x, layout), rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2
    with pytest.raises(Exception, match="pass 'GraphLayout.from_batch"):
        compiled(x, batch)


def test_explain_tells_both_ways():
    explanation = pyg_gt.explain(layer(torch.float), *nodes(dtype=torch.float))
    assert len(explanation) == 2
    assert {route.name for route in explanation.values()} == {"fused"}


def test_bfloat16_autocast():
    conv = layer(torch.float, num_latent_layers=1)
    x, batch = nodes(dtype=torch.float)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x, batch)
    torch.testing.assert_close(out.float(), conv(x, batch), rtol=0.1, atol=0.15)
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 7}, "divisible by 'heads'"),
        ({"num_latents": 0}, "'num_latents' must be a whole number of at least 1"),
        ({"num_latent_layers": -1}, "'num_latent_layers' must be a whole number of at least 0"),
        ({"ffn_channels": 0}, "'ffn_channels' must be"),
        ({"dropout": -1}, "'dropout' must be a number"),
        ({"act": 3}, "'act' must be a name or a module"),
        ({"residual": "no"}, "'residual' must be True or False"),
        ({"backend": "fast"}, "Unknown backend 'fast'"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        LatentTransformerConv(**{"channels": F, "num_latents": L, "heads": H, **arguments})


def test_inputs_that_do_not_fit():
    conv = layer()
    x, batch = nodes()
    with pytest.raises(ValueError, match=r"'x' must be .* \[N, 8\]"):
        conv(x[:, :3], batch)
    with pytest.raises(ValueError, match="'batch'"):
        conv(x, batch[:3])
