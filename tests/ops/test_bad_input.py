"""What does not fit is refused at the door: what came, what was expected, what to do."""

import functools
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_gt import (
    EdgeBias,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
    explain_choice,
)
from pyg_gt.ops import qkv_attention
from pyg_gt.ops.dispatch import BACKENDS

LAYOUT = GraphLayout.from_sizes([3, 2])
EDGES = torch.tensor([[0, 1, 3], [1, 2, 4]])
META = GraphLayout.from_sizes([3, 2]).to("meta")
PARTS = [torch.randn(3, 2, 4), torch.randn(2, 2, 4)]
with warnings.catch_warnings():  # that it is a prototype
    warnings.simplefilter("ignore")
    NESTED = torch.nested.nested_tensor(PARTS, layout=torch.strided)
JAGGED = torch.nested.nested_tensor(PARTS, layout=torch.jagged)


def call(**changes: object) -> Tensor:
    """Five nodes, two heads, four channels, with something changed."""
    given: dict = {
        "query": torch.randn(5, 2, 4),
        "key": torch.randn(5, 2, 4),
        "value": torch.randn(5, 2, 4),
        "layout": LAYOUT,
        "biases": (),
        **changes,
    }
    return attention(**given)


def test_without_a_change_it_runs() -> None:
    assert call().shape == (5, 2, 4)
    assert call(biases=[]).shape == (5, 2, 4)
    values = torch.randn(3, 2)
    biases = (
        PairBias(torch.randn(13, 2)),
        TableBias(torch.randn(4, 2), torch.zeros(13, dtype=torch.uint8)),
        EdgeBias(EDGES, values),
        EdgeMask(EDGES, values),
    )
    assert call(biases=biases).shape == (5, 2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": torch.randn(5, 8)}, r"'query' must be a tensor of shape .*got \[5, 8\]"),
        ({"key": [1, 2]}, "'key' must be a tensor .*got list"),
        ({"value": torch.randn(5, 2, 3)}, r"one shape.*value \[5, 2, 3\]"),
        ({"value": torch.randn(4, 2, 4)}, r"one shape.*value \[4, 2, 4\]"),
        ({"query": torch.randn(5, 3, 4)}, r"their heads.*query \[5, 3, 4\]"),
        ({"query": torch.randn(5, 2, 5)}, r"head_channels .got query \[5, 2, 5\]"),
        ({"query": torch.randn(4, 2, 4)}, "'query' has 4 nodes, but its layout describes 5"),
        (
            {"key": torch.randn(6, 2, 4), "value": torch.randn(6, 2, 4)},
            "'key' has 6 nodes, but its layout describes 5",
        ),
        (
            {"query": torch.randn(5, 2, 4).double()},
            "one floating-point type .got torch.float64, torch.float32",
        ),
        (
            {n: torch.ones(5, 2, 4, dtype=torch.int64) for n in ("query", "key", "value")},
            "floating-point type .got torch.int64",
        ),
        (
            {n: torch.randn(5, 2, 0) for n in ("query", "key", "value")},
            r"must have head_channels .got \[5, 2, 0\]",
        ),
        ({"value": torch.randn(5, 2, 4, device="meta")}, "on one device .got cpu, cpu and meta"),
        ({"layout": META}, "'layout of query' lies on 'meta', but 'query' on 'cpu'.*'.to"),
        ({"query_layout": META}, "'layout of query' lies on 'meta'"),
        ({"layout": torch.zeros(4).long()}, "'batch' .*4.*5"),
        ({"layout": torch.zeros(5)}, "'batch' must hold integers"),
        ({"query_layout": torch.zeros(2, 5).long()}, "'batch' must .*shape"),
        ({"layout": None}, r"a 'batch' tensor .got 'NoneType'.*GraphLayout.of\(batch, num_nodes"),
        ({"layout": "batch"}, "must be a 'GraphLayout' or a 'batch' tensor .got 'str'"),
        ({"query_layout": [3, 2]}, "must be a 'GraphLayout' or a 'batch' tensor .got 'list'"),
        ({"query": None}, "'query' must be a tensor .*got NoneType"),
        ({"query": "query"}, "'query' must be a tensor .*got str"),
        ({"key": None}, "'key' must be a tensor .*got NoneType"),
        ({"value": None}, "'value' must be a tensor .*got NoneType"),
        ({"key": torch.randn(5, 2, 4).numpy()}, "'key' must be a tensor .*got ndarray"),
        ({"query": torch.randn(5, 2, 4).to_sparse()}, r"'query' .*sparse_coo.*to_dense\(\)"),
        ({"value": torch.randn(5, 2, 4).to_sparse_csr()}, r"'value' .*sparse_csr.*to_dense\(\)"),
        ({"key": NESTED}, "'key' .*got a nested tensor.*GraphLayout.from_ptr"),
        ({"key": JAGGED}, "'key' .*got a nested tensor.*GraphLayout.from_ptr"),
        (
            {n: torch.ones(5, 2, 4, dtype=torch.complex64) for n in ("query", "key", "value")},
            "one floating-point type .got torch.complex64",
        ),
        (
            {n: torch.ones(5, 2, 4, dtype=torch.bool) for n in ("query", "key", "value")},
            "one floating-point type .got torch.bool",
        ),
        (
            {n: torch.ones(5, 2, 4).to(torch.float8_e5m2) for n in ("query", "key", "value")},
            "one floating-point type .got torch.float8_e5m2.*float16 and bfloat16",
        ),
        (
            {"query_layout": GraphLayout.from_sizes([2, 2, 1])},
            "'query_layout' has 3 graphs and 'layout' 2.*'num_graphs='",
        ),
        ({"query_layout": GraphLayout.from_sizes([2, 2])}, "'query' has 5 nodes, .* describes 4"),
        ({"dropout_p": -0.1}, r"'dropout_p' must lie in \[0, 1\] .got -0.1"),
        ({"dropout_p": 1.5}, "got 1.5"),
        ({"dropout_p": float("nan")}, "got nan"),
        ({"backend": "cuda"}, "Unknown backend 'cuda'; expected 'auto' or one of .*sdpa"),
        ({"backend": ""}, "Unknown backend ''"),
        ({"backend": None}, "Unknown backend None; expected 'auto'"),
        ({"backend": 3}, "Unknown backend 3"),
        ({"backend": ["cpu"]}, r"Unknown backend \['cpu'\]"),
        ({"backend": b"cpu"}, "Unknown backend b'cpu'"),
        (
            {"backend": "varlen"},
            "'varlen' was removed.*backend='auto' or 'triton'.*torch.nn.attention.varlen",
        ),
    ],
)
def test_wrong_arguments(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize(
    ("biases", "message"),
    [
        (None, "'biases' must be a bias or a tuple of them .got 'NoneType'"),
        ("", "'biases' must be a bias or a tuple of them .got 'str'"),
        (iter(()), "'biases' must be a bias or a tuple of them .got 'tuple_iterator'"),
        ({}, "'biases' must be a bias or a tuple of them .got 'dict'"),
        (torch.randn(13, 2), "'biases' must be a bias or a tuple of them .got 'Tensor'"),
        ((PairBias(torch.randn(13, 2).to_sparse()),), "'PairBias.values'.*sparse_coo.*to_dense"),
        (
            (TableBias(torch.randn(4, 2), torch.zeros(13).long().to_sparse()),),
            "'TableBias.index' must be dense.*sparse_coo",
        ),
        ((PairBias(torch.ones(13, 2) > 0),), r"floating-point.*torch.bool"),
        ((PairBias(torch.ones(13, 2) + 0j),), r"floating-point.*torch.complex64"),
        ((TableBias(torch.randn(4, 2), torch.ones(13) > 0),), "vector of uint8.*torch.bool"),
        ((EdgeMask(EDGES > 0),), "'edge_index' must hold integers"),
        ((torch.randn(13, 2),), "must be one of PairBias, .* got 'Tensor'|got 'Tensor'"),
        (("pair",), "must be one of PairBias.*got 'str'"),
        ((EdgeMask,), "got 'type'"),
        ((EdgeMask(EDGES), EdgeMask(EDGES)), "at most one 'EdgeMask'.*'EdgeMask.union"),
        ((PairBias(torch.randn(12, 2)),), "'PairBias.values' describes 12 pairs, .* has 13"),
        ((PairBias(torch.randn(25, 2)),), "25 pairs, but the layout has 13"),
        ((PairBias(torch.randn(13, 3)),), r"shape \[P, 2\].*got \[13, 3\]"),
        ((PairBias(torch.randn(13)),), r"shape \[P, 2\].*got \[13\]"),
        ((PairBias(torch.tensor(1.0)),), r"shape \[P, 2\].*got \[\]"),
        ((PairBias(torch.ones(13, 2).long()),), r"floating-point.*torch.int64"),
        ((PairBias(None),), "'PairBias.values' must be a tensor.*NoneType"),
        ((PairBias(torch.randn(13, 2, device="meta")),), "lies on 'meta', but 'query' on 'cpu'"),
        (
            (TableBias(torch.randn(4, 3), torch.zeros(13).long()),),
            r"'TableBias.table'.*\[K, 2\].*got \[4, 3\]",
        ),
        (
            (TableBias(torch.randn(4, 2), torch.zeros(12).long()),),
            "'TableBias.index' describes 12 pairs, .* has 13",
        ),
        (
            (TableBias(torch.randn(4, 2), torch.zeros(13)),),
            "vector of uint8, int16, int32 or int64 .*torch.float32",
        ),
        (
            (TableBias(torch.randn(4, 2), torch.zeros(13, 1).long()),),
            r"vector of uint8.*\[13, 1\]",
        ),
        ((TableBias(torch.randn(4, 2), [0] * 13),), "'TableBias.index' must be a tensor"),
        (
            (TableBias(torch.randn(4, 2), torch.zeros(13, device="meta").long()),),
            "'TableBias.index' lies on 'meta'",
        ),
        ((EdgeBias(EDGES, torch.randn(4, 2)),), r"\[E, 2\] with E = 3 .got \[4, 2\]"),
        ((EdgeBias(EDGES, None),), "'EdgeBias.values' must be a tensor"),
        ((EdgeBias(EDGES.float(), torch.randn(3, 2)),), "'edge_index' must hold integers"),
        ((EdgeBias(EDGES.t(), torch.randn(3, 2)),), r"shape \[2, E\] .got \[3, 2\]"),
        ((EdgeMask(EDGES, torch.randn(3)),), r"'EdgeMask.values'.*\[E, 2\].*got \[3\]"),
        (
            (EdgeMask(EDGES, None, torch.randn(3, 2, 5)),),
            r"'EdgeMask.features'.*\[E, 2, 4\] with E = 3 .got \[3, 2, 5\]",
        ),
        ((EdgeMask(EDGES, torch.randn(3, 2).to("meta")),), "'EdgeMask.values' lies on 'meta'"),
        ((EdgeMask(EDGES.to("meta")),), "'EdgeMask.edges' lies on 'meta'"),
        ((EdgeMask("edges"),), "got 'str'"),
        ((ScoreMod(3),), "'ScoreMod.fn' must be callable .got 'int'"),
        (
            (EdgeMask(torch.tensor([[0, 1], [1, 4]])),),
            "edge 1 joins node 1 of graph 0 to node 4 of graph 1.*Drop such edges",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_wrong_biases(biases: tuple, message: str, backend: str) -> None:
    """Before any backend is asked: the error is the same for all."""
    with pytest.raises(ValueError, match=message):
        call(biases=biases, backend=backend)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("edge", [5, -1, 2**40])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("kind", [EdgeMask, EdgeBias])
def test_an_edge_out_of_range(kind: type, row: int, edge: int, backend: str) -> None:
    edges = EDGES.clone()
    edges[row, 1] = edge
    name = ["source", "target"][row]
    with pytest.raises(IndexError, match=f"Found {name} index {edge} .*there are 5 {name} nodes"):
        call(biases=(kind(edges, torch.randn(3, 2)),), backend=backend)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize(
    ("dtype", "row"),
    [
        (torch.uint8, 4), (torch.uint8, 255), (torch.int16, -1), (torch.int16, 4),
        (torch.int32, -1), (torch.int32, 2**30), (torch.int64, -(2**40)), (torch.int64, 2**40),
    ],
)  # fmt: skip
def test_a_table_index_out_of_range(dtype: torch.dtype, row: int, backend: str) -> None:
    index = torch.zeros(13, dtype=dtype)
    index[7] = row
    with pytest.raises(IndexError, match=f"Found table index {row}, but the table has 4 rows"):
        call(biases=(TableBias(torch.randn(4, 2), index),), backend=backend)


def test_edges_across_graphs_are_fine_in_one_graph() -> None:
    one = GraphLayout.of(None, 5)
    assert call(layout=one, biases=(EdgeMask(torch.tensor([[0], [4]])),)).shape == (5, 2, 4)


def test_an_index_that_was_good_for_a_larger_table_is_checked_again() -> None:
    index = torch.full((13,), 3)
    call(biases=(TableBias(torch.randn(4, 2), index),))
    with pytest.raises(IndexError, match="table index 3, but the table has 3 rows"):
        call(biases=(TableBias(torch.randn(3, 2), index),))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_bias_between_two_layouts_counts_their_pairs(backend: str) -> None:
    queries = GraphLayout.from_sizes([1, 1])
    with pytest.raises(ValueError, match="13 pairs, but the layout has 5"):
        call(
            query=torch.randn(2, 2, 4),
            query_layout=queries,
            biases=(PairBias(torch.randn(13, 2)),),
            backend=backend,
        )


NOT_A_NUMBER = [True, "1", None, [0.5], 1j, np.bool_(True), torch.tensor(0.5), torch.ones(1)]
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), np.float32("nan"), 1e39, 10**50]


def every_door(**changes: object) -> list:
    """Calls of the operator by each of its names."""
    q = torch.randn(5, 2, 4)
    qkv = torch.randn(5, 3, 2, 4)
    return [
        lambda: attention(q, q, q, LAYOUT, **changes),
        lambda: qkv_attention(qkv, LAYOUT, **changes),
        lambda: explain_choice(q, q, q, LAYOUT, **changes),
        *(
            lambda name=name: attention(q, q, q, LAYOUT, **changes, backend=name)
            for name in BACKENDS
        ),
    ]


@pytest.mark.parametrize("name", ["scale", "dropout_p"])
@pytest.mark.parametrize("x", NOT_A_NUMBER)
def test_what_is_no_number_is_no_scale_and_no_probability(name: str, x: object) -> None:
    if (name, x) == ("scale", None):
        return  # 'C ** -0.5'
    for call in every_door(**{name: x}):
        with pytest.raises(ValueError, match=f"'{name}' must be a number"):
            call()


@pytest.mark.parametrize("name", ["scale", "dropout_p"])
@pytest.mark.parametrize("x", NOT_FINITE)
def test_numbers_that_are_not_finite(name: str, x: float) -> None:
    for call in every_door(**{name: x}):
        with pytest.raises(ValueError, match=f"'{name}' must be a finite number"):
            call()


@pytest.mark.parametrize("p", [-1, -1e-9, 1 + 1e-9, 2, np.float32(3)])
def test_what_is_no_probability(p: float) -> None:
    for call in every_door(dropout_p=p):
        with pytest.raises(ValueError, match=r"'dropout_p' must lie in \[0, 1\]"):
            call()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2,)])
def test_a_scale_that_is_learned_is_refused_with_the_cure(shape: tuple, grad: bool) -> None:
    for call in every_door(scale=torch.rand(shape, requires_grad=grad)):
        with pytest.raises(ValueError, match="multiply the query by it and pass scale=1.0"):
            call()


def test_the_cure_of_a_scale_that_is_learned() -> None:
    scale = torch.tensor(0.3, requires_grad=True)
    q, k, v = torch.randn(3, 5, 2, 4).unbind()
    for backend in ("auto", "sdpa", "reference"):
        out = attention(q * scale, k, v, LAYOUT, scale=1.0, backend=backend)
        torch.testing.assert_close(out, attention(q, k, v, LAYOUT, scale=0.3, backend=backend))
        (slope,) = torch.autograd.grad(out.square().sum(), scale)
        assert slope != 0


@pytest.mark.parametrize("x", [2, np.float32(0.25), np.float64(-0.5), np.int64(3), Fraction(1, 4)])
def test_numbers_of_other_types(x: float) -> None:
    q, k, v = torch.randn(3, 5, 2, 4).unbind()
    for backend in ("auto", "sdpa", "reference"):
        out = attention(q, k, v, LAYOUT, scale=x, backend=backend)
        assert torch.equal(out, attention(q, k, v, LAYOUT, scale=float(x), backend=backend))
    for p in (0, np.float32(0), False + 0):
        assert torch.equal(attention(q, k, v, LAYOUT, dropout_p=p), attention(q, k, v, LAYOUT))
    assert not attention(q, k, v, LAYOUT, dropout_p=1).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("biases", [(), (EdgeMask(EDGES),)])
def test_scales_that_vary_do_not_break_a_compiled_graph(biases: tuple, dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 5, 2, 4, dtype=dtype).unbind()
    torch._dynamo.reset()
    run = torch.compile(
        lambda scale, p: attention(q, k, v, LAYOUT, biases, scale=scale, dropout_p=p),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    for scale in (0.5, 0.25, 2.0):
        want = attention(q, k, v, LAYOUT, biases, scale=scale)
        torch.testing.assert_close(run(scale, 0.0), want)
    torch.testing.assert_close(run(3, 0.0), attention(q, k, v, LAYOUT, biases, scale=3))
    for p in (0.5, 0.25):
        assert run(0.5, p).isfinite().all()


def test_a_compiled_model_refuses_a_learned_scale() -> None:
    """Also where a graph may break: no number is read from the tensor in silence."""
    q, scale = torch.randn(5, 2, 4), torch.tensor(0.3, requires_grad=True)
    torch._dynamo.reset()
    run = torch.compile(lambda s: attention(q, q, q, LAYOUT, scale=s), backend="eager")
    with pytest.raises(ValueError, match="multiply the query by it"):
        run(scale)


@pytest.mark.parametrize("backend", ["auto", "cpu", "sdpa", "reference"])
def test_one_bias_need_not_be_a_tuple(backend: str) -> None:
    q, k, v = torch.randn(3, 5, 2, 4).unbind()
    for bias in (
        PairBias(torch.randn(13, 2)),
        TableBias(torch.randn(4, 2), torch.zeros(13, dtype=torch.uint8)),
        EdgeBias(EDGES, torch.randn(3, 2)),
        EdgeMask(EDGES),
    ):
        if backend == "cpu" and "cannot" in explain_choice(q, k, v, LAYOUT, (bias,))["cpu"]:
            continue  # without a compiler
        one = attention(q, k, v, LAYOUT, bias, backend=backend)
        assert torch.equal(one, attention(q, k, v, LAYOUT, (bias,), backend=backend))
        assert torch.equal(one, attention(q, k, v, LAYOUT, [bias], backend=backend))
        assert explain_choice(q, k, v, LAYOUT, bias) == explain_choice(q, k, v, LAYOUT, (bias,))
        qkv = torch.stack([q, k, v], 1)
        assert torch.equal(one, qkv_attention(qkv, LAYOUT, bias, backend=backend))


@pytest.mark.parametrize("batch", [[0, 0, 0, 1, 1], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
def test_a_batch_vector_is_its_layout(batch: list) -> None:
    q, k, v = torch.randn(3, 5, 2, 4).unbind()
    vector = torch.tensor(batch)
    want = attention(q, k, v, GraphLayout.from_batch(vector))
    assert torch.equal(attention(q, k, v, vector), want)
    assert torch.equal(attention(q, k, v, vector.int()), want)
    assert torch.equal(attention(q, k, v, vector, query_layout=vector), want)
    assert torch.equal(qkv_attention(torch.stack([q, k, v], 1), vector), want)
    assert explain_choice(q, k, v, vector)["reference"]


def test_batch_vectors_of_queries_and_keys_count_the_same_graphs() -> None:
    """Neither shows that there may be empty graphs behind its last one."""
    q, (k, v) = torch.randn(2, 2, 4), torch.randn(2, 5, 2, 4).unbind()
    for queries, keys in (([0, 0], [0, 0, 1, 1, 2]), ([0, 3], [0, 0, 0, 1, 1])):
        pair = torch.tensor(queries), torch.tensor(keys)
        sizes = [GraphLayout.from_batch(x, num_graphs=4) for x in pair]
        want = attention(q, k, v, sizes[1], query_layout=sizes[0], backend="reference")
        for layout in (pair[1], sizes[1]):
            out = attention(q, k, v, layout, query_layout=pair[0])
            torch.testing.assert_close(out, want)
        torch.testing.assert_close(attention(q, k, v, pair[1], query_layout=sizes[0]), want)


def of_arity(count: int):  # noqa: ANN201
    """A function of a score and so many numbers less one."""
    return {
        0: lambda: 0, 1: lambda s: s, 4: lambda s, b, h, q: s,
        6: lambda s, b, h, q, k, more: s,
    }[count]  # fmt: skip


class Keyword:
    """Callable, with a signature of its own."""

    def __call__(self, score: Tensor, *, graph: Tensor) -> Tensor:
        return score


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize(
    "fn",
    [
        *map(of_arity, (0, 1, 4, 6)), Keyword(), functools.partial(of_arity(4), 1),
        functools.partial(of_arity(6), 1, 2), torch.nn.Linear(2, 2),
    ],
)  # fmt: skip
def test_a_score_mod_of_another_arity(fn: object, backend: str) -> None:
    with pytest.raises(ValueError, match="'ScoreMod.fn' must take five arguments .score, graph"):
        call(biases=(ScoreMod(fn),), backend=backend)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda s, b, h, q, k: None, "got 'NoneType'"),
        (lambda s, b, h, q, k: 0.5, "got 'float'"),
        (lambda s, b, h, q, k: (s, s), "got 'tuple'"),
        (lambda s, b, h, q, k: q >= k, r"got \[\] of torch.bool.*torch.where\(allowed"),
        (lambda s, b, h, q, k: q - k, r"got \[\] of torch.int64"),
        (lambda s, b, h, q, k: s * torch.ones(2), r"got \[2\] of torch.float32"),
        (lambda s, b, h, q, k: s + 0j, r"got \[\] of torch.complex64"),
    ],
)
def test_a_score_mod_that_gives_back_no_score(fn: object, got: str, backend: str) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=f"'ScoreMod.fn' must give back a new score.*{got}"):
            call(biases=(ScoreMod(fn),), backend=backend)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_every_score_is_looked_at(backend: str) -> None:
    """A function of code that was tried before may have captured something else."""

    def plus(x: object) -> ScoreMod:
        return ScoreMod(lambda s, b, h, q, k: s + x)

    call(biases=(plus(1.0),), backend=backend)
    with pytest.raises(ValueError, match=r"give back a new score.*got \[3\] of torch.float32"):
        call(biases=(plus(torch.ones(3)),), backend=backend)


def test_score_mods_with_other_signatures_are_fine() -> None:
    want = call_with(lambda s, b, h, q, k: s * 2)
    assert torch.equal(call_with(lambda *args: args[0] * 2), want)
    assert torch.equal(call_with(lambda s, b, h, q, k, factor=2: s * factor), want)
    assert torch.equal(call_with(functools.partial(lambda f, s, b, h, q, k: s * f, 2)), want)


def call_with(fn: object) -> Tensor:
    torch.manual_seed(0)
    return call(biases=(ScoreMod(fn),))


@pytest.mark.parametrize("sizes", [[3, 2], [0, 3, 0, 2], [0, 0]])
@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_a_score_mod_is_tried_on_a_pair_that_exists(sizes: list, order: str) -> None:
    """A function may read tables that have an entry for a pair of one graph only."""
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    batch = batch.flip(0) if order == "reversed" else batch
    graphs = len(sizes)
    same = batch[:, None] == batch[None, :]
    place = torch.where(same, same.flatten().cumsum(0).view(same.shape) - 1, 10**6)
    values = torch.randn(int(same.sum()))

    def fn(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return s + values[place[q, k]]

    q = torch.randn(len(batch), 2, 4)
    layout = GraphLayout.from_batch(batch, graphs)
    for backend in ("sdpa", "flex", "reference"):
        out = attention(q, q, q, layout, (ScoreMod(fn),), backend=backend)
        assert out.isfinite().all()
