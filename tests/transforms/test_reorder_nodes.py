"""Nodes in another order: known orders and dense counts as oracle, and nothing else changes."""

import copy
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from scipy.spatial import cKDTree
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.datasets import HeterophilousGraphDataset, Planetoid
from torch_geometric.loader import DataLoader

from pyg_gt import EdgeMask, GraphLayout, TableBias, attention
from pyg_gt.nn import MaskedTransformerConv
from pyg_gt.transforms import (
    AddKHopEdges,
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddShortestPathDistance,
    ReorderNodes,
    block_density,
)

ORDER = "node_order_index"
EMPTY = torch.empty(2, 0, dtype=torch.long)


def shuffled(graph: nx.Graph, seed: int = 0) -> Data:
    """The edges both ways where it is undirected, between nodes in random order."""
    graph = nx.to_directed(nx.convert_node_labels_to_integers(graph))
    to = np.random.default_rng(seed).permutation(graph.number_of_nodes())
    edges = to[np.array(graph.edges).reshape(-1, 2)]
    return Data(edge_index=torch.from_numpy(edges).t().contiguous(), num_nodes=len(to))


def random_data(n: int, seed: int = 0, edges_per_node: float = 3.3) -> Data:
    """Directed, weighted, with loops, repeats and isolated nodes, and something on everything."""
    random = torch.Generator().manual_seed(seed)
    E = int(edges_per_node * n)
    edges = torch.randint(0, max(n - n // 4, 1), (2, E), generator=random)
    return Data(
        x=torch.randn(n, 5, generator=random),
        edge_index=edges,
        edge_attr=torch.randn(E, 4, generator=random),
        edge_weight=torch.randint(0, 3, (E,), generator=random).float(),
        y=torch.arange(n),
    )


def bandwidth(edge_index: Tensor) -> int:
    return int((edge_index[0] - edge_index[1]).abs().max())


def dense_density(edge_index: Tensor, n: int, size: int) -> tuple[int, int, float, float]:
    """The same figures by cutting up the dense matrix."""
    dense = np.zeros((n, n), dtype=bool)
    dense[edge_index[1].numpy(), edge_index[0].numpy()] = True
    blocks = [
        dense[i : i + size, j : j + size] for i in range(0, n, size) for j in range(0, n, size)
    ]
    visited = [block for block in blocks if block.any()]
    pairs = sum(block.size for block in visited)
    return (
        len(visited),
        len(blocks),
        dense.sum() / max(len(visited), 1),
        dense.sum() / max(pairs, 1),
    )


@pytest.mark.parametrize("size", [1, 3, 8, 64])
@pytest.mark.parametrize("n", [1, 8, 41])
def test_density_is_that_of_the_dense_matrix(n: int, size: int) -> None:
    edges = random_data(n).edge_index
    assert block_density(edges, n, size) == pytest.approx(dense_density(edges, n, size))
    assert block_density(edges.int(), n, size) == block_density(edges, n, size)


def test_density_of_a_complete_graph_is_one() -> None:
    edges = torch.cartesian_prod(torch.arange(10), torch.arange(10)).t()
    assert block_density(edges, 10, 4) == (9, 9, 100 / 9, 1.0)


@pytest.mark.parametrize("n, blocks", [(0, 0), (1, 1), (5, 9)])
def test_density_without_edges(n: int, blocks: int) -> None:
    assert block_density(EMPTY, n, 2) == (0, blocks, 0.0, 0.0)


def test_bad_arguments_of_density() -> None:
    for edges in (torch.zeros(3, dtype=torch.long), [[0], [1]], torch.zeros(3, 2)):
        with pytest.raises(ValueError, match=r"edge_index as a tensor \[2, E\]"):
            block_density(edges, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"whole numbers, got torch.float32; convert it"):
        block_density(torch.zeros(2, 3), 4)
    with pytest.raises(ValueError, match="block_size=0; expected at least 1"):
        block_density(EMPTY, 4, 0)
    with pytest.raises(ValueError, match="num_nodes=-1; expected at least 0"):
        block_density(EMPTY, -1)
    for bad in (4, -1):
        with pytest.raises(IndexError, match=f"nodes .*{bad}.*num_nodes=4"):
            block_density(torch.tensor([[0, bad], [1, 2]]), 4)


@pytest.mark.parametrize(
    "graph, known",
    [
        (nx.path_graph(100), 1),
        (nx.cycle_graph(100), 2),
        (nx.grid_2d_graph(5, 40), 6),  # 5 can be had, the method is no search
        (nx.disjoint_union_all([nx.path_graph(30)] * 4), 1),
        (nx.disjoint_union(nx.empty_graph(20), nx.path_graph(5)), 1),
    ],
    ids=["path", "cycle", "grid", "paths", "isolated"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_bandwidth_falls_to_that_of_the_known_order(
    graph: nx.Graph, known: int, seed: int
) -> None:
    data = shuffled(graph, seed)
    assert bandwidth(data.edge_index) >= 2 * known
    assert bandwidth(ReorderNodes()(data).edge_index) <= known


def test_direction_repeats_loops_and_weights_do_not_matter() -> None:
    data = shuffled(nx.grid_2d_graph(6, 9))
    source, target = data.edge_index
    one_way = data.edge_index[:, source < target]
    more = torch.cat([one_way, one_way, torch.arange(54).repeat(2, 1)], dim=1)
    order = ReorderNodes()(data)[ORDER]
    for edges in (one_way, one_way.flip(0), more, one_way.int()):
        weight = torch.zeros(edges.size(1))
        other = Data(edge_index=edges, edge_weight=weight, num_nodes=54)
        assert torch.equal(ReorderNodes()(other)[ORDER], order)


def test_report_is_the_density_before_and_after_and_changes_nothing() -> None:
    data = shuffled(nx.grid_2d_graph(8, 60))
    given = copy.deepcopy(data)
    before, after = ReorderNodes(block_size=32).report(data)
    edges = ReorderNodes(block_size=32)(data).edge_index
    assert before == pytest.approx(dense_density(given.edge_index, 480, 32))
    assert after == pytest.approx(dense_density(edges, 480, 32))
    assert after.visited < before.visited / 4 and after.density > 4 * before.density
    assert data.keys() == given.keys() and torch.equal(data.edge_index, given.edge_index)


def test_what_data_it_was_given_stays_as_it_was() -> None:
    data = random_data(30)
    given = copy.deepcopy(data)
    ReorderNodes()(data)
    assert data.keys() == given.keys()
    assert all(torch.equal(data[name], given[name]) for name in given.keys())


@pytest.mark.parametrize("n", [1, 2, 9, 60])
def test_the_same_graph_by_other_numbers(n: int) -> None:
    data = random_data(n)
    data.train_mask = data.y % 3 == 0
    data.names = [f"node {i}" for i in range(n)]
    data.array = np.arange(n, dtype=np.float32)
    data.graph_label, data.title = torch.tensor([[1.0, 2.0, 3.0]]), "a graph"
    data.train_index = torch.arange(0, n, 2)
    data.root_index, data.cluster_batch = n - 1, torch.arange(n)
    data.face = torch.arange(15).view(3, 5) % n
    out = ReorderNodes()(data)
    order = out[ORDER]
    assert torch.equal(order.sort().values, torch.arange(n))
    for name in ("x", "y", "train_mask", "cluster_batch"):
        assert torch.equal(out[name], data[name][order])
    assert out.names == [f"node {i}" for i in order.tolist()]
    assert np.array_equal(out.array, order.numpy().astype(np.float32))
    assert out.array.dtype == np.float32
    for name in ("edge_index", "train_index", "face"):
        assert torch.equal(order[out[name]], data[name])
    assert order[out.root_index] == n - 1
    for name in ("edge_attr", "edge_weight", "graph_label"):
        assert torch.equal(out[name], data[name])
    assert out.title == "a graph" and out.num_nodes == n
    back = order.argsort()
    assert torch.equal(out.x[back], data.x)


def test_no_edge_and_no_node() -> None:
    for n in (0, 1, 4):
        for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
            out = ReorderNodes()(data)
            assert torch.equal(out[ORDER].sort().values, torch.arange(n))
            assert ReorderNodes().report(data).after.visited == 0


def test_twice_remembers_the_first_order() -> None:
    data = random_data(40)
    out = ReorderNodes()(ReorderNodes()(data))
    assert torch.equal(out.x[out[ORDER].argsort()], data.x)
    assert torch.equal(out[ORDER][out.edge_index], data.edge_index)


@pytest.mark.parametrize("n", [2, 30])
def test_encodings_of_the_reordered_graph_are_the_reordered_encodings(n: int) -> None:
    encode = T.Compose(
        [AddRandomWalkPE(7), AddLaplacianEigenvectorPE(3), AddKHopEdges(2),
         AddShortestPathDistance(5)]
    )  # fmt: skip
    names = ["random_walk_pe", "laplacian_eigenvector_pe_values", "laplacian_eigenvector_pe_mask"]
    data = random_data(n)
    first = ReorderNodes(node_attrs=["y", "laplacian_eigenvector_pe", *names])(encode(data))
    then = encode(ReorderNodes()(data))
    for name in names:
        torch.testing.assert_close(first[name], then[name], atol=1e-5, rtol=1e-4)
    assert torch.equal(first.pair_distance, then.pair_distance)
    hops = [dict(zip(zip(*each.k_hop_edge_index.tolist(), strict=True), each.k_hop_distance,
                     strict=True)) for each in (first, then)]  # fmt: skip
    assert hops[0] == hops[1]


def layer() -> MaskedTransformerConv:
    torch.manual_seed(0)
    return MaskedTransformerConv(5, 8, heads=2, edge_dim=4).double()


def run(data: Data) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Output of an untrained layer, and gradients of a loss that tells nodes apart."""
    conv, x = layer(), data.x.double().requires_grad_()
    edge_attr = data.edge_attr.double().requires_grad_()
    out = conv(x, data.edge_index, edge_attr)
    weight = torch.sin(data.y.double() + 1)[:, None]
    gradients = torch.autograd.grad((out * weight).sum(), [x, edge_attr, *conv.parameters()])
    return out, gradients[0], gradients[1], list(gradients[2:])


@pytest.mark.parametrize("n", [1, 12, 50])
def test_attention_on_reordered_nodes_put_back_is_the_same_with_gradients(n: int) -> None:
    data = random_data(n)
    moved = ReorderNodes()(data)
    back = moved[ORDER].argsort()
    out, grad_x, grad_edge, grads = run(data)
    out_m, grad_x_m, grad_edge_m, grads_m = run(moved)
    torch.testing.assert_close(out_m[back], out)
    torch.testing.assert_close(grad_x_m[back], grad_x)
    torch.testing.assert_close(grad_edge_m, grad_edge)
    torch.testing.assert_close(grads_m, grads)


def test_attention_with_a_bias_of_pairs_is_the_same_put_back() -> None:
    graphs = [AddShortestPathDistance(4)(random_data(n, n)) for n in (7, 1, 12)]
    batch = Batch.from_data_list(graphs)
    table = torch.randn(8, 1, dtype=torch.float64)

    def attend(batch: Batch) -> Tensor:
        layout = GraphLayout.of(batch.batch, batch.num_nodes)
        x = batch.x.double()[:, None]  # [N, H, C]
        biases = (TableBias(table, batch.pair_distance), EdgeMask(batch.edge_index))
        return attention(x, x.cos(), x.sin(), layout, biases)

    moved = ReorderNodes()(batch)
    assert not torch.equal(moved[ORDER], torch.arange(20))
    assert moved.batch is batch.batch  # layouts are found by it
    torch.testing.assert_close(attend(moved)[moved[ORDER].argsort()], attend(batch))


def test_a_graph_in_a_batch_is_ordered_as_if_it_were_alone() -> None:
    encode = AddShortestPathDistance(4)
    graphs = [encode(random_data(n, n)) for n in (20, 1, 33, 2)]
    nothing = random_data(1)
    for name in ("x", "edge_attr", "edge_weight", "y"):
        nothing[name] = nothing[name][:0]
    nothing.edge_index = EMPTY
    graphs.insert(1, encode(nothing))
    together = ReorderNodes()(Batch.from_data_list(graphs, follow_batch=["pair_distance"]))
    alone = Batch.from_data_list(
        [ReorderNodes(node_attrs=["y"])(each) for each in graphs], follow_batch=["pair_distance"]
    )
    assert set(together.keys()) == set(alone.keys())
    for name in alone.keys():
        assert torch.equal(together[name], alone[name]), name
    for one, other in zip(together.to_data_list(), graphs, strict=True):
        assert torch.equal(one.x.sort(dim=0).values, other.x.sort(dim=0).values)


def test_batches_of_reordered_graphs_are_put_back_by_the_same_line() -> None:
    graphs = [random_data(n, n) for n in (5, 9, 14)]
    x = torch.cat([each.x for each in graphs])
    (batch,) = DataLoader([ReorderNodes()(each) for each in graphs], batch_size=3)
    assert torch.equal(batch.x[batch[ORDER].argsort()], x)
    assert torch.equal(batch[ORDER][batch.edge_index], Batch.from_data_list(graphs).edge_index)


def test_as_many_edges_as_nodes() -> None:
    ring = torch.stack([torch.arange(8), torch.arange(8).roll(3)])
    data = Data(x=torch.randn(8, 2), edge_index=ring, edge_attr=torch.arange(8), num_nodes=8)
    assert torch.equal(ReorderNodes()(data).edge_attr, data.edge_attr)
    data.length = torch.arange(8)
    with pytest.raises(ValueError, match="data.length: it has as many rows as .* of edge_index"):
        ReorderNodes()(data)
    assert torch.equal(ReorderNodes(node_attrs=())(data).length, data.length)
    out = ReorderNodes(node_attrs=["length"])(data)
    assert torch.equal(out.length, out[ORDER]) and torch.equal(out.x, data.x[out[ORDER]])
    near = AddKHopEdges(1)(Data(edge_index=ring, num_nodes=8))
    out = ReorderNodes()(near)
    assert torch.equal(out.k_hop_distance, near.k_hop_distance)
    assert torch.equal(out[ORDER][out.k_hop_edge_index], near.k_hop_edge_index)


def test_a_batch_tells_apart_what_one_graph_cannot() -> None:
    path, pair = shuffled(nx.path_graph(6)), shuffled(nx.complete_graph(2))
    for data in (path, pair):
        data.label = torch.arange(2)  # of each graph: as many as nodes in one of them
        data.degree = torch.arange(data.num_nodes)
    out = ReorderNodes()(Batch.from_data_list([path, pair]))
    assert out.label.tolist() == [0, 1, 0, 1]
    assert torch.equal(out.degree, torch.tensor([*range(6), 0, 1])[out[ORDER]])
    batch = Batch.from_data_list([path, pair])
    batch.label, batch.names = torch.arange(8), ["path", "pair"]  # one a node now; one a graph
    out = ReorderNodes()(batch)
    assert torch.equal(out.label, out[ORDER]) and out.names == ["path", "pair"]
    with pytest.raises(ValueError, match="data.names: it has shape .2.; expected one row"):
        ReorderNodes(node_attrs=["names"])(batch)


def test_the_order_of_an_edge_index_is_no_longer_claimed() -> None:
    data = shuffled(nx.path_graph(9))
    edges = EdgeIndex(data.edge_index, sparse_size=(9, 9), is_undirected=True)
    edges = edges.sort_by("row").values
    out = ReorderNodes()(Data(edge_index=edges, num_nodes=9)).edge_index
    plain = ReorderNodes()(Data(edge_index=edges.as_tensor(), num_nodes=9)).edge_index
    assert isinstance(out, EdgeIndex) and out.sort_order is None and out.is_undirected
    assert out.sparse_size() == (9, 9)
    assert torch.equal(out.validate().as_tensor(), plain)


class Bipartite(Data):
    """Two kinds of nodes, as PyG's documentation shows."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "edge_index":
            return torch.tensor([[self.x_s.size(0)], [self.x_t.size(0)]])
        return super().__inc__(key, value, *args, **kwargs)


@pytest.mark.parametrize(
    "name, value, match",
    [
        ("distances", torch.zeros(6, 6), r"data.distances: it has N twice in its shape \[6, 6\]"),
        ("bias", torch.zeros(1, 6, 6), "it has N twice"),
        ("parent_index", torch.arange(6), "it has one entry a node and a name of nodes"),
        ("some_index", torch.zeros(4), "should hold nodes by its name, not torch.float32; rename"),
        ("index_mask", torch.zeros(4).bool(), "should hold nodes by its name, not torch.bool"),
        ("near_index", [0, 2], "is a list with a name of nodes; make it a tensor"),
        ("rings", [[0, 1], [2]], "is a list of list; make it a tensor"),
        ("both", (torch.zeros(6), torch.zeros(6)), "is a tuple of Tensor; make it a tensor"),
        ("notes", {"x": torch.zeros(6)}, "is a dict; make it after the nodes are in order"),
        ("layout", GraphLayout.from_sizes([6]), "is a GraphLayout; make it after"),
        ("adj", torch.eye(6).to_sparse(), "is a torch.sparse_coo; make it after"),
        ("batch_size", 2, "says that the first nodes are the sampled; reorder first"),
        ("ptr", torch.tensor([0, 6]), "tells graphs apart, but data is no Batch"),
        ("pair_distance", torch.zeros(35), r"shape \[35\]; expected one row a pair, 36"),
        ("pos", torch.zeros(5, 3), "expected one row for each of the nodes"),
    ],
)
def test_what_cannot_be_told_is_refused(name: str, value: Any, match: str) -> None:
    data = shuffled(nx.path_graph(6))
    ReorderNodes()(data)
    data[name] = value
    with pytest.raises(ValueError, match=match):
        ReorderNodes()(data)


@pytest.mark.parametrize("name", ["distances", "parent_index"])
def test_node_attrs_decides(name: str) -> None:
    data = shuffled(nx.path_graph(6))
    data[name] = torch.eye(6) if name == "distances" else torch.arange(6)
    out = ReorderNodes(node_attrs=[name])(data)
    assert torch.equal(out[name], data[name][out[ORDER]])
    out = ReorderNodes(node_attrs=[])(data)
    held = out[name] if name == "distances" else out[ORDER][out[name]]
    assert torch.equal(held, data[name])


def test_bad_graphs_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="got HeteroData"):
        ReorderNodes()(HeteroData())
    edges = torch.tensor([[0, 1, 1], [2, 0, 1]])
    two = Bipartite(x_s=torch.zeros(2, 1), x_t=torch.zeros(3, 1), edge_index=edges, num_nodes=5)
    with pytest.raises(ValueError, match="data.edge_index: it has nodes of several kinds"):
        ReorderNodes()(two)
    sparse = T.ToSparseTensor()(shuffled(nx.path_graph(5)))
    with pytest.raises(ValueError, match="apply this before ToSparseTensor"):
        ReorderNodes()(sparse)
    batch = Batch.from_data_list([shuffled(nx.path_graph(3))] * 2)
    batch.edge_index = torch.tensor([[0], [4]])
    with pytest.raises(ValueError, match="nodes 0 and 4 of the batch, which belong to different"):
        ReorderNodes()(batch)
    with pytest.raises(IndexError, match="holds node 9"):
        ReorderNodes()(Data(edge_index=torch.tensor([[0], [9]]), num_nodes=3))
    data = shuffled(nx.path_graph(5))
    for bad in (-1, 5):
        data.train_index = torch.tensor([0, bad])
        with pytest.raises(IndexError, match=f"data.train_index holds node {bad}, .* 5 nodes"):
            ReorderNodes()(data)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="method='amd'; expected 'rcm' or 'metis'"):
        ReorderNodes("amd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block_size=0; expected a whole number of at least 1"):
        ReorderNodes(block_size=0)
    with pytest.raises(ValueError, match=r"expected several names, as \('y',\)"):
        ReorderNodes(node_attrs="y")
    data = shuffled(nx.path_graph(5))
    with pytest.raises(ValueError, match="node_attrs names 'z', which data does not have"):
        ReorderNodes(node_attrs=["z"])(data)
    data.z = torch.zeros(4)
    with pytest.raises(ValueError, match=r"data.z: it has shape \[4\]; expected one row"):
        ReorderNodes(node_attrs=["z"])(data)


def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_sparse", None)
    monkeypatch.setitem(sys.modules, "pyg_lib", None)


def test_without_metis_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    no_packages(monkeypatch)
    data = shuffled(nx.path_graph(20))
    with pytest.raises(ImportError, match="torch_sparse cannot be .*install pyg_lib .*'rcm'"):
        ReorderNodes("metis", 8)(data)

    def metis(*_: Any) -> Tensor:
        raise RuntimeError("Not compiled with METIS support")

    lib = SimpleNamespace(partition=SimpleNamespace(metis=metis))
    monkeypatch.setitem(sys.modules, "pyg_lib", lib)
    with pytest.raises(ImportError, match="pyg_lib was compiled without METIS"):
        ReorderNodes("metis", 8)(data)


def test_an_installed_torch_sparse_has_metis_or_says_that_it_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch_sparse = pytest.importorskip("torch_sparse")
    monkeypatch.setitem(sys.modules, "pyg_lib", None)
    data = shuffled(nx.path_graph(20))
    try:
        torch_sparse.SparseTensor.eye(4).partition(2)
    except RuntimeError:
        with pytest.raises(ImportError, match="torch_sparse was compiled without METIS"):
            ReorderNodes("metis", 8)(data)
    else:
        assert ReorderNodes("metis", 8)(data)[ORDER].unique().numel() == 20


def test_parts_of_metis_lie_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Communities, which a stand-in for METIS knows: each its own block, in a good order."""
    communities = 12
    graph = nx.ring_of_cliques(communities, 8)
    data = shuffled(graph, seed=3)
    home = torch.from_numpy(np.random.default_rng(3).permutation(96)).argsort() // 8
    scattered = torch.randperm(communities)  # METIS numbers parts as it likes
    calls = []

    def metis(indptr: Tensor, indices: Tensor, num_parts: int) -> Tensor:
        row = torch.arange(96).repeat_interleave(indptr.diff())
        dense = torch.zeros(96, 96).bool()
        dense[row, indices] = True
        assert torch.equal(dense, dense.t()) and not dense.diag().any()  # as METIS wants it
        assert indices.numel() == 2 * graph.number_of_edges() and indptr.dtype == torch.int64
        calls.append(num_parts)
        return scattered[home]

    no_packages(monkeypatch)
    lib = SimpleNamespace(partition=SimpleNamespace(metis=metis))
    monkeypatch.setitem(sys.modules, "pyg_lib", lib)
    data.edge_index = torch.cat([data.edge_index, torch.arange(96).repeat(2, 1)], dim=1)
    transform = ReorderNodes("metis", 8)
    out = transform(data)
    assert calls == [communities]
    assert torch.equal(out[ORDER][out.edge_index], data.edge_index)
    by_bandwidth = ReorderNodes()(data)[ORDER]
    for part in out[ORDER].view(communities, 8):
        assert torch.equal(part, by_bandwidth[torch.isin(by_bandwidth, part)])
    parts = home[out[ORDER]].view(communities, 8)
    assert (parts == parts[:, :1]).all()
    # a ring: a block, the two beside it, and no part further off than two
    assert transform.report(data).after.visited == 3 * communities
    assert bandwidth(out.edge_index) < 24


def test_small_graphs_need_no_metis(monkeypatch: pytest.MonkeyPatch) -> None:
    no_packages(monkeypatch)
    for data in (shuffled(nx.path_graph(8)), Data(edge_index=EMPTY, num_nodes=300)):
        one, other = ReorderNodes("metis")(data), ReorderNodes()(data)
        assert torch.equal(one[ORDER], other[ORDER])


def test_superpixels_and_grids_get_few_blocks() -> None:
    points = np.random.default_rng(0).random((3000, 2))
    _, near = cKDTree(points).query(points, 9)
    edges = np.stack([near[:, 1:].ravel(), np.repeat(np.arange(3000), 8)])
    for data in (Data(edge_index=torch.from_numpy(edges), num_nodes=3000),
                 shuffled(nx.grid_2d_graph(40, 75))):  # fmt: skip
        before, after = ReorderNodes().report(data)
        assert before.visited > 0.99 * before.blocks
        assert after.visited < 0.2 * after.blocks


def test_a_graph_with_features_and_masks(tmp_path: Any, data_root: Any) -> None:
    (tmp_path / "cora").mkdir()
    (tmp_path / "cora" / "raw").symlink_to(data_root / "planetoid")
    (data,) = Planetoid(str(tmp_path), "cora")
    out = ReorderNodes()(data)
    order = out[ORDER]
    for name in ("x", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(out[name], data[name][order])
    assert torch.equal(order[out.edge_index], data.edge_index)
    before, after = ReorderNodes().report(data)
    assert after.visited < 0.5 * before.visited and after.density > 2 * before.density


def test_a_heterophilous_graph(tmp_path: Any, data_root: Any) -> None:
    raw = tmp_path / "tolokers" / "raw"
    raw.mkdir(parents=True)
    (raw / "tolokers.npz").symlink_to(data_root / "heterophilous" / "tolokers.npz")
    (data,) = HeterophilousGraphDataset(str(tmp_path), "tolokers")
    out = ReorderNodes()(data)
    order = out[ORDER]
    for name in ("x", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(out[name], data[name][order])
    assert torch.equal(order[out.edge_index], data.edge_index)
    before, after = ReorderNodes().report(data)
    assert before.visited == before.blocks and after.visited < before.visited


def test_repr_shows_every_argument() -> None:
    assert repr(ReorderNodes()) == "ReorderNodes(method='rcm', block_size=128, node_attrs=None)"
    assert (
        repr(ReorderNodes("metis", 64, node_attrs=["y"]))
        == "ReorderNodes(method='metis', block_size=64, node_attrs=('y',))"
    )


def test_compose_pickle_and_functional_name() -> None:
    data = random_data(30)
    transform = T.Compose([ReorderNodes(node_attrs=["y"])])
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(transform(data).edge_index, again(data).edge_index)
