"""Where a layout is taken, a batch vector is; where a tuple of biases is, a single one is."""

import pytest
import torch
from torch_geometric.nn import GINEConv

from pyg_gt import (
    EdgeBias,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
    explain_choice,
    qkv_attention,
)
from pyg_gt.nn import (
    EdgePathBias,
    FullTransformerConv,
    GPSConv,
    LaplacianEncoder,
    TransformerBlock,
)

F, H = 8, 2
BATCH = torch.tensor([0, 0, 0, 1, 2, 2])
EDGES = torch.tensor([[0, 1, 2, 4], [1, 2, 0, 5]])
LAYOUT = GraphLayout.from_batch(BATCH)


def gps():
    layer = GPSConv(F, GINEConv(torch.nn.Linear(F, F)), heads=H, norm="layer_norm")
    edge_attr = torch.randn(EDGES.size(1), F)
    return lambda x, batch, biases: layer(x, EDGES, batch, biases=biases, edge_attr=edge_attr)


def full():
    layer = FullTransformerConv(F, F // H, heads=H)
    return lambda x, batch, biases: layer(x, batch=batch, biases=biases)


def qkv(x, batch, biases):
    return qkv_attention(x.view(-1, 1, H, F // H).expand(-1, 3, -1, -1), batch, biases)


def one(x, batch, biases):
    x = x.view(-1, H, F // H)
    return attention(x, x, x, batch, biases)


LAYERS = {
    "gps": gps,
    "full": full,
    "block": lambda: TransformerBlock(F, H),
    "qkv_attention": lambda: qkv,
    "attention": lambda: one,
}


def biases():
    torch.manual_seed(2)
    pairs = LAYOUT.num_pairs
    strength = torch.rand(H)
    return {
        "pairs": PairBias(torch.randn(pairs, H)),
        "table": TableBias(torch.randn(4, H), torch.randint(4, (pairs,))),
        "edges": EdgeBias(EDGES, torch.randn(EDGES.size(1), H)),
        "mask": EdgeMask(torch.cat([EDGES, torch.arange(6).expand(2, -1)], 1)),
        "function": ScoreMod(lambda s, g, h, q, k: s - strength[h] * (q - k).abs()),
    }


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", biases())
def test_a_single_bias_is_a_tuple_of_it(kind, name):
    torch.manual_seed(1)
    layer, x, bias = LAYERS[name](), torch.randn(6, F), biases()[kind]
    want = layer(x, LAYOUT, (bias,))
    assert torch.equal(layer(x, LAYOUT, bias), want)
    assert torch.equal(layer(x, LAYOUT, [bias]), want)
    assert not torch.allclose(layer(x, LAYOUT, ()), want)


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_vector_is_its_layout(name):
    torch.manual_seed(1)
    layer, x = LAYERS[name](), torch.randn(6, F)
    want = layer(x, LAYOUT, ())
    for batch in (BATCH, BATCH.int(), GraphLayout.from_batch(BATCH, num_graphs=5)):
        torch.testing.assert_close(layer(x, batch, ()), want)
    assert not torch.allclose(layer(x, torch.zeros(6, dtype=torch.long), ()), want)


@pytest.mark.parametrize("name", ["gps", "full", "block"])
def test_without_a_batch_there_is_one_graph(name):
    torch.manual_seed(1)
    layer, x = LAYERS[name](), torch.randn(6, F)
    want = layer(x, GraphLayout.from_sizes([6]), ())
    torch.testing.assert_close(layer(x, None, ()), want)


def test_the_choice_is_explained_for_both_forms():
    x = torch.randn(6, H, F // H)
    for bias in biases().values():
        want = explain_choice(x, x, x, LAYOUT, (bias,))
        assert explain_choice(x, x, x, LAYOUT, bias) == want
        assert explain_choice(x, x, x, BATCH, [bias]) == want
    bipartite = explain_choice(x[:2], x, x, LAYOUT, query_layout=LAYOUT_OF_QUERIES)
    queries = LAYOUT_OF_QUERIES.batch
    assert explain_choice(x[:2], x, x, BATCH, query_layout=queries) == bipartite


LAYOUT_OF_QUERIES = GraphLayout.from_batch(torch.tensor([0, 2]))


@pytest.mark.parametrize("wrong", ["pairs", 3, (1,)])
@pytest.mark.parametrize("name", ["gps", "full", "block"])
def test_what_is_no_bias_is_named(name, wrong):
    with pytest.raises(ValueError, match=r"(a bias must be one of|'biases' must be a bias)"):
        LAYERS[name]()(torch.randn(6, F), BATCH, wrong)


def test_encoders_take_both():
    torch.manual_seed(3)
    encoder = LaplacianEncoder(2, F)
    pairs = torch.randn(6, 2), torch.rand(6, 2), torch.ones(6, 2, dtype=torch.bool)
    outs = []
    for batch in (BATCH, LAYOUT):
        torch.manual_seed(4)
        outs.append(encoder(*pairs, batch))
    assert torch.equal(*outs)
    paths = torch.full((LAYOUT.num_pairs, 1), -1, dtype=torch.int16)
    paths[1] = 0  # from node 0 to node 1
    bias, edge_attr = EdgePathBias(3, H, 1), torch.randn(EDGES.size(1), 3)
    values = [bias(paths, edge_attr, EDGES, batch).values for batch in (BATCH, LAYOUT)]
    assert torch.equal(*values) and values[0][1].ne(0).any()
