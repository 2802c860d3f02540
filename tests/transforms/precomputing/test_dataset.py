"""A dataset with encodings, whole and in parts, is used as PyG's own are.

The oracle is `InMemoryDataset` itself, made of graphs that were encoded before.
"""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from pyg_gt.datasets import LongRange
from pyg_gt.transforms import (
    AddDegree,
    AddKHopEdges,
    AddRandomWalkPE,
    AddShortestPathDistance,
    PrecomputedDataset,
    precompute,
)
from pyg_gt.transforms.precomputing import chunks
from tests.transforms.samples import ReadAnew

ENCODE = [AddRandomWalkPE(4), AddKHopEdges(2), AddShortestPathDistance(5)]
COUNT = 30


class Plain(InMemoryDataset):
    """What PyG makes of a list of graphs."""

    def __init__(self, graphs: list[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(graphs)


@pytest.fixture(params=["in memory", "cached"])
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PrecomputedDataset:
    """In several shards."""
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 100)
    where = tmp_path / "cache" if request.param == "cached" else None
    found = precompute(LongRange(COUNT, (6, 24)), ENCODE, progress=False, cache_dir=where)
    assert isinstance(found, PrecomputedDataset) and len(found._shards) > 2
    return found


def oracle() -> Plain:
    graphs = list(LongRange(COUNT, (6, 24)))
    for encoding in ENCODE:
        graphs = [encoding(graph) for graph in graphs]
    return Plain(graphs)


INDICES: dict[str, Any] = {
    "whole": slice(None),
    "slice": slice(3, 20, 4),
    "share": slice(0.5, None),
    "list": [7, 2, 2, 29],
    "tensor": torch.tensor([28, 0, 13]),
    "mask": torch.arange(COUNT) % 3 == 1,
    "array": np.array([5, 11]),
    "backwards": slice(None, None, -1),
    "one": [4],
}


def assert_same(got: Data, expected: Data) -> None:
    assert sorted(got.keys()) == sorted(expected.keys())
    for name, value in expected.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert got[name].dtype == value.dtype and got[name].shape == value.shape
            torch.testing.assert_close(got[name], value, rtol=0, atol=1e-6)
        else:
            assert got[name] == value


def assert_all_same(got: Any, expected: Any) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("index", INDICES)
def test_a_part_answers_for_itself(made: PrecomputedDataset, index: str) -> None:
    part, expected = made[INDICES[index]], oracle()[INDICES[index]]
    assert_all_same(part, expected)
    names = ("x", "y", "edge_index", "target_mask", "random_walk_pe", "k_hop_edge_index")
    for name in (*names, "k_hop_distance", "pair_distance"):
        value = getattr(expected, name)
        torch.testing.assert_close(getattr(part, name), value, rtol=0, atol=1e-6)
    for name in ("num_features", "num_node_features", "num_edge_features"):
        assert getattr(part, name) == getattr(expected, name)
    assert part.num_classes == made.num_classes == 4
    assert str(len(part)) in repr(part) or len(part) == 1
    assert_same(part.data, oracle().copy(INDICES[index])._data)
    again = part[::2]
    assert_all_same(again, expected[::2])
    assert torch.equal(again.y, expected[::2].y)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("how", ["copy", "index", "pickle", "deepcopy", "shallow"])
def test_a_copy_of_a_part(made: PrecomputedDataset, index: str, how: str) -> None:
    part, expected = made[INDICES[index]], oracle()[INDICES[index]]
    copied = {
        "copy": lambda: part.copy(),
        "index": lambda: made.copy(INDICES[index]),
        "pickle": lambda: pickle.loads(pickle.dumps(part)),
        "deepcopy": lambda: copy.deepcopy(part),
        "shallow": lambda: copy.copy(part),
    }[how]()
    assert type(copied) is PrecomputedDataset
    assert_all_same(copied, expected)
    assert torch.equal(copied.y, expected.y)
    assert_all_same(copied[1:], expected[1:])
    assert_all_same(copied.copy(), expected)
    if how in ("copy", "index"):
        for graph in copied:
            graph.random_walk_pe.fill_(7)
        assert_all_same(part, expected)
        assert len(copied.dataset) == len(expected)  # and no others


def test_a_copy_keeps_the_transform(made: PrecomputedDataset) -> None:
    def marked(data: Data) -> Data:
        data.mark = 1
        return data

    made.transform = marked
    assert made.copy([3])[0].mark == 1 and "mark" not in made.copy([3]).get(0)


def test_a_copy_of_none(made: PrecomputedDataset) -> None:
    assert len(made[[]].copy()) == len(made.copy([])) == 0


@pytest.mark.parametrize("index", INDICES)
def test_on_disk(made: PrecomputedDataset, index: str, tmp_path: Path) -> None:
    part, expected = made[INDICES[index]], oracle()[INDICES[index]]
    written = part.to_on_disk_dataset(str(tmp_path / "disk"), log=False)
    assert_all_same(written, expected)
    written.close()


def test_on_disk_needs_a_folder(made: PrecomputedDataset) -> None:
    with pytest.raises(ValueError, match="pass root="):
        made.to_on_disk_dataset()


def test_shuffled(made: PrecomputedDataset) -> None:
    part, order = made.shuffle(return_perm=True)
    assert_all_same(part, oracle()[order])
    assert torch.equal(part.y, made.y[order])


def test_in_a_loader_and_a_datapipe(made: PrecomputedDataset) -> None:
    part, expected = made[4:12], oracle()[4:12]
    batches = list(DataLoader(part, batch_size=3))
    assert_all_same([graph for batch in batches for graph in batch.to_data_list()], expected)
    assert_all_same(list(part.to_datapipe()), expected)


def test_encodings_that_are_appended_to_x() -> None:
    rings = LongRange(12, (6, 12))
    made = precompute(rings, AddRandomWalkPE(3, None), progress=False)
    part = made[[5, 2]]
    assert part.num_node_features == 8
    expected = torch.cat([AddRandomWalkPE(3, None)(rings[i]).x for i in (5, 2)])
    torch.testing.assert_close(part.x, expected)
    torch.testing.assert_close(part.data.x, expected)
    torch.testing.assert_close(part.copy().x, expected)
    assert made.x.shape == (rings.x.size(0), 8)


def test_classes_of_what_a_transform_makes(made: PrecomputedDataset) -> None:
    def seven(data: Data) -> Data:
        data.y = torch.tensor([6])
        return data

    made.transform = seven
    assert made.num_classes == 7


def test_the_default_device_changes_nothing(made: PrecomputedDataset) -> None:
    expected = oracle()[3:9]
    with torch.device("meta"):
        part = made[3:9]
        graphs = list(part)
        copied, data, walks = part.copy(), part.data, part.random_walk_pe
    assert_all_same(graphs, expected)
    assert_all_same(copied, expected)
    torch.testing.assert_close(data.random_walk_pe, expected.random_walk_pe)
    torch.testing.assert_close(walks, expected.random_walk_pe)


def test_of_a_dataset_that_does_not_lie_in_memory() -> None:
    rings = list(LongRange(9, (6, 12)))
    made = precompute(ReadAnew(rings), AddDegree(), progress=False)
    part = made[[4, 1, 7]]
    assert part.first() == [0, 1]
    assert torch.equal(part.degree, torch.cat([AddDegree()(rings[i]).degree for i in (4, 1, 7)]))
    assert part.num_classes == int(max(rings[i].y for i in (4, 1, 7))) + 1
    for name in ("copy", "y", "nothing"):
        with pytest.raises(AttributeError, match=name):
            getattr(part, name)() if name == "copy" else getattr(part, name)
    assert torch.equal(part.data.y, torch.cat([rings[i].y for i in (4, 1, 7)]))


def test_of_a_part_of_a_dataset_and_of_a_precomputed_one(made: PrecomputedDataset) -> None:
    twice = precompute(made[[9, 3, 5, 20]], AddDegree(), progress=False)
    expected = [AddDegree()(graph) for graph in oracle()[[9, 3, 5, 20]]]
    assert_all_same(twice, expected)
    part = twice[[2, 0]]
    assert_all_same(part, [expected[2], expected[0]])
    assert torch.equal(part.y, torch.cat([expected[2].y, expected[0].y]))
    torch.testing.assert_close(
        part.random_walk_pe, torch.cat([expected[2].random_walk_pe, expected[0].random_walk_pe])
    )
    assert_all_same(part.copy(), [expected[2], expected[0]])


def test_moving_keeps_encodings() -> None:
    made = precompute(LongRange(6, (6, 12)), AddDegree(), progress=False)
    with pytest.raises(ValueError, match="already cached"):  # as PyG says of what was read
        made.to("cpu")
    copied = made.copy()
    assert copied.cpu() is copied and copied.to("meta") is copied
    assert copied[1].degree.device.type == copied[1].x.device.type == "meta"
    with pytest.raises(ValueError, match="only references a subset"):
        made.copy()[:2].to("cpu")


@pytest.mark.parametrize("bad", [-1, COUNT, 10**9])
def test_no_graph_of_that_number(made: PrecomputedDataset, bad: int) -> None:
    with pytest.raises(IndexError, match=f"there are {COUNT} graphs, and none of number {bad}"):
        made.get(bad)


def pickled(graph: Data) -> int:
    return len(pickle.dumps(graph))


def saved(graph: Data) -> int:
    file = io.BytesIO()
    torch.save(graph, file)
    return len(file.getvalue())


@pytest.mark.parametrize("size", [pickled, saved])
@pytest.mark.parametrize("where", ["list", "dataset", "workers", "cached", "copy"])
def test_a_graph_saves_its_own_numbers(
    where: str, size: Callable[[Data], int], tmp_path: Path
) -> None:
    ring = torch.arange(30)
    ring = torch.stack([ring, ring.roll(-1)])
    graphs = [
        Data(edge_index=torch.cat([ring, ring.flip(0)], 1), num_nodes=30) for _ in range(200)
    ]
    encode = [*ENCODE, AddDegree()]
    found: Any = precompute(
        Plain(graphs) if where == "copy" else ReadAnew(graphs) if where == "dataset" else graphs,
        encode,
        progress=False,
        num_workers=2 if where == "workers" else 0,
        cache_dir=tmp_path if where == "cached" else None,
    )
    if where == "copy":
        found = found[[3, 77]].copy()
    # the edges of a graph of PyG's in memory are a view of all
    graph = found[1].clone() if where == "copy" else found[77]
    assert size(graph) <= size(graph.clone()) + 1000
    assert_same(pickle.loads(pickle.dumps(graph)), graph)
    assert all(
        value.untyped_storage().nbytes() == value.nbytes
        for name, value in found[1].to_dict().items()
        if isinstance(value, torch.Tensor) and name != "edge_index"
    )
