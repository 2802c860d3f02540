"""`ShortestPathBias` against the distances that networkx finds, pair by pair."""

import networkx as nx
import pytest
import torch

from pyg_gt import GraphLayout, TableBias, attention
from pyg_gt.nn import ShortestPathBias

from .graphs import HEADS, MAX_DISTANCE, join, shortest_path


def test_each_pair_has_the_score_of_its_distance():
    data, encoder = join(), shortest_path()
    layout = GraphLayout.from_batch(data.batch)
    bias = encoder(data.pair_distance)
    assert isinstance(bias, TableBias)
    want = torch.zeros(len(data.graphs), HEADS, 6, 6, dtype=torch.float64)
    seen = set()
    for number, (n, edges) in enumerate(data.graphs):
        graph = nx.DiGraph(edges)
        graph.add_nodes_from(range(n))
        for i in range(n):
            for j in range(n):
                joined = nx.has_path(graph, i, j)
                row = nx.shortest_path_length(graph, i, j) if joined else MAX_DISTANCE + 1
                row = min(row, MAX_DISTANCE + 1)
                seen.add(row)
                want[number, :, i, j] = encoder.table[row]
    assert seen == set(range(MAX_DISTANCE + 2))
    got = bias.materialize(layout)
    assert got.equal(want)
    waves = torch.randn_like(got)
    (ours,) = torch.autograd.grad(got, encoder.table, waves)
    (theirs,) = torch.autograd.grad(want, encoder.table, waves)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_every_type_of_distance(dtype):
    data, encoder = join(), shortest_path()
    layout = GraphLayout.from_batch(data.batch)
    want = encoder(data.pair_distance).materialize(layout)
    assert encoder(data.pair_distance.to(dtype)).materialize(layout).equal(want)


def test_attention_begins_almost_without_bias():
    table = ShortestPathBias(200, 8).table.detach()
    assert table.shape == (202, 8)
    assert 0.018 < float(table.std()) < 0.022


def test_a_distance_that_the_table_does_not_have_is_found_by_attention():
    data, encoder = join(), ShortestPathBias(MAX_DISTANCE - 1, HEADS).double()
    x = torch.randn(data.num_nodes, HEADS, 2, dtype=torch.float64)
    with pytest.raises(IndexError, match="Found table index 4, but the table has 4 rows"):
        attention(x, x, x, GraphLayout.from_batch(data.batch), (encoder(data.pair_distance),))


def test_bad_arguments():
    with pytest.raises(ValueError, match="'max_distance' must be .* at least 0 .got -1"):
        ShortestPathBias(-1, 2)
    with pytest.raises(ValueError, match="'heads' must be .* at least 1 .got 0"):
        ShortestPathBias(3, 0)
    encoder = ShortestPathBias(3, 2)
    with pytest.raises(ValueError, match=r"'AddShortestPathDistance\(3\)' makes it"):
        encoder(torch.zeros(4))
    with pytest.raises(ValueError, match=r"a vector \(got shape \[2, 2\], torch.uint8\)"):
        encoder(torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got 'list'"):
        encoder([0, 1])


def test_printed_form():
    assert str(ShortestPathBias(8, 4)) == "ShortestPathBias(8, heads=4)"
