"""What was made from a tensor is used again only while the tensor holds the same numbers.

Each test changes numbers in a way that torch's version counter does not see, and compares with
tensors that nobody has ever seen: a wrong layout would be silent.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.nn import TransformerConv

from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    TableBias,
    attention,
    explain_choice,
)
from pyg_gt.layout.comparison import same_numbers
from pyg_gt.layout.values import check_not_captured, in_numpy
from pyg_gt.nn import (
    EdgePathBias,
    FullTransformerConv,
    GPSConv,
    MaskedTransformerConv,
    StableEncoder,
    TransformerBlock,
)

N = 7
BACKENDS = [
    "reference", "sdpa", "sparse", pytest.param("cpu", marks=pytest.mark.compiled)
]  # fmt: skip

Edit = Callable[[Tensor, Tensor], None]


def by_numpy(old: Tensor, new: Tensor) -> None:
    old.numpy()[...] = new.numpy()


def by_data(old: Tensor, new: Tensor) -> None:
    old.data.copy_(new)


def by_storage(old: Tensor, new: Tensor) -> None:
    """As collectives and other processes write: to memory, past the tensor."""
    old.untyped_storage().copy_(new.clone(memory_format=torch.contiguous_format).untyped_storage())


def by_torch(old: Tensor, new: Tensor) -> None:
    old.copy_(new)


EDITS = pytest.mark.parametrize("edit", [by_numpy, by_data, by_storage, by_torch])


def changed(given: Tensor, other: Tensor, edit: Edit, run: Callable[[Tensor], Tensor]) -> None:
    """``run`` on an edited tensor gives what it gives on a new one of those numbers."""
    before = run(given)
    torch.testing.assert_close(before, run(given.clone()), rtol=0, atol=0)
    edit(given, other)
    after, want = run(given), run(other.clone())
    torch.testing.assert_close(after, want, rtol=0, atol=0)
    assert not torch.equal(before, after)  # else the edit changes nothing, and the test neither


def edges_of(seed: int) -> Tensor:
    return torch.randint(N, (2, 20), generator=torch.Generator().manual_seed(seed))


BATCH, OTHER_BATCH = torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 2, 2])


# the operator


@EDITS
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["batch", "mask", "bias", "index"])
def test_the_operator_sees_edits(what: str, backend: str, edit: Edit) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, N, 2, 4).unbind()
    one = GraphLayout.of(None, N)
    values, table = torch.randn(20, 2), torch.randn(5, 2)

    def run(given: Tensor) -> Tensor:
        layout, biases = one, ()
        if what == "batch":
            layout = GraphLayout.of(given, N)
        elif what == "mask":
            biases = (EdgeMask(given, values),)
        elif what == "bias":
            biases = (EdgeBias(given, values),)
        else:
            biases = (TableBias(table, given),)
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        reasons = explain_choice(*leaves, layout, biases)
        if reasons[backend] not in ("chosen",) and not reasons[backend].startswith("could run"):
            pytest.skip(reasons[backend])
        out = attention(*leaves, layout, biases, backend=backend)
        return torch.cat([out, *torch.autograd.grad(out.square().sum(), leaves)])

    given, other = {
        "batch": (BATCH.clone(), OTHER_BATCH),
        "mask": (edges_of(0), edges_of(1)),
        "bias": (edges_of(0), edges_of(1)),
        "index": (torch.randint(5, (N * N,)), torch.randint(5, (N * N,))),
    }[what]
    changed(given, other, edit, run)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("edit", [by_numpy, by_data, by_storage])
def test_an_index_edited_out_of_its_table_is_refused(
    edit: Edit, dtype: torch.dtype, backend: str
) -> None:
    q, layout = torch.randn(N, 2, 4), GraphLayout.of(None, N)
    index = torch.zeros(N * N, dtype=dtype)
    bias = (TableBias(torch.randn(4, 2), index),)
    if not explain_choice(q, q, q, layout, bias)[backend].startswith(("chosen", "could run")):
        pytest.skip("no table there")
    attention(q, q, q, layout, bias, backend=backend)
    edit(index, torch.full_like(index, 200 if dtype == torch.uint8 else -3))
    with pytest.raises(IndexError, match="the table has 4 rows"):
        attention(q, q, q, layout, bias, backend=backend)


def test_edges_edited_out_of_range_are_refused() -> None:
    conv, x, edges = MaskedTransformerConv(4, 4), torch.randn(N, 4), edges_of(0)
    conv(x, edges)
    edges.numpy()[0, 0] = 10**9
    with pytest.raises(IndexError, match="source index 1000000000"):
        conv(x, edges)
    # beyond 32 bits, where a compact copy would wrap around to a number that looks right
    edges = edges_of(0)
    conv(x, edges)
    edges.numpy()[1, 3] += 2**32
    with pytest.raises(IndexError, match="target index 429496"):
        conv(x, edges)


# layers


@EDITS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_along_edges_sees_edits(dtype: torch.dtype, edit: Edit) -> None:
    torch.manual_seed(0)
    ours, pyg = MaskedTransformerConv(8, 4, heads=2), TransformerConv(8, 4, heads=2)
    pyg.load_state_dict(ours.state_dict())
    ours, pyg, x = ours.to(dtype), pyg.to(dtype), torch.randn(N, 8, dtype=dtype)
    edges = edges_of(0)
    changed(edges, edges_of(1), edit, lambda given: ours(x, given))
    torch.testing.assert_close(ours(x, edges), pyg(x, edges))


@EDITS
def test_global_layers_see_edits(edit: Edit) -> None:
    torch.manual_seed(0)
    x, none = torch.randn(N, 8), torch.empty(2, 0, dtype=torch.int64)
    ours = GPSConv(8, None, heads=2, norm="layer_norm").eval()
    pyg = PyGGPSConv(8, None, heads=2, norm="layer_norm").eval()
    pyg.load_state_dict(ours.state_dict())
    batch = BATCH.clone()
    changed(batch, OTHER_BATCH, edit, lambda given: ours(x, none, given))
    torch.testing.assert_close(ours(x, none, batch), pyg(x, none, batch))
    conv, block = FullTransformerConv(8, 4), TransformerBlock(8, 2).eval()
    changed(BATCH.clone(), OTHER_BATCH, edit, lambda given: conv(x, batch=given))
    changed(BATCH.clone(), OTHER_BATCH, edit, lambda given: block(x, given))


@EDITS
def test_encoders_see_edits(edit: Edit) -> None:
    torch.manual_seed(0)
    stable = StableEncoder(4, 3).eval()
    vectors, values = torch.randn(N, 3), torch.rand(N, 3)
    mask = torch.ones(N, 3, dtype=torch.bool)
    ring = torch.stack([torch.arange(N), (torch.arange(N) + 1) % N])
    other = torch.stack([torch.arange(N), (torch.arange(N) + 2) % N])
    changed(ring.clone(), other, edit, lambda given: stable(vectors, values, mask, given))

    paths = EdgePathBias(3, 2, 2)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    features = torch.randn(3, 3)
    first = torch.full((9, 2), -1)
    second = first.clone()
    first[1, 0], second[1, 0] = 0, -1
    second[5, 0] = 1
    changed(first.clone(), second, edit, lambda given: paths(given, features, edges).values)


# compiled code, which reuses buffers: the same object, the same version, other numbers


def test_compiled_code_may_reuse_a_buffer_of_edges() -> None:
    torch.manual_seed(1)
    x, edges = torch.randn(40, 8), torch.randint(40, (2, 200))
    first, second = (MaskedTransformerConv(8, 4, heads=2) for _ in range(2))

    def two(x: Tensor, edges: Tensor) -> Tensor:
        h = first(x, edges.flip(0))
        shift = (h[:, 0] * 0).long()  # zeros, which the compiler cannot know
        return second(h, (edges + 1 + shift[edges]) % 40)

    compiled = torch.compile(two, fullgraph=True)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, edges), two(x, edges))
        leaf = x.clone().requires_grad_()
        got = torch.autograd.grad(compiled(leaf, edges).square().sum(), leaf)
        want = torch.autograd.grad(two(leaf, edges).square().sum(), leaf)
        torch.testing.assert_close(got, want)
        edges = edges.roll(1, 1)


def test_compiled_code_may_reuse_a_buffer_of_batches_and_tables() -> None:
    torch.manual_seed(1)
    x, batch = torch.randn(12, 2, 4), torch.arange(12) // 4
    index, table = torch.randint(5, (144,)), torch.randn(5, 2)

    def two(x: Tensor, batch: Tensor, index: Tensor) -> Tensor:
        h = attention(x, x, x, GraphLayout.of(batch * 1, 12))
        shift = (h[:, 0, 0] * 0).long()
        h = attention(h, h, h, GraphLayout.of((batch + shift) // 2, 12))
        one = GraphLayout.of(None, 12)
        h = attention(h, h, h, one, (TableBias(table, index * 1),))
        shift = (h[0, 0, 0] * 0).long()
        return attention(h, h, h, one, (TableBias(table, (index + 1 + shift) % 5),))

    compiled = torch.compile(two, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, batch, index), two(x, batch, index))
    leaf = x.clone().requires_grad_()
    got = torch.autograd.grad(compiled(leaf, batch, index).square().sum(), leaf)
    want = torch.autograd.grad(two(leaf, batch, index).square().sum(), leaf)
    torch.testing.assert_close(got, want)


@EDITS
def test_compiled_code_sees_edits(edit: Edit) -> None:
    torch.manual_seed(0)
    x, conv = torch.randn(N, 8), MaskedTransformerConv(8, 4, heads=2)
    block = TransformerBlock(8, 2).eval()
    along = torch.compile(conv, fullgraph=True, backend="aot_eager")
    every = torch.compile(block, fullgraph=True, backend="aot_eager")
    edges, batch = edges_of(0), BATCH.clone()
    with torch.no_grad():
        changed(edges, edges_of(1), edit, lambda given: along(x, given))
        torch.testing.assert_close(along(x, edges), conv(x, edges.clone()))
        changed(batch, OTHER_BATCH, edit, lambda given: every(x, given))


# other processes


def _broadcast(rank: int, port: int, out: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    conv, x, edges = MaskedTransformerConv(4, 4), torch.randn(N, 4), edges_of(rank)
    conv(x, edges)
    version = edges._version
    torch.distributed.broadcast(edges, 0)
    unseen = edges._version == version
    same = torch.equal(conv(x, edges), conv(x, edges_of(0)))
    torch.distributed.destroy_process_group()
    out.put((rank, unseen, same))


@pytest.mark.slow
def test_a_broadcast_is_seen() -> None:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    port = 29500 + os.getpid() % 2000
    workers = [context.Process(target=_broadcast, args=(rank, port, out)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = {rank: (unseen, same) for rank, unseen, same in (out.get(timeout=120) for _ in "ab")}
    for worker in workers:
        worker.join(30)
    assert results[1] == (True, True), "the version did not move, and the new edges are used"


# what a layout owns


@pytest.mark.parametrize(
    "make", ["batch", "int32", "ptr", "sizes", "hand", "inference", "unsorted"]
)
def test_a_layout_of_graphs_is_frozen(make: str) -> None:
    torch.manual_seed(0)
    given = {
        "batch": BATCH.clone(), "int32": BATCH.int(), "ptr": torch.tensor([0, 3, 7]),
        "sizes": torch.tensor([3, 4]), "hand": BATCH.clone(),
        "unsorted": torch.tensor([1, 0, 1, 0, 0, 1, 1]),
    }.get(make)  # fmt: skip
    if make == "inference":
        with torch.inference_mode():
            given = BATCH.clone()
    assert given is not None
    if make in ("ptr", "sizes"):
        layout = getattr(GraphLayout, f"from_{make}")(given)
    elif make == "hand":
        layout = GraphLayout(torch.tensor([0, 3, 7]), given, 7, 2, 4, (3, 4))
    else:
        layout = GraphLayout.from_batch(given)
    q = torch.randn(7, 2, 4)
    want = attention(q, q, q, GraphLayout.from_batch(layout.batch.clone()), backend="reference")
    with torch.inference_mode():
        given.fill_(0)
    for backend in ("reference", "sdpa", "auto"):
        torch.testing.assert_close(attention(q, q, q, layout, backend=backend), want)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "sparse", "auto"])
def test_a_layout_of_edges_is_frozen(backend: str) -> None:
    torch.manual_seed(0)
    edges, q, one = edges_of(0), torch.randn(N, 2, 4), GraphLayout.of(None, N)
    layout = EdgeLayout.of(edges, N)
    by_hand = EdgeLayout(edges, N, N)
    want = attention(q, q, q, one, (EdgeMask(edges.clone()),), backend="reference")
    edges.zero_()
    for made in (layout, by_hand):
        got = attention(q, q, q, one, (EdgeMask(made),), backend=backend)
        torch.testing.assert_close(got, want)


def test_a_layout_whose_own_tensors_were_edited_is_refused() -> None:
    q = torch.randn(N, 2, 4)
    for name in ("ptr", "batch", "order"):
        layout = GraphLayout.from_batch(BATCH.flip(0))
        getattr(layout, name).zero_()
        with pytest.raises(ValueError, match="edited in place.*frozen"):
            attention(q, q, q, layout)
        with pytest.raises(ValueError, match="edited in place.*frozen"):
            GraphLayout.of(layout, N)


def test_edges_whose_own_tensor_was_edited_are_refused() -> None:
    q, one = torch.randn(N, 2, 4), GraphLayout.of(None, N)
    layout = EdgeLayout.of(edges_of(0), N)
    assert isinstance(layout, EdgeLayout)
    attention(q, q, q, one, EdgeMask(layout))
    layout.ends[0, 0] = 10**6
    with pytest.raises(ValueError, match="edited in place.*frozen"):
        attention(q, q, q, one, EdgeMask(layout))
    for edit in (
        lambda layout: layout.source.zero_(),
        lambda layout: layout.edge_index.add_(1),
        lambda layout: layout.by_target[0].zero_(),
        lambda layout: layout.by_source[1].zero_(),
    ):
        layout = EdgeLayout(edges_of(0), N, N)
        edit(layout)
        with pytest.raises(ValueError, match="edited in place.*frozen"):
            attention(q, q, q, one, EdgeMask(layout), backend="sdpa")


def test_what_everybody_shares_is_made_anew_after_an_edit() -> None:
    """One graph of N nodes, and what was found by a caller's tensor: nobody else pays for it."""
    q = torch.randn(N, 2, 4)
    want = attention(q, q, q, GraphLayout.from_sizes([N]))
    GraphLayout.of(None, N).batch.fill_(3)
    assert torch.equal(attention(q, q, q, GraphLayout.of(None, N)), want)
    GraphLayout.of(None, N).pos.zero_()
    assert torch.equal(attention(q, q, q, GraphLayout.of(None, N)), want)
    batch, edges = BATCH.clone(), edges_of(0)
    GraphLayout.of(batch, N).ptr.zero_()
    assert GraphLayout.of(batch, N).sizes == (3, 4)
    EdgeLayout.of(edges, N).edge_index.zero_()
    assert torch.equal(EdgeLayout.of(edges, N).edge_index, edges)


@pytest.mark.parametrize("how", ["to", "pickle", "deepcopy"])
def test_a_layout_copied_during_an_evaluation_can_be_trained_with(how: str) -> None:
    layout = GraphLayout.from_batch(BATCH.flip(0))
    with torch.inference_mode():
        other = {
            "to": lambda: layout.to("cpu", copy=True),
            "pickle": lambda: pickle.loads(pickle.dumps(layout)),
            "deepcopy": lambda: copy.deepcopy(layout),
        }[how]()
    for backend in ("sdpa", "reference"):
        q = torch.randn(N, 2, 4, requires_grad=True)
        attention(q, q, q, other, backend=backend).sum().backward()


PTR = torch.tensor([0, 3, 7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.tensor([0, 10**7]), torch.zeros(8).long(), 8, 1, 8, (8,)),
            "'ptr' is .0, 10000000",
        ),
        ((PTR, BATCH, 7, 2, 4, (3, 5)), "num_nodes is 7, not 8"),
        ((PTR, BATCH, 7, 3, 4, (3, 4)), "num_graphs is 3, not 2"),
        ((PTR, BATCH, 7, 2, 9, (3, 4)), "max_nodes is 9, not 4"),
        ((PTR, BATCH[:5], 7, 2, 4, (3, 4)), "length of 'batch' is 5, not 7"),
        ((PTR, OTHER_BATCH, 7, 2, 4, (3, 4)), "'batch', in that order, does not give"),
        ((PTR, BATCH, 7, 2, 4, (3, 4), torch.zeros(7).long()), "'order' does not name each node"),
        ((PTR, BATCH, 7, 2, 4, (3, 4), torch.arange(6)), "'order' does not name each node"),
        ((PTR, BATCH, 7, 2, 4, (3, -4)), "at least 0"),
        ((PTR.float(), BATCH, 7, 2, 4, (3, 4)), "'ptr' must hold integers"),
        ((PTR, None, 7, 2, 4, (3, 4)), "'batch' must be a tensor"),
    ],
)
def test_a_layout_made_by_hand_is_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphLayout(*arguments)


def test_an_edge_layout_made_by_hand_is_checked() -> None:
    with pytest.raises(IndexError, match="source index 9"):
        EdgeLayout(torch.tensor([[9], [0]]), 3, 3)
    with pytest.raises(IndexError, match="target index -1"):
        EdgeLayout(torch.tensor([[0], [-1]]), 3, 3)
    with pytest.raises(ValueError, match=r"shape \[2, E\]"):
        EdgeLayout(torch.zeros(3, 4).long(), 3, 3)


@pytest.mark.parametrize("form", ["coo", "uncoalesced", "csr", "csc", "SparseTensor", "EdgeIndex"])
def test_no_form_of_edges_is_written_to(form: str) -> None:
    from torch_geometric import EdgeIndex
    from torch_geometric.utils import to_torch_csc_tensor, to_torch_csr_tensor

    edges = torch.tensor([[0, 1, 2, 2], [1, 0, 1, 0]])
    given: Any
    if form in ("coo", "uncoalesced"):
        given = torch.sparse_coo_tensor(edges.flip(0), torch.ones(4), (3, 3))
        given = given.coalesce() if form == "coo" else given
    elif form in ("csr", "csc"):
        make = to_torch_csr_tensor if form == "csr" else to_torch_csc_tensor
        given = make(edges, size=(3, 3))
    elif form == "EdgeIndex":
        given = EdgeIndex(edges, sparse_size=(3, 3))
    else:
        sparse = pytest.importorskip("torch_sparse", reason="SparseTensor needs torch_sparse")
        given = sparse.SparseTensor(row=edges[1], col=edges[0], sparse_sizes=(3, 3))
    before = given.is_coalesced() if form in ("coo", "uncoalesced") else None
    dense = given.to_dense() if form != "EdgeIndex" else given.as_tensor().clone()
    layout = EdgeLayout.of(given, 3)
    assert EdgeLayout.of(given, 3) is layout
    assert before is None or given.is_coalesced() is before
    assert torch.equal(dense, given.to_dense() if form != "EdgeIndex" else given.as_tensor())


@pytest.mark.parametrize("part", ["crow", "col"])
def test_a_csr_matrix_edited_in_its_parts_is_seen(part: str) -> None:
    from torch_geometric.utils import to_torch_csr_tensor

    # row pointers 0 2 3 4, and 0 1 3 4
    adj = to_torch_csr_tensor(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), size=(3, 3))
    layout = EdgeLayout.of(adj, 3)
    assert EdgeLayout.of(adj, 3) is layout
    if part == "crow":
        adj.crow_indices().numpy()[1] = 1
    else:
        adj.col_indices().numpy()[0] = 2
    new = EdgeLayout.of(adj, 3)
    assert isinstance(new, EdgeLayout) and new is not layout
    want = [[0, 1, 1, 2], [0, 1, 1, 2]] if part == "crow" else [[2, 1, 1, 2], [0, 0, 1, 2]]
    assert new.edge_index.tolist() == want


def test_own_tensors_of_a_layout_are_compared_too() -> None:
    x, conv, full = torch.randn(N, 8), MaskedTransformerConv(8, 4), FullTransformerConv(8, 4)
    for numbers in (BATCH, BATCH.flip(0)):
        batch = GraphLayout.from_batch(numbers).batch
        full(x, batch=batch)
        batch.numpy()[:] = OTHER_BATCH.numpy()
        torch.testing.assert_close(full(x, batch=batch), full(x, batch=OTHER_BATCH))
    layout = EdgeLayout.of(edges_of(0), N)
    edges = layout.edge_index
    conv(x, edges)
    edges.numpy()[:] = edges_of(1).numpy()
    torch.testing.assert_close(conv(x, edges), conv(x, edges_of(1)))


# the comparison itself


@pytest.mark.parametrize("size", [0, 1, 5, 2**16, 2**16 + 1, 200_000])
@pytest.mark.parametrize("own_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("given_type", [torch.uint8, torch.int32, torch.int64])
def test_numbers_are_compared_to_the_last(
    size: int, own_type: torch.dtype, given_type: torch.dtype
) -> None:
    given = torch.randint(200, (size,), dtype=given_type)
    own = given.to(own_type)
    assert same_numbers(own, given) and not same_numbers(own, given.new_zeros(size + 1))
    for place in {0, size // 2, size - 1} if size else ():
        other = given.clone()
        other[place] += 1
        assert not same_numbers(own, other)
        assert same_numbers(own.view(-1, 1), given.view(-1, 1))
        assert not same_numbers(own.view(1, -1), other.view(1, -1))


@pytest.mark.parametrize("count", [10, 100_000])
def test_the_transpose_of_pairs_is_compared_where_it_lies(count: int) -> None:
    pairs = torch.randint(200, (count, 2))
    own = pairs.t().int().contiguous()
    assert same_numbers(own, pairs.t())
    for place in ((0, 0), (count - 1, 1), (count // 2, 1)):
        other = pairs.clone()
        other[place] += 1
        assert not same_numbers(own, other.t())


def test_a_number_that_wraps_around_is_another() -> None:
    own = torch.tensor([5], dtype=torch.int32)
    assert not same_numbers(own, torch.tensor([5 + 2**32]))


def test_memory_is_read_where_it_lies(tmp_path: Path) -> None:
    """A file mapped into memory, as 'precompute' keeps encodings: other processes may write it."""
    np.save(tmp_path / "edges.npy", edges_of(0).numpy())
    mapped = np.load(tmp_path / "edges.npy", mmap_mode="r+")
    edges = torch.from_numpy(mapped)
    assert in_numpy(edges).base is not None
    first = EdgeLayout.of(edges, N)
    np.load(tmp_path / "edges.npy", mmap_mode="r+")[:] = edges_of(1).numpy()
    second = EdgeLayout.of(edges, N)
    assert isinstance(first, EdgeLayout) and isinstance(second, EdgeLayout)
    assert torch.equal(first.edge_index, edges_of(0))
    assert torch.equal(second.edge_index, edges_of(1))


# accelerators, where eager code goes by identity and version


@pytest.mark.cuda
def test_cuda_goes_by_versions_unless_asked_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = edges_of(0).cuda()
    layout = EdgeLayout.of(edges, N)
    assert EdgeLayout.of(edges, N) is layout
    edges.copy_(edges_of(1))
    assert EdgeLayout.of(edges, N) is not layout
    layout = EdgeLayout.of(edges, N)
    edges.data.copy_(edges_of(2))
    assert EdgeLayout.of(edges, N) is layout, "documented: unseen"
    monkeypatch.setenv("PYG_GT_CHECK", "1")
    new = EdgeLayout.of(edges, N)
    assert isinstance(new, EdgeLayout) and torch.equal(new.edge_index.cpu(), edges_of(2))


@pytest.mark.cuda
def test_a_capture_takes_layouts_and_no_vectors() -> None:
    batch = BATCH.cuda()
    GraphLayout.of(batch, N)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="before the capture"), torch.cuda.graph(graph):
        GraphLayout.of(batch, N)


def test_version_and_capture_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same two rules, with a device that is made up."""
    from pyg_gt.layout import tensor_cache as _cache

    cache: _cache.IdentityCache[int] = _cache.IdentityCache()
    tensor = torch.tensor([1])
    cache.put(tensor, 5)
    monkeypatch.setattr(_cache, "_is_compared", lambda key: False)
    assert cache.get(tensor, None, lambda _: False) == 5
    assert cache.get(tensor, None, lambda _: False, by_value=True) is None
    tensor.add_(1)
    assert cache.get(tensor, None, lambda _: True) is None
    monkeypatch.undo()
    monkeypatch.setenv("PYG_GT_CHECK", "1")
    assert _cache._is_compared(torch.empty(1, device="meta"))
    monkeypatch.delenv("PYG_GT_CHECK")
    assert not _cache._is_compared(torch.empty(1, device="meta"))

    class OnCuda:
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="'batch' is read on the host.*Make a layout"):
        check_not_captured("batch", OnCuda(), "Make a layout")  # type: ignore[arg-type]
