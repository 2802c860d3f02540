"""Layers and encoders name what they cannot take, and take PyG's arguments in PyG's order."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch_geometric.nn import GCNConv, MeanAggregation, MessagePassing, TransformerConv
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from pyg_gt import EdgeBias, EdgeLayout, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias
from pyg_gt.nn import (
    DegreeEncoder,
    EdgePathBias,
    FullTransformerConv,
    GatedGCNConv,
    GPSConv,
    LaplacianEncoder,
    MaskedTransformerConv,
    RandomWalkEncoder,
    RelativeWalkBias,
    ShortestPathBias,
    SignNetEncoder,
    StableEncoder,
    TransformerBlock,
)

F, H, N = 8, 2, 6
EDGES = torch.tensor([[0, 1, 1, 2, 4], [2, 0, 2, 1, 5]])
BATCH = torch.tensor([0, 0, 0, 1, 1, 1])

# signatures ######################################################################################

TWINS = [
    (FullTransformerConv, TransformerConv),
    (MaskedTransformerConv, TransformerConv),
    (GPSConv, PyGGPSConv),
]
twins = pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=lambda c: c.__name__)


def parameters(function, kinds=(inspect.Parameter.POSITIONAL_OR_KEYWORD,)):
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


@twins
def test_constructors_take_pygs_arguments_in_pygs_order_with_pygs_defaults(ours, theirs):
    mine, usual = parameters(ours), parameters(theirs)
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in usual]


@twins
def test_signatures_are_spelled_out(ours, theirs):
    kinds = {p.kind for p in inspect.signature(ours).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    if theirs is TransformerConv:  # what PyG passes on by '**kwargs', but for what it sets
        names = {p.name for p in parameters(ours, (inspect.Parameter.KEYWORD_ONLY,))}
        passed_on = set(inspect.signature(MessagePassing).parameters) - {"node_dim"}
        assert passed_on <= names


@pytest.mark.parametrize(("ours", "theirs"), TWINS[1:], ids=lambda c: c.__name__)
def test_forward_takes_pygs_arguments_in_pygs_order(ours, theirs):
    mine, usual = parameters(ours.forward), parameters(theirs.forward)
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in usual]


def test_all_arguments_by_place():
    given = (F, 4, H, False, True, 0.25, 3, False, True)
    theirs = TransformerConv(*given)
    for kind in (FullTransformerConv, MaskedTransformerConv):
        conv = kind(*given, aggr="mean", flow="target_to_source")
        for name in ("heads", "concat", "beta", "dropout", "edge_dim", "root_weight"):
            assert getattr(conv, name) == getattr(theirs, name), name
        assert conv.lin_key.bias is None
        assert (conv.flow, type(conv.aggr_module).__name__) == (
            "target_to_source",
            "MeanAggregation",
        )
    ours = GPSConv(
        F, None, H, 0.25, "gelu", None, "layer_norm", None, "multihead", {"bias": False}
    )
    assert (ours.dropout, ours.attn.in_proj_bias, str(ours.mlp[1])) == (
        0.25,
        None,
        "GELU(approximate='none')",
    )


# constructors ####################################################################################

CONSTRUCTORS = {
    "full": (FullTransformerConv, {"in_channels": F, "out_channels": 4}),
    "masked": (MaskedTransformerConv, {"in_channels": F, "out_channels": 4}),
    "gps": (GPSConv, {"channels": F, "conv": None}),
    "gated": (GatedGCNConv, {"in_channels": F, "out_channels": F}),
    "block": (TransformerBlock, {"channels": F, "heads": H}),
    "degree": (DegreeEncoder, {"max_degree": 3, "channels": F}),
    "laplacian": (LaplacianEncoder, {"k": 4, "channels": F}),
    "random walk": (RandomWalkEncoder, {"walk_length": 4, "channels": F}),
    "sign net": (SignNetEncoder, {"channels": F}),
    "stable": (StableEncoder, {"channels": F}),
    "path": (EdgePathBias, {"edge_channels": 3, "heads": H, "path_length": 2}),
    "walk": (RelativeWalkBias, {"walk_length": 3, "heads": H}),
    "distance": (ShortestPathBias, {"max_distance": 3, "heads": H}),
}
COUNTS = (
    "in_channels out_channels channels heads edge_dim ffn_channels max_degree k num_layers "
    "post_layers walk_length hidden_channels num_filters edge_channels path_length max_distance "
    "decomposed_layers"
).split()
FROM_0 = ("max_degree", "post_layers", "max_distance")
LAZY = ("in_channels", "edge_dim")
OPTIONAL = ("edge_dim", "ffn_channels", "hidden_channels")
FLAGS = "concat beta bias root_weight residual norm_first gated directed".split()


def arguments(names):
    return [
        pytest.param(name, argument, id=f"{name}-{argument}")
        for name, (kind, _) in CONSTRUCTORS.items()
        for argument in inspect.signature(kind).parameters
        if argument in names
    ]


def refused(name, argument, value, words):
    kind, given = CONSTRUCTORS[name]
    with pytest.raises(ValueError, match=words):
        kind(**{**given, argument: value})


@pytest.mark.parametrize(("name", "argument"), arguments(COUNTS))
def test_counts_are_whole_numbers_in_range(name, argument):
    kind, given = CONSTRUCTORS[name]
    wrong = [-2, 1.5, "4", True, math.nan, [3], torch.tensor(3), b"1"]
    if argument not in FROM_0:
        wrong.append(0)
    if argument not in LAZY:
        wrong.append(-1)
    if argument not in OPTIONAL or name in ("sign net", "stable"):
        wrong.append(None)
    for value in wrong:
        refused(name, argument, value, f"'{argument}' must be|divisible by 'heads'")
    right = given.get(argument, inspect.signature(kind).parameters[argument].default)
    if isinstance(right, int):
        kind(**{**given, argument: np.int64(right)})


@pytest.mark.parametrize(("name", "argument"), arguments(["dropout", "attn_dropout"]))
def test_dropout_is_a_probability(name, argument):
    kind, given = CONSTRUCTORS[name]
    wrong = [-0.1, 1.1, math.nan, math.inf, "0.1", True, [0.1], torch.tensor(0.1)]
    for value in wrong if argument == "attn_dropout" else [*wrong, None]:
        refused(name, argument, value, rf"'{argument}' must be a number in \[0, 1\]")
    for value in (0, 1, 0.5, np.float32(0.25)):
        kind(**{**given, argument: value})


def test_dropout_among_the_arguments_of_attention_is_a_probability():
    with pytest.raises(ValueError, match=r"'attn_dropout' must be a number in \[0, 1\] .got nan"):
        GPSConv(F, None, attn_kwargs={"dropout": math.nan})


@pytest.mark.parametrize(("name", "argument"), arguments(FLAGS))
def test_flags_are_true_or_false(name, argument):
    kind, given = CONSTRUCTORS[name]
    for value in (0.1, "yes", 2, None, [True]):  # a dropout in the place of 'beta', say
        refused(name, argument, value, f"'{argument}' must be True or False")
    for value in (0, 1, np.int64(1)):
        kind(**{**given, argument: value})


@pytest.mark.parametrize(("name", "argument"), arguments(["backend"]))
def test_an_unknown_backend_is_refused_where_it_is_given(name, argument):
    for value in ("foo", "", "AUTO", None, 3, ["cpu"], torch):
        refused(name, argument, value, "Unknown backend .*expected 'auto' or one of cpu, triton")
    refused(name, argument, "varlen", "'varlen' was removed.*Pass backend='auto' or 'triton'")


@pytest.mark.parametrize(("name", "argument"), arguments(["conv", "attn", "phi", "rho"]))
def test_parts_are_modules(name, argument):
    for value in ("gin", 3, GCNConv, [torch.nn.ReLU()]):
        refused(name, argument, value, f"'{argument}' must be a module, or None")


@pytest.mark.parametrize(("name", "argument"), arguments(["act", "norm"]))
def test_activations_and_norms_are_names_or_modules(name, argument):
    for value in (3, True, ["relu"], torch.nn.ReLU, *([None] * (argument == "act"))):
        refused(name, argument, value, f"'{argument}' must be a name or a module")
    refused(name, argument, "no such thing", "Could not resolve")


KWARGS = ["act_kwargs", "norm_kwargs", "attn_kwargs", "aggr_kwargs"]


@pytest.mark.parametrize(("name", "argument"), arguments(KWARGS))
def test_arguments_of_parts_are_dictionaries(name, argument):
    for value in ("dropout", 3, [0.1], torch.randn(3)):
        refused(name, argument, value, f"'{argument}' must be a dictionary")


@pytest.mark.parametrize(("name", "argument"), arguments(["aggr"]))
def test_aggregations_are_names_modules_or_lists_of_them(name, argument):
    for value in ("", 3, [], [3], ["mean", None], torch.randn(2), MeanAggregation):
        refused(name, argument, value, "'aggr' must be the name of an aggregation")
    kind, given = CONSTRUCTORS[name]
    # with None a subclass brings its own, as in PyG
    for value in (None, "mean", MeanAggregation(), ["mean", MeanAggregation()]):
        kind(**{**given, argument: value})


def test_raw_edge_features_have_the_shape_of_keys():
    conv, x = MaskedTransformerConv(F, 4, H), torch.randn(N, F)
    for right in ((5, H, 4), (5, 1, 4), (5, H, 1), (5, 1, 1), (1, H, 4)):
        conv(x, EDGES, torch.randn(right))
    for wrong in ((5, 4), (5,), (5, 3, 4), (5, H, 3), (5, 1, H, 4)):
        with pytest.raises(ValueError, match=r"without 'edge_dim'.* shape \[E, 2, 4\]"):
            conv(x, EDGES, torch.randn(wrong))


def test_pairs_of_widths():
    for wrong in ((F,), (F, F, F), (F, 0), (F, None), ("a", F)):
        refused("masked", "in_channels", wrong, "'in_channels' must be")
    assert MaskedTransformerConv([F, -1], 4).lin_key.in_channels == F
    refused("full", "in_channels", (F, F), "'MaskedTransformerConv' takes a pair")


def test_a_layer_of_zero_layers_and_wrong_kinds():
    for kind in (None, 3, "mlp"):
        with pytest.raises(ValueError, match="'deepset' or 'linear'"):
            LaplacianEncoder(4, F, kind=kind)


# x ###############################################################################################


def layers():
    """Each layer, called on `x`."""
    edge_attr = torch.randn(5, F)
    return {
        "full": lambda x: FullTransformerConv(F, 4, H)(x),
        "full lazy": lambda x: initialised(FullTransformerConv(-1, 4, H))(x),
        "masked": lambda x: MaskedTransformerConv(F, 4, H)(x, EDGES),
        "masked lazy": lambda x: initialised(MaskedTransformerConv(-1, 4, H), EDGES)(x, EDGES),
        "gps": lambda x: GPSConv(F, None, H, norm=None)(x, None),
        "gps gcn": lambda x: GPSConv(F, GCNConv(F, F), H)(x, EDGES),
        "gps norm_first": lambda x: GPSConv(F, None, H, norm_first=True)(x, None),
        "gps performer": lambda x: GPSConv(F, None, H, attn_type="performer")(x, None),
        "gated": lambda x: GatedGCNConv(F, F)(x, EDGES, edge_attr),
        "gated lazy": lambda x: initialised(GatedGCNConv(-1, F), EDGES, edge_attr)(
            x, EDGES, edge_attr
        ),
        "block": lambda x: TransformerBlock(F, H)(x),
        "block norm_first": lambda x: TransformerBlock(F, H, norm_first=True)(x),
    }


def initialised(layer, *args):
    layer(torch.randn(N, F), *args)
    return layer


WRONG_X = {
    "three dimensions": (lambda: torch.randn(2, 3, F), r"shape \[2, 3, 8\].*'batch'"),
    "one dimension": (lambda: torch.randn(F), r"shape \[8\]"),
    "no dimension": (lambda: torch.tensor(1.0), r"shape \[\]"),
    "width": (lambda: torch.randn(N, F - 1), r"shape \[6, 7\]"),
    "no width": (lambda: torch.randn(N, 0), r"shape \[6, 0\]"),
    "integers": (lambda: torch.ones(N, F, dtype=torch.int64), r"torch.int64.*'.float\(\)'"),
    "bool": (lambda: torch.ones(N, F, dtype=torch.bool), "torch.bool"),
    "complex": (lambda: torch.randn(N, F, dtype=torch.complex64), "torch.complex64"),
    "coo": (lambda: torch.randn(N, F).to_sparse(), r"sparse_coo.*'.to_dense\(\)'"),
    "csr": (lambda: torch.randn(N, F).to_sparse_csr(), r"sparse_csr.*'.to_dense\(\)'"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.randn(3, F), torch.randn(3, F)]),
        "nested tensor.*'batch'",
    ),
    "jagged": (
        lambda: torch.nested.nested_tensor(
            [torch.randn(3, F), torch.randn(3, F)], layout=torch.jagged
        ),
        "nested tensor.*'batch'",
    ),
    "list": (lambda: [[1.0] * F] * N, "'list'|got"),
    "numpy": (lambda: np.zeros((N, F), np.float32), "'ndarray'"),
    "None": (lambda: None, "None"),
    "string": (lambda: "x", "'str'"),
    "number": (lambda: 3.0, "'float'"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.parametrize("wrong", WRONG_X)
@pytest.mark.parametrize("name", layers())
def test_features_that_no_layer_takes_are_named(name, wrong):
    make, words = WRONG_X[wrong]
    if wrong in ("coo", "csr") and name.split()[0] in ("full", "masked"):
        layers()[name](make())  # linear maps read them, as in PyG's layer
        return
    with pytest.raises(ValueError, match=rf"'x.*' must be .*\[N, (8|F)\].*(got.*)?{words}"):
        layers()[name](make())


def test_the_sides_of_a_bipartite_layer_are_named():
    conv = MaskedTransformerConv((F, 3), 4)
    edges = torch.tensor([[0, 5], [1, 0]])
    conv((torch.randn(6, F), torch.randn(2, 3)), edges)
    conv([torch.randn(6, F), torch.randn(2, 3)], edges)
    for x, words in (
        ((torch.randn(6, 3), torch.randn(2, F)), r"'x\[0\]'.*\[N, 8\]"),
        ((torch.randn(6, F), torch.randn(2, F)), r"'x\[1\]'.*\[N, 3\]"),
        ((torch.randn(6, F), None), r"'x\[1\]'.*got None"),
        ((None, torch.randn(2, 3)), r"'x\[0\]'.*got None"),
        ((torch.randn(6, F),), "a pair of them"),
        (torch.randn(6, F), r"'x' must be"),
        ({}, "a pair of them.*'dict'"),
    ):
        with pytest.raises(ValueError, match=words):
            conv(x, edges)


# edges and batches ###############################################################################


def with_edges():
    """Each layer, called on what stands in the place of `edge_index`."""
    x, edge_attr = torch.randn(N, F), torch.randn(5, F)
    return {
        "full": lambda e: FullTransformerConv(F, 4)(x, e),
        "full edges": lambda e: FullTransformerConv(F, 4, edge_dim=F)(x, e, edge_attr),
        "masked": lambda e: MaskedTransformerConv(F, 4)(x, e),
        "masked weights": lambda e: MaskedTransformerConv(F, 4)(
            x, e, return_attention_weights=True
        ),
        "masked edges": lambda e: MaskedTransformerConv(F, 4, edge_dim=F)(x, e, edge_attr),
        "gps": lambda e: GPSConv(F, None, H)(x, e),
        "gps gcn": lambda e: GPSConv(F, GCNConv(F, F), H)(x, e),
        "gps masked": lambda e: GPSConv(F, MaskedTransformerConv(F, F), H)(x, e),
        "gated": lambda e: GatedGCNConv(F, F)(x, e, edge_attr),
    }


@pytest.mark.parametrize("name", with_edges())
def test_a_batch_vector_in_the_place_of_edges_is_refused_with_the_cure(name):
    wrong = [BATCH.to(dtype) for dtype in (torch.int64, torch.int32, torch.uint8)]
    for batch in (*wrong, BATCH[:0], GraphLayout.from_batch(BATCH)):
        with pytest.raises(ValueError, match=r"'edge_index' must have shape \[2, E\].*'batch='"):
            with_edges()[name](batch)


# the local part of the last is PyG's, and says so in its words
@pytest.mark.parametrize("name", [name for name in with_edges() if name != "gps gcn"])
def test_what_is_no_edge_set_is_named(name):
    wrong = [EDGES.double(), EDGES.bool(), EDGES.float(), EDGES.t(), EDGES[None], EDGES[:1]]
    wrong += [torch.tensor(3), EDGES.tolist(), "edges", 3]
    for edges in wrong:
        with pytest.raises(ValueError, match="'edge_index' must"):
            with_edges()[name](edges)


def test_edges_that_are_not_read_may_be_missing_or_of_any_kind():
    x = torch.randn(N, F)
    conv, gps = FullTransformerConv(F, 4), GPSConv(F, None, H).eval()
    sets = [None, EDGES, EDGES.int(), EdgeLayout.of(EDGES, N), to_torch_coo_tensor(EDGES, size=N)]
    for edges in sets:
        assert conv(x, edges).equal(conv(x))
        assert gps(x, edges).equal(gps(x, None))


@pytest.mark.parametrize("layer", ["full", "full edges", "masked", "masked edges", "gated"])
def test_a_batch_vector_in_the_place_of_edge_features_is_refused(layer):
    x = torch.randn(N, F)
    conv = {
        "full": FullTransformerConv(F, 4),
        "full edges": FullTransformerConv(F, 4, edge_dim=F),
        "masked": MaskedTransformerConv(F, N),
        "masked edges": MaskedTransformerConv(F, 4, edge_dim=F),
        "gated": GatedGCNConv(F, F),
    }[layer]
    for batch in (BATCH, BATCH[:5]):
        with pytest.raises(ValueError, match="'edge_attr'"):
            conv(x, EDGES, batch)


@pytest.mark.parametrize("kind", [FullTransformerConv, MaskedTransformerConv])
def test_edge_features_of_another_kind_are_named(kind):
    conv, x = kind(F, 4, edge_dim=3), torch.randn(N, F)
    for wrong in (
        torch.randn(5, 2),
        torch.ones(5, 3, dtype=torch.int64),
        torch.randn(5),
        torch.randn(5, 1, 3),
        [1.0] * 5,
        "edges",
    ):
        with pytest.raises(ValueError, match="'edge_attr'"):
            conv(x, EDGES, wrong)


def test_weights_asked_for_in_the_place_of_the_batch():
    with pytest.raises(ValueError, match="'batch' must be a tensor.*'return_attention_weights='"):
        FullTransformerConv(F, 4)(torch.randn(N, F), EDGES, None, True)


def test_weights_asked_of_a_layer_without_a_local_part():
    x = torch.randn(N, F)
    gps = GPSConv(F, None, H)
    for asked in (True, False):  # PyG's convs return them for any value but None
        with pytest.raises(ValueError, match="this layer has none .conv=None."):
            gps(x, EDGES, BATCH, return_attention_weights=asked)
    gps(x, EDGES, BATCH, return_attention_weights=None, edge_attr=None)
    local = GPSConv(F, MaskedTransformerConv(F, F), H)
    out, (index, alpha) = local(x, EDGES, BATCH, return_attention_weights=True)
    assert (out.shape, index.shape, alpha.shape) == ((N, F), (2, 5), (5, 1))


# biases ##########################################################################################


def with_biases():
    x = torch.randn(N, F)
    full, gps, block = FullTransformerConv(F, 4, H), GPSConv(F, None, H), TransformerBlock(F, H)
    gps.eval()
    return {
        "full": lambda biases: full(x, batch=BATCH, biases=biases),
        "gps": lambda biases: gps(x, None, BATCH, biases=biases),
        "block": lambda biases: block(x, BATCH, biases),
    }


@pytest.mark.parametrize(
    "bias",
    [
        PairBias(torch.randn(18, H)),
        TableBias(torch.randn(3, H), torch.randint(3, (18,))),
        EdgeBias(EDGES, torch.randn(5, H)),
        EdgeMask(EDGES),
        ScoreMod(lambda score, graph, head, query, key: 2 * score),
    ],
    ids=lambda bias: type(bias).__name__,
)
def test_a_single_bias_need_not_be_in_a_tuple(bias):
    for name, call in with_biases().items():
        want = call((bias,))
        assert call(bias).equal(want), name
        assert call([bias]).equal(want), name
        assert not want.equal(call(())), name


@pytest.mark.parametrize("name", with_biases())
def test_what_is_no_bias_is_named(name):
    values = torch.randn(18, H)
    for wrong in (None, values, EDGES, "bias", 3, {PairBias(values)}):
        with pytest.raises(ValueError, match="'biases' must be a bias or a tuple of them"):
            with_biases()[name](wrong)
    for wrong in (values, None, "bias", PairBias):
        with pytest.raises(ValueError, match="a bias must be one of PairBias"):
            with_biases()[name]((wrong,))


# encoders ########################################################################################


def spectral():
    return {
        "deepset": lambda *a: LaplacianEncoder(4, F)(*a),
        "linear": lambda *a: LaplacianEncoder(4, F, kind="linear")(*a),
        "sign net": lambda *a: SignNetEncoder(F, 8, 2)(*a, EDGES),
        "stable": lambda *a: StableEncoder(F, 3, 8, 2)(*a, EDGES),
    }


@pytest.mark.parametrize("name", spectral())
def test_encoders_of_eigenvectors_name_the_columns_and_the_transform(name):
    right = {
        "vectors": torch.randn(N, 4),
        "values": torch.rand(N, 4),
        "mask": torch.ones(N, 4, dtype=torch.bool),
    }
    assert spectral()[name](*right.values()).shape == (N, F)
    for column in right:
        for wrong in (None, [[0.0] * 4] * N, "x", right[column].float().to_sparse()):
            given = {**right, column: wrong}
            with pytest.raises(
                ValueError, match=rf"'{column}' must be.*AddLaplacianEigenvectorPE.*_pe.*"
            ):
                spectral()[name](*given.values())
    with pytest.raises(ValueError, match="'values'.*AddLaplacianEigenvectorPE"):
        spectral()[name](right["vectors"], None, None)
    for wrong in (torch.randn(4), torch.randn(2, N, 4), torch.tensor(1.0), right["mask"]):
        with pytest.raises(ValueError, match="'vectors' must be"):
            spectral()[name](wrong, right["values"], right["mask"])


READERS = {
    "degree": (DegreeEncoder(2, F), "'degree' must.*'AddDegree'"),
    "random walk": (
        RandomWalkEncoder(4, F),
        r"encoding of shape \[N, 4\].*'AddRandomWalkPE\(4\)'",
    ),
    "distance": (ShortestPathBias(3, H), "'pair_distance'.*'AddShortestPathDistance"),
    "walk": (RelativeWalkBias(3, H), "'pair_walk'.*'AddRelativeRandomWalkPE"),
}


@pytest.mark.parametrize("name", READERS)
def test_other_encoders_name_what_they_read_and_the_transform(name):
    layer, words = READERS[name]
    for wrong in (None, [[1.0] * 4] * N, "x", 3, torch.randn(N, 4).to_sparse()):
        with pytest.raises(ValueError, match=words):
            layer(wrong)


def test_encoders_of_random_walks_refuse_integers():
    with pytest.raises(ValueError, match="floating-point .*torch.int64"):
        RandomWalkEncoder(4, F)(torch.ones(N, 4, dtype=torch.int64))


@pytest.mark.skipif(SparseTensor.__module__ != "torch_sparse.tensor", reason="needs torch_sparse")
def test_sparse_adjacencies_pass_where_edges_are_read():
    x = torch.randn(N, F)
    adjacency = SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(N, N))
    for edges in (adjacency, to_torch_csr_tensor(EDGES.flip(0), size=N)):
        torch.testing.assert_close(
            *[MaskedTransformerConv(F, 4)(x, e).shape for e in (edges, EDGES)]
        )
