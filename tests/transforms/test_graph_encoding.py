"""What every encoding keeps: the same alone and among others, by any number and on any device."""

import copy
import pickle
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from pyg_gt.transforms import (
    AddDegree,
    AddElectrostaticSE,
    AddExpanderEdges,
    AddHeatKernelSE,
    AddKHopEdges,
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddRelativeRandomWalkPE,
    AddShortestPathDistance,
    Attribute,
    EncodeAndCollate,
    GraphEncoding,
    Graphs,
    precompute,
)
from tests.transforms.samples import EMPTY, ENCODINGS, as_data, name_of, permuted, random_graph

VARIANTS = [
    *ENCODINGS,
    *(AddHeatKernelSE((0.1, 1, 3.5, 20), normalization=kind) for kind in (None, "sym", "rw")),
    *(AddLaplacianEigenvectorPE(5, normalization=kind) for kind in ("rw", None)),
]
LAPLACIANS = [
    each
    for each in VARIANTS
    if isinstance(each, (AddElectrostaticSE, AddHeatKernelSE, AddLaplacianEigenvectorPE))
]
# Zeros where there is no edge.
NODES = [
    AddElectrostaticSE(),
    AddHeatKernelSE((0.5, 2.0)),
    AddLaplacianEigenvectorPE(3),
    AddRandomWalkPE(5),
]


def new_attributes(before: Data, after: Data) -> dict[str, Tensor]:
    """What an encoding has added, by name."""
    found = {name: after[name] for name in after.keys() if name not in before}  # noqa: SIM118
    assert found
    return found


def assert_close(encoding: GraphEncoding, found: Tensor, expected: Tensor) -> None:
    """To the rounding of the encoding's own arithmetic; whole numbers are equal."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if not found.is_floating_point():
        assert torch.equal(found, expected)
    elif isinstance(encoding, AddElectrostaticSE):  # its numbers grow with the component
        atol = 2e-6 * max(1.0, float(expected.abs().max())) if expected.numel() else 0.0
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=atol)
    elif isinstance(encoding, AddHeatKernelSE):
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-7)
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def some_graphs() -> list[Data]:
    """Of all sizes, some of them disconnected, without edges or without nodes."""
    graphs = [random_graph(n, n, 2.5) for n in (1, 2, 3, 3, 3, 30, 64, 65, 100, 150, 7)]
    graphs += [Data(edge_index=EMPTY, edge_weight=torch.ones(0), num_nodes=n) for n in (2, 0)]
    return [graphs[i] for i in (11, 0, 1, 12, 2, 3, 4, 5, 6, 7, 8, 9, 10)]


@pytest.mark.parametrize("encoding", VARIANTS, ids=name_of)
def test_a_graph_gets_alone_what_it_gets_among_others(encoding: GraphEncoding) -> None:
    """In a `Batch`, a `DataLoader`'s, a collate function's, and in bulk in any order."""
    alone = [encoding(graph) for graph in some_graphs()]
    loaded = next(iter(DataLoader(alone, batch_size=len(alone))))
    together = encoding(Batch.from_data_list(some_graphs()))
    collated = EncodeAndCollate(encoding)(some_graphs())
    names = new_attributes(some_graphs()[0], alone[0])
    for name in names:
        assert_close(encoding, together[name], loaded[name])
        assert_close(encoding, collated[name], loaded[name])
    order = np.random.default_rng(0).permutation(len(alone))
    graphs = [some_graphs()[i] for i in order]
    others = [
        AddLaplacianEigenvectorPE(2, f"{kind}_pe", normalization=kind) for kind in (None, "sym")
    ]
    bulk = precompute(graphs, encoding, progress=False)
    shared = precompute(graphs, [*others, encoding], progress=False)
    for i, found, beside in zip(order, bulk, shared, strict=True):
        for name in names:
            assert_close(encoding, found[name], alone[i][name])
            if not isinstance(encoding, AddLaplacianEigenvectorPE):  # another basis, perhaps
                assert_close(encoding, beside[name], alone[i][name])
    for expected, back in zip(alone, loaded.to_data_list(), strict=True):
        for name in names:
            assert torch.equal(back[name], expected[name])


@pytest.mark.parametrize("n", [23, 150])
@pytest.mark.parametrize(
    "encoding",
    [
        AddDegree(),
        AddElectrostaticSE(),
        AddHeatKernelSE((0.1, 1, 3.5, 20)),
        AddKHopEdges(3),
        AddRandomWalkPE(9),
        AddRelativeRandomWalkPE(9),
        AddShortestPathDistance(20),
    ],
    ids=name_of,
)
def test_other_numbers_of_the_nodes_change_nothing(encoding: GraphEncoding, n: int) -> None:
    """Not so expanders, which are drawn, and which path it is; eigenvectors stand elsewhere."""
    data = random_graph(n)
    order = torch.randperm(n)
    before, after = encoding(data), encoding(permuted(data, order))
    if isinstance(encoding, AddKHopEdges):
        renamed = torch.argsort(order)[before.k_hop_edge_index]
        ascending = (renamed[0] * n + renamed[1]).argsort()
        assert torch.equal(after.k_hop_edge_index, renamed[:, ascending])
        assert torch.equal(after.k_hop_distance, before.k_hop_distance[ascending])
        return
    for name, found in new_attributes(data, after).items():
        expected = before[name]
        if name.startswith("pair_"):
            expected = expected.view(n, n, -1)[order][:, order].view(found.shape)
        else:
            expected = expected[order]
        if isinstance(encoding, AddRandomWalkPE):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        else:
            assert_close(encoding, found, expected)


@pytest.mark.parametrize("encoding", NODES, ids=name_of)
def test_components_do_not_see_each_other(encoding: GraphEncoding) -> None:
    parts = [nx.path_graph(4), nx.empty_graph(1), nx.complete_graph(5)]
    alone = [encoding(as_data(part)) for part in parts]
    union = as_data(nx.disjoint_union_all(parts))
    for name, found in new_attributes(union, encoding(union)).items():
        assert_close(encoding, found, torch.cat([part[name] for part in alone]))


@pytest.mark.parametrize("encoding", LAPLACIANS, ids=name_of)
def test_loops_and_repeated_edges_of_a_laplacian(encoding: GraphEncoding) -> None:
    """Edges both ways are one way twice; loops and edges of weight zero are none."""
    path = as_data(nx.path_graph(5))
    once = path.edge_index[:, path.edge_index[0] < path.edge_index[1]]
    loops = torch.arange(5).repeat(2, 1)
    more = torch.cat([path.edge_index, torch.tensor([[0, 4], [4, 0]])], 1)
    same = [
        Data(edge_index=once.repeat(1, 2), num_nodes=5),
        Data(edge_index=torch.cat([path.edge_index, loops], 1), num_nodes=5),
        Data(edge_index=more, edge_weight=torch.tensor([1.0] * 8 + [0.0] * 2), num_nodes=5),
    ]
    for name, expected in new_attributes(path, encoding(path)).items():
        for data in same:
            assert_close(encoding, encoding(data)[name], expected)


@pytest.mark.parametrize("n", [0, 1, 5, 150])
@pytest.mark.parametrize("encoding", [AddDegree(), *NODES], ids=name_of)
def test_nodes_without_an_edge_have_zeros(encoding: GraphEncoding, n: int) -> None:
    for data in (Data(edge_index=EMPTY, num_nodes=n), Data(num_nodes=n)):
        for found in new_attributes(data, encoding(data)).values():
            assert found.size(0) == n and not found.any()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_the_graph_itself_is_left_as_it_was(encoding: GraphEncoding) -> None:
    data = random_graph(9, weights="counts")
    before = copy.deepcopy(data)
    encoding(data)
    assert sorted(data.keys()) == sorted(before.keys())
    assert torch.equal(data.edge_index, before.edge_index)
    assert torch.equal(data.edge_weight, before.edge_weight)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_it_is_pickled_and_composed(encoding: GraphEncoding) -> None:
    data = random_graph(9)
    composed = T.Compose([encoding])
    again = pickle.loads(pickle.dumps(composed))
    assert repr(again) == repr(composed)
    for name, expected in new_attributes(data, encoding(data)).items():
        assert torch.equal(composed(data)[name], expected)
        assert torch.equal(again(data)[name], expected)


@pytest.mark.parametrize(
    ("name", "encoding", "arguments"),
    [
        ("add_degree", AddDegree, {}),
        ("add_electrostatic_se", AddElectrostaticSE, {}),
        ("add_expander_edges", AddExpanderEdges, {"degree": 3}),
        ("add_heat_kernel_se", AddHeatKernelSE, {"times": (0.5, 2.0)}),
        ("add_k_hop_edges", AddKHopEdges, {"k": 2}),
        ("add_laplacian_eigenvector_pe", AddLaplacianEigenvectorPE, {"k": 3}),
        ("add_random_walk_pe", AddRandomWalkPE, {"walk_length": 5}),
        ("add_relative_random_walk_pe", AddRelativeRandomWalkPE, {"walk_length": 4}),
        ("add_shortest_path_distance", AddShortestPathDistance, {"max_distance": 5}),
    ],
)
def test_functional_names_stand_beside_those_of_pyg(
    name: str, encoding: type[GraphEncoding], arguments: dict[str, Any]
) -> None:
    data = random_graph(9)
    source = torch.utils.data.datapipes.iter.IterableWrapper([data])
    (out,) = getattr(source, f"pyg_gt_{name}")(**arguments)
    for each, expected in new_attributes(data, encoding(**arguments)(data)).items():
        assert torch.equal(out[each], expected)
        assert each not in data
    assert (name in torch.utils.data.IterDataPipe.functions) == (encoding.__name__ in T.__all__)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (AddDegree(), "AddDegree(attr_name='degree')"),
        (AddDegree(attr_name="d"), "AddDegree(attr_name='d')"),
        (AddElectrostaticSE(), "AddElectrostaticSE(attr_name='electrostatic_se')"),
        (AddElectrostaticSE(None), "AddElectrostaticSE(attr_name=None)"),
        (
            AddExpanderEdges(3),
            "AddExpanderEdges(degree=3, attr_name='expander_edge_index', seed=0, max_tries=100)",
        ),
        (
            AddExpanderEdges(4, "my_edge_index", seed=5, max_tries=7),
            "AddExpanderEdges(degree=4, attr_name='my_edge_index', seed=5, max_tries=7)",
        ),
        *(
            (
                AddHeatKernelSE(times),
                "AddHeatKernelSE(times=(1.0, 2.5), attr_name='heat_kernel_se', "
                "normalization=None)",
            )
            for times in ([1, 2.5], (1, 2.5), np.array([1, 2.5]), torch.tensor([1, 2.5]))
        ),
        (
            AddHeatKernelSE(range(1, 3), None, normalization="rw"),
            "AddHeatKernelSE(times=(1.0, 2.0), attr_name=None, normalization='rw')",
        ),
        (AddKHopEdges(3), "AddKHopEdges(k=3, attr_name='k_hop_edge_index')"),
        (
            AddLaplacianEigenvectorPE(3),
            "AddLaplacianEigenvectorPE(k=3, attr_name='laplacian_eigenvector_pe', "
            "is_undirected=False, normalization='sym')",
        ),
        (
            AddLaplacianEigenvectorPE(4, None, True, normalization=None, tol=1e-3, ncv=9),
            "AddLaplacianEigenvectorPE(k=4, attr_name=None, is_undirected=True, "
            "normalization=None, ncv=9, tol=0.001)",
        ),
        (
            AddRandomWalkPE(3),
            "AddRandomWalkPE(walk_length=3, attr_name='random_walk_pe', num_samples=None, seed=0)",
        ),
        (
            AddRandomWalkPE(4, "pe", num_samples=9, seed=1),
            "AddRandomWalkPE(walk_length=4, attr_name='pe', num_samples=9, seed=1)",
        ),
        (
            AddRelativeRandomWalkPE(3),
            "AddRelativeRandomWalkPE(walk_length=3, attr_name='pair_walk')",
        ),
        (
            AddShortestPathDistance(),
            "AddShortestPathDistance(max_distance=20, attr_name='pair_distance', "
            "path_length=None)",
        ),
        (
            AddShortestPathDistance(3, "pair_hops", path_length=2),
            "AddShortestPathDistance(max_distance=3, attr_name='pair_hops', path_length=2)",
        ),
    ],
)
def test_repr_shows_every_argument(encoding: GraphEncoding, expected: str) -> None:
    assert repr(encoding) == expected


# Where encodings are stored.


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(9, 2), (9,)])
@pytest.mark.parametrize("encoding", [AddDegree(), *NODES], ids=name_of)
def test_an_encoding_of_nodes_is_appended_to_x(
    encoding: GraphEncoding, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    data = random_graph(9)
    appended, stored = copy.copy(encoding), copy.copy(encoding)
    appended.attr_name, stored.attr_name = None, "x"
    expected = encoding(data)[encoding.attr_name]
    assert torch.equal(appended(data).x, expected)
    data.x = torch.randn(shape).to(dtype)
    out = appended(data)
    assert out.x.dtype == dtype and sorted(out.keys()) == sorted(data.keys())
    assert torch.equal(out.x, torch.cat([data.x.view(9, -1), expected.to(dtype)], dim=1))
    assert torch.equal(stored(data).x, expected)
    data.x = data.x.long()
    with pytest.raises(ValueError, match="rounded to whole numbers"):
        appended(data)


@pytest.mark.cuda
@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_encodings_lie_where_the_edges_do(encoding: GraphEncoding) -> None:
    data = random_graph(9)
    out = encoding(data.clone().to("cuda"))
    for name, expected in new_attributes(data, encoding(data)).items():
        assert out[name].is_cuda
        assert torch.equal(out[name].cpu(), expected)


# What is refused.


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_data_is_checked(encoding: GraphEncoding) -> None:
    with pytest.raises(ValueError, match="got HeteroData"):
        encoding(HeteroData())
    with pytest.raises(IndexError, match="node 9, but the graph has 9 nodes"):
        encoding(Data(edge_index=torch.tensor([[0], [9]]), num_nodes=9))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_an_edge_between_graphs_is_refused(encoding: GraphEncoding) -> None:
    batch = Batch.from_data_list([as_data(nx.path_graph(2)), as_data(nx.path_graph(2))])
    batch.edge_index = torch.cat([batch.edge_index, torch.tensor([[1], [2]])], dim=1)
    with pytest.raises(ValueError, match="between nodes 1 and 2 of the batch"):
        encoding(batch)


def test_a_subclass_says_how_it_encodes() -> None:
    class Unfinished(GraphEncoding):
        pass

    with pytest.raises(TypeError, match="encode"):
        Unfinished()


class Returns(GraphEncoding):
    """Returns what it is given, or what that makes of the graphs."""

    reads_weights = False

    def __init__(self, made: object) -> None:
        self.made = made

    def encode(self, graphs: Graphs) -> list[Attribute]:
        return self.made(graphs) if callable(self.made) else self.made  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (None, "must return a list of 'Attribute's"),
        (lambda g: Attribute("a", np.zeros((g.ptr[-1], 1)), g.ptr), "must return a list"),
        (lambda g: [Attribute("a", np.zeros((g.ptr[-1] + 1, 1)), g.ptr)], "has 4 rows"),
        (lambda g: [Attribute("a", np.zeros((2, 1)), g.ptr)], "has 2 rows"),
        (lambda g: [Attribute("a", np.zeros((3, 1)), g.ptr[1:])], "of 0 graphs"),
        (lambda g: [Attribute("a", torch.zeros(3, 1), g.ptr)], "must be a numpy array"),
    ],
)
def test_what_an_encoding_returns_is_checked(made: object, says: str) -> None:
    data = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
    with pytest.raises(ValueError, match=says):
        Returns(made)(data)
    with pytest.raises(ValueError, match="'Returns.encode'"):
        precompute([data], Returns(made), num_workers=0)
