"""Shallow copies of graphs, against `copy.copy`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_gt.transforms.precomputing.columns import shallow_copy


class Molecule(Data):
    """A subclass, which may copy itself in its own way."""

    def __copy__(self) -> Data:
        copied = super().__copy__()
        copied.copies = self.get("copies", 0) + 1
        return copied


def graph(kind: type[Data] = Data) -> Data:
    data = kind(x=torch.randn(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), name="ring")
    data.__dict__["note"] = ["of the user"]
    return data


def test_it_is_a_copy() -> None:
    data = graph()
    copied, want = shallow_copy(data), copy.copy(data)
    assert type(copied) is Data and copied is not data
    assert list(copied.keys()) == list(want.keys())
    assert all(copied[name] is data[name] for name in data.keys())  # noqa: SIM118
    assert copied.__dict__.keys() == want.__dict__.keys()
    assert copied.__dict__["note"] is data.__dict__["note"]
    assert copied._store.__dict__.keys() == want._store.__dict__.keys()
    assert str(copied) == str(want)


def test_the_original_does_not_see_what_is_added() -> None:
    data = graph()
    copied = shallow_copy(data)
    copied.pe = torch.zeros(3, 4)
    del copied.name
    assert "pe" not in data and data.name == "ring"
    assert copied._store._parent() is copied and data._store._parent() is data


def test_what_pyg_knows_of_attributes_is_found_out_anew() -> None:
    data = graph()
    data.edges = torch.zeros(2)  # neither by its name nor by its size
    assert data.is_edge_attr("edges") and data._store._cached_attr
    copied = shallow_copy(data)
    assert "_cached_attr" not in copied._store.__dict__
    copied.edges = torch.zeros(3)
    assert copied.is_node_attr("edges") and data.is_edge_attr("edges")


def test_other_classes_copy_themselves() -> None:
    assert shallow_copy(graph(Molecule)).copies == 1
    batch = Batch.from_data_list([graph(), graph()])
    copied = shallow_copy(batch)
    assert type(copied) is type(batch) and copied.num_graphs == 2
    assert torch.equal(copied.get_example(1).x, batch.get_example(1).x)


@pytest.mark.parametrize("how", [copy.copy, shallow_copy])
def test_a_copy_outlives_its_original(how) -> None:
    copied = how(graph())
    assert copied._store._parent() is copied
    assert copied.num_nodes == 3 and copied.clone().num_edges == 2
