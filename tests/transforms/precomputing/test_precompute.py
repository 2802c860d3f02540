"""Encodings in bulk: the same as one by one, in any number of processes."""

import copy
import gc
import time
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

import networkx as nx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from threadpoolctl import threadpool_info, threadpool_limits
from torch_geometric.data import Batch, Data, InMemoryDataset

from pyg_gt.datasets import LongRange
from pyg_gt.transforms import (
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    EncodeAndCollate,
    PrecomputedDataset,
    precompute,
)
from pyg_gt.transforms.graph_encoding import GraphEncoding
from pyg_gt.transforms.graphs.attributes import Attribute
from pyg_gt.transforms.graphs.graphs import Graphs
from pyg_gt.transforms.precomputing import chunks
from pyg_gt.transforms.spectra import spectrum, symmetric
from pyg_gt.transforms.walks import return_probabilities
from tests.transforms.samples import ReadAnew, as_data

BOTH = [AddLaplacianEigenvectorPE(5), AddRandomWalkPE(7)]


def zoo() -> list[Data]:
    graphs = [as_data(nx.gnp_random_graph(n, 2.5 / n, seed=n)) for n in range(1, 40)]
    graphs += [as_data(nx.random_labeled_tree(n, seed=n)) for n in (2, 9, 9, 70, 90, 130)]
    graphs += [as_data(nx.gn_graph(12, seed=0)), as_data(nx.empty_graph(0))]
    graphs += [Data(num_nodes=4), as_data(nx.grid_2d_graph(20, 20))]
    loops = as_data(nx.complete_graph(6))
    loops.edge_index = torch.cat([loops.edge_index, torch.tensor([[0, 3], [0, 3]])], 1)
    loops.edge_weight = torch.rand(loops.num_edges)
    return [*graphs, loops]


def assert_same(got: Data, expected: Data) -> None:
    assert sorted(got.keys()) == sorted(expected.keys())
    for key, value in expected.to_dict().items():
        if not isinstance(value, torch.Tensor):
            assert got[key] == value
        elif value.is_floating_point() and "eigenvector_pe" in key:
            assert got[key].dtype == value.dtype
            assert_same_subspaces(got, expected, key) if key.endswith("pe") else None
        else:
            assert got[key].dtype == value.dtype and got[key].shape == value.shape
            torch.testing.assert_close(got[key], value, rtol=0, atol=1e-6)


def assert_same_subspaces(got: Data, expected: Data, key: str) -> None:
    """Compares what does not depend on a basis: sums of squares over equal eigenvalues."""
    a, b, values = got[key].double(), expected[key].double(), expected[f"{key}_values"].double()
    torch.testing.assert_close(got[f"{key}_values"].double(), values, rtol=0, atol=1e-6)
    equal = (values[:, :, None] - values[:, None, :]).abs() < 1e-4
    last = equal[:, :, -1]  # an eigenspace that the last column cuts through
    for x in (a, b):
        x[last] = 0
    torch.testing.assert_close(
        (equal * (a**2)[:, None]).sum(-1), (equal * (b**2)[:, None]).sum(-1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("limit", [1, 100, 2**15])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_bulk_is_one_by_one(num_workers: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_NODES", limit)
    graphs = zoo()
    before = copy.deepcopy(graphs)
    got = precompute(graphs, BOTH, num_workers=num_workers, progress=False)
    assert isinstance(got, list) and len(got) == len(graphs)
    one_by_one = T.Compose(BOTH)
    for out, data, old in zip(got, graphs, before, strict=True):
        assert_same(out, one_by_one(data))
        assert sorted(data.keys()) == sorted(old.keys())


def test_shared_spectrum_gives_what_powers_give() -> None:
    graphs = zoo()
    for order in (BOTH, BOTH[::-1]):
        shared = precompute(graphs, order, progress=False)
        alone = precompute(graphs, BOTH[1], progress=False)
        for a, b in zip(shared, alone, strict=True):
            torch.testing.assert_close(a.random_walk_pe, b.random_walk_pe, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bits_do_not_depend_on_companions(num_workers: int) -> None:
    graphs = [*zoo(), *(as_data(nx.random_labeled_tree(30, seed=seed)) for seed in range(9))]
    together = precompute(graphs, BOTH, num_workers=num_workers, progress=False)
    for graph, a in zip(graphs, together, strict=True):
        (b,) = precompute([graph], BOTH, progress=False)
        for name in ("", "_values", "_mask"):
            name = f"laplacian_eigenvector_pe{name}"
            assert torch.equal(a[name], b[name])


def test_lapack_gives_what_compiled_code_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = zoo()
    compiled = precompute(graphs, BOTH, progress=False)
    without = SimpleNamespace(why_not=lambda: "switched off")
    for module in (symmetric, return_probabilities):
        monkeypatch.setattr(module, "COMPILED", without)
    for a, b in zip(compiled, precompute(graphs, BOTH, progress=False), strict=True):
        for name in ("random_walk_pe", "laplacian_eigenvector_pe_values"):
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-6)
        assert torch.equal(a.laplacian_eigenvector_pe_mask, b.laplacian_eigenvector_pe_mask)


def test_one_decomposition_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    solve = spectrum.symmetric_eigenpairs

    def counted(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shapes.append(matrices.shape)
        return solve(matrices)

    monkeypatch.setattr(spectrum, "symmetric_eigenpairs", counted)
    graphs = [as_data(nx.cycle_graph(n)) for n in (9, 12, 9, 12, 9)]
    encode = [
        AddRandomWalkPE(7),
        AddLaplacianEigenvectorPE(5),
        AddLaplacianEigenvectorPE(3, "rw_pe", normalization="rw"),
    ]
    precompute(graphs, encode, progress=False)
    assert sorted(shapes) == [(2, 12, 12), (3, 9, 9)]


def test_compose_list_and_single() -> None:
    graphs = zoo()[5:9]
    for transform in (T.Compose(BOTH), BOTH, tuple(BOTH), [T.Compose(BOTH[:1]), BOTH[1]]):
        for out in precompute(graphs, transform, progress=False):
            assert "random_walk_pe" in out and "laplacian_eigenvector_pe_mask" in out
    (out,) = precompute(graphs[:1], BOTH[1], progress=False)
    assert "laplacian_eigenvector_pe" not in out
    assert precompute([], BOTH, progress=False) == []


def test_appended_to_x_in_the_order_of_the_transforms() -> None:
    data = as_data(nx.path_graph(5), x=torch.arange(5.0).view(-1, 1))
    encode = [AddRandomWalkPE(3, None), AddLaplacianEigenvectorPE(2, None)]
    (out,) = precompute([data], encode, progress=False)
    torch.testing.assert_close(out.x, T.Compose(encode)(data).x, rtol=0, atol=1e-6)
    assert out.x.shape == (5, 6)


@pytest.mark.parametrize("cached", [False, True])
def test_dataset_in_dataset_out(
    cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 50)
    graphs = zoo()
    where = tmp_path if cached else None
    out = precompute(ReadAnew(graphs), BOTH, progress=False, cache_dir=where)
    assert isinstance(out, PrecomputedDataset) and len(out) == len(graphs)
    expected = precompute(graphs, BOTH, progress=False)
    for got, data in zip(out, expected, strict=True):
        assert_same(got, data)
    assert_same(out[-1], expected[-1])
    part = out[torch.tensor([7, 3])]
    assert len(part) == 2 and part[1].num_nodes == graphs[3].num_nodes
    assert_same(out[2:20:3][1], expected[5])
    assert out.get_idx_split() == {"train": [0, 1]}
    with pytest.raises(AttributeError, match="no_such_thing"):
        out.no_such_thing  # noqa: B018
    assert "AddRandomWalkPE(walk_length=7" in repr(out)


def test_dataset_keeps_its_classes_and_its_transform() -> None:
    rings = LongRange(12, sizes=(12, 24))
    out = precompute(rings, BOTH[0], progress=False)
    assert out.num_classes == rings.num_classes and out.num_node_features == 5
    assert list(out.get_idx_split()) == ["train", "valid", "test"]
    out.transform = T.Constant(7.0)
    assert float(out[3].x[0, -1]) == 7


def test_subset_of_a_dataset() -> None:
    rings: InMemoryDataset = LongRange(12, sizes=(12, 24))[[5, 2, 9]]
    out = precompute(rings, BOTH[0], progress=False)
    for got, data in zip(out, rings, strict=True):
        assert torch.equal(got.edge_index, data.edge_index)
        assert got.laplacian_eigenvector_pe.size(0) == data.num_nodes


def test_graphs_that_change_are_an_error() -> None:
    dataset = ReadAnew([as_data(nx.path_graph(n)) for n in (3, 4, 5)])
    out = precompute(dataset, BOTH[1], progress=False)
    dataset.graphs[1] = as_data(nx.path_graph(9))
    with pytest.raises(ValueError, match="graph 1 has 9 nodes, and 4 when it was encoded"):
        out[1]


def test_workers_are_used_and_report_errors() -> None:
    with pytest.raises(IndexError, match="edge_index holds node 7"):
        bad = Data(edge_index=torch.tensor([[0], [7]]), num_nodes=3)
        precompute([as_data(nx.path_graph(3)), bad], BOTH, num_workers=1, progress=False)


class SlowFirst(GraphEncoding):
    """Ends with the first graph once the last one, of four nodes, has been encoded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, graphs: Graphs) -> list[Attribute]:
        n, done = graphs.num_nodes, self.folder / "done"
        end = time.monotonic() + 300
        while n == 2 and not done.exists():
            assert time.monotonic() < end, "the first chunk kept the others waiting"
            time.sleep(0.01)
        if n == 4:
            done.touch()
        return [Attribute("sizes", np.full(n, n), graphs.ptr)]


def test_a_slow_chunk_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More chunks than are handed out ahead; the results come in the order of the graphs."""
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 1)
    sizes = [2, *[3] * 12, 4]
    graphs = [as_data(nx.path_graph(n)) for n in sizes]
    out = precompute(graphs, SlowFirst(tmp_path), num_workers=2, progress=False)
    assert [data.sizes.tolist() for data in out] == [[n] * n for n in sizes]


@pytest.mark.parametrize("frozen", [False, True])
def test_the_garbage_collector_is_left_as_it_was(frozen: bool) -> None:
    graphs = [as_data(nx.path_graph(n)) for n in range(2, 400)]
    gc.collect()
    if frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    try:
        assert (before > 2000) == frozen and gc.isenabled()
        collections = sum(each["collections"] for each in gc.get_stats())
        out = precompute(graphs, BOTH[1], progress=False)
        assert gc.isenabled() and gc.get_freeze_count() == (before if frozen else 0)
        assert frozen or sum(each["collections"] for each in gc.get_stats()) == collections
        gc.disable()
        precompute(graphs[:1], BOTH[1], progress=False)
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
    lost = ref(out[0])
    loop = [out[0]]
    loop.append(loop)  # type: ignore[arg-type]
    del out, loop
    gc.collect()
    assert lost() is None  # what was there then is still collected


@pytest.mark.parametrize(
    ("data", "transform", "message"),
    [
        (as_data(nx.path_graph(3)), BOTH, "calling the transform"),
        ([as_data(nx.path_graph(3))], T.Compose([T.AddSelfLoops()]), "AddSelfLoops"),
        ([as_data(nx.path_graph(3))], [], "at least one"),
        ([as_data(nx.path_graph(3))], lambda data: data, "expected transforms of pyg_gt"),
        ([as_data(nx.path_graph(3))], [BOTH[1], BOTH[1]], "'random_walk_pe' more than once"),
        ([Batch.from_data_list([as_data(nx.path_graph(3))])], BOTH, "to_data_list"),
        (["graph"], BOTH, "expected a torch_geometric.data.Data"),
        ({1, 2}, BOTH, "expected a list of graphs or a dataset, got set"),
    ],
)
def test_bad_input(data: object, transform: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        precompute(data, transform, progress=False)  # type: ignore[arg-type]


def test_encode_and_collate() -> None:
    graphs = [data for data in zoo() if "edge_index" in data and "edge_weight" not in data]
    collate = EncodeAndCollate(BOTH, follow_batch=["random_walk_pe"])
    loader = torch.utils.data.DataLoader(graphs, batch_size=9, collate_fn=collate, num_workers=1)
    expected = precompute(graphs, BOTH, progress=False)
    seen = 0
    for batch in loader:
        assert batch.random_walk_pe_ptr.equal(batch.ptr)
        for got, data in zip(batch.to_data_list(), expected[seen:], strict=False):
            assert_same(got, data)
        seen += batch.num_graphs
    assert seen == len(graphs)
    assert "AddRandomWalkPE" in repr(collate)
    with pytest.raises(ValueError, match="at least one graph"):
        collate([])


def test_every_encoding_shows_its_arguments_in_its_repr() -> None:
    import inspect

    from pyg_gt import transforms

    found = [x for x in vars(transforms).values() if inspect.isclass(x)]
    found = [x for x in found if issubclass(x, GraphEncoding)]
    assert {AddLaplacianEigenvectorPE, AddRandomWalkPE} <= set(found)
    for encoding in found:
        assert encoding.__repr__ is GraphEncoding.__repr__
        for name, parameter in inspect.signature(encoding).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert f"{name}=" in repr(example(encoding)), (encoding, name)


def example(encoding: type[GraphEncoding]) -> GraphEncoding:
    import inspect

    values = {"k": 3, "walk_length": 3, "max_distance": 3, "times": (1.0, 2.0), "degree": 3}
    needed = [
        name
        for name, parameter in inspect.signature(encoding).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    return encoding(*(values[name] for name in needed))


def test_small_matrices_take_one_thread() -> None:
    """Threads are slower on small matrices, and far slower when all processors are busy."""

    def threads() -> set[int]:
        blas = [each for each in threadpool_info() if each["user_api"] == "blas"]
        return {each["num_threads"] for each in blas}

    seen: list[set[int]] = []

    class Look(GraphEncoding):
        def encode(self, graphs: Graphs) -> list[Attribute]:
            seen.append(threads())
            return []

    with threadpool_limits(2, user_api="blas"):
        small, large = as_data(nx.path_graph(9)), as_data(nx.path_graph(600))
        Look()(small)
        precompute([small, small], Look(), progress=False)
        Look()(large)
        assert threads() == {2}
    assert seen == [{1}, {1}, {2}]
