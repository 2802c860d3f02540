"""`RelativeWalkEncoder` adds powers of the walk's matrix to nodes and pairs."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_gt.nn import RelativeWalkEncoder
from pyg_gt.transforms import AddRelativeRandomWalkPE

# degrees differ, so that walks from i to j and back do; an edge twice; a node without edges
EDGES = torch.tensor([[0, 1, 1, 2, 1, 3, 0], [1, 0, 2, 1, 3, 1, 1]])


def graph(edge_index=EDGES, num_nodes=5):
    data = Data(torch.randn(num_nodes, 6), edge_index, torch.randn(edge_index.size(1), 6))
    return AddRelativeRandomWalkPE(4)(data)


def by_hand(encoder, data):
    """``[N, F]`` and ``[N, N, F]``, from dense powers."""
    N = data.num_nodes
    A = torch.zeros(N, N)
    for source, target in data.edge_index.t().tolist():
        A[source, target] += 1
    P = A / A.sum(1, keepdim=True).clamp(min=1)
    R = torch.stack([torch.linalg.matrix_power(P, t) for t in range(4)], -1)
    x = data.x + torch.stack([encoder.lin_node.weight @ R[i, i] for i in range(N)])
    pairs = R @ encoder.lin_pair.weight.t()  # of (query i, key j): walks from i to j
    for (source, target), f in zip(data.edge_index.t().tolist(), data.edge_attr, strict=True):
        hot = torch.zeros(N, N, 1)
        hot[target, source] = 1
        pairs = pairs + hot * f
    return x, pairs.flatten(0, 1)


def test_formula():
    encoder = RelativeWalkEncoder(4, 6)
    data = graph()
    x, pairs = encoder(data.x, data.pair_walk, data.edge_index, data.edge_attr)
    want_x, want_pairs = by_hand(encoder, data)
    torch.testing.assert_close(x, want_x)
    torch.testing.assert_close(pairs, want_pairs)
    ours, want = (
        torch.autograd.grad((a * b).sum() + c.square().sum(), encoder.parameters())
        for a, b, c in ((x, data.x, pairs), (want_x, data.x, want_pairs))
    )
    for a, b in zip(ours, want, strict=True):
        torch.testing.assert_close(a, b)
    bare = encoder(data.x, data.pair_walk)
    torch.testing.assert_close(bare[1], data.pair_walk @ encoder.lin_pair.weight.t())


def test_batch():
    encoder = RelativeWalkEncoder(4, 6)
    graphs = [graph(), graph(EDGES[:, :0], 1), graph(EDGES[:, 2:4], 3)]
    batch = Batch.from_data_list(graphs)
    arguments = batch.pair_walk, batch.edge_index, batch.edge_attr
    x, pairs = encoder(batch.x, *arguments, batch.batch)
    want = [by_hand(encoder, data) for data in graphs]
    torch.testing.assert_close(x, torch.cat([w[0] for w in want]))
    torch.testing.assert_close(pairs, torch.cat([w[1] for w in want]))
    # nodes of graphs mixed: pairs stay graph by graph
    order = torch.tensor([5, 6, 0, 1, 7, 2, 3, 8, 4])
    place = order.argsort()
    mixed_x, mixed_pairs = encoder(
        batch.x[order], batch.pair_walk, place[batch.edge_index], batch.edge_attr,
        batch.batch[order],
    )  # fmt: skip
    torch.testing.assert_close(mixed_x, x[order])
    torch.testing.assert_close(mixed_pairs, pairs)


def test_weights_and_bad_input():
    encoder = RelativeWalkEncoder(4, 6)
    data = graph()
    before = encoder.lin_pair.weight.clone()
    encoder.reset_parameters()
    assert not torch.equal(before, encoder.lin_pair.weight)
    assert repr(encoder) == "RelativeWalkEncoder(4, 6)"
    half = encoder(data.x, data.pair_walk.half())[1]
    torch.testing.assert_close(half, encoder(data.x, data.pair_walk)[1], rtol=0, atol=1e-2)
    with pytest.raises(ValueError, match="25 in all .got 24 rows."):
        encoder(data.x, data.pair_walk[1:])
    with pytest.raises(ValueError, match="AddRelativeRandomWalkPE.4.' makes it"):
        encoder(data.x, data.pair_walk[:, 1:])
    batch = torch.tensor([0, 0, 0, 0, 1])
    walk = data.pair_walk[:17]
    with pytest.raises(ValueError, match="edge 0 joins node 4 of graph 1 and node 0 of graph 0"):
        encoder(data.x, walk, torch.tensor([[4], [0]]), data.edge_attr[:1], batch)
    with pytest.raises(ValueError, match=r"'edge_attr' must be .*\[E, 6\]"):
        encoder(data.x, data.pair_walk, EDGES, data.edge_attr[:, 1:])
    with pytest.raises(ValueError, match=r"7 edges.*6 rows"):
        encoder(data.x, data.pair_walk, EDGES, data.edge_attr[1:])
    with pytest.raises(ValueError, match="'walk_length'"):
        RelativeWalkEncoder(0, 6)
