"""The ragged shape of a batch: constructors agree, layers share one, nothing is kept alive."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

import pyg_gt
from pyg_gt import GraphLayout, attention
from pyg_gt.layout import edge_layout, graph_layout
from pyg_gt.layout.deferred import DeferredLayout
from pyg_gt.layout.tensor_cache import IdentityCache
from pyg_gt.nn import EdgePathBias
from pyg_gt.nn.pair_encoding import path_rows
from pyg_gt.ops import index_checks
from pyg_gt.ops._backends.flex import score_mod as flex
from pyg_gt.ops._kernels.triton.full import launches

SIZES = [1, 5, 3, 0, 7]


def assert_same(a: GraphLayout, b: GraphLayout) -> None:
    assert (a.num_nodes, a.num_graphs, a.max_nodes) == (b.num_nodes, b.num_graphs, b.max_nodes)
    assert a.sizes == b.sizes
    for name in ("ptr", "batch", "pos", "order"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        assert x is None or (torch.equal(x, y) and x.dtype == torch.int64), name


def graphs(sizes: list[int]) -> list[Data]:
    return [
        Data(x=torch.randn(n, 2), edge_index=torch.zeros(2, min(n, 3), dtype=torch.int64))
        for n in sizes
    ]


# what the constructors make


def test_a_worked_example() -> None:
    layout = GraphLayout.from_sizes([2, 0, 3])
    assert layout.ptr.tolist() == [0, 2, 2, 5]
    assert layout.batch.tolist() == [0, 0, 2, 2, 2]
    assert layout.pos.tolist() == [0, 1, 0, 1, 2]
    assert (layout.num_nodes, layout.num_graphs, layout.max_nodes) == (5, 3, 3)
    assert layout.sizes == (2, 0, 3) and layout.num_pairs == 13
    assert layout.order is None
    assert str(layout) == "GraphLayout(num_nodes=5, num_graphs=3, max_nodes=3, device='cpu')"


def test_a_worked_example_unsorted() -> None:
    layout = GraphLayout.from_batch(torch.tensor([2, 0, 2, 2, 0]))
    assert layout.ptr.tolist() == [0, 2, 2, 5]
    assert layout.batch.tolist() == [2, 0, 2, 2, 0]
    assert layout.pos.tolist() == [0, 0, 1, 2, 1]
    assert layout.order is not None and layout.order.tolist() == [1, 4, 0, 2, 3]
    assert layout.sizes == (2, 0, 3)


@given(st.lists(st.integers(0, 6), max_size=8))
def test_all_constructors_agree(sizes: list[int]) -> None:
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes).long())
    ptr = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    want = GraphLayout.from_sizes(sizes)
    made = [
        GraphLayout.from_sizes(torch.tensor(sizes, dtype=torch.int32)),
        GraphLayout.from_ptr(ptr),
        GraphLayout.from_ptr(ptr.int(), ptr.tolist()),
        GraphLayout.from_batch(batch, len(sizes)),
        GraphLayout.of(batch, sum(sizes), len(sizes)),
    ]
    if sizes:
        made.append(GraphLayout.from_data(Batch.from_data_list(graphs(sizes))))
    for layout in made:
        assert_same(layout, want)
    assert want.max_nodes == max(sizes, default=0)


@given(st.lists(st.integers(0, 5), max_size=20))
def test_an_unsorted_batch(numbers: list[int]) -> None:
    batch = torch.tensor(numbers, dtype=torch.int64)
    layout = GraphLayout.from_batch(batch)
    assert torch.equal(layout.batch, batch)
    assert layout.num_graphs == max(numbers, default=-1) + 1
    assert layout.sizes == tuple(numbers.count(g) for g in range(layout.num_graphs))
    # the place of a node is how many of its graph stand before it
    assert layout.pos.tolist() == [numbers[:i].count(g) for i, g in enumerate(numbers)]
    packed = layout.ptr[layout.batch] + layout.pos
    assert sorted(packed.tolist()) == list(range(len(numbers)))
    assert (layout.order is None) == (numbers == sorted(numbers))
    if layout.order is not None:
        assert torch.equal(packed[layout.order], torch.arange(len(numbers)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("numbers", [[0, 0, 2], [2, 0, 1]])
def test_any_integer_type(dtype: torch.dtype, numbers: list[int]) -> None:
    want = GraphLayout.from_batch(torch.tensor(numbers))
    assert_same(GraphLayout.of(torch.tensor(numbers, dtype=dtype), 3), want)


def test_trailing_empty_graphs_count_where_they_are_known() -> None:
    batch = torch.tensor([0, 1, 1])
    assert GraphLayout.of(batch, 3).num_graphs == 2
    assert GraphLayout.of(batch, 3, num_graphs=4).sizes == (1, 2, 0, 0)
    assert GraphLayout.of(batch, 3, num_graphs=2).sizes == (1, 2)


def test_nothing_at_all() -> None:
    for layout in (GraphLayout.from_sizes([]), GraphLayout.from_batch(torch.tensor([]).long())):
        assert (layout.num_nodes, layout.num_graphs, layout.max_nodes) == (0, 0, 0)
        assert layout.ptr.tolist() == [0]
    assert GraphLayout.of(None, 0).sizes == (0,)
    assert GraphLayout.from_data(Data(num_nodes=0)).sizes == (0,)


def test_one_graph_for_all_nodes() -> None:
    layout = GraphLayout.of(None, 4)
    assert_same(layout, GraphLayout.from_sizes([4]))
    assert GraphLayout.of(None, 4) is layout
    assert GraphLayout.of(None, 5).num_nodes == 5


# PyG's data


def test_data_of_one_graph() -> None:
    assert GraphLayout.from_data(graphs([4])[0]).sizes == (4,)
    assert GraphLayout.from_data(Data(x=torch.zeros(4, 1), ptr=torch.tensor([0, 1, 4]))).sizes == (
        1,
        3,
    )


def by_hand(**kwargs: object) -> Data:
    """Four nodes in two graphs, without the 'ptr' that a 'Batch' has."""
    return Data(x=torch.zeros(4, 1), batch=torch.tensor([0, 0, 1, 1]), **kwargs)


def test_data_goes_by_its_batch_vector() -> None:
    assert GraphLayout.from_data(by_hand()).sizes == (2, 2)
    # as a loader that samples neighbours leaves it
    assert GraphLayout.from_data(by_hand(batch_size=2, n_id=torch.arange(4))).sizes == (2, 2)
    # a graph without nodes at the end shows in 'ptr' only
    assert GraphLayout.from_data(by_hand(ptr=torch.tensor([0, 2, 4, 4]))).sizes == (2, 2, 0)
    int32 = Data(x=torch.zeros(3, 1), batch=torch.tensor([1, 0, 1], dtype=torch.int32))
    assert_same(GraphLayout.from_data(int32), GraphLayout.from_batch(torch.tensor([1, 0, 1])))


class OwnIncrement(Data):
    """Edges are numbered in another way than by nodes, as in a pair of graphs."""

    def __inc__(self, key: str, value: object, *args: object) -> int:
        return 100 if key == "edge_index" else super().__inc__(key, value, *args)


def test_a_batch_with_increments_of_its_own() -> None:
    items = [
        OwnIncrement(x=torch.zeros(n, 1), edge_index=torch.zeros(2, 1).long()) for n in (2, 3)
    ]
    batch = Batch.from_data_list(items)
    assert GraphLayout.from_data(batch).sizes == (2, 3)
    del batch.ptr
    assert GraphLayout.from_data(batch).sizes == (2, 3)


def test_a_subgraph_of_a_batch() -> None:
    """PyG leaves the 'ptr' of before."""
    batch = Batch.from_data_list(graphs([3, 2, 1]))
    part = batch.subgraph(torch.tensor([True, False, True, True, True, False]))
    assert GraphLayout.from_data(part).sizes == (2, 2, 0)
    assert GraphLayout.from_data(batch.subgraph(torch.tensor([0, 1]))).sizes == (2, 0, 0)


def test_nodes_in_another_order() -> None:
    batch = Batch.from_data_list(graphs([2, 1, 3]))
    order = torch.tensor([5, 0, 3, 2, 1, 4])
    batch.x, batch.batch = batch.x[order], batch.batch[order]
    layout = GraphLayout.from_data(batch)
    assert_same(layout, GraphLayout.from_batch(batch.batch))
    assert layout.order is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (by_hand(ptr=torch.tensor([0, 3, 4])), r"counts \[2, 2\] nodes.* 'data.ptr' \[3, 1\]"),
        (by_hand(ptr=torch.tensor([0, 4])), "names graph 1, but there are only 1"),
        (by_hand(num_nodes=5), "'data.batch' describes 4 nodes, but there are 5"),
        (Data(x=torch.zeros(3, 1), batch=torch.tensor([0, 0])), "describes 2 nodes, .* are 3"),
        (Data(batch=torch.zeros(2).long(), pos=torch.zeros(3, 3)), "describes 2 .* are 3"),
        (Data(x=torch.zeros(3, 1), ptr=torch.tensor([0, 2])), "'data.ptr' describes 2 .* are 3"),
        (Data(x=torch.zeros(2, 1), batch=torch.tensor([0.0, 1.0])), "must hold integers"),
    ],
)  # fmt: skip
def test_data_that_contradicts_itself_is_refused(data: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphLayout.from_data(data)


@pytest.mark.cuda
def test_no_sync_on_cuda() -> None:
    try:
        torch.cuda.set_sync_debug_mode("error")
        rode = GraphLayout.from_sizes([2, 0, 4]).pin_memory().to("cuda", non_blocking=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same(rode.to("cpu"), GraphLayout.from_sizes([2, 0, 4]))


@pytest.mark.cuda
def test_data_on_cuda_goes_by_its_batch_vector() -> None:
    batch = Batch.from_data_list(graphs([2, 0, 4])).to("cuda")
    layout = GraphLayout.from_data(batch)
    assert layout.device.type == "cuda" and layout.sizes == (2, 0, 4)


class WithLayout:
    """Collates as PyG does and adds the layout; a class, so that a worker can unpickle it."""

    def __call__(self, items: list[Data]) -> Batch:
        batch = Batch.from_data_list(items)
        batch.layout = GraphLayout.from_data(batch)
        return batch


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_layout_rides_through_a_data_loader(num_workers: int) -> None:
    data = graphs([3, 1, 0, 5, 2, 4])
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=num_workers, collate_fn=WithLayout()
    )
    sizes = []
    for batch in loader:
        assert_same(batch.layout, GraphLayout.from_batch(batch.batch, batch.num_graphs))
        # an op that is given the layout's own batch finds the layout
        assert GraphLayout.of(batch.layout.batch, batch.num_nodes) is batch.layout
        sizes += batch.layout.sizes
        x = batch.x.unsqueeze(1)
        attention(x, x, x, batch.layout)
    assert sizes == [3, 1, 0, 5, 2, 4]


def test_moving_a_batch_moves_its_layout() -> None:
    batch = WithLayout()(graphs([2, 3]))
    layout = batch.layout
    assert batch.to("cpu").layout is layout
    assert batch.to("meta").layout.device.type == "meta"
    assert batch.layout.sizes == (2, 3)


def test_a_pickle_of_when_layout_was_a_module_loads() -> None:
    layout = GraphLayout.from_sizes([2, 0, 1])
    now = pickle.dumps(layout, protocol=0)
    before = now.replace(b"cpyg_gt.layout.graph_layout\n", b"cpyg_gt.layout\n")
    assert before != now and pickle.loads(before).sizes == (2, 0, 1)


def test_pinning_a_batch_pins_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []

    def pin(tensor: torch.Tensor, *args: object) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    batch = WithLayout()(graphs([2, 3]))
    unsorted = GraphLayout.from_batch(torch.tensor([1, 0, 1]))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    before = batch.layout
    batch.pin_memory()
    for name in ("ptr", "batch"):
        assert any(tensor is getattr(before, name) for tensor in pinned)
    assert batch.layout is not before
    assert_same(batch.layout, before)
    assert_same(unsorted.pin_memory(), unsorted)


@pytest.mark.skipif(torch.cuda.is_available(), reason="pinning works where there is a GPU")
def test_pinning_without_an_accelerator_says_so() -> None:
    # torch says which it lacks: any accelerator, or, built for CUDA, NVIDIA's driver
    with pytest.raises(RuntimeError, match="accelerator|NVIDIA driver"):
        GraphLayout.from_sizes([2]).pin_memory()


# copies


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
def test_pickle_copy_and_pytree(order: str) -> None:
    numbers = [0, 0, 2, 2, 2] if order == "sorted" else [2, 0, 2, 0, 2]
    layout = GraphLayout.from_batch(torch.tensor(numbers), 4)
    layout.cached("anything", lambda: 1)
    leaves, spec = pytree.tree_flatten(layout)
    loaded = pytree.treespec_loads(pytree.treespec_dumps(spec))
    assert loaded == spec
    for other in (
        pickle.loads(pickle.dumps(layout)),
        copy.deepcopy(layout),
        copy.copy(layout),
        pytree.tree_unflatten(leaves, loaded),
        layout.to("meta") and layout.to(torch.device("cpu")),
    ):
        assert_same(other, layout)
    assert copy.deepcopy(layout).ptr.data_ptr() != layout.ptr.data_ptr()
    names = [str(key[0]) for key, _ in pytree.tree_flatten_with_path(layout)[0]]
    assert names == [".ptr", ".batch", ".order"]


def test_a_copy_does_not_take_the_place_of_its_original() -> None:
    layout = GraphLayout.from_sizes([2, 3])
    shallow = copy.copy(layout)
    assert shallow.batch is layout.batch
    assert GraphLayout.of(layout.batch, 5) is layout
    del shallow
    assert GraphLayout.of(layout.batch, 5) is layout


class Layer(torch.nn.Module):
    def forward(self, x: torch.Tensor, layout: GraphLayout) -> torch.Tensor:
        return attention(x, x, x, layout)


def test_torch_export_with_a_layout_as_input() -> None:
    layout, x = GraphLayout.from_batch(torch.tensor([1, 0, 1, 1, 0])), torch.randn(5, 2, 3)
    program = torch.export.export(Layer(), (x, layout))
    same = GraphLayout.from_batch(torch.tensor([1, 0, 1, 1, 0]))
    y = torch.randn(5, 2, 3)
    torch.testing.assert_close(program.module()(y, same), Layer()(y, same))
    file = io.BytesIO()
    torch.export.save(program, file)
    assert len(file.getvalue()) > 0


class Places(torch.nn.Module):
    def forward(self, x: torch.Tensor, layout: GraphLayout) -> torch.Tensor:
        return x + layout.pos


@pytest.mark.parametrize("numbers", [[0, 0, 1, 1, 1], [1, 0, 1, 0, 0]])
def test_traced_code_and_transforms_read_places(numbers: list[int]) -> None:
    def layout() -> GraphLayout:  # that nobody has asked before
        return GraphLayout.from_batch(torch.tensor(numbers))

    x = torch.zeros(5)
    want = [float(numbers[:i].count(g)) for i, g in enumerate(numbers)]
    compiled = torch.compile(Places(), fullgraph=True, backend="aot_eager")
    assert compiled(x, layout()).tolist() == want
    exported = torch.export.export(Places(), (x, layout())).module()
    assert exported(x, layout()).tolist() == want
    own = layout()
    assert torch.func.grad(lambda y: (y * own.pos).sum())(x).tolist() == want
    assert not torch._C._functorch.is_functorch_wrapped_tensor(own.pos)
    assert (x + own.pos).tolist() == want


class LayerOfBatch(torch.nn.Module):
    def forward(self, x: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        return attention(x, x, x, GraphLayout.of(batch, x.size(0)))


def test_torch_export_with_a_batch_vector_of_any_length() -> None:
    n = torch.export.Dim("n", min=2)
    given = (torch.randn(5, 2, 3), torch.tensor([0, 0, 1, 1, 1]))
    program = torch.export.export(LayerOfBatch(), given, dynamic_shapes=({0: n}, {0: n}))
    for numbers in ([0, 0, 1], [2, 0, 2, 0, 1, 1, 1]):
        x, batch = torch.randn(len(numbers), 2, 3), torch.tensor(numbers)
        torch.testing.assert_close(program.module()(x, batch), LayerOfBatch()(x, batch))


# what is remembered


def test_the_same_tensor_gives_the_same_layout() -> None:
    batch = torch.tensor([0, 0, 1])
    layout = GraphLayout.of(batch, 3)
    assert GraphLayout.of(batch, 3) is layout
    assert GraphLayout.of(batch, 3, num_graphs=2) is layout
    assert GraphLayout.of(layout, 3) is layout
    assert GraphLayout.of(layout.batch, 3) is layout
    assert_same(GraphLayout.of(batch.clone(), 3), layout)
    assert layout.batch.data_ptr() != batch.data_ptr()


@pytest.mark.parametrize(
    "edit",
    [
        lambda batch: batch.__setitem__(0, 1),
        lambda batch: batch.add_(1),
        lambda batch: batch.copy_(torch.tensor([1, 1, 0])),
        lambda batch: batch[1:].fill_(2),
        lambda batch: batch.detach().fill_(1),
        lambda batch: batch.data.fill_(1),
        lambda batch: batch.numpy().fill(1),
    ],
)
def test_an_edit_is_seen(edit: object) -> None:
    batch = torch.tensor([0, 0, 1])
    old = GraphLayout.of(batch, 3)
    own = old.batch
    edit(batch)  # type: ignore[operator]
    new = GraphLayout.of(batch, 3)
    assert new is not old
    assert_same(new, GraphLayout.from_batch(batch.clone()))
    # the old one means what it meant
    assert old.batch is own and GraphLayout.of(own, 3) is old
    assert_same(old, GraphLayout.from_batch(torch.tensor([0, 0, 1])))


def test_a_resized_batch_is_seen() -> None:
    batch = torch.tensor([0, 0, 1])
    GraphLayout.of(batch, 3)
    batch.resize_(2)
    assert GraphLayout.of(batch, 2).sizes == (2,)


def test_another_number_of_graphs_is_another_layout() -> None:
    batch = torch.tensor([0, 0, 1])
    assert GraphLayout.of(batch, 3).num_graphs == 2
    four = GraphLayout.of(batch, 3, num_graphs=4)
    assert four.num_graphs == 4
    assert GraphLayout.of(batch, 3, num_graphs=4) is four
    layout = GraphLayout.from_sizes([2, 1])
    five = GraphLayout.of(layout.batch, 3, num_graphs=5)
    assert five.num_graphs == 5 and GraphLayout.of(layout.batch, 3, num_graphs=5) is five
    assert GraphLayout.of(layout.batch, 3, num_graphs=2) is layout


def test_the_batch_of_a_dead_layout_is_cached_again() -> None:
    batch = GraphLayout.from_sizes([2, 3]).batch
    gc.collect()
    layout = GraphLayout.of(batch, 5)
    assert GraphLayout.of(batch, 5) is layout


CACHES = [
    cache
    for holder in (
        graph_layout._LAYOUTS, edge_layout._LAYOUTS, index_checks, flex, launches, path_rows
    )
    for cache in vars(holder).values() if isinstance(cache, IdentityCache)
]  # fmt: skip


def test_all_caches_are_watched() -> None:
    found = {id(x) for x in gc.get_objects() if type(x) is IdentityCache}
    assert {id(cache) for cache in CACHES} == found
    assert len(CACHES) == 8


@pytest.mark.parametrize("view", [False, True])
def test_a_thousand_batches_leave_nothing_behind(view: bool) -> None:
    """Without the garbage collector: nothing may hang in a cycle either."""
    gc.collect()
    before = [len(cache) for cache in CACHES]
    along_paths = EdgePathBias(1, 1, 1)
    alive: list[weakref.ref] = []
    most = 0
    gc.disable()
    try:
        for step in range(1000):
            batch = torch.randint(3, (10,))
            edges = torch.arange(10).expand(2, -1).contiguous()
            x = torch.randn(10, 1, 2, requires_grad=True)
            for _ in range(2):  # two layers
                given = batch[:] if view else batch
                layout = GraphLayout.of(given, 10, num_graphs=3)
                index = torch.zeros(layout.num_pairs, dtype=torch.int64)
                narrow = index.to(torch.uint8)
                assert flex._int32(narrow) is flex._int32(narrow)
                paths = index.view(-1, 1) - 1
                biases = (
                    pyg_gt.TableBias(x[:1, 0, :1].clone(), index),
                    along_paths(paths, x[:, 0, :1], edges, layout),
                    pyg_gt.EdgeMask(edges[:, :] if view else edges),
                )
                if step % 5 == 0:
                    attention(x, x, x, layout, biases).sum().backward()
            alive.append(weakref.ref(layout))
            if step % 100 == 0:
                most = max(most, sum(ref() is not None for ref in alive))
        del batch, edges, given, layout, index, narrow, paths, biases
    finally:
        gc.enable()
    assert most == 1
    assert sum(ref() is not None for ref in alive) == 0
    assert [len(cache) for cache in CACHES] == before


def test_what_a_layout_made_for_another_goes_with_it() -> None:
    """The layout of latents stays, those of the nodes come and go."""
    latents = GraphLayout.from_sizes([2, 2])
    q = torch.randn(4, 1, 2)
    for n in range(1, 60):
        nodes = GraphLayout.from_sizes([n, 3])
        x = torch.randn(n + 3, 1, 2)
        attention(q, x, x, nodes, query_layout=latents)
    assert len(latents._cache) == 1


def test_a_cached_value_is_made_once() -> None:
    layout, calls = GraphLayout.from_sizes([2]), []
    for key in ("a", "a", ("b", 1), ("b", 1)):
        layout.cached(key, lambda key=key: calls.append(key))
    assert calls == ["a", ("b", 1)]


def test_a_key_that_takes_a_dead_ones_address() -> None:
    cache: IdentityCache[int] = IdentityCache()
    for i in range(200):
        key = torch.tensor([i])
        assert cache.get(key, None, lambda _: True) is None
        cache.put(key, i)
        assert cache.get(key, None, lambda _: True) == i and len(cache) == 1
        del key
    assert len(cache) == 0


def test_inference_tensors_are_found_by_their_numbers() -> None:
    with torch.inference_mode():
        batch = torch.tensor([0, 0, 1])
        first = GraphLayout.of(batch, 3)
        assert GraphLayout.of(batch, 3) is first  # and not made anew in each layer
        batch[0] = 1
        assert GraphLayout.of(batch, 3).sizes == (1, 2)
    assert not first.batch.is_inference() and not first.pos.is_inference()


# traced code


@pytest.mark.parametrize("batch", [None, torch.tensor([0, 0, 1], device="meta")])
def test_tensors_without_values_give_a_deferred_layout(batch: torch.Tensor | None) -> None:
    layout = GraphLayout.of(batch, 3, device="meta")
    assert isinstance(layout, DeferredLayout)
    assert (layout.num_nodes, layout.num_graphs) == (3, 1 if batch is None else -1)
    assert GraphLayout.of(GraphLayout.from_sizes([3]).to("meta"), 3).num_graphs == 1


def test_a_deferred_layout_is_found_when_its_code_runs() -> None:
    batch = torch.tensor([0, 0, 1])
    layout = GraphLayout.of(batch, 3)
    assert GraphLayout.of(DeferredLayout(batch, 3, -1), 3) is layout
    assert GraphLayout.of(DeferredLayout(batch, 3, 4), 3).num_graphs == 4


# bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphLayout.from_sizes([2, -1]), "at least 0 .got .2, -1"),
        (lambda: GraphLayout.from_sizes([2, 1.5]), "integers of at least 0 .got .2, 1.5"),
        (lambda: GraphLayout.from_sizes(torch.tensor([1.0])), "'sizes' must hold integers"),
        (lambda: GraphLayout.from_sizes([2**70]), "'sizes' must hold integers"),
        (lambda: GraphLayout.from_sizes([2**61, 2**61]), "more nodes than a machine can hold"),
        (lambda: GraphLayout.from_ptr(torch.tensor([0, 2**50])), "more nodes than a machine"),
        (lambda: GraphLayout.from_sizes("x"), "'sizes' must hold integers"),
        (lambda: GraphLayout.from_sizes(None), "'sizes' must hold integers"),
        (lambda: GraphLayout.from_sizes([1], device=[]), "'device' must name a device"),
        (lambda: GraphLayout.from_batch(torch.tensor([0]), "x"), "'num_graphs' must be a whole"),
        (lambda: GraphLayout.from_batch(torch.zeros(2).long().to_sparse()), "dense tensor"),
        (lambda: GraphLayout.from_batch(torch.zeros(2, device="meta").long()), "no values"),
        (lambda: GraphLayout.from_sizes(torch.tensor([[1]])), "'sizes' must be a vector"),
        (lambda: GraphLayout.from_ptr(torch.tensor([0, 3, 2])), "never fall .got .0, 3, 2"),
        (lambda: GraphLayout.from_ptr(torch.tensor([1, 3])), "must begin at 0"),
        (lambda: GraphLayout.from_ptr(torch.tensor([]).long()), "at least one element"),
        (lambda: GraphLayout.from_ptr(torch.tensor([0.0, 3.0])), "'ptr' must hold integers"),
        (lambda: GraphLayout.from_ptr([0, 3]), "'ptr' must be a tensor .got 'list'"),
        (lambda: GraphLayout.from_ptr(torch.tensor([0, 3]), [0]), "1 numbers, 'ptr' has 2"),
        (lambda: GraphLayout.from_ptr(torch.arange(30).flip(0)), "and more"),
        (lambda: GraphLayout.from_batch(torch.tensor([0, -1])), "negative numbers .got -1"),
        (lambda: GraphLayout.from_batch(torch.tensor([0.0])), r"float32.*'\.long\(\)'"),
        (lambda: GraphLayout.from_batch(torch.tensor([True])), "must hold integers"),
        (lambda: GraphLayout.from_batch(torch.tensor([[0]])), "vector .got shape .1, 1"),
        (lambda: GraphLayout.from_batch(torch.tensor([0, 3]), 3), "graph 3.*only 3 .*larger"),
        (lambda: GraphLayout.of(torch.tensor([0, 0]), 3), "'batch' describes 2 nodes, .* are 3"),
        (lambda: GraphLayout.of(GraphLayout.from_sizes([2]), 3), "'layout' describes 2"),
        (lambda: GraphLayout.of([0, 0], 2), "'batch' must be a tensor .got 'list'"),
        (lambda: GraphLayout.of(torch.tensor([0.0]), 1), "'batch' must hold integers"),
        (lambda: GraphLayout.from_data(HeteroData()), "got 'HeteroData'"),
        (lambda: GraphLayout.from_data([1, 2]), "got 'list'"),
        (lambda: GraphLayout.from_sizes([2]).to(torch.float32), "int64"),
        (
            lambda: GraphLayout.from_ptr(torch.tensor([0, 3]), [0, 2]),
            "numbers of 'ptr' .got .0, 2",
        ),
        (lambda: GraphLayout.from_batch(torch.tensor([0, 10**9])), "1000000001 graphs.*unique"),
        (lambda: GraphLayout.from_batch(torch.tensor([0, 2**62])), "graphs.*unique"),
        (
            lambda: GraphLayout.from_batch(torch.tensor([10**9, 0]), 10**12),
            "2 nodes in 1000000000000",
        ),
        (lambda: GraphLayout.of(torch.tensor([0, 10**9]), 2), "1000000001 graphs"),
    ],
)
def test_bad_input_is_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_batch_that_is_mapped_over_is_named() -> None:
    numbers = torch.tensor([[0, 0, 1], [0, 1, 1]])
    with pytest.raises(ValueError, match=r"'batch' cannot be mapped over by 'torch\.vmap'"):
        torch.vmap(lambda batch: GraphLayout.of(batch, 3).ptr)(numbers)


def test_a_batch_that_lost_its_graphs_names_the_cure() -> None:
    batch = Batch.from_data_list(graphs([2, 3]))
    del batch.batch, batch.ptr
    with pytest.raises(ValueError, match="GraphLayout.from_sizes"):
        GraphLayout.from_data(batch)
    with pytest.raises(ValueError, match="without values .meta"):
        GraphLayout.from_data(Batch.from_data_list(graphs([2, 3])).to("meta"))


def test_a_pyg_loader_needs_nothing_else() -> None:
    for batch in DataLoader(graphs([2, 3, 4, 1]), batch_size=2):
        layout = GraphLayout.from_data(batch)
        assert_same(layout, GraphLayout.from_batch(batch.batch))
