"""`InteractionGraph` makes the edge set of Exphormer, edge by edge."""

import copy

import pytest
import torch

from pyg_gt import EdgeLayout, EdgeMask, GraphLayout, attention
from pyg_gt.nn import ExphormerConv, InteractionGraph

F, D, V = 4, 3, 2
# graph 1 is empty, and nodes of graphs 0 and 2 stand in any order
BATCH = torch.tensor([0, 2, 2, 0, 3, 0])
EDGES = torch.tensor([[0, 3, 1, 2, 2], [3, 5, 2, 1, 1]])
EXPANDER = torch.tensor([[0, 5, 1], [3, 0, 2]])  # the first and the last are edges of the graph


def inputs():
    return torch.randn(6, F, requires_grad=True), EDGES, torch.randn(5, D), BATCH


def by_hand(module, x, edge_index, edge_attr, batch, expander):
    """All edges as a list of (source, target, features, type), and the nodes."""
    rows = [
        (*edge, attr, 0) for edge, attr in zip(edge_index.t().tolist(), edge_attr, strict=True)
    ]
    if expander is not None:
        rows += [(*edge, module.expander.weight[0], 1) for edge in expander.t().tolist()]
    count, graphs = module.num_virtual_nodes, int(batch.max()) + 1
    for way in ("in", "out"):
        for node, graph in enumerate(batch.tolist()):
            for k in range(count):
                virtual = x.size(0) + graph * count + k
                if way == "in":
                    rows.append((node, virtual, module.to_virtual.weight[k], 2 + k))
                else:
                    rows.append((virtual, node, module.from_virtual.weight[k], 2 + count + k))
    states = list(x)
    of_graph = batch.tolist()
    for graph in range(graphs):
        for k in range(count):
            states.append(module.virtual_nodes.weight[k])
            of_graph.append(graph)
    return rows, torch.stack(states), torch.tensor(of_graph)


@pytest.mark.parametrize("form", ["batch", "layout"])
@pytest.mark.parametrize("expander", [True, False])
@pytest.mark.parametrize("count", [0, 1, V])
def test_nodes_and_edges(count, expander, form):
    module = InteractionGraph(F, D, count, expander)
    x, edge_index, edge_attr, batch = inputs()
    given = batch if form == "batch" else GraphLayout.from_batch(batch)
    added = EXPANDER if expander else None
    got = module(x, edge_index, edge_attr, given, added)
    rows, states, of_graph = by_hand(module, x, edge_index, edge_attr, batch, added)
    sources, targets, features, types = zip(*rows, strict=True)
    assert got.edge_index.tolist() == [list(sources), list(targets)]
    assert got.edge_type.tolist() == list(types)
    torch.testing.assert_close(got.edge_attr, torch.stack(features), rtol=0, atol=0)
    torch.testing.assert_close(got.x, states, rtol=0, atol=0)
    assert got.batch.equal(of_graph) and got.num_nodes == 6
    EdgeLayout.of(got.edge_index, got.x.size(0)).check_within_graphs(
        GraphLayout.from_batch(got.batch), GraphLayout.from_batch(got.batch)
    )
    (got.edge_attr.sum() + got.x.sum()).backward()
    assert all(p.grad is not None and p.grad.ne(0).all() for p in module.parameters())


def test_one_graph_without_a_batch():
    module = InteractionGraph(F, D, 1, False)
    x, edge_index, edge_attr, _ = inputs()
    got = module(x, edge_index, edge_attr)
    want = module(x, edge_index, edge_attr, torch.zeros(6, dtype=torch.long))
    for a, b in zip(got[:-1], want[:-1], strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("nodes", [0, 1])
def test_a_graph_without_edges(nodes):
    module = InteractionGraph(F, D, V, False)
    none = torch.empty(2, 0, dtype=torch.long)
    got = module(torch.randn(nodes, F), none, torch.empty(0, D))
    assert got.edge_index.shape == (2, 2 * V * nodes) and got.x.shape == (nodes + V, F)
    assert ExphormerConv(F, 2, edge_dim=D)(got.x, got.edge_index, got.edge_attr).isfinite().all()


def test_a_graph_attends_as_it_does_alone():
    module, conv = InteractionGraph(F, D, V), ExphormerConv(F, F, edge_dim=D)
    x, edge_index, edge_attr, batch = inputs()
    both = module(x, edge_index, edge_attr, batch, EXPANDER)
    out = conv(both.x, both.edge_index, both.edge_attr)
    mine = torch.tensor([0, 3, 5])
    number = torch.empty(6, dtype=torch.long).index_copy(0, mine, torch.arange(3))
    alone = module(
        x[mine], number[edge_index[:, :2]], edge_attr[:2], None, number[EXPANDER[:, :2]]
    )
    single = conv(alone.x, alone.edge_index, alone.edge_attr)
    torch.testing.assert_close(out[mine], single[:3])
    torch.testing.assert_close(out[6 : 6 + V], single[3:])


def test_attention_of_this_library_runs_on_it():
    """Other attention than Exphormer's, along the same edges."""
    module = InteractionGraph(F, D, V)
    got = module(*inputs(), EXPANDER)
    q, k, v = torch.randn(3, got.x.size(0), 2, 3)
    layout = GraphLayout.from_batch(got.batch)
    out = attention(q, k, v, layout, EdgeMask(got.edge_index))
    parts = [EDGES, EXPANDER, got.edge_index[:, 8:]]
    want = attention(q, k, v, layout, EdgeMask.union(*parts))
    torch.testing.assert_close(out, want)


def test_saved_and_drawn_anew():
    module, other = InteractionGraph(F, D, V), InteractionGraph(F, D, V)
    other.load_state_dict(module.state_dict())
    args = (*inputs(), EXPANDER)
    for a, b in zip(module(*args)[:-1], other(*args)[:-1], strict=True):
        assert a.equal(b)
    assert sorted(module.state_dict()) == [
        "expander.weight", "from_virtual.weight", "to_virtual.weight", "virtual_nodes.weight",
    ]  # fmt: skip
    before = copy.deepcopy(module.state_dict())
    module.reset_parameters()
    assert not any(before[name].equal(value) for name, value in module.state_dict().items())
    assert repr(module) == "InteractionGraph(4, num_virtual_nodes=2, expander=True)"


def test_compiled_code_takes_a_layout():
    module, conv = InteractionGraph(F, D, V), ExphormerConv(F, F, edge_dim=D)

    def run(x, edge_index, edge_attr, batch, expander):
        graph = module(x, edge_index, edge_attr, batch, expander)
        return conv(graph.x, graph.edge_index, graph.edge_attr)[: graph.num_nodes]

    x, edge_index, edge_attr, batch = inputs()
    layout = GraphLayout.from_batch(batch)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    out = compiled(x, edge_index, edge_attr, layout, EXPANDER)
    torch.testing.assert_close(out, run(x, edge_index, edge_attr, layout, EXPANDER))
    with pytest.raises(Exception, match="pass 'GraphLayout.from_batch"):
        compiled(x, edge_index, edge_attr, batch, EXPANDER)


def test_inputs_that_do_not_fit():
    x, edge_index, edge_attr, batch = inputs()
    module = InteractionGraph(F, D, V)
    with pytest.raises(ValueError, match=r"AddExpanderEdges\(degree\)' adds it"):
        module(x, edge_index, edge_attr, batch)
    with pytest.raises(ValueError, match="made with 'expander=False'"):
        InteractionGraph(F, D, V, False)(x, edge_index, edge_attr, batch, EXPANDER)
    with pytest.raises(IndexError, match="target index 6"):  # which is a virtual node
        module(x, edge_index + (edge_index == 5).long(), edge_attr, batch, EXPANDER)
    with pytest.raises(IndexError, match="'expander_edge_index' is no .* target index 6"):
        module(x, edge_index, edge_attr, batch, EXPANDER.new_tensor([[0], [6]]))
    with pytest.raises(ValueError, match="'expander_edge_index' is no .* must have shape"):
        module(x, edge_index, edge_attr, batch, EXPANDER[0])
    for given, words in (
        ((x[:, 1:], edge_index, edge_attr), r"'x' must be .* \[N, 4\]"),
        ((x, edge_index, edge_attr[:, 1:]), r"'edge_attr' must be .* \[E, 3\]"),
        ((x, edge_index, edge_attr[1:]), "has 4 rows, but there are 5 edges"),
        ((x, edge_index, None), r"features of each edge \(got None\)"),
        ((x, batch, edge_attr), r"'edge_index' must have shape \[2, E\]"),
    ):
        with pytest.raises(ValueError, match=words):
            module(*given, batch, EXPANDER)
    for arguments, words in (
        ({"channels": 0}, "'channels' must be"),
        ({"channels": 4, "num_virtual_nodes": -1}, "'num_virtual_nodes' must be"),
        ({"channels": 4, "edge_channels": 0}, "'edge_channels' must be"),
        ({"channels": 4, "expander": "yes"}, "'expander' must be True or False"),
    ):
        with pytest.raises(ValueError, match=words):
            InteractionGraph(**arguments)
