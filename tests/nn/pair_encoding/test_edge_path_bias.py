"""`EdgePathBias` against eq. 7 written out along the paths that networkx finds."""

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.utils import add_self_loops

from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.nn import EdgePathBias
from pyg_gt.nn.pair_encoding import path_rows

from .graphs import EDGE_CHANNELS, GRAPHS, HEADS, PATH_LENGTH, edge_path, join, paths_of


def by_hand(encoder, data):
    """``[P, H]``, edge by edge."""
    rows, before = [], 0
    for n, edges in data.graphs:
        for path in paths_of(n, edges):
            total = torch.zeros(HEADS, dtype=torch.float64)
            kept = (path or [])[:PATH_LENGTH]
            for place, edge in enumerate(kept):
                for channel in range(EDGE_CHANNELS):
                    feature = data.edge_attr[before + edge, channel]
                    total = total + feature * encoder.weight[place, channel] / len(kept)
            rows.append(total)
        before += len(edges)
    return torch.stack(rows)


def values_of(encoder, data, batch="batch"):
    batch = data.batch if isinstance(batch, str) else batch
    return encoder(data.pair_distance_edges, data.edge_attr, data.edge_index, batch).values


@pytest.mark.parametrize("path_dtype", [torch.int16, torch.int32, torch.int64])
def test_values_and_gradients_are_those_of_the_formula(path_dtype):
    data, encoder = join(path_dtype=path_dtype), edge_path()
    data.edge_attr.requires_grad_()
    got, want = values_of(encoder, data), by_hand(encoder, data)
    torch.testing.assert_close(got, want)
    lengths = {len(p) for n, e in data.graphs for p in paths_of(n, e) if p is not None}
    assert {0, 1, PATH_LENGTH} < lengths and max(lengths) > PATH_LENGTH
    waves, leaves = torch.randn_like(got), (encoder.weight, data.edge_attr)
    for ours, theirs in zip(
        torch.autograd.grad(got, leaves, waves),
        torch.autograd.grad(want, leaves, waves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_pairs_without_a_path_and_nodes_with_themselves_get_zero():
    data = join()
    values = values_of(edge_path(), data)
    empty = torch.tensor([not p for n, e in data.graphs for p in paths_of(n, e)])
    assert (values[empty] == 0).all() and (values[~empty] != 0).all()


@pytest.mark.parametrize("form", ["layout", "edge layout", "EdgeIndex", "int32"])
def test_every_form_of_batch_and_edges(form):
    data, encoder = join(), edge_path()
    want = values_of(encoder, data)
    batch = data.batch
    if form == "layout":
        batch = GraphLayout.from_batch(batch)
    elif form == "edge layout":
        data.edge_index = EdgeLayout.of(data.edge_index, data.num_nodes)
    elif form == "EdgeIndex":
        data.edge_index = EdgeIndex(data.edge_index)
    else:
        data.edge_index = data.edge_index.int()
    assert values_of(encoder, data, batch).equal(want)


def test_a_batch_of_pyg_is_what_the_encoder_takes():
    together, alone = join(), [join([graph]) for graph in GRAPHS]
    graphs = [
        Data(
            x=torch.zeros(one.num_nodes, 1),
            edge_index=one.edge_index,
            edge_attr=one.edge_attr,
            pair_distance_edges=one.pair_distance_edges,
        )
        for one in alone
    ]
    data = Batch.from_data_list(graphs)
    together.edge_attr = data.edge_attr
    got = values_of(edge := edge_path(), data)
    torch.testing.assert_close(got, by_hand(edge, together))
    torch.testing.assert_close(values_of(edge, data, GraphLayout.from_data(data)), got)


def test_one_graph_needs_no_batch():
    for graph in GRAPHS:
        data, encoder = join([graph]), edge_path()
        torch.testing.assert_close(values_of(encoder, data, None), values_of(encoder, data))


def test_an_unsorted_batch():
    data, encoder = join(), edge_path()
    want = values_of(encoder, data)
    # nodes move but keep their order in their graph; so pairs and edges stay where they are
    order = torch.argsort(torch.arange(data.num_nodes) % 3, stable=True)
    place = torch.empty_like(order)
    for graph in data.batch.unique():
        place[data.batch == graph] = (data.batch[order] == graph).nonzero().flatten()
    data.edge_index, data.batch = place[data.edge_index], data.batch[order]
    assert (data.batch.diff() < 0).any()
    torch.testing.assert_close(values_of(encoder, data), want)


def test_edges_added_behind_the_whole_batch_leave_the_paths_alone():
    data, encoder = join(), edge_path()
    want = values_of(encoder, data)
    data.edge_index, data.edge_attr = add_self_loops(data.edge_index, data.edge_attr)
    assert (data.batch[data.edge_index[0]].diff() < 0).any()
    torch.testing.assert_close(values_of(encoder, data), want)


def test_paths_of_other_edges_are_refused():
    data, encoder = join(), edge_path()
    order = data.edge_index[1].argsort(stable=True)
    data.edge_index, data.edge_attr = data.edge_index[:, order], data.edge_attr[order]
    with pytest.raises(ValueError, match="begins with edge .* not its query .* another order"):
        values_of(encoder, data)


def test_indices_out_of_range():
    data, encoder = join(), edge_path()
    good = data.pair_distance_edges
    for pair, edge in ((0, 0), (3, 10), (5, -2)):
        data.pair_distance_edges = good.clone()
        data.pair_distance_edges[pair, 1] = edge
        with pytest.raises(IndexError, match=f"Found edge {edge} .* of pair {pair}, but"):
            values_of(encoder, data)
    data.pair_distance_edges = good
    data.edge_index = data.edge_index + (data.edge_index == 9)
    data.edge_index[0, -1] = data.num_nodes
    with pytest.raises(IndexError, match=f"Found source index {data.num_nodes}"):
        values_of(encoder, data)


def test_edges_between_graphs_are_refused():
    data, encoder = join(), edge_path()
    data.edge_index[0, 0] = 0
    with pytest.raises(ValueError, match="edge 0 joins node 0 of graph 0 to node 5 of graph 1"):
        values_of(encoder, data)


def test_bad_arguments():
    with pytest.raises(ValueError, match="'heads' must be.*got 0"):
        EdgePathBias(3, 0, 2)
    data, encoder = join(), edge_path()
    path, attr, index, batch = (
        data.pair_distance_edges,
        data.edge_attr,
        data.edge_index,
        data.batch,
    )
    with pytest.raises(ValueError, match=r"2 columns \('path_length'\) \(got shape \[92, 1\]"):
        encoder(path[:, :1], attr, index, batch)
    with pytest.raises(ValueError, match="int16 or int32 or int64.*torch.uint8"):
        encoder(path.to(torch.uint8), attr, index, batch)
    with pytest.raises(ValueError, match="embed categories first"):
        encoder(path, attr.long(), index, batch)
    with pytest.raises(ValueError, match=r"3 columns \('edge_channels'\)"):
        encoder(path, attr[:, :2], index, batch)
    with pytest.raises(ValueError, match="'edge_attr' has 1 rows, but 'edge_index' has 28 edges"):
        encoder(path, attr[:1], index, batch)
    with pytest.raises(ValueError, match="a sparse adjacency has its edges in another order"):
        encoder(path, attr, torch.sparse_coo_tensor(index, attr[:, 0]), batch)
    with pytest.raises(ValueError, match="describes 91 pairs, but the graphs have 92"):
        encoder(path[:91], attr, index, batch)
    with pytest.raises(ValueError, match="without 'batch' there is one graph"):
        encoder(path, attr, index)
    with pytest.raises(ValueError, match="'batch' must be a tensor"):
        encoder(path, attr, index, "batch")


@pytest.fixture
def made(monkeypatch):
    """Grows by one whenever rows are made of paths."""
    calls = []
    function = path_rows._compute_rows
    monkeypatch.setattr(
        path_rows, "_compute_rows", lambda *args: (calls.append(1), function(*args))[1]
    )
    return calls


def test_the_layers_of_a_model_find_and_check_the_edges_once(made):
    data, encoders = join(), [edge_path() for _ in range(3)]
    for _ in range(2):
        for encoder in encoders:
            values_of(encoder, data)
    assert len(made) == 1
    first = values_of(encoders[0], data)
    # edits are seen
    data.pair_distance_edges[3, 0] = -1
    assert not values_of(encoders[0], data).equal(first)
    data.edge_index = data.edge_index.clone()
    values_of(encoders[0], data)
    values_of(encoders[0], data, GraphLayout.from_batch(data.batch))
    assert len(made) == 4


def test_what_is_remembered_goes_with_its_batch():
    encoder, before = edge_path(), len(path_rows._BY_PATH)
    for _ in range(20):
        values_of(encoder, join(GRAPHS[1:3]))
    assert len(path_rows._BY_PATH) <= before + 1


def test_rows_found_in_an_evaluation_serve_the_training(made):
    data, encoder = join(), edge_path()
    with torch.inference_mode():
        values_of(encoder, data)
    values_of(encoder, data).sum().backward()
    assert len(made) == 1
    assert encoder.weight.grad.any()


def test_attention_begins_almost_without_bias():
    weight = EdgePathBias(30, 8, 5).weight.detach()
    assert weight.shape == (5, 30, 8)
    assert 0.018 < float(weight.std()) < 0.022


def test_printed_form():
    assert str(EdgePathBias(16, 4, 5)) == "EdgePathBias(16, heads=4, path_length=5)"
