"""``torch.library.opcheck`` on every op of the package: schema, fakes, tracing."""

import pytest
import torch
from torch import Tensor

import pyg_gt  # noqa: F401  (defines the ops)

OPS = torch.ops.pyg_gt
NAMES = [
    *("bucketed", "bucketed_backward", "checked_edges", "checked_table_index"),
    *("full_attention", "full_attention_backward"),
    *("edge_attention", "edge_attention_backward"),
    *("component_pairs", "path_rows", "graph_sizes"),
]
BATCH = torch.tensor([0, 0, 1, 1, 1, 3])  # graph 2 is empty
SHUFFLED = torch.tensor([1, 0, 3, 1, 0, 1])
QUERY_BATCH = torch.tensor([0, 1, 1, 2])
EDGES = torch.tensor([[0, 1, 1, 2, 4], [0, 1, 1, 3, 2]])  # one stands twice
SAME = -2


def test_these_are_all_ops_of_the_package() -> None:
    defined = {
        schema.name.removeprefix("pyg_gt::").split(".")[0]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("pyg_gt::")
    }
    assert defined == set(NAMES)
    for name in NAMES:
        tags = getattr(OPS, name).default.tags
        assert torch.Tag.pt2_compliant_tag in tags and torch.Tag.cudagraph_unsafe in tags


def qkv(queries: int, keys: int, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(n, 2, 3).to(dtype) for n in (queries, keys, keys)]


CALLS = {
    "self": (BATCH, None, SAME, []),
    "unsorted": (SHUFFLED, None, SAME, []),
    "one graph": (None, None, SAME, []),
    "cross": (BATCH, QUERY_BATCH, -1, []),
    "known numbers": (BATCH, QUERY_BATCH, 5, []),
    "pairs": (BATCH, None, SAME, ["pairs"]),
    "mask": (BATCH, None, SAME, ["mask"]),
    "mask values": (BATCH, None, SAME, ["mask", "values"]),
    "edge sets": (SHUFFLED, None, SAME, ["sets"]),
    "everything": (BATCH, None, SAME, ["pairs", "sets", "mask", "values", "seed"]),
    "dropout": (BATCH, None, SAME, ["seed"]),
}


def arguments(name: str, dtype: torch.dtype = torch.float32) -> tuple:
    batch, query_batch, query_graphs, extras = CALLS[name]
    queries = 6 if query_batch is None else 4
    known = query_graphs > 0
    edges = EDGES if batch is None or batch is BATCH else SHUFFLED.argsort()[EDGES]
    edges = edges.clone()
    edges[0] = edges[1]  # inside graphs, whatever the order
    count = edges.size(1)
    values = torch.randn(count, 2).to(dtype)
    return (
        *qkv(queries, 6, dtype),
        query_batch,
        query_graphs,
        batch,
        query_graphs if known else -1,
        torch.randn(14, 2).to(dtype) if "pairs" in extras else None,
        [edges, edges.flip(1).clone()] if "sets" in extras else [],
        [values, values.clone()] if "sets" in extras else [],
        edges.clone() if "mask" in extras else None,
        values.clone() if "values" in extras else None,
        torch.tensor([5]) if "seed" in extras else None,
        0.5,
        0.3 if "seed" in extras else 0.0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_bucketed(name: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(OPS.bucketed, arguments(name, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_bucketed_backward(name: str, dtype: torch.dtype) -> None:
    given = arguments(name, dtype)
    out, lse = OPS.bucketed(*given)
    needs = [given[7] is not None, given[11] is not None, bool(given[9])]
    call = (torch.randn_like(out), *given[:3], out, lse, *given[3:], needs)
    torch.library.opcheck(OPS.bucketed_backward, call)


FULL_CALLS = {
    "self": (BATCH, None, SAME, []),
    "unsorted": (SHUFFLED, None, SAME, []),
    "one graph": (None, None, SAME, []),
    "cross": (BATCH, QUERY_BATCH, -1, []),
    "known numbers": (BATCH, QUERY_BATCH, 5, []),
    "pairs": (BATCH, None, SAME, ["pairs"]),
    "table": (SHUFFLED, None, SAME, ["table"]),
    "edges": (SHUFFLED, None, SAME, ["edges"]),
    "everything": (BATCH, None, SAME, ["pairs", "table", "edges", "seed"]),
    "dropout": (BATCH, None, SAME, ["seed"]),
}


def full_arguments(name: str, dtype: torch.dtype) -> tuple:
    batch, query_batch, query_graphs, extras = FULL_CALLS[name]
    loops = torch.tensor([[0, 3, 3, 5]] * 2)  # inside graphs, whatever the order
    return (
        *qkv(6 if query_batch is None else 4, 6, dtype),
        torch.randn(14, 2) if "pairs" in extras else None,
        torch.randn(3, 2) if "table" in extras else None,
        torch.randn(4, 2) if "edges" in extras else None,
        torch.randint(3, (14,)) if "table" in extras else None,
        loops if "edges" in extras else None,
        torch.tensor([5]) if "seed" in extras else None,
        query_batch,
        query_graphs,
        batch,
        query_graphs if query_graphs > 0 else -1,
        0.5,
        0.3 if "seed" in extras else 0.0,
    )


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FULL_CALLS)
def test_full_attention(name: str, dtype: torch.dtype) -> None:
    given = full_arguments(name, dtype)
    torch.library.opcheck(OPS.full_attention, given)
    out, stats = OPS.full_attention(*given)
    for needs in ([x is not None for x in given[3:6]], [False, True, False]):
        call = (torch.randn_like(out), *given[:3], out, stats, *given[3:], needs)
        torch.library.opcheck(OPS.full_attention_backward, call)


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extras", ["", "values", "features", "values features seed"])
def test_edge_attention(extras: str, dtype: torch.dtype) -> None:
    given = (
        *qkv(4, 6, dtype),
        torch.randn(5, 2).to(dtype) if "values" in extras else None,
        torch.randn(5, 2, 3).to(dtype) if "features" in extras else None,
        EDGES,
        torch.tensor([5]) if "seed" in extras else None,
        0.5,
        0.3 if "seed" in extras else 0.0,
    )
    torch.library.opcheck(OPS.edge_attention, given)
    out, stats = OPS.edge_attention(*given)
    for needs in ([x is not None for x in given[:5]], [False, True, False, True, False]):
        call = (torch.randn_like(out), out, stats, *given, needs)
        torch.library.opcheck(OPS.edge_attention_backward, call)


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([0, 4, 2]),
        torch.tensor([0, 4, 2], dtype=torch.uint8),
        torch.tensor([0, 4, 2], dtype=torch.int16),
        torch.zeros(0, dtype=torch.int32),
        torch.arange(5)[::2],
    ],
)
def test_checked_table_index(index: Tensor) -> None:
    torch.library.opcheck(OPS.checked_table_index, (index, 5))
    copy = OPS.checked_table_index(index, 5)
    assert torch.equal(copy, index) and copy.data_ptr() != index.data_ptr() or not index.numel()


@pytest.mark.parametrize(
    "call",
    [
        (EDGES, 6, 6, None, -1, None, -1),
        (EDGES.int(), 6, 4, None, 1, None, 1),
        (torch.tensor([[0, 3], [1, 2]]), 6, 6, BATCH, -1, BATCH, -1),
        (torch.tensor([[0, 3], [0, 2]]), 6, 4, QUERY_BATCH, 4, BATCH, 4),
        (torch.zeros(2, 0, dtype=torch.int64), 6, 6, BATCH, -1, BATCH, -1),
        (EDGES.t().contiguous().t(), 6, 6, None, -1, None, -1),
    ],
)
def test_checked_edges(call: tuple) -> None:
    torch.library.opcheck(OPS.checked_edges, call)
    copy = OPS.checked_edges(*call)
    assert torch.equal(copy, call[0].long())
    assert copy.dtype == torch.int64 and copy is not call[0]


@pytest.mark.parametrize("batch", [BATCH, SHUFFLED, BATCH.int(), BATCH[:0]])
def test_graph_sizes(batch: Tensor) -> None:
    torch.library.opcheck(OPS.graph_sizes, (batch,))
    assert torch.equal(OPS.graph_sizes(batch), batch.long().bincount())


def test_ops_read_their_inputs_when_they_run() -> None:
    """An op finds a layout by the tensor it is handed, and sees an edit of it."""
    given = list(arguments("self"))
    batch = given[5] = BATCH.clone()
    first, _ = OPS.bucketed(*given)
    batch[1] = 1
    second, _ = OPS.bucketed(*given)
    given[5] = batch.clone()
    fresh, _ = OPS.bucketed(*given)
    assert torch.equal(second, fresh) and not torch.equal(first, second)
