"""Graphormer: counts, both versions against their formulas, and the checks of every model."""

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Batch, Data

from pyg_gt.models import (
    CategoryEncoder,
    FeatureEncoder,
    GraphHead,
    Graphormer,
    JointTableEncoder,
    NodeHead,
)
from pyg_gt.models.ogb_encoders import ATOM_SIZES, BOND_SIZES
from pyg_gt.transforms import AddDegree, AddShortestPathDistance
from tests.models.checks import check_model, close, ring

# published, or by the formula of the published layers (ZINC by v2, molhiv)
COUNTS = [
    (Graphormer.zinc, {"version": "v2"}, 959_073),
    (Graphormer.pcqm4m, {}, 47_085_377),
    (Graphormer.pcqm4mv2, {}, 48_268_097),
    (Graphormer.ogbg_molpcba, {}, 119_529_664),
    (Graphormer.ogbg_molhiv, {"version": "v1"}, 47_085_377),
    (Graphormer.ogbg_molhiv, {"version": "v2"}, 48_268_097 + 2 * 768),  # and a norm at the end
]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("preset", "arguments", "published"), COUNTS)
def test_published_counts(preset, arguments, published) -> None:
    with torch.device("meta"):
        model = preset(**arguments)
    assert count(model) == published
    assert model.recipe.parameters in (published, None)


def test_the_count_that_does_not_match() -> None:
    model = Graphormer.zinc()
    assert (count(model), model.recipe.parameters) == (489_481, 489_321)
    assert count(model) - count(model.norm) == 489_321


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_lean_has_no_parameter_without_a_gradient(version) -> None:
    graphs = [molecule(Graphormer.zinc, n, version=version) for n in (5, 8)]
    batch = Batch.from_data_list(graphs)
    for lean in (False, True):
        model = Graphormer.zinc(version, lean=lean, num_layers=2)
        model(batch).sum().backward()
        idle = {name for name, p in model.named_parameters() if p.grad is None}
        pooler = {"unused_pooler.weight", "unused_pooler.bias"} if version == "v2" else set()
        assert idle == (set() if lean else {"unused_positions", *pooler})


def molecule(preset, num_nodes: int, seed: int = 0, **changes) -> Data:
    """Random features of the preset's vocabularies, and its transforms applied."""
    generator = torch.Generator().manual_seed(100 * num_nodes + seed)

    def categories(sizes, rows: int) -> torch.Tensor:
        return torch.stack([torch.randint(n, (rows,), generator=generator) for n in sizes], 1)

    edge_index = ring(num_nodes, seed)
    zinc = preset.__name__ == "zinc"
    data = Data(categories([21] if zinc else ATOM_SIZES, num_nodes), edge_index)
    edge_attr = categories([4] if zinc else BOND_SIZES, edge_index.size(1))
    data.edge_attr = edge_attr[:, 0] if zinc else edge_attr
    with torch.device("meta"):
        transforms = preset(**changes).recipe.transforms
    for transform in transforms:
        data = transform(data)
    return data


SMALL = dict(hidden_channels=16, num_layers=2, heads=4)


@pytest.mark.parametrize(
    ("preset", "arguments"), [(Graphormer.zinc, {}), *(c[:2] for c in COUNTS)]
)
def test_presets_run_on_what_their_transforms_add(preset, arguments) -> None:
    model = preset(**arguments, **SMALL)
    batch = Batch.from_data_list([molecule(preset, n, **arguments) for n in (5, 8, 1)])
    out = model(batch)
    assert out.size(0) == 3 and bool(out.isfinite().all())
    out.sum().backward()
    for name, transform in (
        ("degree", "AddDegree"),
        ("pair_distance", "AddShortestPathDistance"),
        ("pair_distance_edges", "AddShortestPathDistance.*path_length"),
    ):
        fewer = batch.clone()
        del fewer[name]
        with pytest.raises(ValueError, match=f"reads 'data.{name}', .*{transform}"):
            model(fewer)


def test_settings_of_the_versions() -> None:
    v1, v2 = Graphormer.zinc(), Graphormer.pcqm4mv2(num_layers=1)
    for model, rates, first in ((v1, (0.1, 0.1, 0.0, 0.1), True), (v2, (0, 0.1, 0.1, 0), False)):
        block = model.layers[0]
        got = block.dropout1.p, block.self_attn.dropout, block.dropout.p, model.input_dropout
        assert got == rates and block.norm_first is first
        assert block.dropout2.p == block.dropout1.p
    assert v1.embedding_norm is None and v2.norm is None
    assert v1.distance_bias.table.size(0) == 40 and v1.path_bias.path_length == 20
    assert v1.degree_encoder.in_degree.num_embeddings == 64
    shorter = Graphormer.zinc(path_length=4, num_layers=1)
    assert shorter.path_bias.path_length == 4 and shorter.unused_positions.size(0) == 36
    assert "path_length=4" in repr(shorter.recipe.transforms)
    fine = Graphormer.ogbg_molhiv(num_layers=1)
    assert fine.layers[0].norm_first and fine.norm is not None and fine.embedding_norm is not None


def test_initial_weights() -> None:
    def deviation(x: torch.Tensor) -> float:
        return float(x.detach().std())

    for version, std in (("v1", 0.02 / 4**0.5), ("v2", 0.02)):
        model = Graphormer.zinc(version, num_layers=4)
        for _ in range(2):
            block = model.layers[2]
            for weight in (
                block.linear1.weight,
                block.linear2.weight,
                block.self_attn.in_proj_weight,
                block.self_attn.out_proj.weight,
            ):
                assert deviation(weight) == pytest.approx(std, rel=0.1)
            for bias in (
                block.linear1.bias,
                block.self_attn.in_proj_bias,
                block.linear2.bias,
                block.self_attn.out_proj.bias,
            ):
                assert not bias.any()
            assert bool((block.norm1.weight == 1).all())
            tables = [
                model.degree_encoder.in_degree.weight,
                model.distance_bias.table,
                model.node_encoder.table.weight,
                model.edge_encoder.table.weight,
            ]
            for table in tables:
                assert deviation(table[1:]) == pytest.approx(0.02, rel=0.3)
                assert not table[0].any()
            assert deviation(model.path_bias.weight) == pytest.approx(0.02, rel=0.1)
            if version == "v1":
                assert deviation(model.token_head.weight) == pytest.approx(std, rel=0.4)
            else:  # the head has torch's own
                assert deviation(model.token_head.lin1.weight) == pytest.approx(
                    1 / (3 * 80) ** 0.5, rel=0.1
                )
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(7)
            model.reset_parameters()


# 1. Against the formula


def shortest_path(edges, n: int, i: int, j: int):
    """Numbers of the edges of the first shortest path, node by node; None if there is none."""

    def hops(start: int) -> int | None:
        front, step = {start}, 0
        seen = set(front)
        while front:
            if j in front:
                return step
            front = {b for a, b in edges if a in front} - seen
            seen |= front
            step += 1
        return None

    if hops(i) is None:
        return None
    path = []
    while i != j:
        i, edge = min(
            (b, e) for e, (a, b) in enumerate(edges) if a == i
            and hops(b) is not None and hops(b) + 1 == hops(i)
        )  # fmt: skip
        path.append(edge)
    return path


def scores_by_hand(model, graph, edge_attr):
    """``[n + 1, n + 1, H]``, the token last: what is added to ``q k``, in loops."""
    n, H = graph.num_nodes, model.token.heads
    D, L = model.max_distance, model.path_bias.path_length
    edges = [tuple(edge) for edge in graph.edge_index.t().tolist()]
    rows = []
    for i in range(n):
        row = []
        for j in range(n):
            path = shortest_path(edges, n, i, j)
            spd = 510 if path is None else len(path)
            score = model.distance_bias.table[min(spd, D) + 1]
            c = min(max(spd, 1), L)
            for k, edge in enumerate((path or [])[:L]):
                score = score + edge_attr[edge] @ model.path_bias.weight[k] / c
            row.append(score)
        rows.append(torch.stack([*row, model.token.bias[0]]))
    rows.append(model.token.bias.expand(n + 1, H))
    return torch.stack(rows)


def attention_by_hand(block, h, scores):
    heads = block.heads
    width = h.size(1) // heads
    qkv = h @ block.self_attn.in_proj_weight.t() + block.self_attn.in_proj_bias
    q, k, v = (x.view(len(h), heads, width) for x in qkv.chunk(3, dim=1))
    logits = torch.einsum("ihc,jhc->ijh", q, k) / width**0.5 + scores
    out = torch.einsum("ijh,jhc->ihc", logits.softmax(1), v).flatten(1)
    return out @ block.self_attn.out_proj.weight.t() + block.self_attn.out_proj.bias


def by_hand(model, graph):
    """The prediction of one graph, written again from the papers' settings."""
    x = model.node_encoder(graph)
    degrees = model.degree_encoder
    top = degrees.max_degree - 1
    ends = graph.edge_index.tolist()
    rows = []
    for i in range(graph.num_nodes):
        into, out = (min(row.count(i), top) + 1 for row in (ends[1], ends[0]))
        rows.append(x[i] + degrees.in_degree.weight[into] + degrees.out_degree.weight[out])
    h = torch.stack([*rows, model.token.weight[0]])
    if model.version == "v2":
        h = model.embedding_norm(h)
    scores = scores_by_hand(model, graph, model.edge_encoder(graph))
    for block in model.layers:

        def mlp(z, block=block):
            return block.linear2(F.gelu(block.linear1(z)))

        if block.norm_first:
            h = h + attention_by_hand(block, block.norm1(h), scores)
            h = h + mlp(block.norm2(h))
        else:
            h = block.norm1(h + attention_by_hand(block, h, scores))
            h = block.norm2(h + mlp(h))
    if model.norm is not None:
        h = model.norm(h)
    if model.version == "v1":
        return model.token_head(h[-1])
    head = model.token_head
    return head.lin2(head.norm(F.gelu(head.lin1(h[-1])))) + head.bias


def chain_and_more(directed: bool = False) -> list[Data]:
    """A chain of eight nodes beside two others that it does not reach, a ring, one node."""
    graphs = []
    chain = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 8], [1, 2, 3, 4, 5, 6, 7, 9]])
    for n, index in ((10, chain), (5, ring(5, 0)[:, ::2]), (1, chain[:, :0])):
        if not directed:
            index = torch.cat([index, index.flip(0)], 1)
        data = Data(torch.randint(4, (n, 2)), index, torch.randint(3, (index.size(1), 2)))
        data = AddShortestPathDistance(254, path_length=3)(AddDegree()(data))
        graphs.append(data)
    return graphs


def small_model(version: str, **arguments) -> Graphormer:
    torch.manual_seed(0)
    model = Graphormer(
        None, 8, 2, 3, heads=2, ffn_channels=5, version=version, max_degree=2, max_distance=6,
        path_length=3, lean=True, node_encoder=JointTableEncoder(2, 600, 8),
        edge_encoder=JointTableEncoder(2, 600, 2, "edge_attr", 3, "mean"), **arguments,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize(("version", "norm_first"), [("v1", None), ("v2", None), ("v2", True)])
def test_equals_the_formula(version, norm_first, directed) -> None:
    model = small_model(version, norm_first=norm_first)
    graphs = chain_and_more(directed)
    got = model(Batch.from_data_list(graphs))
    want = torch.stack([by_hand(model, graph) for graph in graphs])
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    weights = torch.randn_like(want)
    parameters = dict(model.named_parameters())
    grads = [torch.autograd.grad(x, list(parameters.values()), weights) for x in (got, want)]
    for name, a, b in zip(parameters, *grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
        assert bool(a.abs().sum() > 0), name


@pytest.mark.parametrize("directed", [False, True])
def test_scores_equal_the_formula(directed) -> None:
    model = small_model("v1")
    for graph in chain_and_more(directed):
        x = torch.zeros(graph.num_nodes, 8, dtype=torch.double)
        _, layout, biases = model.token(x, None, model._biases(graph))
        got = sum(bias.pair_values(layout, layout) for bias in biases)
        n = graph.num_nodes + 1
        want = scores_by_hand(model, graph, model.edge_encoder(graph))
        torch.testing.assert_close(got.view(n, n, 2), want)


def test_rows_that_have_gradients() -> None:
    """Row 0 nowhere; of distances 0 to 5 their own, of far pairs and of none the last."""
    model = small_model("v1")
    chain = chain_and_more()[0]
    model(chain).square().sum().backward()
    grad = model.distance_bias.table.grad.abs().sum(1)
    assert (grad > 0).tolist() == [False, *[True] * 7]
    for encoder in (model.node_encoder, model.edge_encoder):
        assert not encoder.table.weight.grad[0].any()
    assert (model.degree_encoder.in_degree.weight.grad.abs().sum(1) > 0).tolist() == [
        *(False, False, True, True)
    ]


def test_what_stands_behind_a_path_counts_nothing() -> None:
    model = small_model("v2").eval()
    graphs = chain_and_more()
    ring_alone = model(graphs[1])
    with torch.no_grad():
        model.edge_encoder.table.weight[0] = 1e3
        assert torch.equal(model(graphs[1]), ring_alone)
        # beside longer paths
        close(model(Batch.from_data_list(graphs))[1], ring_alone[0], 1e-12)


def test_unreachable_pairs_have_the_last_row_of_large_tables() -> None:
    model = Graphormer(2, 8, 1, 1, heads=2)
    data = Data(torch.randn(3, 2), torch.tensor([[0, 1], [1, 0]]))
    data = AddShortestPathDistance(254)(AddDegree()(data))
    (bias,) = model._biases(data)
    assert bias.index.tolist() == [1, 2, 511, 2, 1, 511, 511, 511, 1]
    # a transform that tells more distances apart than the table
    model = Graphormer(2, 8, 1, 1, heads=2, max_distance=1)
    (bias,) = model._biases(data)
    assert bias.index.tolist() == [1, 2, 2, 2, 1, 2, 2, 2, 1]


# 2. As every model


def tree(num_nodes: int, seed: int) -> Data:
    """One path between any two nodes: of several, which it is depends on the nodes' order."""
    generator = torch.Generator().manual_seed(1000 * num_nodes + seed)
    parents = [int(torch.randint(i, (1,), generator=generator)) for i in range(1, num_nodes)]
    down = torch.tensor([parents, range(1, num_nodes)], dtype=torch.long).view(2, -1)
    index = torch.cat([down, down.flip(0)], 1)
    x = torch.randn(num_nodes, 5, generator=generator)
    return again(Data(x, index, torch.randn(index.size(1), 3, generator=generator)))


def again(data: Data) -> Data:
    return AddShortestPathDistance(20, path_length=3)(AddDegree()(data))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_model(version) -> None:
    def make_model() -> Graphormer:
        return Graphormer(
            5, 16, 2, 1, heads=4, version=version, max_distance=21, path_length=3,
            edge_encoder=FeatureEncoder(3, 4, "edge_attr"),
        )  # fmt: skip

    check_model(make_model, tree, again)


def test_empty_graphs_and_heads_of_nodes() -> None:
    graphs = [tree(4, 0), again(empty()), tree(3, 1)]
    batch = Batch.from_data_list([*graphs, again(empty())])
    torch.manual_seed(0)
    model = Graphormer(5, 16, 1, 2, heads=4, max_distance=21)
    out = model(batch).detach()
    assert out.shape == (4, 2)
    close(out[1], out[3])
    close(out[:1], model(graphs[0]).detach())
    close(out[2:3], model(graphs[2]).detach())
    for head, rows in ((GraphHead(16, 2), 4), (NodeHead(16, 2), 7)):
        model = Graphormer(5, 16, 1, 2, heads=4, max_distance=21, head=head)
        assert model.unused_pooler is None and model.token_head is None
        assert model(batch).shape == (rows, 2)


def empty() -> Data:
    return Data(torch.empty(0, 5), torch.empty(2, 0, dtype=torch.long), torch.empty(0, 3))


def test_two_layers_compile_whole() -> None:
    torch.compiler.reset()
    model = Graphormer.zinc(**SMALL).eval()
    batch = Batch.from_data_list([molecule(Graphormer.zinc, n) for n in (5, 8, 3)])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    grads = []
    for each in (compiled, model):
        model.zero_grad()
        out = each(batch)
        out.square().sum().backward()
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        grads.append([out.detach(), *found])
    for a, b in zip(*grads, strict=True):
        close(a, b)


def test_dropout_of_the_input() -> None:
    model = Graphormer(5, 16, 1, 2, heads=4, version="v1", input_dropout=1.0).train()
    data = AddShortestPathDistance(254)(AddDegree()(tree(4, 0)))
    model.layers = torch.nn.ModuleList()
    model.norm = None
    assert torch.equal(model(data), model.token_head.bias.expand(1, -1))
    assert not torch.equal(model.eval()(data), model.token_head.bias.expand(1, -1))


class TestJointTableEncoder:
    def test_by_hand(self) -> None:
        x = torch.tensor([[3, 0], [511, 86]])
        for reduce, scale in (("sum", 1.0), ("mean", 0.5)):
            encoder = JointTableEncoder(2, 601, 4, shift=2, reduce=reduce)
            table = encoder.table.weight
            want = torch.stack([table[5] + table[514], table[513] + table[600]]) * scale
            torch.testing.assert_close(encoder(Data(x=x)), want)
            torch.testing.assert_close(encoder(Data(x=x.int())), want)
        assert encoder.sizes == [512, 87]
        assert repr(encoder) == "JointTableEncoder(2, 601, 4)"

    def test_sizes_of_the_published_tables(self) -> None:
        atoms = JointTableEncoder(9, 4609, 4)
        bonds = JointTableEncoder(3, 1537, 4, "edge_attr", 3)
        for encoder, sizes in ((atoms, ATOM_SIZES), (bonds, BOND_SIZES)):
            assert all(a >= b for a, b in zip(encoder.sizes, sizes, strict=True))
        assert JointTableEncoder(1, 64, 4).sizes == [62]

    def test_a_category_beyond_its_vocabulary(self) -> None:
        model = Graphormer.zinc(**SMALL)
        data = molecule(Graphormer.zinc, 5)
        data.x[2, 0] = 62
        with pytest.raises(IndexError, match=r"data.x\[2, 0\]' is 62.* 62 categories"):
            model(data)
        data.x[2, 0] = -1
        with pytest.raises(IndexError, match=r"data.x\[2, 0\]' is -1"):
            model(data)
        data = molecule(Graphormer.zinc, 5)
        data.edge_attr[1] = 61
        with pytest.raises(IndexError, match=r"data.edge_attr\[1, 0\]' is 61.* 61 categories"):
            model(data)
        with pytest.raises(IndexError, match=r"x\[0, 0\]' is 512"):  # the next column's row
            JointTableEncoder(2, 1000, 4)(Data(x=torch.tensor([[512, 0]])))

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="integers of 2 columns"):
            JointTableEncoder(2, 600, 4)(Data(x=torch.zeros(3, 2)))
        with pytest.raises(ValueError, match="integers of 2 columns"):
            JointTableEncoder(2, 600, 4)(Data(x=torch.zeros(3, dtype=torch.long)))
        with pytest.raises(ValueError, match="must be more than 514"):
            JointTableEncoder(2, 514, 4)
        with pytest.raises(ValueError, match="did you mean 'mean'"):
            JointTableEncoder(2, 600, 4, reduce="average mean")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="did you mean 'v2'"):
        Graphormer(5, 8, 1, 1, version="2")
    with pytest.raises(ValueError, match="divisible by 'heads'"):
        Graphormer(5, 10, 1, 1, heads=4)
    with pytest.raises(ValueError, match="'in_channels', the width of 'data.x', or by a"):
        Graphormer(None, 8, 1, 1)
    with pytest.raises(ValueError, match="'input_dropout' must be a number in"):
        Graphormer(5, 8, 1, 1, input_dropout=2)
    with pytest.raises(ValueError, match="'act_dropout' must be a number in"):
        Graphormer(5, 8, 1, 1, act_dropout=2)
    with pytest.raises(ValueError, match="called with a 'torch_geometric.data.Data'"):
        Graphormer(5, 8, 1, 1)(torch.randn(3, 5))
    model = Graphormer(5, 8, 1, 1, heads=2, edge_encoder=CategoryEncoder(3, 4, "edge_attr"))
    data = tree(4, 0)
    data.edge_attr = torch.zeros(6, dtype=torch.long)
    with pytest.raises(ValueError, match="path_length|edge_channels"):
        model(data)
    # distances of another graph
    data = tree(4, 0)
    data.pair_distance = tree(5, 0).pair_distance
    with pytest.raises(ValueError, match="describes 25 pairs, but the graphs have 16"):
        Graphormer(5, 8, 1, 1, heads=2)(data)
