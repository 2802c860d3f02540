"""`MaskedTransformerConv` gives what PyG's `TransformerConv` gives, with gradients."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.nn import TransformerConv
from torch_geometric.utils import to_torch_coo_tensor

from pyg_gt.nn import FullTransformerConv, MaskedTransformerConv

N, F, C, D = 9, 6, 4, 3

# repeated edges, self-loops, a node without a neighbour (8), one that only sends (7)
EDGES = torch.tensor(
    [[0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 7, 0], [1, 0, 0, 1, 2, 0, 1, 3, 3, 6, 5, 4, 1]]
)


def pair(*args, **kwargs):
    """Ours and PyG's, with the same weights."""
    theirs = TransformerConv(*args, **kwargs).double()
    ours = MaskedTransformerConv(*args, **kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def nodes(n=N):
    return torch.randn(n, F, dtype=torch.float64)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("edge_dim", [None, D])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": True},
        {"concat": False},
        {"concat": False, "beta": True},
        {"root_weight": False},
        {"root_weight": False, "beta": True},
        {"bias": False},
        {"flow": "target_to_source"},
        {"aggr": "sum"},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_pygs(heads, edge_dim, options, agree, fused_calls):
    ours, theirs = pair(F, C, heads=heads, edge_dim=edge_dim, **options)
    edge_attr = None if edge_dim is None else torch.randn(EDGES.size(1), D, dtype=torch.float64)
    agree(ours, theirs, nodes(), EDGES, edge_attr)
    assert len(fused_calls) == 1


@pytest.mark.parametrize("edge_dim", [None, D])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("sizes", [(5, 9), (9, 5), (7, 7)], ids=str)
def test_bipartite(sizes, flow, edge_dim, agree, fused_calls):
    ours, theirs = pair((F, 5), C, heads=2, edge_dim=edge_dim, flow=flow)
    source = torch.randint(sizes[0], (20,))
    target = torch.randint(sizes[1], (20,))
    rows = [source, target] if flow == "source_to_target" else [target, source]
    x = nodes(sizes[0]), torch.randn(sizes[1], 5, dtype=torch.float64)
    edge_attr = None if edge_dim is None else torch.randn(20, D, dtype=torch.float64)
    out = agree(ours, theirs, x, torch.stack(rows), edge_attr)
    assert out.shape == (sizes[1], 2 * C)
    assert len(fused_calls) == 1


@given(
    edges=st.integers(1, 7).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=24),
        )
    ),
    heads=st.integers(1, 3),
    edge_dim=st.sampled_from([None, D]),
)
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_any_edge_index(edges, heads, edge_dim, agree):
    n, listed = edges
    edge_index = torch.tensor(listed, dtype=torch.int64).view(-1, 2).t().contiguous()
    ours, theirs = pair(F, C, heads=heads, edge_dim=edge_dim)
    edge_attr = None if edge_dim is None else torch.randn(len(listed), D, dtype=torch.float64)
    agree(ours, theirs, nodes(n), edge_index, edge_attr)


def test_edges_between_the_graphs_of_a_batch_are_followed(agree):
    # no batch vector is given: PyG's layer knows no graphs, and neither does this one
    ours, theirs = pair(F, C, heads=2)
    agree(ours, theirs, nodes(), torch.tensor([[0, 8, 4], [8, 0, 0]]))


@pytest.mark.parametrize(
    "backend", ["reference", "sdpa", "sparse", pytest.param("cpu", marks=pytest.mark.compiled)]
)
def test_every_backend_that_runs_here(backend, agree):
    ours, theirs = pair(F, C, heads=2)
    ours.backend = backend
    dtype = torch.float32 if backend == "cpu" else torch.float64
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    close = {"rtol": 1e-4, "atol": 1e-5} if backend == "cpu" else {}
    agree(ours, theirs, nodes().to(dtype), EDGES, **close)


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("edge_dim", [None, D])
def test_torch_sparse_adjacency(layout, edge_dim, agree, fused_calls):
    # sparse tensors hold each edge once
    edge_index = torch.unique(EDGES, dim=1)
    edge_attr = (
        None if edge_dim is None else torch.randn(edge_index.size(1), D, dtype=torch.float64)
    )
    adj_t = to_torch_coo_tensor(edge_index.flip(0), size=N)
    adj_t = adj_t if layout == "coo" else adj_t.to_sparse_csr()
    ours, theirs = pair(F, C, heads=2, edge_dim=edge_dim)
    agree(ours, theirs, nodes(), adj_t, edge_attr)
    assert len(fused_calls) == 1


def test_torch_sparse_csc_which_pygs_layer_refuses(agree):
    # its entries stand column by column, so by source
    edge_index = torch.unique(EDGES, dim=1)
    edge_attr = torch.randn(edge_index.size(1), D, dtype=torch.float64)
    adj_t = to_torch_coo_tensor(edge_index.flip(0), size=N).to_sparse_csc()
    ours, theirs = pair(F, C, heads=2, edge_dim=D)

    def through_the_adjacency(x, edge_attr):
        return ours(x, adj_t, edge_attr)

    def through_the_edges(x, edge_attr):
        return theirs(x, edge_index, edge_attr)

    agree(through_the_adjacency, through_the_edges, nodes(), edge_attr)


def test_torch_sparse_values_act_as_edge_attr(agree):
    edge_index = torch.unique(EDGES, dim=1).flip(0)
    values = torch.randn(edge_index.size(1), D, dtype=torch.float64)
    adj_t = torch.sparse_coo_tensor(edge_index, values, (N, N, D)).coalesce()
    ours, theirs = pair(F, C, heads=2, edge_dim=D)
    agree(ours, theirs, nodes(), adj_t)


def test_sparse_tensor(agree, fused_calls):
    torch_sparse = pytest.importorskip("torch_sparse")
    adj = torch_sparse.SparseTensor.from_edge_index(EDGES, sparse_sizes=(N, N))
    ours, theirs = pair(F, C, heads=2)
    agree(ours, theirs, nodes(), adj.t())
    assert len(fused_calls) == 1


def test_sparse_tensor_values_act_as_edge_attr(agree, fused_calls):
    torch_sparse = pytest.importorskip("torch_sparse")
    values = torch.randn(EDGES.size(1), D, dtype=torch.float64)
    ours, theirs = pair(F, C, heads=2, edge_dim=D)
    x = nodes()

    def through_the_values(conv):
        def call(x, values):
            adj = torch_sparse.SparseTensor.from_edge_index(EDGES, values, sparse_sizes=(N, N))
            return conv(x, adj.t())

        return call

    agree(through_the_values(ours), through_the_values(theirs), x, values)
    assert len(fused_calls) == 1
    adj = torch_sparse.SparseTensor.from_edge_index(EDGES, values, sparse_sizes=(N, N))
    agree(ours, theirs, x, adj.t())


def test_bipartite_sparse_tensor(agree):
    torch_sparse = pytest.importorskip("torch_sparse")
    adj = torch_sparse.SparseTensor.from_edge_index(
        torch.tensor([[0, 1, 4, 4], [0, 0, 2, 1]]), sparse_sizes=(5, 3)
    )
    ours, theirs = pair((F, F), C, heads=2)
    agree(ours, theirs, (nodes(5), nodes(3)), adj.t())


@pytest.mark.parametrize("order", [None, "row", "col"])
def test_edge_index_object(order, agree, fused_calls):
    edge_index = EDGES
    if order is not None:
        edge_index = EDGES[:, EDGES[0 if order == "row" else 1].argsort(stable=True)]
    edge_index = EdgeIndex(edge_index, sparse_size=(N, N), sort_order=order)
    ours, theirs = pair(F, C, heads=2)
    agree(ours, theirs, nodes(), edge_index)
    assert len(fused_calls) == 1


@pytest.mark.parametrize("shape", [(1, C), (2, C), (C,)], ids=str)
def test_raw_edge_attr_without_edge_dim_is_added_to_values_as_in_pyg(shape, agree):
    ours, theirs = pair(F, C, heads=2)
    edge_attr = torch.randn(EDGES.size(1), *shape, dtype=torch.float64)
    if len(shape) == 1:
        edge_attr = edge_attr.unsqueeze(1)
    agree(ours, theirs, nodes(), EDGES, edge_attr)


@pytest.mark.parametrize("in_channels", [-1, (-1, -1)], ids=str)
def test_lazy_channels_are_derived_from_the_first_input(in_channels, agree):
    ours = MaskedTransformerConv(in_channels, C, heads=2, edge_dim=D)
    theirs = TransformerConv(in_channels, C, heads=2, edge_dim=D)
    x = torch.randn(N, F)
    x = x if in_channels == -1 else (x, torch.randn(N, 5))
    edge_attr = torch.randn(EDGES.size(1), D)
    with torch.no_grad():
        ours(x, EDGES, edge_attr)
        theirs(x, EDGES, edge_attr)
    theirs.load_state_dict(ours.state_dict())
    agree(ours, theirs, x, EDGES, edge_attr, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("edge_dim", [None, D])
def test_attention_weights_are_pygs(value, edge_dim, agree):
    ours, theirs = pair(F, C, heads=2, edge_dim=edge_dim)
    edge_attr = None if edge_dim is None else torch.randn(EDGES.size(1), D, dtype=torch.float64)
    out, (edge_index, alpha) = agree(
        ours, theirs, nodes(), EDGES, edge_attr, return_attention_weights=value
    )
    assert edge_index.equal(EDGES)
    assert alpha.shape == (EDGES.size(1), 2)
    assert out.shape == (N, 2 * C)


def test_attention_weights_of_a_sparse_tensor(agree):
    torch_sparse = pytest.importorskip("torch_sparse")
    adj_t = torch_sparse.SparseTensor.from_edge_index(EDGES, sparse_sizes=(N, N)).t()
    ours, theirs = pair(F, C, heads=2)
    x = nodes()
    out, adj = ours(x, adj_t, return_attention_weights=True)
    want, want_adj = theirs(x, adj_t, return_attention_weights=True)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(adj.storage.value(), want_adj.storage.value())


@pytest.mark.parametrize("aggr", ["mean", "max", ["sum", "mean"]], ids=str)
def test_another_aggregation_runs_through_pyg(aggr, agree, fused_calls):
    options = {"root_weight": False} if isinstance(aggr, list) else {}
    ours, theirs = pair(F, C, heads=2, aggr=aggr, **options)
    agree(ours, theirs, nodes(), EDGES)
    assert fused_calls == []


def test_dropout_is_off_in_eval_mode(agree, fused_calls):
    ours, theirs = pair(F, C, heads=2, dropout=0.6)
    agree(ours.eval(), theirs.eval(), nodes(), EDGES)
    assert len(fused_calls) == 1


def test_dropout_in_training_has_pygs_mean_and_variance():
    ours, theirs = pair(F, C, heads=2, dropout=0.4, root_weight=False)
    copies = 4000
    edge_index = (EDGES[:, None] + N * torch.arange(copies)[:, None]).flatten(1)
    x = nodes()
    with torch.no_grad():
        mine = ours(x.repeat(copies, 1), edge_index).view(copies, N, -1)
        want = theirs(x.repeat(copies, 1), edge_index).view(copies, N, -1)
        exact = ours.eval()(x, EDGES)
    spread = want.std(0)
    assert spread.max() > 0.1
    assert (mine.mean(0) - exact).abs().le(5 * spread / copies**0.5 + 1e-12).all()
    torch.testing.assert_close(mine.std(0), spread, rtol=0.1, atol=1e-9)


@pytest.mark.parametrize("n", [0, 4])
def test_no_nodes_or_no_edges(n, agree):
    ours, theirs = pair(F, C, heads=2, edge_dim=D)
    empty = torch.empty(2, 0, dtype=torch.int64)
    out = agree(ours, theirs, nodes(n), empty, torch.empty(0, D, dtype=torch.float64))
    assert out.shape == (n, 2 * C)


def test_a_node_without_neighbours_gets_its_root_alone():
    ours, _ = pair(F, C, heads=2)
    x = nodes()
    assert ours(x, EDGES)[8].equal(ours.lin_skip(x)[8])


def test_printed_form_is_pygs_with_the_other_name():
    for args in [(F, C), ((F, 5), C, 2), (-1, C, 4)]:
        ours, theirs = MaskedTransformerConv(*args), TransformerConv(*args)
        assert str(ours) == str(theirs).replace("TransformerConv", "MaskedTransformerConv")


def test_state_dicts_load_both_ways():
    ours, theirs = pair(F, C, heads=2, beta=True, edge_dim=D)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize(
    ("edge_index", "error", "words"),
    [
        (torch.tensor([[0], [N]]), IndexError, f"target index {N}"),
        (torch.tensor([[N], [0]]), IndexError, f"source index {N}"),
        (torch.tensor([[0], [-1]]), IndexError, "target index -1"),
        (torch.tensor([[-2], [0]]), IndexError, "source index -2"),
        (torch.tensor([[0.0], [1.0]]), ValueError, "integers"),
        (torch.tensor([0, 1]), ValueError, r"shape \[2, E\]"),
        (torch.zeros(3, 4, dtype=torch.int64), ValueError, r"shape \[2, E\]"),
        ([[0], [1]], ValueError, "list"),
    ],
    ids=str,
)
def test_bad_edge_index(edge_index, error, words):
    ours, _ = pair(F, C, heads=2)
    with pytest.raises(error, match=words):
        ours(nodes(), edge_index)


def test_out_of_range_after_an_edit_is_seen():
    ours, _ = pair(F, C, heads=2)
    x, edge_index = nodes(), EDGES.clone()
    ours(x, edge_index)
    edge_index[0, 0] = N
    with pytest.raises(IndexError, match=f"source index {N}"):
        ours(x, edge_index)


def test_bad_edge_attr():
    ours, _ = pair(F, C, heads=2, edge_dim=D)
    with pytest.raises(ValueError, match="edge_dim=3 and needs 'edge_attr'.*got None"):
        ours(nodes(), EDGES)
    with pytest.raises(ValueError, match=r"\[13, 3\] \(got \[2, 3\]\)"):
        ours(nodes(), EDGES, torch.randn(2, D, dtype=torch.float64))


def test_sparse_adjacency_has_one_flow():
    ours, _ = pair(F, C, flow="target_to_source")
    with pytest.raises(ValueError, match="source_to_target"):
        ours(nodes(), to_torch_coo_tensor(EDGES, size=N))


def test_unknown_backend():
    with pytest.raises(ValueError, match="Unknown backend 'nope'"):
        MaskedTransformerConv(F, C, backend="nope")


def test_nothing_is_warned_about():
    ours, _ = pair(F, C, heads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(nodes(), EDGES)


@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8], ids=str)
@pytest.mark.parametrize("route", ["fused", "hook", "weights"])
def test_narrow_indices_give_the_gradients_of_wide_ones(route, dtype, edge_dim):
    # torch 2.13 gives others for sums over messages, and so does PyG's layer
    conv = MaskedTransformerConv(F, C, heads=2, edge_dim=edge_dim).double()
    if route == "hook":
        conv.register_message_forward_hook(lambda *args: None)
    x = nodes()
    edge_attr = None if edge_dim is None else torch.randn(EDGES.size(1), 3, dtype=torch.float64)
    grads = []
    for edges in (EDGES, EDGES.to(dtype)):
        leaf = x.clone().requires_grad_()
        out = conv(leaf, edges, edge_attr, True if route == "weights" else None)
        out = out[0] if route == "weights" else out
        grads.append(torch.autograd.grad(out.square().sum(), [leaf, *conv.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("route", ["hook", "weights"])
def test_a_coo_matrix_is_not_marked_as_coalesced_by_pygs_route(route):
    conv = MaskedTransformerConv(F, C).double()
    if route == "hook":
        conv.register_message_forward_hook(lambda *args: None)
    given = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(EDGES.size(1)), (N, N))
    conv(nodes(), given, None, True if route == "weights" else None)
    assert not given.is_coalesced()


@pytest.mark.parametrize("form", ["coo", "csr"])
def test_sparse_node_features_are_taken_as_pyg_takes_them(form: str) -> None:
    """A bag of words, say: linear maps read it."""
    torch.manual_seed(0)
    x = torch.randn(5, 8) * (torch.rand(5, 8) < 0.4)
    given = x.to_sparse() if form == "coo" else x.to_sparse_csr()
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 0, 4, 3, 2]])
    ours, pyg = MaskedTransformerConv(8, 4, 2), TransformerConv(8, 4, 2)
    pyg.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(given, edges), pyg(x, edges))
    full = FullTransformerConv(8, 4, 2)
    torch.testing.assert_close(full(given), full(x))
