"""An edge set, checked and ordered once: every form of it gives the same, layers share one."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric import EdgeIndex

from pyg_gt import EdgeLayout, EdgeMask, GraphLayout, attention
from pyg_gt.layout import edge_layout as module
from pyg_gt.layout.deferred import DeferredEdges

EDGES = torch.tensor([[0, 2, 1, 2, 0], [1, 1, 0, 3, 0]])  # 3 sources, 4 targets
CACHES = (module._LAYOUTS.by_source, module._LAYOUTS.by_own)


def of(*args: object, **kwargs: object) -> EdgeLayout:
    layout = EdgeLayout.of(*args, **kwargs)
    assert isinstance(layout, EdgeLayout)
    return layout


def sorted_edges(layout: EdgeLayout) -> list[tuple[int, ...]]:
    return sorted(tuple(edge) for edge in layout.edge_index.t().tolist())


# forms


def test_a_worked_example() -> None:
    layout = of(EDGES, 3, 4)
    assert torch.equal(layout.edge_index, EDGES)
    assert layout.source.tolist() == [0, 2, 1, 2, 0] and layout.target.tolist() == [1, 1, 0, 3, 0]
    assert (layout.num_src, layout.num_dst, layout.num_edges) == (3, 4, 5)
    ptr, order = layout.by_target
    assert ptr.tolist() == [0, 2, 4, 4, 5] and order.tolist() == [2, 4, 0, 1, 3]
    ptr, order = layout.by_source
    assert ptr.tolist() == [0, 2, 3, 5] and order.tolist() == [0, 4, 2, 1, 3]
    assert not layout.has_repeats
    assert str(layout) == "EdgeLayout(num_edges=5, num_src=3, num_dst=4, device='cpu')"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_any_integer_type(dtype: torch.dtype) -> None:
    layout = of(EDGES.to(dtype), 3, 4)
    assert layout.edge_index.dtype == torch.int64
    assert torch.equal(layout.edge_index, EDGES)


def test_flow_says_which_row_sends() -> None:
    layout = of(EDGES.flip(0), 3, 4, flow="target_to_source")
    assert torch.equal(layout.edge_index, EDGES)


def test_one_number_of_nodes_for_both_sides() -> None:
    layout = of(EDGES, 4)
    assert (layout.num_src, layout.num_dst) == (4, 4)


def test_a_torch_sparse_tensor() -> None:
    sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    adj_t = sparse.SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(4, 3))
    layout = of(adj_t, 3, 4)
    # in the order of its own rows, in which its values stand
    assert sorted_edges(layout) == sorted_edges(of(EDGES, 3, 4))
    row, col, _ = adj_t.coo()
    assert torch.equal(layout.edge_index, torch.stack([col, row]))


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_tensor_of_torch(layout: torch.layout) -> None:
    dense = torch.zeros(4, 3)
    dense[EDGES[1], EDGES[0]] = torch.arange(1.0, 6.0)
    adj_t = dense.to_sparse(layout=layout)
    made = of(adj_t, 3, 4)
    assert sorted_edges(made) == sorted_edges(of(EDGES, 3, 4))
    assert of(adj_t, 3, 4) is made
    if layout != torch.sparse_csc:
        values = adj_t.coalesce().values() if layout == torch.sparse_coo else adj_t.values()
        assert torch.equal(dense[made.target, made.source], values)


def test_an_edge_index_of_pyg() -> None:
    edges = EdgeIndex(EDGES, sparse_size=(3, 4))
    layout = of(edges, 3, 4)
    assert type(layout.edge_index) is Tensor and torch.equal(layout.edge_index, EDGES)
    assert of(edges, 3, 4) is layout


@pytest.mark.parametrize(
    "backend", ["reference", "sdpa", "sparse", pytest.param("cpu", marks=pytest.mark.compiled)]
)
def test_all_forms_give_the_same_attention(backend: str) -> None:
    sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    dtype = torch.float32 if backend == "cpu" else torch.float64
    q, k, v = (torch.randn(n, 2, 3, dtype=dtype) for n in (4, 3, 3))
    layouts = GraphLayout.of(None, 3), GraphLayout.of(None, 4)
    adj_t = sparse.SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(4, 3))
    dense = torch.zeros(4, 3)
    dense[EDGES[1], EDGES[0]] = 1
    forms = [
        EDGES, EDGES.int(), EdgeIndex(EDGES, sparse_size=(3, 4)), adj_t, dense.to_sparse_coo(),
        dense.to_sparse_csr(), of(EDGES, 3, 4), of(EDGES.flip(0), 3, 4, flow="target_to_source"),
    ]  # fmt: skip
    results = [
        attention(
            q, k, v, layouts[0], (EdgeMask(form),), query_layout=layouts[1], backend=backend
        )
        for form in forms
    ]
    for result in results[1:]:
        # edges in another order are added in another order
        torch.testing.assert_close(result, results[0], rtol=0, atol=8 * torch.finfo(dtype).eps)


# orders


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30),
)
def test_both_orders_against_scipy(
    num_src: int, num_dst: int, pairs: list[tuple[int, int]]
) -> None:
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()
    edges = torch.stack([edges[0] % num_src, edges[1] % num_dst])
    layout = of(edges, num_src, num_dst)
    numbers = np.arange(edges.size(1))
    source, target = edges.numpy()
    for (ptr, order), rows, size in (
        (layout.by_target, target, num_dst),
        (layout.by_source, source, num_src),
    ):
        # which edge (column) ends at which node (row)
        ends = (np.ones_like(rows), (rows, numbers))
        want = scipy.sparse.csr_matrix(ends, shape=(size, len(numbers)))
        want.sort_indices()
        assert ptr.tolist() == want.indptr.tolist()
        assert order.tolist() == want.indices.tolist()
    assert layout.has_repeats == (len(set(map(tuple, edges.t().tolist()))) < edges.size(1))


def test_orders_are_made_once() -> None:
    layout = of(EDGES, 3, 4)
    assert layout.by_target is layout.by_target and layout.by_source is layout.by_source


def test_the_same_pair_the_other_way_round_is_no_repeat() -> None:
    assert not of(torch.tensor([[0, 1], [1, 0]]), 2).has_repeats
    assert of(torch.tensor([[0, 1, 0], [1, 0, 1]]), 2).has_repeats
    # 1 -> 0 of 2 sources and 0 -> 1 must not fall on one number
    assert not of(torch.tensor([[0, 2], [1, 0]]), 3, 2).has_repeats


@pytest.mark.parametrize(("num_src", "num_dst"), [(0, 0), (3, 0), (0, 4), (3, 4)])
def test_no_edges(num_src: int, num_dst: int) -> None:
    layout = of(torch.empty(2, 0, dtype=torch.int64), num_src, num_dst)
    assert layout.num_edges == 0 and not layout.has_repeats
    assert layout.by_target[0].tolist() == [0] * (num_dst + 1)
    assert layout.by_source[0].tolist() == [0] * (num_src + 1)


# what is remembered


def test_the_same_tensor_gives_the_same_layout() -> None:
    edges = EDGES.clone()
    layout = of(edges, 3, 4)
    assert of(edges, 3, 4) is layout
    assert of(layout, 3, 4) is layout
    assert of(layout.edge_index, 3, 4) is layout
    assert of(edges.clone(), 3, 4) is not layout
    assert layout.edge_index is not edges


def test_other_numbers_of_nodes_or_another_flow_are_another_layout() -> None:
    edges = EDGES.clone()
    layout = of(edges, 4, 4)
    assert of(edges, 5, 4).num_src == 5
    assert of(edges, 4, 5).num_dst == 5
    turned = of(edges, 4, 4, flow="target_to_source")
    assert torch.equal(turned.edge_index, EDGES.flip(0))
    assert torch.equal(of(edges, 4, 4).edge_index, EDGES)
    # and what a layout holds already has its flow
    own = layout.edge_index
    assert of(own, 4, 4) is layout
    assert of(own, 5, 5).num_src == 5 and of(own, 4, 4) is layout


def test_an_edit_is_seen() -> None:
    edges = EDGES.clone()
    old = of(edges, 3, 4)
    edges[0, 0] = 1
    new = of(edges, 3, 4)
    assert new is not old and new.source[0] == 1
    edges[1, 0] = 4
    with pytest.raises(IndexError, match="target index 4"):
        of(edges, 3, 4)


def test_an_edit_of_an_edge_index_is_seen() -> None:
    edges = EdgeIndex(EDGES.clone(), sparse_size=(3, 4))
    old = of(edges, 3, 4)
    edges.add_(0)
    assert of(edges, 3, 4) is old  # the numbers are the same
    edges[0, 0] = 1
    assert of(edges, 3, 4).source[0] == 1 and old.source[0] == 0


def test_new_values_around_the_same_sparse_tensor() -> None:
    sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    adj_t = sparse.SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(4, 3))
    layout = of(adj_t, 3, 4)
    assert of(adj_t, 3, 4) is layout
    other = adj_t.set_value(torch.ones(5), layout="coo")
    assert other is not adj_t and of(other, 3, 4) is layout
    again = sparse.SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(4, 3))
    assert of(again, 3, 4) is not layout
    adj_t.storage.row()[0] = 1  # column 1 of row 0 becomes one of row 1
    edited = of(adj_t, 3, 4)
    assert edited is not layout and edited.target[0] == 1


def test_a_sparse_tensor_with_another_row_is_another() -> None:
    sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    col = torch.tensor([0, 1, 2])
    layouts = []
    for row in (torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])):
        storage = sparse.SparseStorage(
            row=row, col=col, sparse_sizes=(3, 3), rowptr=None, value=None, rowcount=None,
            colptr=None, colcount=None, csr2csc=None, csc2csr=None, is_sorted=True,
        )  # fmt: skip
        layouts.append(of(sparse.SparseTensor.from_storage(storage), 3))
    assert layouts[0].target.tolist() == [0, 1, 2]
    assert layouts[1].target.tolist() == [0, 0, 1]


FORMS = ["edge_index", "view", "int32", "EdgeIndex", "coo", "SparseTensor"]


@pytest.mark.parametrize("form", FORMS)
def test_a_thousand_edge_sets_leave_nothing_behind(form: str) -> None:
    """Without the garbage collector: nothing may hang in a cycle either."""
    if form == "SparseTensor":
        sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    gc.collect()
    before = [len(cache) for cache in CACHES]
    alive: list[weakref.ref] = []
    gc.disable()
    try:
        for step in range(1000):
            edges = torch.randint(4, (2, 6)).sort().values
            given: object = edges
            if form == "view":
                given = edges[:, :]
            elif form == "int32":
                given = edges.int()
            elif form == "EdgeIndex":
                given = EdgeIndex(edges, sparse_size=(4, 4))
            elif form == "coo":
                given = torch.sparse_coo_tensor(edges, torch.ones(6), (4, 4))
                given = given.coalesce()  # type: ignore[attr-defined]
            elif form == "SparseTensor":
                given = sparse.SparseTensor(row=edges[0], col=edges[1], sparse_sizes=(4, 4))
            layout = of(given, 4)
            if form != "view":
                assert of(given, 4) is layout
            _ = layout.by_target, layout.has_repeats
            alive.append(weakref.ref(layout))
            if step % 100 == 0:
                assert sum(ref() is not None for ref in alive) == 1
        del edges, given, layout, _
    finally:
        gc.enable()
    assert sum(ref() is not None for ref in alive) == 0
    assert [len(cache) for cache in CACHES] == before


def test_checks_against_layouts_that_are_gone_go_with_them() -> None:
    """Whole-graph training: one edge set, a new layout at each step."""
    edges = of(torch.tensor([[0, 1, 3], [1, 0, 2]]), 4)
    for _ in range(50):
        layout = GraphLayout.from_sizes([2, 2])
        edges.check_within_graphs(layout, layout)
    assert len(edges._cache) == 1


def test_edges_are_compared_with_the_graphs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    edges, layout = of(torch.tensor([[0, 1], [1, 0]]), 4), GraphLayout.from_sizes([2, 2])
    edges.check_within_graphs(layout, layout)
    monkeypatch.setattr(Tensor, "any", None)
    edges.check_within_graphs(layout, layout)
    with pytest.raises(TypeError):
        edges.check_within_graphs(layout, GraphLayout.from_sizes([3, 1]))


def test_inference_tensors_are_found_by_their_numbers() -> None:
    with torch.inference_mode():
        edges = EDGES.clone()
        first = of(edges, 3, 4)
        assert of(edges, 3, 4) is first
        edges[0, 0] = 2
        assert of(edges, 3, 4).source[0] == 2
    assert not first.edge_index.is_inference()


@pytest.mark.parametrize("form", ["int32", "flow", "csr"])
def test_what_an_evaluation_made_can_be_trained_with(form: str) -> None:
    given: Tensor = EDGES.int() if form == "int32" else EDGES.flip(0)
    if form == "csr":
        given = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(5), (4, 3)).to_sparse_csr()
    flow = "target_to_source" if form == "flow" else "source_to_target"
    with torch.inference_mode():
        layout = of(given, 3, 4, flow)
        _ = layout.by_target
    assert of(given, 3, 4, flow) is layout
    assert not layout.edge_index.is_inference()
    assert not any(x.is_inference() for x in layout.by_target)


# copies and traced code


def test_pickle_and_copy() -> None:
    layout = of(EDGES, 3, 4)
    _ = layout.by_target
    shallow = copy.copy(layout)
    for other in (pickle.loads(pickle.dumps(layout)), copy.deepcopy(layout), shallow):
        assert torch.equal(other.edge_index, EDGES)
        assert (other.num_src, other.num_dst) == (3, 4)
    assert of(layout.edge_index, 3, 4) is layout
    del shallow, other
    assert of(layout.edge_index, 3, 4) is layout


def test_tensors_without_values_give_deferred_edges() -> None:
    edges = EDGES.to("meta")
    deferred = EdgeLayout.of(edges, 3, 4, flow="target_to_source")
    assert isinstance(deferred, DeferredEdges)
    assert (deferred.num_src, deferred.num_dst) == (3, 4)
    assert isinstance(EdgeLayout.of(deferred, 3, 4), DeferredEdges)


def test_deferred_edges_are_found_when_their_code_runs() -> None:
    edges = EDGES.clone()
    layout = of(edges, 3, 4)
    assert of(DeferredEdges(edges, 3, 4), 3, 4) is layout
    assert of(DeferredEdges(edges, 3, 4), 3, 4, flow="target_to_source") is layout


# bad input


@pytest.mark.parametrize(
    ("edges", "error", "message"),
    [
        ([[0, 3], [0, 1]], IndexError, r"Found source index 3 .*there are 3 source.*\[0, 3\)"),
        ([[0, -1], [0, 1]], IndexError, "Found source index -1"),
        ([[0, 1], [0, 4]], IndexError, r"Found target index 4 .*there are 4 target.*\[0, 4\)"),
        ([[0, 1], [0, -2]], IndexError, "Found target index -2"),
        ([[0.0, 1.0], [0.0, 1.0]], ValueError, r"must hold integers .got torch.float32.*long"),
        ([[True], [False]], ValueError, "must hold integers .got torch.bool"),
        ([0, 1], ValueError, r"shape \[2, E\] .got \[2\]"),
        ([[0, 1], [1, 0], [0, 0]], ValueError, r"shape \[2, E\] .got \[3, 2\]"),
    ],
)
def test_bad_edges_are_named(edges: list, error: type[Exception], message: str) -> None:
    for _ in range(2):  # what failed is not remembered as good
        tensor = torch.tensor(edges)
        for _ in range(2):
            with pytest.raises(error, match=message):
                EdgeLayout.of(tensor, 3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EdgeLayout.of("edges", 3), "'edge_index' tensor.*got 'str'"),
        (lambda: EdgeLayout.of(None, 3), "got 'NoneType'"),
        (lambda: EdgeLayout.of(EDGES, 4, flow="up"), "'flow' must be .*got 'up'"),
        (lambda: EdgeLayout.of(of(EDGES, 3, 4), 4, 4), "joins 3 key and 4 query .* are 4 and 4"),
        (
            lambda: EdgeLayout.of(torch.eye(4).to_sparse(), 4, flow="target_to_source"),
            "flow must be 'source_to_target'.*transposed",
        ),
        (
            lambda: EdgeLayout.of(torch.ones(3, 4).to_sparse(), 3, 4),
            r"\[num_dst, num_src\] = \[4, 3\] .got \[3, 4\]",
        ),
        (
            lambda: of(torch.tensor([[0, 3], [1, 0]]), 4).check_within_graphs(
                GraphLayout.from_sizes([2, 2]), GraphLayout.from_sizes([2, 2])
            ),
            "edge 1 joins node 3 of graph 1 to node 0 of graph 0.*Drop such edges",
        ),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_bad_sparse_tensors_are_named() -> None:
    sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
    adj_t = sparse.SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(4, 3))
    with pytest.raises(ValueError, match="flow must be 'source_to_target'"):
        EdgeLayout.of(adj_t, 3, 4, flow="target_to_source")
    with pytest.raises(ValueError, match=r"= \[4, 4\] .got \[4, 3\]"):
        EdgeLayout.of(adj_t, 4, 4)


@pytest.mark.cuda
@pytest.mark.parametrize("edge", [3, -1])
def test_the_device_reports_an_edge_out_of_range(edge: int) -> None:
    """In a process of its own: a device assertion ends the CUDA context."""
    import subprocess
    import sys

    code = (
        "import torch; from pyg_gt import EdgeLayout; "
        f"EdgeLayout.of(torch.tensor([[0, {edge}], [0, 1]], device='cuda'), 3); "
        "torch.cuda.synchronize()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "assert" in done.stderr
