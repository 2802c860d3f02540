"""`GPSConv` gives what PyG's `GPSConv` gives, with gradients, and does not pad."""

import copy
import warnings

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune
from torch_geometric.nn import GATConv, GCNConv, GINConv, GINEConv, MessagePassing, SAGEConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt import EdgeMask, GraphLayout, PairBias, ScoreMod
from pyg_gt.nn import FullTransformerConv, GatedGCNConv, GPSConv

F, H, C, D = 8, 2, 4, 3
NORMS = ["batch_norm", "layer_norm", "graph_norm", "instance_norm", None]


def local(kind):
    """A local part."""
    if kind == "gin":
        return GINConv(torch.nn.Linear(F, F))
    if kind == "gine":
        return GINEConv(torch.nn.Linear(F, F), edge_dim=D)
    return GCNConv(F, F) if kind == "gcn" else None


def pair(conv=None, **kwargs):
    """Ours and PyG's, with the same weights, none of them at a special value."""
    kwargs = {"heads": H, **kwargs}
    theirs = PyGGPSConv(F, conv, **kwargs).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = GPSConv(F, copy.deepcopy(conv), **kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def nodes(n=16):
    return torch.randn(n, F, dtype=torch.float64)


def same_buffers(ours, theirs):
    buffers = dict(theirs.named_buffers())
    assert dict(ours.named_buffers()).keys() == buffers.keys()
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [None, "gin", "gine", "gcn"])
def test_outputs_gradients_and_statistics_are_pygs(
    kind, norm, training, agree, batch_of, fused_calls
):
    batch, edge_index = batch_of()
    ours, theirs = pair(local(kind), norm=norm)
    given = {}
    if kind == "gine":
        given["edge_attr"] = torch.randn(edge_index.size(1), D, dtype=torch.float64)
    agree(ours.train(training), theirs.train(training), nodes(), edge_index, batch, **given)
    assert len(fused_calls) == 1
    same_buffers(ours, theirs)


def test_running_statistics_move_as_pygs(batch_of):
    batch, edge_index = batch_of()
    ours, theirs = pair(local("gin"))
    before = ours.norm2.module.running_mean.clone()
    for _ in range(3):
        x = nodes()
        ours(x, edge_index, batch)
        theirs(x, edge_index, batch)
    same_buffers(ours, theirs)
    assert not ours.norm2.module.running_mean.equal(before)


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 1},
        {"heads": 8},
        {"act": "gelu", "act_kwargs": {"approximate": "tanh"}},
        {"norm": "layer_norm", "norm_kwargs": {"mode": "node"}},
        {"attn_kwargs": {"bias": False}},
        {"attn_kwargs": {"dropout": 0.0, "bias": True, "dtype": torch.float64, "device": "cpu"}},
        {"attn_kwargs": {"kdim": F, "vdim": F}},
    ],
    ids=str,
)
def test_arguments_of_pygs_layer(options, agree, batch_of, fused_calls):
    batch, edge_index = batch_of()
    ours, theirs = pair(local("gin"), **options)
    agree(ours, theirs, nodes(), edge_index, batch)
    assert len(fused_calls) == 1


def test_sparse_tensor(agree, batch_of):
    torch_sparse = pytest.importorskip("torch_sparse")
    batch, edge_index = batch_of()
    adj = torch_sparse.SparseTensor.from_edge_index(edge_index, sparse_sizes=(16, 16))
    ours, theirs = pair(local("gcn"))
    agree(ours, theirs, nodes(), adj.t(), batch)


def test_dropout_is_off_in_eval_mode(agree, batch_of):
    batch, edge_index = batch_of()
    ours, theirs = pair(local("gin"), dropout=0.5, attn_kwargs={"dropout": 0.5})
    agree(ours.eval(), theirs.eval(), nodes(), edge_index, batch)


def test_dropout_of_the_parts_draws_as_pygs(agree, batch_of):
    # only the attention draws otherwise: without its dropout one seed gives one result
    batch, edge_index = batch_of()
    x = nodes()
    ours, theirs = pair(local("gin"), dropout=0.5)
    torch.manual_seed(5)
    out = ours(x, edge_index, batch)
    torch.manual_seed(5)
    torch.testing.assert_close(out, theirs(x, edge_index, batch))
    assert not torch.allclose(out, ours(x, edge_index, batch))


def test_one_graph_without_batch(agree, batch_of):
    ours, theirs = pair(local("gin"), norm="graph_norm")
    agree(ours, theirs, nodes(), batch_of((16,))[1])


@pytest.mark.parametrize("form", ["layout", "trailing empty graphs", "unsorted"])
@pytest.mark.parametrize("norm", ["batch_norm", "graph_norm"])
def test_every_form_of_batch(norm, form, agree, batch_of, fused_calls):
    batch, edge_index = batch_of()
    ours, theirs = pair(local("gin"), norm=norm)
    if form == "unsorted":
        # PyG's layer takes sorted batches only
        order = torch.randperm(16)

        def through_the_order(x):
            return ours(x[order], order.argsort()[edge_index], batch[order])[order.argsort()]

        agree(through_the_order, lambda x: theirs(x, edge_index, batch), nodes())
    else:
        layout = GraphLayout.from_batch(batch, num_graphs=5 if form == "layout" else 8)
        agree(
            lambda x: ours(x, edge_index, layout),
            lambda x: theirs(x, edge_index, batch),
            nodes(),
        )
    assert len(fused_calls) == 1


@pytest.mark.parametrize("norm", ["batch_norm", None])
@pytest.mark.parametrize("kind", [None, "gin"])
def test_no_nodes(kind, norm):
    ours, _ = pair(local(kind), norm=norm)
    empty = torch.empty(2, 0, dtype=torch.int64)
    out = ours.eval()(nodes(0), empty, torch.empty(0, dtype=torch.int64))
    assert out.shape == (0, F)
    out.sum().backward()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_performer_is_pygs(training, agree, batch_of, fused_calls):
    batch, edge_index = batch_of((3, 5, 4))
    ours, theirs = pair(local("gin"), attn_type="performer", attn_kwargs={"head_channels": C})
    agree(ours.train(training), theirs.train(training), nodes(12), edge_index, batch)
    assert fused_calls == []


def test_performer_takes_an_unsorted_batch(batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    ours, theirs = pair(attn_type="performer", norm="layer_norm")
    order = torch.randperm(12)
    x = nodes(12)
    out = ours(x[order], edge_index, batch[order])
    torch.testing.assert_close(out, theirs(x, edge_index, batch)[order])


def padded_cases():
    def spectral(conv):
        torch.manual_seed(3)
        parametrizations.spectral_norm(conv.attn.out_proj)
        conv.attn.out_proj.eval()

    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    def parametrised(conv):
        parametrize.register_parametrization(conv.attn, "in_proj_weight", Doubled())

    class Adapted(torch.nn.modules.linear.NonDynamicallyQuantizableLinear):
        def forward(self, x):
            return 3 * super().forward(x)

    def adapted(conv):
        conv.attn.out_proj.__class__ = Adapted

    class Louder(torch.nn.MultiheadAttention):
        def forward(self, *args, **kwargs):
            out, weights = super().forward(*args, **kwargs)
            return 3 * out, weights

    def subclassed(conv):
        conv.attn.__class__ = Louder

    def patched(conv):
        forward = conv.attn.forward

        def twice(*args, **kwargs):
            out, weights = forward(*args, **kwargs)
            return 2 * out, weights

        conv.attn.forward = twice

    return [
        (spectral, "'attn.out_proj' is a 'Parametrized"),
        (parametrised, "'attn' is a 'Parametrized"),
        (adapted, "'attn.out_proj' is a 'Adapted'"),
        (subclassed, "'attn' is a 'Louder'"),
        (patched, "'attn.forward' was replaced"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"), padded_cases(), ids=[change.__name__ for change, _ in padded_cases()]
)
@pytest.mark.filterwarnings("ignore:global attention runs on a padded batch")
def test_a_changed_attention_module_is_run_as_a_module(
    change, reason, agree, batch_of, fused_calls
):
    batch, edge_index = batch_of((3, 5, 4))
    ours, theirs = pair(local("gin"))
    plain = ours(nodes(12), edge_index, batch)
    assert len(fused_calls) == 1
    change(ours)
    change(theirs)
    agree(ours, theirs, nodes(12), edge_index, batch)
    assert len(fused_calls) == 1
    with pytest.warns(UserWarning, match="padded batch") as record:
        out = ours(nodes(12), edge_index, batch)
    assert len(record) == 1
    assert reason in str(record[0].message)
    assert out.shape == plain.shape


def test_the_padded_path_is_warned_about_once(batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    ours, _ = pair(attn_kwargs={"add_bias_kv": True})
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("default")  # what Python does on its own
        for _ in range(3):
            ours(nodes(12), edge_index, batch)
    assert len(record) == 1


@pytest.mark.parametrize("name", ["in_proj_weight", "out_proj.weight"])
def test_pruned_attention_stays_on_the_fused_route(name, agree, batch_of, fused_calls):
    # pruning computes the weight in a pre-hook; torch calls none of 'out_proj'
    batch, edge_index = batch_of((3, 5, 4))
    ours, theirs = pair(local("gin"))
    for conv in (ours, theirs):
        module, _, parameter = f"attn.{name}".rpartition(".")
        prune.l1_unstructured(conv.get_submodule(module), parameter, 0.5)
    agree(ours, theirs, nodes(12), edge_index, batch)
    assert len(fused_calls) == 1


def test_a_graph_without_nodes_makes_no_gradient_nan_on_the_padded_path():
    ours, _ = pair(attn_kwargs={"add_zero_attn": True}, norm=None)
    other, _ = pair(attn_type="multihead", norm=None)
    ours.attn.add_zero_attn = other.attn.add_zero_attn = False
    ours.attn.forward = ours.attn.forward  # replaced, so that the module is called
    other.load_state_dict(ours.state_dict())
    x, batch = nodes(5), torch.tensor([0, 0, 2, 2, 2])
    with pytest.warns(UserWarning, match="padded batch"):
        ours(x, None, batch).square().sum().backward()
    other(x, None, batch).square().sum().backward()
    for (name, p), q in zip(ours.named_parameters(), other.parameters(), strict=True):
        if "norm" not in name:
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_other_arguments_of_the_attention_run_pygs_padded_path(
    option, agree, batch_of, fused_calls
):
    batch, edge_index = batch_of((3, 5, 4))
    ours, theirs = pair(local("gin"), attn_kwargs={option: True})
    with pytest.warns(UserWarning, match="adds keys of its own") as record:
        agree(ours, theirs, nodes(12), edge_index, batch)
    assert len(record) == 1
    assert fused_calls == []


@pytest.mark.filterwarnings("ignore:global attention runs on a padded batch")
def test_padded_path_takes_layouts_and_unsorted_batches(batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    ours, theirs = pair(norm="layer_norm", attn_kwargs={"add_bias_kv": True})
    x, order = nodes(12), torch.randperm(12)
    want = theirs(x, edge_index, batch)
    torch.testing.assert_close(ours(x, edge_index, GraphLayout.from_batch(batch)), want)
    torch.testing.assert_close(ours(x[order], edge_index, batch[order]), want[order])
    torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index))


def test_biases_cannot_reach_a_module(batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    bias = PairBias(torch.zeros(50, H, dtype=torch.float64))
    for options in ({"attn_type": "performer"}, {"attn_kwargs": {"add_bias_kv": True}}):
        ours, _ = pair(**options)
        with pytest.raises(ValueError, match="'biases' cannot reach this layer's attention"):
            ours(nodes(12), edge_index, batch, biases=(bias,))


@pytest.mark.parametrize("route", ["fused", "propagate"])
def test_biases_against_the_formula(route, agree, batch_of):
    batch, edge_index = batch_of()
    total = sum(n * n for n in torch.bincount(batch).tolist())
    ours, theirs = pair(norm="layer_norm")
    if route == "propagate":
        ours.register_message_forward_hook(lambda *args: None)

    def with_biases(x, values):
        biases = (PairBias(values), ScoreMod(lambda s, g, h, q, k: s - 0.1 * (q - k) ** 2))
        return ours(x, edge_index, batch, biases=biases)

    def formula(x, values):
        attn = theirs.attn
        joined = x @ attn.in_proj_weight.t() + attn.in_proj_bias
        q, k, v = joined.view(-1, 3, H, C).unbind(1)
        rows, start = [], 0
        for graph in batch.unique():
            here = (batch == graph).nonzero().flatten()
            n = here.numel()
            scores = torch.einsum("ihc,jhc->ijh", q[here], k[here]) / C**0.5
            scores = scores + values[start : start + n * n].view(n, n, H)
            scores = scores - 0.1 * (here[:, None, None] - here[None, :, None]) ** 2
            rows.append(torch.einsum("ijh,jhc->ihc", scores.softmax(1), v[here]))
            start += n * n
        out = torch.cat(rows).flatten(1) @ attn.out_proj.weight.t() + attn.out_proj.bias
        out = theirs.norm2(out + x, batch=batch)
        return theirs.norm3(out + theirs.mlp(out), batch=batch)

    agree(with_biases, formula, nodes(), torch.randn(total, H, dtype=torch.float64))


@pytest.mark.parametrize("kind", [None, "gin"])
@pytest.mark.parametrize("norm", ["batch_norm", "graph_norm", None])
def test_norm_first_normalises_before_each_part(norm, kind, agree, batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    ours = GPSConv(F, local(kind), heads=H, norm=norm, norm_first=True).double()

    class Formula(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in copy.deepcopy(ours).named_children():
                self.add_module(name, child)

        def forward(self, x, edge_index, batch):
            given = (batch,) if norm == "graph_norm" else ()
            norm1, norm2, norm3 = (
                (lambda h: h) if m is None else (lambda h, m=m: m(h, *given))
                for m in (getattr(self, f"norm{i}", None) for i in (1, 2, 3))
            )
            h = norm2(x)
            heard = [self.attn(*[h[batch == graph]] * 3)[0] for graph in batch.unique()]
            total = x + torch.cat(heard)
            if kind is not None:
                total = total + x + self.conv(norm1(x), edge_index)
            return total + self.mlp(norm3(total))

    formula = Formula()
    agree(ours, formula, nodes(12), edge_index, batch)
    agree(ours.eval(), formula.eval(), nodes(12), edge_index, batch)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_local_part_may_return_edge_features(norm_first, batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    edge_attr = torch.randn(edge_index.size(1), F, dtype=torch.float64)
    part = GatedGCNConv(F, F)
    ours = GPSConv(F, part, heads=H, norm="layer_norm", norm_first=norm_first).double()
    x = nodes(12)
    out, edges = ours(x, edge_index, batch, edge_attr=edge_attr)

    class NodesOnly(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.part = part

        def forward(self, *args, **kwargs):
            return self.part(*args, **kwargs)[0]

    ours.conv = NodesOnly()
    torch.testing.assert_close(out, ours(x, edge_index, batch, edge_attr=edge_attr))
    h = ours.norm1(x, batch=batch) if norm_first else x
    torch.testing.assert_close(edges, part(h, edge_index, edge_attr)[1])
    assert not torch.allclose(edges, edge_attr)


def test_another_global_part_gets_the_layout_and_the_biases(agree, batch_of):
    batch, edge_index = batch_of((3, 5, 4))
    ours = GPSConv(F, None, attn=FullTransformerConv(F, C, heads=H), norm=None).double()
    mask = EdgeMask(edge_index)

    def formula(x):
        h = x + ours.attn(x, batch=batch)
        return h + ours.mlp(h)

    def masked(x):
        h = x + ours.attn(x, batch=batch, biases=(mask,))
        return h + ours.mlp(h)

    agree(lambda x: ours(x, edge_index, batch), formula, nodes(12))
    agree(lambda x: ours(x, edge_index, batch, biases=(mask,)), masked, nodes(12))

    seen = []

    class Probe(torch.nn.Module):
        def forward(self, x, batch):
            seen.append(batch)
            return x

    ours.attn = Probe()
    ours(nodes(12), edge_index, batch)
    assert seen[0] is GraphLayout.of(batch, 12)


def test_attention_dropout_has_pygs_mean_and_variance():
    ours, theirs = pair(norm=None, attn_kwargs={"dropout": 0.4})
    with torch.no_grad():  # without the MLP the output is linear in the attention weights
        for conv in (ours, theirs):
            conv.mlp[3].weight.zero_()
            conv.mlp[3].bias.zero_()
    copies = 4000
    batch = torch.arange(copies).repeat_interleave(4)
    x = nodes(4)
    many = x.repeat(copies, 1)
    with torch.no_grad():
        mine = ours(many, None, batch).view(copies, 4, F)
        want = theirs(many, None, batch).view(copies, 4, F)
        exact = theirs.eval()(x, None)
    spread = want.std(0)
    assert (mine.mean(0) - exact).abs().le(5 * spread / copies**0.5).all()
    torch.testing.assert_close(mine.std(0), spread, rtol=0.1, atol=1e-9)


@pytest.mark.parametrize("route", ["fused", "propagate"])
def test_attention_dropout_follows_the_attention_module(route, batch_of):
    batch, edge_index = batch_of()
    ours, _ = pair(norm=None, attn_kwargs={"dropout": 0.5})
    if route == "propagate":
        ours.register_message_forward_hook(lambda *args: None)
    x = nodes()
    assert not torch.allclose(ours(x, edge_index, batch), ours(x, edge_index, batch))
    ours.attn.eval()  # frozen by itself, as one may
    assert ours(x, edge_index, batch).equal(ours(x, edge_index, batch))


def test_attention_dropout_can_be_given_either_way_but_not_both():
    assert GPSConv(F, None, attn_dropout=0.3).attn.dropout == 0.3
    assert GPSConv(F, None, attn_kwargs={"dropout": 0.3}).attn.dropout == 0.3
    kwargs = {"dropout": 0.3}
    GPSConv(F, None, attn_kwargs=kwargs)
    assert kwargs == {"dropout": 0.3}
    with pytest.raises(ValueError, match="given twice: attn_dropout=0.2 and.*=0.3"):
        GPSConv(F, None, attn_dropout=0.2, attn_kwargs={"dropout": 0.3})


def test_bad_arguments():
    with pytest.raises(ValueError, match="divisible by 'heads' .got 8 channels, 3 heads"):
        GPSConv(F, None, heads=3)
    with pytest.raises(ValueError, match="bigbird is not supported"):
        GPSConv(F, None, attn_type="bigbird")
    with pytest.raises(ValueError, match="'attn' is an object already"):
        GPSConv(F, None, attn=torch.nn.Identity(), attn_dropout=0.5)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.zeros(15, dtype=torch.int64), "describes 15 nodes, but there are 16"),
        (torch.zeros(16), "must hold integers"),
        (torch.zeros(16, dtype=torch.bool), "must hold integers"),
        (torch.zeros(16, 1, dtype=torch.int64), "must be a vector"),
        (torch.arange(16) - 1, "negative"),
        ([0] * 16, "must be a tensor"),
        (GraphLayout.from_sizes([15]), "describes 15 nodes, but there are 16"),
    ],
    ids=str,
)
def test_bad_batch(batch, words, batch_of):
    ours, _ = pair(local("gin"))
    with pytest.raises(ValueError, match=words):
        ours(nodes(), batch_of()[1], batch)


def test_unknown_backend(batch_of):
    batch, edge_index = batch_of()
    with pytest.raises(ValueError, match="Unknown backend 'nope'"):
        GPSConv(F, None, backend="nope")
    with pytest.raises(NotImplementedError, match="'triton' cannot run"):
        GPSConv(F, None, backend="triton")(nodes().float(), edge_index, batch)


@pytest.mark.parametrize(
    "backend", ["reference", "sdpa", pytest.param("cpu", marks=pytest.mark.compiled)]
)
def test_every_backend_that_runs_here(backend, agree, batch_of):
    batch, edge_index = batch_of()
    ours, theirs = pair(local("gin"))
    ours.backend = backend
    dtype = torch.float32 if backend == "cpu" else torch.float64
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    close = {"rtol": 1e-4, "atol": 1e-5} if backend == "cpu" else {}
    agree(ours, theirs, nodes().to(dtype), edge_index, batch, **close)


@pytest.mark.parametrize("kind", [None, "gin"])
def test_printed_form_is_pygs(kind):
    for options in ({}, {"attn_type": "performer"}, {"heads": 4, "norm": None}):
        ours, theirs = pair(local(kind), **options)
        assert str(ours) == str(theirs)


def test_it_is_pygs_layer_and_sends_messages():
    ours, theirs = pair(GATConv(F, F))
    assert isinstance(ours, PyGGPSConv)
    assert isinstance(ours, MessagePassing)
    assert type(ours.attn) is torch.nn.MultiheadAttention
    assert ours.explain is False
    inside = [m for m in ours.modules() if isinstance(m, MessagePassing)]
    assert inside == [ours, ours.conv]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_nothing_of_the_size_of_the_padded_batch_is_made():
    # one graph of 600 nodes among 300 of one: padding would hold 301 * 600 rows
    batch = torch.cat([torch.zeros(600), torch.arange(1, 301)]).long()
    ours = GPSConv(F, None, heads=H)
    made = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            made.extend(t.numel() for t in [out] if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        ours(torch.randn(900, F), None, batch)
    assert max(made) < 301 * 600 * F


@pytest.mark.filterwarnings("ignore:Converting sparse tensor to CSR format")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("conv", [GCNConv, GATConv, SAGEConv])
def test_a_callers_coo_matrix_is_not_marked_as_coalesced(conv):
    indices = torch.tensor([[2, 0, 1, 0, 2], [0, 1, 2, 2, 0]])

    def matrix():
        return torch.sparse_coo_tensor(indices, torch.ones(5, dtype=torch.float64), (3, 3))

    theirs = PyGGPSConv(F, conv(F, F), heads=H).double().eval()
    ours = pyg_gt.swap(copy.deepcopy(theirs))
    given, x = matrix(), nodes(3)
    torch.testing.assert_close(ours(x, given), theirs(x, matrix()))
    assert not given.is_coalesced()
    torch.testing.assert_close(given.to_sparse_csr().to_dense(), matrix().to_dense())
