"""`FullTransformerConv` is PyG's `TransformerConv` on all pairs of nodes of each graph."""

import pytest
import torch
from torch_geometric.nn import MessagePassing, TransformerConv

from pyg_gt import EdgeBias, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias
from pyg_gt.nn import FullTransformerConv

F, C, H, D = 6, 4, 2, 3
ROUTES = ["fused", "propagate"]


def take(conv, route):
    """Makes `conv` run on this route."""
    if route == "propagate":
        conv.register_message_forward_hook(lambda *args: None)
    return conv


def pair(*args, **kwargs):
    """Ours, and PyG's with the same weights."""
    theirs = TransformerConv(*args, **kwargs).double()
    ours = FullTransformerConv(*args, **kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def on_all_pairs(theirs, edge_index):
    """PyG's layer with the edges filled in, which takes what ours takes."""

    class Filled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = theirs

        def forward(self, x, batch=None):
            return self.conv(x, edge_index)

    return Filled()


def nodes(n):
    return torch.randn(n, F, dtype=torch.float64)


def dense(ours, x, batch, added):
    """The formula, one graph at a time; `added(graph, nodes) -> [n, n, H]` goes onto scores."""
    q, k, v = (lin(x).view(-1, H, C) for lin in (ours.lin_query, ours.lin_key, ours.lin_value))
    out = torch.zeros(x.size(0), H, C, dtype=x.dtype)
    for graph in batch.unique().tolist():
        here = (batch == graph).nonzero().flatten()
        scores = torch.einsum("ihc,jhc->ijh", q[here], k[here]) / C**0.5 + added(graph, here)
        alone = scores.isneginf().all(1, keepdim=True)
        weights = scores.masked_fill(alone, 0.0).softmax(1).masked_fill(alone, 0.0)
        out = out.index_put((here,), torch.einsum("ijh,jhc->ihc", weights, v[here]))
    return out.flatten(1) + ours.lin_skip(x)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 4},
        {"heads": 2, "beta": True},
        {"heads": 2, "concat": False},
        {"heads": 2, "root_weight": False},
        {"heads": 2, "bias": False},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_pygs_on_all_pairs(
    options, route, agree, batch_of, all_pairs, fused_calls
):
    batch, _ = batch_of()
    ours, theirs = pair(F, C, **options)
    agree(take(ours, route), on_all_pairs(theirs, all_pairs(batch)), nodes(16), batch=batch)
    assert len(fused_calls) == (route == "fused")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_another_aggregation_runs_through_propagate(
    aggr, route, agree, batch_of, all_pairs, fused_calls
):
    batch, _ = batch_of()
    ours, theirs = pair(F, C, heads=H, aggr=aggr)
    agree(take(ours, route), on_all_pairs(theirs, all_pairs(batch)), nodes(16), batch=batch)
    assert fused_calls == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", ["unsorted", "layout", "unsorted layout", "none", "empty last"])
def test_every_form_of_batch(form, route, agree, batch_of, all_pairs):
    batch, _ = batch_of()
    given = batch
    if form.startswith("unsorted"):
        given = batch = batch[torch.randperm(16)]
    if form.endswith("layout"):
        given = GraphLayout.from_batch(batch)
    if form == "none":
        given, batch = None, torch.zeros(16, dtype=torch.int64)
    if form == "empty last":
        given = GraphLayout.from_batch(batch, num_graphs=9)
    ours, theirs = pair(F, C, heads=H)
    agree(take(ours, route), on_all_pairs(theirs, all_pairs(batch)), nodes(16), batch=given)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("n", [0, 1])
def test_no_node_and_one_node(n, route, agree, all_pairs):
    ours, theirs = pair(F, C, heads=H)
    batch = torch.zeros(n, dtype=torch.int64)
    edge_index = all_pairs(batch).view(2, -1)
    agree(take(ours, route), on_all_pairs(theirs, edge_index), nodes(n), batch=batch)


@pytest.mark.parametrize(
    "backend", ["reference", "sdpa", pytest.param("cpu", marks=pytest.mark.compiled)]
)
def test_every_backend_that_runs_here(backend, agree, batch_of, all_pairs):
    batch, _ = batch_of()
    ours, theirs = pair(F, C, heads=H)
    ours.backend = backend
    dtype = torch.float32 if backend == "cpu" else torch.float64
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    close = {"rtol": 1e-4, "atol": 1e-5} if backend == "cpu" else {}
    theirs = on_all_pairs(theirs, all_pairs(batch))
    agree(ours, theirs, nodes(16).to(dtype), batch=batch, **close)


@pytest.mark.parametrize("route", ROUTES)
def test_weights_of_torchs_multihead_attention_give_its_outputs(route, batch_of):
    batch, _ = batch_of()
    theirs = torch.nn.MultiheadAttention(H * C, H, batch_first=True).double()
    ours = FullTransformerConv(H * C, C, heads=H, root_weight=False).double()
    with torch.no_grad():
        theirs.in_proj_bias.normal_()
        for i, lin in enumerate((ours.lin_query, ours.lin_key, ours.lin_value)):
            lin.weight.copy_(theirs.in_proj_weight.view(3, H * C, H * C)[i])
            lin.bias.copy_(theirs.in_proj_bias.view(3, H * C)[i])
    x = torch.randn(16, H * C, dtype=torch.float64)
    out = theirs.out_proj(take(ours, route)(x, batch=batch))
    _, (pairs, alpha) = ours(x, batch=batch, return_attention_weights=True)
    for graph in batch.unique():
        one = x[batch == graph]
        want, weights = theirs(one, one, one, average_attn_weights=False)
        torch.testing.assert_close(out[batch == graph], want, rtol=1e-9, atol=1e-11)
        mine = alpha[batch[pairs[1]] == graph].view(one.size(0), one.size(0), H)
        torch.testing.assert_close(mine, weights.permute(1, 2, 0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("ordered", [True, False], ids=["sorted", "unsorted"])
def test_edge_features_add_a_learned_score_on_their_pairs(route, ordered, agree, batch_of):
    batch, edge_index = batch_of()  # random edges: some stand twice, and then add up
    if not ordered:
        order = torch.randperm(16)
        batch, edge_index = batch[order], order.argsort()[edge_index]
    ours = take(FullTransformerConv(F, C, heads=H, edge_dim=D).double(), route)

    class Formula(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ours

        def forward(self, x, edge_index, edge_attr, batch):
            bias = edge_attr @ ours.lin_edge_bias.weight.t()
            table = torch.zeros(16, 16, H, dtype=x.dtype)
            table = table.index_put((edge_index[1], edge_index[0]), bias, accumulate=True)
            return dense(ours, x, batch, lambda graph, here: table[here][:, here])

    edge_attr = torch.randn(edge_index.size(1), D, dtype=torch.float64)
    agree(ours, Formula(), nodes(16), edge_index, edge_attr, batch)
    assert ours.lin_edge_bias.weight.shape == (H, D)
    assert not hasattr(ours, "lin_edge") or ours.lin_edge is None


@pytest.mark.parametrize("route", ROUTES)
def test_biases_against_the_formula(route, agree, batch_of):
    batch, edge_index = batch_of()
    sizes = torch.bincount(batch).tolist()
    total = sum(n * n for n in sizes)
    slopes = torch.tensor([0.3, -0.7], dtype=torch.float64)
    index = torch.randint(5, (total,))
    starts = [sum(n * n for n in sizes[:i]) for i in range(len(sizes))]

    class Ours(torch.nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x, pairs, table, edges, mask):
            bent = ScoreMod(lambda s, graph, head, q, k: s * 0.5 + slopes[head] * (q - k))
            biases = (
                EdgeMask(edge_index, mask),
                PairBias(pairs),
                bent,
                TableBias(table, index),
                EdgeBias(edge_index.flip(0), edges),
            )
            return self.conv(x, batch=batch, biases=biases)

    class Formula(Ours):
        def forward(self, x, pairs, table, edges, mask):
            flat = pairs + table[index]
            extra = torch.zeros(16, 16, H, dtype=x.dtype)
            extra = extra.index_put((edge_index[0], edge_index[1]), edges, accumulate=True)
            # an edge that stands twice counts twice
            total = torch.zeros(16, 16, H, dtype=x.dtype)
            total = total.index_put((edge_index[1], edge_index[0]), mask.exp(), accumulate=True)
            conv = self.conv
            q, k, v = (
                lin(x).view(-1, H, C) for lin in (conv.lin_query, conv.lin_key, conv.lin_value)
            )
            rows = []
            for i in range(16):
                graph = int(batch[i])
                here = (batch == graph).nonzero().flatten()
                n = here.numel()
                row = starts[graph] + (i - int(here[0])) * n
                scores = torch.einsum("hc,jhc->jh", q[i], k[here]) / C**0.5
                scores = scores + flat[row : row + n] + extra[i, here]
                scores = scores * 0.5 + slopes * (i - here)[:, None]
                weights = scores.exp() * total[i, here]
                if not bool((total[i, here] > 0).any()):
                    rows.append(torch.zeros_like(q[i]))
                    continue
                rows.append(torch.einsum("jh,jhc->hc", weights / weights.sum(0), v[here]))
            return torch.stack(rows).flatten(1) + conv.lin_skip(x)

    conv = take(FullTransformerConv(F, C, heads=H).double(), route)
    random = [torch.randn(n, H, dtype=torch.float64) for n in (total, 5)]
    random += [torch.randn(edge_index.size(1), H, dtype=torch.float64) for _ in range(2)]
    agree(Ours(conv), Formula(conv), nodes(16), *random)


@pytest.mark.parametrize("route", ROUTES)
def test_edge_mask_with_features_is_pygs_layer_with_edge_features(route, agree, batch_of):
    batch, edge_index = batch_of()
    theirs = TransformerConv(F, C, heads=H, edge_dim=D).double()
    conv = take(FullTransformerConv(F, C, heads=H).double(), route)
    conv.load_state_dict(theirs.state_dict(), strict=False)

    def masked(x, weight, edge_attr):
        features = (edge_attr @ weight.t()).view(-1, H, C)
        return conv(x, batch=batch, biases=(EdgeMask(edge_index, features=features),))

    def pygs(x, weight, edge_attr):
        own = {"lin_edge.weight": weight}
        return torch.func.functional_call(theirs, own, (x, edge_index, edge_attr))

    weight = torch.randn(H * C, D, dtype=torch.float64)
    edge_attr = torch.randn(edge_index.size(1), D, dtype=torch.float64)
    agree(masked, pygs, nodes(16), weight, edge_attr)


def test_returned_weights_are_pygs_in_the_order_of_flat_pairs(agree, batch_of, all_pairs):
    batch, _ = batch_of()
    batch = batch[torch.randperm(16)]
    ours, theirs = pair(F, C, heads=H)
    edge_index = all_pairs(batch)
    x = nodes(16)
    for value in (True, False):
        out, (pairs, alpha) = ours(x, batch=batch, return_attention_weights=value)
        want, (_, want_alpha) = theirs(x, edge_index, return_attention_weights=value)
        assert pairs.equal(edge_index)
        torch.testing.assert_close(alpha, want_alpha)
        torch.testing.assert_close(out, want)
        sums = torch.zeros(16, H, dtype=torch.float64).index_add(0, pairs[1], alpha)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_returned_weights_are_those_before_dropout():
    ours = FullTransformerConv(F, C, heads=H, dropout=0.9)
    _, (pairs, alpha) = ours(torch.randn(5, F), return_attention_weights=True)
    torch.testing.assert_close(alpha.view(5, 5, H).sum(1), torch.ones(5, H))


@pytest.mark.parametrize("route", ROUTES)
def test_dropout_in_training_has_pygs_mean_and_variance(route, all_pairs):
    ours, theirs = pair(F, C, heads=H, dropout=0.4, root_weight=False)
    take(ours, route)
    copies = 4000
    batch = torch.arange(copies).repeat_interleave(4)
    edge_index = all_pairs(torch.zeros(4, dtype=torch.int64))
    edge_index = (edge_index[:, None] + 4 * torch.arange(copies)[:, None]).flatten(1)
    x = nodes(4)
    with torch.no_grad():
        mine = ours(x.repeat(copies, 1), batch=batch).view(copies, 4, -1)
        want = theirs(x.repeat(copies, 1), edge_index).view(copies, 4, -1)
        exact = ours.eval()(x)
    spread = want.std(0)
    assert spread.max() > 0.1
    assert (mine.mean(0) - exact).abs().le(5 * spread / copies**0.5).all()
    torch.testing.assert_close(mine.std(0), spread, rtol=0.1, atol=1e-9)


def test_state_dicts_load_both_ways():
    ours, theirs = pair(F, C, heads=H, beta=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


def test_lazy_channels(agree, all_pairs):
    ours = FullTransformerConv(-1, C, heads=H, edge_dim=-1)
    edge_index = torch.tensor([[0, 1], [1, 2]])
    out = ours(torch.randn(5, F), edge_index, torch.randn(2, D))
    assert out.shape == (5, H * C)
    assert ours.lin_query.weight.shape == (H * C, F)
    assert ours.lin_edge_bias.weight.shape == (H, D)
    ours = FullTransformerConv(-1, C, heads=H)
    ours(torch.randn(5, F))
    theirs = TransformerConv(F, C, heads=H)
    theirs.load_state_dict(ours.state_dict())
    edges = all_pairs(torch.zeros(5, dtype=torch.int64))
    agree(ours, on_all_pairs(theirs, edges), torch.randn(5, F), rtol=1e-4, atol=1e-5)


def test_printed_form():
    assert str(FullTransformerConv(F, C, 2)) == "FullTransformerConv(6, 4, heads=2)"


def test_it_sends_messages():
    ours = FullTransformerConv(F, C)
    assert isinstance(ours, MessagePassing)
    assert ours.explain is False


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c: c((torch.randn(3, F), torch.randn(3, F))), ValueError, "one tensor"),
        (
            lambda c: c(torch.randn(3, F), torch.zeros(2, 1).long(), torch.randn(1, D)),
            ValueError,
            "made without 'edge_dim'",
        ),
        (lambda c: c(torch.randn(3, F), batch=torch.zeros(2).long()), ValueError, "2 nodes"),
        (lambda c: c(torch.randn(3, F), batch=torch.zeros(3)), ValueError, "integers"),
        (lambda c: c(torch.randn(3, F), batch=torch.tensor([0, -1, 0])), ValueError, "negative"),
        (lambda c: c(torch.randn(3, F), batch=[0, 0, 0]), ValueError, "list"),
        (
            lambda c: c(torch.randn(3, F), batch=GraphLayout.from_sizes([4])),
            ValueError,
            "describes 4 nodes, but there are 3",
        ),
        (
            lambda c: c(torch.randn(3, F), biases=(PairBias(torch.randn(8, H)),)),
            ValueError,
            "8 pairs, but the layout has 9",
        ),
        (
            lambda c: c(torch.randn(3, F), biases=(PairBias(torch.randn(9, 1)),)),
            ValueError,
            r"shape \[P, 2\]",
        ),
        (
            lambda c: c(torch.randn(3, F), biases=(torch.randn(9, H),)),
            ValueError,
            "a bias must be one of",
        ),
        (
            lambda c: c(torch.randn(3, F), biases=(EdgeMask(torch.zeros(2, 1).long()),) * 2),
            ValueError,
            "at most one 'EdgeMask'",
        ),
        (
            lambda c: c(torch.randn(3, F), biases=(EdgeMask(torch.full((2, 1), 3)),)),
            IndexError,
            "source index 3",
        ),
        (
            lambda c: c(
                torch.randn(3, F),
                biases=(TableBias(torch.randn(4, H), torch.full((9,), 4)),),
            ),
            IndexError,
            "table index 4",
        ),
        (
            lambda c: c(
                torch.randn(3, F),
                batch=torch.tensor([0, 0, 1]),
                biases=(EdgeMask(torch.tensor([[0], [2]])),),
            ),
            ValueError,
            "joins node 0 of graph 0 to node 2 of graph 1",
        ),
    ],
)
def test_bad_input_is_named_on_both_routes(call, error, words, route):
    conv = take(FullTransformerConv(F, C, heads=H), route)
    with pytest.raises(error, match=words):
        call(conv)


def test_bad_edges_with_edge_dim():
    conv = FullTransformerConv(F, C, heads=H, edge_dim=D)
    x, edge_index = torch.randn(3, F), torch.tensor([[0, 1], [1, 3]])
    with pytest.raises(ValueError, match="needs 'edge_index' and 'edge_attr'"):
        conv(x)
    with pytest.raises(ValueError, match="needs 'edge_index' and 'edge_attr'"):
        conv(x, edge_index)
    with pytest.raises(IndexError, match="target index 3"):
        conv(x, edge_index, torch.randn(2, D))
    with pytest.raises(ValueError, match=r"EdgeBias.values.*E = 2"):
        conv(x, edge_index.clamp(max=2), torch.randn(5, D))


def test_a_pair_of_channels_is_refused():
    with pytest.raises(ValueError, match="'MaskedTransformerConv' takes a pair"):
        FullTransformerConv((F, F), C)


def test_unknown_backend():
    with pytest.raises(ValueError, match="Unknown backend 'nope'"):
        FullTransformerConv(F, C, backend="nope")
    with pytest.raises(NotImplementedError, match="'sparse' cannot run.*'EdgeMask'"):
        FullTransformerConv(F, C, backend="sparse")(torch.randn(3, F))
