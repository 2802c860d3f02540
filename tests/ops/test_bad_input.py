"""What does not fit is refused at the door: what came, what was expected, what to do."""

import pytest
import torch
from torch import Tensor

from pyg_gt import EdgeBias, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias, attention
from pyg_gt.ops._dispatch import BACKENDS

LAYOUT = GraphLayout.from_sizes([3, 2])
EDGES = torch.tensor([[0, 1, 3], [1, 2, 4]])
META = GraphLayout.from_sizes([3, 2]).to("meta")


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
        ({"query": torch.randn(5, 2, 4).double()}, "one floating-point type .got torch.float64"),
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
        ({"layout": torch.zeros(5).long()}, r"got 'Tensor'.*GraphLayout.of\(batch, num_nodes\)"),
        ({"layout": None}, "must be a 'GraphLayout' .got 'NoneType'"),
        ({"query_layout": [3, 2]}, "must be a 'GraphLayout' .got 'list'"),
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
    ],
)
def test_wrong_arguments(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize(
    ("biases", "message"),
    [
        (PairBias(torch.randn(13, 2)), r"'biases' must be a tuple .got 'PairBias'.*'\(bias,\)'"),
        (None, "'biases' must be a tuple .got 'NoneType'"),
        ((torch.randn(13, 2),), "must be one of PairBias, .* got 'Tensor'|got 'Tensor'"),
        (("pair",), "must be one of PairBias.*got 'str'"),
        ((EdgeMask,), "got 'type'"),
        ((EdgeMask(EDGES), EdgeMask(EDGES)), "at most one 'EdgeMask'.*join the edge sets"),
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
