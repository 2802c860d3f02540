"""Laplacian eigenvectors: closed forms, NetworkX, SciPy and PyG as oracles."""

import copy
import inspect
import tracemalloc
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.linalg
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.utils import (
    get_laplacian,
    is_undirected,
    to_dense_adj,
    to_scipy_sparse_matrix,
)

from pyg_gt.transforms import AddLaplacianEigenvectorPE
from tests.transforms.samples import (
    EMPTY,
    as_data,
    components,
    symmetric_adjacency,
    weighted_graphs,
)

NAME = "laplacian_eigenvector_pe"
TRIANGLE = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])


def encode(data: Data, k: int, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, values and mask, each ``[N, k]``, in float64."""
    out = AddLaplacianEigenvectorPE(k, **kwargs)(data)
    found = out[NAME], out[f"{NAME}_values"], out[f"{NAME}_mask"]
    assert all(tensor.shape == (data.num_nodes, k) for tensor in found)
    assert [tensor.dtype for tensor in found] == [torch.float32, torch.float32, torch.bool]
    return found[0].double(), found[1].double(), found[2]


def laplacian_of(data: Data, normalization: str | None = "sym") -> Tensor:
    """PyG's Laplacian ``[N, N]``."""
    index, weight = get_laplacian(
        data.edge_index, data.edge_weight, normalization, torch.float64, data.num_nodes
    )
    return to_dense_adj(index, edge_attr=weight, max_num_nodes=data.num_nodes)[0].double()


def projector(vectors: Tensor) -> Tensor:
    """``[N, N]``, the same for every basis of the space that the columns span."""
    return vectors @ torch.linalg.pinv(vectors)


def molecule(seed: int = 0, n: int = 23) -> Data:
    """A connected graph with distinct eigenvalues and no symmetry."""
    generator = np.random.default_rng(seed)
    graph = nx.random_labeled_tree(n, seed=seed)
    for a, b in graph.edges:
        graph[a][b]["weight"] = generator.uniform(0.5, 2)
    for a, b in generator.integers(0, n, (3, 2)):
        if a != b:
            graph.add_edge(int(a), int(b), weight=1.3)
    return as_data(graph)


def union(*graphs: Data) -> Data:
    """One graph of several, without being a `Batch`."""
    batch = Batch.from_data_list(list(graphs))
    weight = batch.edge_weight if "edge_weight" in batch else None
    return Data(edge_index=batch.edge_index, edge_weight=weight, num_nodes=batch.num_nodes)


PATH = 2 - 2 * np.cos(np.pi * np.arange(12) / 12)


@pytest.mark.parametrize(
    ("graph", "normalization", "expected"),
    [
        (nx.path_graph(12), None, PATH),
        (nx.path_graph(12), "sym", 1 - np.cos(np.pi * np.arange(12) / 11)),
        (nx.path_graph(12), "rw", 1 - np.cos(np.pi * np.arange(12) / 11)),
        (nx.cycle_graph(12), "sym", 1 - np.cos(2 * np.pi * np.arange(12) / 12)),
        (nx.complete_graph(12), "sym", [0] + [12 / 11] * 11),
        (nx.complete_graph(12), None, [0] + [12] * 11),
        (nx.star_graph(11), "sym", [0] + [1] * 10 + [2]),
        (nx.star_graph(11), None, [0] + [1] * 10 + [12]),
        (nx.grid_2d_graph(12, 12), None, np.add.outer(PATH, PATH).ravel()),
        (nx.complete_bipartite_graph(4, 8), "sym", [0] + [1] * 10 + [2]),
    ],
)
def test_eigenvalues_in_closed_form(graph: nx.Graph, normalization: Any, expected: Any) -> None:
    _, values, mask = encode(as_data(graph), 11, normalization=normalization)
    assert mask.all()
    expected = torch.tensor(np.sort(expected)[1:12]).double().expand_as(values)
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)


def test_path_vectors_with_their_signs() -> None:
    n, k = 7, 6
    at = (np.arange(n)[:, None] + 0.5) * np.arange(1, k + 1) * np.pi / n
    expected = np.cos(at) / np.linalg.norm(np.cos(at), axis=0)
    # Each column starts with its largest entry, or with one of two that differ in sign only;
    # columns 2, 4 and 6 have their largest entries in the middle or at both ends.
    first = [np.flatnonzero(np.abs(c) > np.abs(c).max() - 1e-9)[0] for c in expected.T]
    expected *= np.sign(expected[first, range(k)])
    vectors, _, _ = encode(as_data(nx.path_graph(n)), k, normalization=None)
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("seed", range(3))
def test_eigenpairs_of_the_laplacian_of_pyg(normalization: Any, seed: int) -> None:
    data = molecule(seed)
    vectors, values, mask = encode(data, 22, normalization=normalization)
    laplacian = laplacian_of(data, normalization)
    assert mask.all() and bool((values[:, 1:] >= values[:, :-1]).all())
    torch.testing.assert_close(laplacian @ vectors, vectors * values[0], rtol=0, atol=3e-6)
    torch.testing.assert_close(vectors.norm(dim=0), torch.ones(22).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_weights_against_networkx_and_scipy(seed: int) -> None:
    data = molecule(seed)
    graph = nx.Graph()
    graph.add_nodes_from(range(23))
    for (a, b), w in zip(data.edge_index.T.tolist(), data.edge_weight.tolist(), strict=True):
        graph.add_edge(a, b, weight=w)
    matrix = nx.normalized_laplacian_matrix(graph).toarray()
    lam, u = np.linalg.eigh(matrix)
    vectors, values, _ = encode(data, 5)
    np.testing.assert_allclose(values[0], lam[1:6], atol=1e-6)
    np.testing.assert_allclose(vectors.abs(), np.abs(u[:, 1:6]), atol=1e-5)
    degree = np.diag([d for _, d in graph.degree(weight="weight")])
    lam, u = scipy.linalg.eigh(nx.laplacian_matrix(graph).toarray(), degree)
    u = u[:, 1:6] / np.linalg.norm(u[:, 1:6], axis=0)
    vectors, values, _ = encode(data, 5, normalization="rw")
    np.testing.assert_allclose(values[0], lam[1:6], atol=1e-6)
    np.testing.assert_allclose(vectors.abs(), np.abs(u), atol=1e-5)


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("n", [9, 23, 70, 130])
def test_agrees_with_pyg_on_a_connected_graph(n: int, undirected: bool) -> None:
    data = molecule(n, n)
    data.edge_weight = data.edge_weight.float()
    ours, _, _ = encode(data, 4, is_undirected=undirected)
    theirs = T.AddLaplacianEigenvectorPE(4, is_undirected=undirected)(data)[NAME].double()
    theirs = theirs / theirs.norm(dim=0)
    torch.testing.assert_close(ours.abs(), theirs.abs(), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("graph", "k"), [(nx.cycle_graph(9), 4), (nx.grid_2d_graph(4, 4), 2)])
def test_agrees_with_pyg_on_whole_eigenspaces(graph: nx.Graph, k: int) -> None:
    data = as_data(graph)
    ours, _, _ = encode(data, k)
    theirs = T.AddLaplacianEigenvectorPE(k, is_undirected=True)(data)[NAME].double()
    torch.testing.assert_close(projector(ours), projector(theirs), rtol=0, atol=1e-5)


def test_each_component_has_its_own_vectors() -> None:
    graphs = [molecule(1, 5), molecule(2, 11), Data(edge_index=EMPTY, num_nodes=1), molecule(3, 2)]
    for graph in graphs:
        graph.edge_weight = None
    alone = [encode(graph, 6) for graph in graphs]
    together = encode(union(*graphs), 6)
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(found, torch.cat(parts))
    assert together[2].sum(1).tolist() == [4] * 5 + [6] * 11 + [0] + [1] * 2


def test_components_that_are_interleaved() -> None:
    data = union(molecule(1, 6), molecule(3, 6), molecule(3, 4))
    _, values, mask = encode(data, 4)  # a repeated eigenvalue would leave the basis open
    assert values.diff(dim=1)[mask[:, 1:]].min() > 0.1
    order = torch.randperm(16)
    mixed = Data(
        edge_index=torch.argsort(order)[data.edge_index],
        edge_weight=data.edge_weight,
        num_nodes=16,
    )
    for new, old in zip(encode(mixed, 4), encode(data, 4), strict=True):
        torch.testing.assert_close(new, old[order], rtol=0, atol=1e-6)


def test_two_triangles_are_not_told_apart_by_an_indicator_vector() -> None:
    vectors, values, _ = encode(union(as_data(nx.complete_graph(3)), as_data(nx.path_graph(4))), 2)
    torch.testing.assert_close(values[:3], torch.full((3, 2), 1.5).double())
    torch.testing.assert_close(vectors[:3].sum(0), torch.zeros(2).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("normalization", ["sym", "rw", None])
def test_no_edge(n: int, k: int, normalization: Any) -> None:
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        vectors, values, mask = encode(data, k, normalization=normalization)
        assert not vectors.any() and not values.any() and not mask.any()


def test_only_self_loops_are_no_edges() -> None:
    data = Data(edge_index=torch.tensor([[0, 1], [0, 1]]), num_nodes=3)
    assert not encode(data, 2)[2].any()


@pytest.mark.parametrize("k", [22, 23, 40, 200])
def test_more_columns_than_eigenvectors_are_zeros(k: int) -> None:
    data = molecule()
    vectors, values, mask = encode(data, k)
    few = encode(data, 22)
    assert torch.equal(vectors[:, :22], few[0]) and torch.equal(values[:, :22], few[1])
    assert mask[:, :22].all() and not mask[:, 22:].any()
    assert not vectors[:, 22:].any() and not values[:, 22:].any()


def test_graph_gets_in_a_batch_what_it_gets_alone() -> None:
    graphs = [molecule(seed, 3 + seed) for seed in range(40)]
    graphs += [as_data(nx.path_graph(400), edge_weight=torch.ones(798)), molecule(7, 90)]
    transform = AddLaplacianEigenvectorPE(6)
    together = transform(Batch.from_data_list(graphs))
    for name in (NAME, f"{NAME}_values", f"{NAME}_mask"):
        assert torch.equal(together[name], torch.cat([transform(g)[name] for g in graphs]))


def test_repeated_edges_add_up() -> None:
    data = Data(edge_index=torch.tensor([[0, 1, 1, 2, 0, 1], [1, 0, 2, 1, 1, 0]]), num_nodes=3)
    once = Data(edge_index=data.edge_index[:, :4], edge_weight=torch.tensor([2.0, 2, 1, 1]))
    once.num_nodes = 3
    for ours, theirs in zip(encode(data, 2), encode(once, 2), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(encode(data, 2, is_undirected=True)[0], encode(data, 2)[0])


def test_self_loops_and_zero_weights_are_left_out() -> None:
    data = molecule()
    edges = torch.tensor([[3, 4, 0, 9], [3, 4, 9, 0]])
    more = Data(
        edge_index=torch.cat([edges, data.edge_index], 1),
        edge_weight=torch.cat([torch.tensor([2.0, 1, 0, 0]), data.edge_weight]),
        num_nodes=23,
    )
    assert torch.equal(encode(more, 5)[0], encode(data, 5)[0])
    apart = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    apart.edge_weight = torch.zeros(2)
    assert not encode(apart, 1)[2].any()


def test_directed_graph_is_symmetrized() -> None:
    data = as_data(nx.gn_graph(20, seed=0))
    back = data.edge_index.flip(0)
    both = Data(edge_index=torch.cat([data.edge_index, back], 1), num_nodes=20)
    assert torch.equal(encode(data, 5)[0], encode(both, 5)[0])
    both.edge_weight = torch.full((38,), 0.5)
    assert torch.equal(
        encode(data, 5, normalization=None)[1], encode(both, 5, normalization=None)[1]
    )


@pytest.mark.parametrize(
    ("edge_index", "edge_weight"),
    [
        ([[0, 1], [1, 2]], None),
        ([[0, 1], [1, 0]], [1.0, 1.1]),
        ([[0, 1, 0], [1, 0, 1]], None),
    ],
)
def test_directed_graph_is_refused_where_undirected_ones_are_promised(
    edge_index: list[list[int]], edge_weight: list[float] | None
) -> None:
    data = Data(edge_index=torch.tensor(edge_index), num_nodes=3)
    if edge_weight:
        data.edge_weight = torch.tensor(edge_weight)
    with pytest.raises(ValueError, match="is_undirected=True, but the graph is directed"):
        encode(data, 1, is_undirected=True)


def test_float32_rounding_does_not_make_a_graph_directed() -> None:
    data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    data.edge_weight = torch.tensor([0.1, 0.1 + 1e-8], dtype=torch.float64)
    assert encode(data, 1, is_undirected=True)[2].all()


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
def test_nearly_disconnected_graph_keeps_its_first_vector(normalization: Any) -> None:
    graph = nx.disjoint_union(nx.complete_graph(4), nx.complete_graph(4))
    nx.set_edge_attributes(graph, 1.0, "weight")
    graph.add_edge(0, 4, weight=1e-20)
    vectors, values, _ = encode(as_data(graph), 3, normalization=normalization)
    step = torch.tensor([1.0] * 4 + [-1.0] * 4).double() / 8**0.5
    torch.testing.assert_close(vectors[:, 0], step, rtol=0, atol=1e-6)
    assert 0 <= values[0, 0] < 1e-12 and values[0, 1] > 0.5


def test_weights_of_any_scale() -> None:
    data = molecule()
    vectors = encode(data, 5)[0]
    for scale in (1e-200, 1e-30, 1e30):
        scaled = copy.copy(data)
        scaled.edge_weight = data.edge_weight * scale
        torch.testing.assert_close(encode(scaled, 5)[0], vectors, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
def test_permutation_equivariance(normalization: Any) -> None:
    data = molecule()
    order = torch.randperm(23)
    shuffled = Data(
        edge_index=torch.argsort(order)[data.edge_index],
        edge_weight=data.edge_weight,
        num_nodes=23,
    )
    ours = encode(shuffled, 8, normalization=normalization)
    for new, old in zip(ours, encode(data, 8, normalization=normalization), strict=True):
        torch.testing.assert_close(new, old[order], rtol=0, atol=1e-6)
    cube = as_data(nx.hypercube_graph(4))
    order = torch.randperm(16)
    shuffled = Data(edge_index=torch.argsort(order)[cube.edge_index], num_nodes=16)
    torch.testing.assert_close(
        projector(encode(shuffled, 4)[0]),
        projector(encode(cube, 4)[0][order]),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("n", [2, 23, 90, 400])
def test_largest_entry_is_positive(n: int) -> None:
    vectors, _, mask = encode(molecule(1, n), 6)
    columns = vectors[:, mask[0]]
    assert bool((columns.max(dim=0).values >= columns.abs().max(dim=0).values - 1e-6).all())


def test_first_of_equally_large_entries_is_positive() -> None:
    for n in (4, 10, 101, 700):
        vectors, _, _ = encode(as_data(nx.path_graph(n)), 1)
        assert vectors[:, 0].abs().argmax() in (0, 1, n - 2, n - 1)
        assert vectors[0, 0] > 0


@pytest.mark.parametrize("graph", [nx.cycle_graph(30), nx.grid_2d_graph(21, 21)])
def test_same_graph_gets_the_same_encoding(graph: nx.Graph) -> None:
    data = as_data(graph)
    first = encode(data, 5)[0]
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, encode(data, 5)[0])


def test_random_state_is_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    encode(as_data(nx.grid_2d_graph(21, 21)), 5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


SPARSE_CASES = {
    "grid": nx.grid_2d_graph(23, 23),
    "cycle": nx.cycle_graph(500),
    "path": nx.path_graph(450),
    "star": nx.star_graph(420),
    "hypercube": nx.hypercube_graph(9),
    "tree": nx.balanced_tree(2, 8),
    "expander": nx.random_regular_graph(8, 400, seed=0),
    "cubic": nx.random_regular_graph(3, 400, seed=0),
    "torus": nx.grid_2d_graph(20, 20, periodic=True),
    "hub": nx.barabasi_albert_graph(400, 4, seed=0),
    "cliques": nx.ring_of_cliques(50, 8),
    "bridge": nx.barbell_graph(150, 100),
    "bipartite": nx.complete_bipartite_graph(200, 200),
}


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("name", SPARSE_CASES)
def test_sparse_path_finds_what_the_dense_one_finds(name: str, normalization: Any) -> None:
    data = as_data(SPARSE_CASES[name])
    dense, sparse = (AddLaplacianEigenvectorPE(8, normalization=normalization) for _ in range(2))
    dense.SPARSE_THRESHOLD = 10**6
    sparse.SPARSE_THRESHOLD = 65
    a, b = dense(data), sparse(data)
    values = b[f"{NAME}_values"][0].double()
    torch.testing.assert_close(values, a[f"{NAME}_values"][0].double(), rtol=1e-5, atol=1e-6)
    vectors = b[NAME].double()
    laplacian = torch.tensor(
        to_scipy_sparse_matrix(
            *get_laplacian(data.edge_index, None, normalization, torch.float64, data.num_nodes)
        ).toarray()
    )
    scale = max(1.0, float(values[-1]))
    torch.testing.assert_close(laplacian @ vectors, vectors * values, rtol=0, atol=1e-5 * scale)
    assert torch.linalg.matrix_rank(vectors) == 8
    # Whole eigenspaces span the same; the last one may be cut off by k.
    whole = values < values[-1] - 1e-4 * scale
    torch.testing.assert_close(
        projector(vectors[:, whole]), projector(a[NAME].double()[:, whole]), rtol=0, atol=1e-4
    )


def test_sparse_path_on_a_large_grid_finds_repeated_eigenvalues() -> None:
    path = 2 - 2 * np.cos(np.pi * np.arange(60) / 60)
    expected = np.sort(np.add.outer(path, path).ravel())[1:17]
    _, values, _ = encode(as_data(nx.grid_2d_graph(60, 60)), 16, normalization=None)
    np.testing.assert_allclose(values[0], expected, rtol=1e-5)


def test_memory_of_a_large_graph_is_far_from_its_square() -> None:
    n = 20_000  # 3.2 GB as a dense matrix
    row = torch.arange(n - 1)
    data = Data(edge_index=torch.stack([row, row + 1]), num_nodes=n)
    tracemalloc.start()
    _, values, _ = encode(data, 3, normalization=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e8
    expected = 1 - np.cos(np.pi * np.arange(1, 4) / n)
    np.testing.assert_allclose(values[0], expected, rtol=1e-5)


def test_dense_solver_takes_over_where_the_sparse_one_fails() -> None:
    data = as_data(nx.grid_2d_graph(21, 21))
    expected, values, _ = encode(data, 4, normalization=None)
    ours = encode(data, 4, normalization=None, maxiter=1, ncv=6)
    torch.testing.assert_close(ours[1], values, rtol=1e-5, atol=1e-6)


def test_failure_above_the_dense_limit_is_reported() -> None:
    data = as_data(nx.grid_2d_graph(21, 21))
    transform = AddLaplacianEigenvectorPE(4, maxiter=1, ncv=6)
    transform.DENSE_LIMIT = 400
    with pytest.raises(RuntimeError, match="no 4 eigenvectors found for a component of 441 nodes"):
        transform(data)
    transform = AddLaplacianEigenvectorPE(300)
    transform.DENSE_LIMIT = 400
    with pytest.raises(RuntimeError, match="fewer than half of 441 eigenvectors"):
        transform(data)


def test_options_of_eigsh_are_used() -> None:
    data = as_data(nx.grid_2d_graph(25, 17))
    exact = encode(data, 4)
    loose = encode(data, 4, tol=1e-4, ncv=30, maxiter=500)
    assert not torch.equal(exact[0], loose[0])
    torch.testing.assert_close(exact[1], loose[1], rtol=1e-3, atol=1e-6)


def test_signature_is_that_of_pyg() -> None:
    ours = inspect.signature(AddLaplacianEigenvectorPE).parameters.values()
    theirs = inspect.signature(T.AddLaplacianEigenvectorPE).parameters.values()
    new = [p for p in ours if p.kind is p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in new] == [("normalization", "sym")]
    assert [(p.name, p.kind, p.default) for p in ours if p not in new] == [
        (p.name, p.kind, p.default) for p in theirs
    ]


def test_encoding_as_x() -> None:
    data = molecule()
    out = AddLaplacianEigenvectorPE(3, attr_name="x")(data)
    assert torch.equal(out.x, AddLaplacianEigenvectorPE(3)(data)[NAME])
    assert out.x_values.shape == out.x_mask.shape == (23, 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bfloat16, torch.float32, torch.bool])
def test_weights_of_any_dtype(dtype: torch.dtype) -> None:
    data = as_data(nx.lollipop_graph(4, 5))
    weight = torch.ones(data.num_edges, dtype=dtype)
    expected = encode(data, 4)[0]
    for shaped in (weight, weight.view(-1, 1)):
        data.edge_weight = shaped
        assert torch.equal(encode(data, 4)[0], expected)


def test_weights_that_need_a_gradient() -> None:
    data = molecule()
    expected = encode(data, 4)[0]
    data.edge_weight.requires_grad_()
    assert torch.equal(encode(data, 4)[0], expected)


def test_edge_index_of_pyg() -> None:
    data = molecule()
    expected = encode(data, 4)[0]
    data.edge_index = EdgeIndex(data.edge_index, sparse_size=(23, 23), is_undirected=True)
    assert torch.equal(encode(data, 4)[0], expected)
    data.edge_index = data.edge_index.as_tensor().int()
    assert torch.equal(encode(data, 4)[0], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0; expected a whole number of at least 1"),
        ({"k": -2}, "k=-2"),
        ({"k": 2.0}, r"k=2\.0"),
        ({"k": True}, "k=True"),
        ({"k": 2, "attr_name": ""}, "attr_name=''"),
        ({"k": 2, "attr_name": "batch_pe"}, "choose another name"),
        ({"k": 2, "attr_name": "my_index"}, "choose another name"),
        ({"k": 2, "normalization": "left"}, "normalization='left'; expected 'sym', 'rw' or None"),
        ({"k": 2, "sigma": 0.1}, "the option sigma; of eigsh's it takes tol, maxiter and ncv"),
        ({"k": 2, "which": "LM", "v0": 1}, "the option v0, which"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddLaplacianEigenvectorPE(**arguments)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 1, 1, 1, 1, -0.5], r"finite and not negative, got -0\.5"),
        ([1.0, 1, 1, 1, 1, float("nan")], "finite and not negative, got nan"),
        ([1.0, 1, 1, 1, 1, float("inf")], "finite and not negative, got inf"),
        ([3e38] * 6, "beyond the range of float32"),
        ([1.0] * 5, r"shape \[6\], one number an edge, got \[5\]"),
        ([[1.0, 2]] * 6, r"got \[6, 2\]; edge features"),
        ([1j] * 6, "real numbers, got torch.complex64"),
    ],
)
def test_weights_are_checked(weight: list[Any], message: str) -> None:
    data = Data(edge_index=TRIANGLE, edge_weight=torch.tensor(weight), num_nodes=3)
    with pytest.raises(ValueError, match=message):
        encode(data, 2)


@pytest.mark.parametrize("bad", [-1, 3])
def test_edges_are_in_range(bad: int) -> None:
    edge_index = TRIANGLE.clone()
    edge_index[1, 2] = bad
    with pytest.raises(IndexError, match=f"node {bad}, but the graph has 3 nodes"):
        encode(Data(edge_index=edge_index, num_nodes=3), 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HeteroData(), "got HeteroData; .* to_homogeneous"),
        (Data(x=torch.ones(3, 1)), "got none; apply this before ToSparseTensor"),
        (Data(num_nodes=3, adj_t=torch.eye(3).to_sparse()), "got none"),
        (Data(num_nodes=3, edge_index=torch.eye(3).to_sparse()), "got Tensor"),
        (Data(num_nodes=3, edge_index=TRIANGLE.T), r"shape \[2, E\], got \[6, 2\]"),
        (Data(num_nodes=3, edge_index=TRIANGLE.float()), r"got torch.float32; .* \.long\(\)"),
        (Data(), "got none"),
    ],
)
def test_data_is_checked(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddLaplacianEigenvectorPE(2)(data)


@settings(max_examples=150, deadline=None)
@given(
    weighted_graphs([0, 1e-6, 0.3, 1, 2, 1e4]),
    st.integers(1, 13),
    st.sampled_from(["sym", "rw", None]),
)
def test_any_graph(data: Data, k: int, normalization: Any) -> None:
    vectors, values, mask = encode(data, k, normalization=normalization)
    W = symmetric_adjacency(data)
    for nodes in components(W):
        n, count = len(nodes), min(k, len(nodes) - 1)
        assert mask[nodes].sum(0).tolist() == [n] * count + [0] * (k - count)
        w = W[np.ix_(nodes, nodes)]
        degree = w.sum(1)
        laplacian = np.diag(degree) - w
        scale = degree if normalization else np.ones(n)
        if count == 0:
            continue
        # The generalised problem L u = lambda D u has the eigenvalues of both normalised ones.
        half = np.diag(scale**-0.5)
        lam = np.linalg.eigvalsh(half @ laplacian @ half)[1 : count + 1]
        size = max(1.0, float(lam[-1]))
        ours = values[nodes].numpy()
        np.testing.assert_allclose(ours[:, :count], np.tile(lam, (n, 1)), atol=1e-5 * size)
        assert not ours[:, count:].any() and not vectors[nodes][:, count:].any()
        u = vectors[nodes].numpy()[:, :count]
        if normalization == "rw":
            matrix = np.diag(1 / scale) @ laplacian
        else:
            matrix = half @ laplacian @ half
            np.testing.assert_allclose(u.T @ u, np.eye(count), atol=1e-5)
            np.testing.assert_allclose(u.T @ np.sqrt(scale), 0, atol=1e-5 * np.sqrt(scale.max()))
        # float32 rounds each entry of u, and the matrix makes that larger by its own size.
        rounding = 1e-6 * max(1.0, float(np.abs(matrix).max()))
        np.testing.assert_allclose(matrix @ u, u * ours[0, :count], atol=10 * rounding)


def test_molecules_of_ogb(data_root: Any) -> None:
    folder = data_root / "ogb" / "ogbg_molhiv" / "raw"
    if not folder.is_dir():
        pytest.skip("ogbg-molhiv is not in the data folder")
    read = {
        name: np.loadtxt(folder / f"{name}.csv.gz", delimiter=",", dtype=np.int64, max_rows=rows)
        for name, rows in (("num-node-list", 200), ("num-edge-list", 200), ("edge", 8000))
    }
    stops = np.cumsum(read["num-edge-list"])
    transform = AddLaplacianEigenvectorPE(8, is_undirected=True)
    for n, start, stop in zip(read["num-node-list"], [0, *stops], stops, strict=False):
        edges = torch.from_numpy(read["edge"][start:stop].T.copy())
        data = Data(edge_index=torch.cat([edges, edges.flip(0)], 1), num_nodes=int(n))
        assert is_undirected(data.edge_index)
        out = transform(data)
        vectors, values = out[NAME].double(), out[f"{NAME}_values"].double()
        residual = laplacian_of(data) @ vectors - vectors * values
        assert residual[out[f"{NAME}_mask"]].abs().amax() < 1e-5
