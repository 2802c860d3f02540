"""Wrong arguments are refused where they are given, in words that name them."""

import inspect
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from pyg_gt import transforms
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
    EncodeAndCollate,
    ReorderNodes,
    block_density,
    precompute,
)
from pyg_gt.transforms.graphs import arguments
from pyg_gt.transforms.precomputing import chunks

NEEDED: dict[str, dict[str, Any]] = {
    "AddExpanderEdges": {"degree": 3},
    "AddHeatKernelSE": {"times": (1.0,)},
    "AddKHopEdges": {"k": 2},
    "AddLaplacianEigenvectorPE": {"k": 2},
    "AddRandomWalkPE": {"walk_length": 2},
    "AddRelativeRandomWalkPE": {"walk_length": 2},
    "EncodeAndCollate": {"transform": AddDegree()},
}
# What may be given besides numbers.
OTHERS = {
    "attr_name": (3, True, 1.5, b"name", ["name"], ""),
    "is_undirected": (None, 0, 1, "no", 1.0),
    "normalization": ("none", 0, True, ["sym"]),
    "method": (None, "amd", 3, True, ["rcm"]),
    "node_attrs": ("x", 3, True, [3], [None], 1.5),
    "follow_batch": ("x", 3, True, [3]),
    "exclude_keys": ("x", 3, True, [3]),
    "times": (None, 1.0, "1", b"1", ["1"], [True], [0], [-1.0], [float("nan")], [float("inf")],
              {1.0}, {1.0: 2}, [None], [[1.0]], [10**400], [1j]),
    "transform": (None, 3, "degree", [], AddDegree, [AddDegree(), None]),
    "tol": (None, "1", True, -1.0, float("nan"), float("inf"), 1j),
    "maxiter": ("1", True, 0, 1.5),
    "ncv": ("1", True, 0, 1.5),
}  # fmt: skip
NUMBERS = (True, False, -1, 1.5, 1.0, "3", b"3", float("nan"), [3], (3,), torch.tensor(3), 1j, {})
MAY_BE_NONE = {"num_samples", "path_length", "maxiter", "ncv", "node_attrs"}


def public() -> list[type]:
    found = [each for each in vars(transforms).values() if inspect.isclass(each)]
    return [
        each
        for each in found
        if each.__name__.startswith("Add") or each in (ReorderNodes, EncodeAndCollate)
    ]


def wrong() -> list[Any]:
    cases = []
    for kind in public():
        names = [*inspect.signature(kind).parameters]
        if "kwargs" in names:
            names = [name for name in names if name != "kwargs"] + ["tol", "maxiter", "ncv"]
        for name in names:
            values: list[Any] = [*(OTHERS.get(name) or NUMBERS)]
            if name not in OTHERS and name not in MAY_BE_NONE:
                values.append(None)
            if name == "attr_name" and "_edge_index" in str(inspect.signature(kind)):
                values += [None, "edges"]
            cases += [pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{value!r}"[:70])
                      for value in values]  # fmt: skip
    return cases


@pytest.mark.parametrize(("kind", "name", "value"), wrong())
def test_a_wrong_argument_is_named(kind: type, name: str, value: Any) -> None:
    with pytest.raises(ValueError) as error:
        kind(**{**NEEDED.get(kind.__name__, {}), name: value})
    assert type(error.value) is ValueError
    said = str(error.value)
    assert name in said or name == "transform"
    assert "expected" in said


def test_numbers_of_numpy_are_numbers() -> None:
    assert repr(AddRandomWalkPE(np.int32(3))) == repr(AddRandomWalkPE(3))
    assert repr(AddHeatKernelSE(np.array([1, 2]))) == repr(AddHeatKernelSE((1.0, 2.0)))
    assert repr(AddHeatKernelSE(torch.tensor([1.0, 2.0]))) == repr(AddHeatKernelSE((1.0, 2.0)))
    assert repr(AddHeatKernelSE([np.float32(1), 2])) == repr(AddHeatKernelSE((1.0, 2.0)))
    made = AddLaplacianEigenvectorPE(2, is_undirected=np.bool_(True), tol=0, ncv=None)
    assert made.is_undirected is True


@pytest.mark.parametrize("name", ["num_nodes", "block_size"])
@pytest.mark.parametrize("value", [value for value in (*NUMBERS, None) if value != -1])
def test_wrong_arguments_of_block_density(name: str, value: Any) -> None:
    edges = torch.empty(2, 0, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"block_density got {name}=.*expected"):
        block_density(edges, **{"num_nodes": 3, name: value})


# Huge numbers.

HUGE: list[Callable[[int], Any]] = [
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddRelativeRandomWalkPE,
    AddKHopEdges,
    AddShortestPathDistance,
    lambda n: AddShortestPathDistance(path_length=n),
]


@pytest.mark.parametrize("huge", [10**9, 2**63, 10**30])
@pytest.mark.parametrize("make", HUGE)
def test_a_huge_number_of_columns_is_named(make: Callable[[int], Any], huge: int) -> None:
    with pytest.raises(ValueError, match=f"={huge}; expected at most"):
        make(huge)


def ring(n: int) -> Data:
    return Data(edge_index=from_networkx(nx.cycle_graph(n)).edge_index, num_nodes=n)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        (AddLaplacianEigenvectorPE(2**14), "k"),
        (AddRandomWalkPE(2**14), "walk_length"),
        (AddRandomWalkPE(2**14, num_samples=2), "walk_length"),
        (AddRelativeRandomWalkPE(2**14), "walk_length"),
        (AddShortestPathDistance(path_length=2**14), "path_length"),
        (AddExpanderEdges(2**14), "degree"),
    ],
)
def test_what_takes_more_memory_than_there_is_is_named(
    encoding: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "_memory", lambda: 10**7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"got {name}=16384, which takes .* GB of this machine"):
        encoding(ring(2000))
    with pytest.raises(ValueError, match=rf"graph 1: .*got {name}=16384"):
        precompute([ring(2), ring(2000)], encoding, progress=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_the_memory_of_this_machine() -> None:
    memory = arguments._memory()
    assert memory is None or 10**8 < memory < 10**15


def test_huge_numbers_that_are_fine() -> None:
    data = AddExpanderEdges(10**9, seed=10**30)(ring(5))
    assert data.expander_edge_index.size(1) == 20  # all pairs
    ReorderNodes(block_size=10**30)(ring(5))
    assert block_density(ring(5).edge_index, 5, 10**9).blocks == 1
    with pytest.raises(ValueError, match="degree=1000000000000000000; expected at most"):
        AddExpanderEdges(10**18)


# `precompute` and its errors.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_workers", value) for value in (*NUMBERS, None)),
        *((name, value) for name in ("progress", "rebuild") for value in (None, "no", 0, 1, 1.0)),
        *(("cache_dir", value) for value in ("", 3, True, False, b"cache", ["cache"], 1.5)),
    ],
)
def test_wrong_arguments_of_precompute(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"precompute got {name}=.*expected"):
        precompute([ring(3)], AddDegree(), **{"progress": False, name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [None, 3, "graphs", b"", iter([]), {1}, ring(3), True])
def test_wrong_data(data: Any) -> None:
    with pytest.raises(ValueError, match=r"expected (a list of graphs|a torch_geometric|.*Data)"):
        precompute(data or [None], AddDegree(), progress=False)


def weighing(weights: list[float]) -> Data:
    data = ring(3)
    data.edge_weight = torch.tensor(weights)
    return data


def bad_graphs() -> dict[str, tuple[Any, Any, type[Exception], str]]:
    edges = torch.tensor([[0], [7]])
    one_way = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    large = AddShortestPathDistance(3)
    large.MAX_NODES = 5
    integers = ring(3)
    integers.x = torch.ones(3, 1, dtype=torch.long)
    return {
        "no Data": (None, AddDegree(), ValueError, "expected a torch_geometric.data.Data"),
        "text": ("graph", AddDegree(), ValueError, "expected a torch_geometric.data.Data"),
        "outside": (Data(edge_index=edges, num_nodes=3), AddDegree(), IndexError, "holds node 7"),
        "unknown": (Data(), AddDegree(), ValueError, "number of nodes|edge_index"),
        "floats": (Data(edge_index=torch.zeros(2, 1), num_nodes=3), AddDegree(), ValueError,
                   "whole numbers"),
        "weights": (weighing([-1.0] * 6), AddRandomWalkPE(3), ValueError, "not negative"),
        "directed": (one_way, AddLaplacianEigenvectorPE(2, is_undirected=True), ValueError,
                     "the graph is directed"),
        "large": (ring(6), large, ValueError, "for a graph of 6 nodes"),
        "potentials": (weighing([1e-44] * 6), AddElectrostaticSE(), ValueError, "potentials"),
        "x": (integers, AddDegree(None), ValueError, "cannot append an encoding"),
        "batch": (Data(num_nodes=3, batch=torch.zeros(2).long()), AddDegree(), ValueError,
                  "data.batch has 2"),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Unable to accurately infer:UserWarning")
@pytest.mark.parametrize("what", bad_graphs())
@pytest.mark.parametrize("how", ["precompute", "workers", "cached", "collate"])
def test_the_graph_that_is_wrong_has_its_number(
    how: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 10)
    bad, encoding, kind, message = bad_graphs()[what]
    graphs = [ring(3) for _ in range(9)]
    for graph in graphs:
        graph.x = torch.ones(3, 1)
    graphs[7] = bad
    with pytest.raises(kind, match=rf"(?s)graph 7: .*({message})"):
        if how == "collate":
            EncodeAndCollate(encoding)(graphs)
        else:
            precompute(
                graphs,
                encoding,
                progress=False,
                num_workers=2 if how == "workers" else 0,
                cache_dir=tmp_path if how == "cached" else None,
            )


def test_what_no_graph_alone_does_has_no_number() -> None:
    with pytest.raises(ValueError, match="^2 transforms write to 'degree'"):
        precompute([ring(3)] * 2, [AddDegree(), AddDegree()], progress=False)
