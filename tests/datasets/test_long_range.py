"""The label is the opposite node's colour, and no nearer or coarser view tells it."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv
from torch_geometric.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE, Constant
from torch_geometric.utils import is_undirected, k_hop_subgraph

from pyg_gt.datasets import LongRange


@pytest.fixture(scope="module")
def rings() -> LongRange:
    return LongRange(2000)


def walk(ring: Data) -> list[int]:
    """The nodes of a ring in order, from the target."""
    neighbours: dict[int, list[int]] = {}
    for source, target in ring.edge_index.t().tolist():
        neighbours.setdefault(source, []).append(target)
    place = int(ring.target_mask.nonzero())
    order = [place]
    while len(order) < ring.num_nodes:
        order.append(next(node for node in neighbours[order[-1]] if node not in order[-2:]))
    assert order[0] in neighbours[order[-1]]
    return order


def colors(ring: Data) -> Tensor:
    return ring.x[:, :-1].argmax(1)


def test_label_is_the_opposite_color(rings: LongRange) -> None:
    for ring in rings[:300]:
        order = walk(ring)
        assert sorted(order) == list(range(ring.num_nodes))
        assert int(colors(ring)[order[ring.num_nodes // 2]]) == int(ring.y)


def test_form(rings: LongRange) -> None:
    for ring in rings[:300]:
        n = ring.num_nodes
        assert ring.x.shape == (n, 5) and ring.x.dtype == torch.float32
        assert torch.equal(ring.x[:, :4].sum(1), torch.ones(n))
        assert torch.equal(ring.x[:, 4], ring.target_mask.float())
        assert ring.target_mask.sum() == 1 and ring.y.shape == (1,)
        assert ring.edge_index.shape == (2, 2 * n) and is_undirected(ring.edge_index)
        assert ring.validate()


def test_sizes(rings: LongRange) -> None:
    sizes = torch.tensor([ring.num_nodes for ring in rings])
    assert sizes.unique().tolist() == [12, 14, 16, 18, 20, 22, 24]
    assert {ring.num_nodes for ring in LongRange(20, sizes=(4, 4))} == {4}


def test_classes_are_balanced(rings: LongRange) -> None:
    counts = torch.bincount(rings.y, minlength=4).float()
    expected = torch.full((4,), len(rings) / 4)
    # Chi-squared with 3 degrees of freedom exceeds 21.1 once in ten thousand seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 21.1
    assert rings.num_classes == 4
    assert LongRange(50, num_colors=7).num_classes == 7


def test_arguments_alone_decide() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = LongRange(20, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = LongRange(20, seed=3), LongRange(20, seed=4)
    for key in ("x", "edge_index", "y", "target_mask"):
        assert torch.equal(getattr(first, key), getattr(second, key))
    assert not torch.equal(first.y, other.y)


def test_more_graphs_begin_with_the_same_ones() -> None:
    few, many = LongRange(5), LongRange(10)
    assert all(torch.equal(a.x, b.x) for a, b in zip(few, many, strict=False))


@pytest.mark.parametrize("num_graphs", [3, 10, 57, 200])
def test_split(num_graphs: int) -> None:
    dataset = LongRange(num_graphs)
    split = dataset.get_idx_split()
    assert list(split) == ["train", "valid", "test"]
    tenth = max(1, num_graphs // 10)
    assert [len(index) for index in split.values()] == [num_graphs - 2 * tenth, tenth, tenth]
    assert torch.equal(torch.cat(list(split.values())), torch.arange(num_graphs))
    assert len(dataset[split["valid"]]) == tenth


def recolored(ring: Data, color: int) -> Data:
    """The same ring with another colour, and so another label, at the opposite node."""
    opposite = walk(ring)[ring.num_nodes // 2]
    changed = ring.clone()
    changed.x[opposite, :4] = torch.eye(4)[color]
    changed.y = torch.tensor([color])
    return changed


def test_what_fewer_hops_see_fits_every_label(rings: LongRange) -> None:
    for ring in rings[:50]:
        hops = ring.num_nodes // 2 - 1
        seen, _, _, _ = k_hop_subgraph(
            int(ring.target_mask.nonzero()), hops, ring.edge_index, num_nodes=ring.num_nodes
        )
        assert len(seen) == ring.num_nodes - 1
        for color in range(4):
            changed = recolored(ring, color)
            assert torch.equal(changed.x[seen], ring.x[seen])
            assert int(colors(changed)[walk(changed)[ring.num_nodes // 2]]) == int(changed.y)


@pytest.mark.parametrize(("layers", "sees"), [(5, False), (6, True)])
def test_message_passing_needs_half_the_ring(layers: int, sees: bool) -> None:
    """On rings of 12, five layers give the same output for every label, six do not."""
    ring = LongRange(3, sizes=(12, 12))[0]
    convs = [GINConv(torch.nn.Linear(5, 5).double()) for _ in range(layers)]
    outputs = []
    for color in range(4):
        x = recolored(ring, color).x.double()
        for conv in convs:
            x = conv(x, ring.edge_index)
        outputs.append(x[ring.target_mask])
    assert all(torch.equal(output, outputs[0]) for output in outputs) is not sees


def test_ego_net_is_independent_of_the_label() -> None:
    """No colour near the target is more frequent under any label."""
    dataset = LongRange(8000, sizes=(12, 12))
    table = torch.zeros(4, 4)  # Label, colour at a place.
    for place in (0, 1, 5):
        table.zero_()
        for ring in dataset:
            table[int(ring.y), colors(ring)[walk(ring)[place]]] += 1
        expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
        # Chi-squared with 9 degrees of freedom exceeds 33.7 once in ten thousand seeds.
        assert ((table - expected) ** 2 / expected).sum() < 33.7


def test_pooled_colors_hardly_tell_the_label() -> None:
    """Guessing any colour that occurs is as good as another, and near chance."""
    counts, labels = [], []
    for ring in LongRange(8000, seed=1):
        counts.append(ring.x[:, :4].sum(0))
        labels.append(ring.y)
    count, label = torch.stack(counts), torch.cat(labels)
    most = (count.argmax(1) == label).float().mean()
    fewest = (count.masked_fill(count == 0, torch.inf).argmin(1) == label).float().mean()
    upper = (1 / (count > 0).sum(1)).mean()  # Every colour that occurs is as likely.
    assert upper < 0.32
    assert abs(most - upper) < 0.03 and abs(fewest - upper) < 0.03


def test_laplacian_vectors_tell_the_opposite_node_and_walks_do_not() -> None:
    torch.manual_seed(0)
    ring = LongRange(3, sizes=(12, 12))[0]
    order = walk(ring)
    vectors = AddLaplacianEigenvectorPE(2, is_undirected=True)(ring).laplacian_eigenvector_pe
    assert torch.allclose(vectors[order[0]], -vectors[order[6]], atol=1e-5)
    walks = AddRandomWalkPE(8)(ring).random_walk_pe
    assert torch.allclose(walks, walks[:1].expand_as(walks))


def test_transforms_and_batches() -> None:
    dataset = LongRange(20, transform=Constant(), pre_transform=AddRandomWalkPE(3))
    assert dataset[0].x.size(1) == 6 and dataset[0].random_walk_pe.size(1) == 3
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch.y.shape == (5,) and batch.target_mask.sum() == 5
    assert torch.equal(batch.batch[batch.target_mask], torch.arange(5))


@pytest.mark.parametrize("sizes", [(11, 24), (12, 23), (2, 24), (24, 12), (0, 0)])
def test_bad_sizes(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="two even numbers"):
        LongRange(10, sizes=sizes)


WRONG = {
    "num_graphs": [0, -1, 2, True, 1.5, 10.0, None, "ten", [10], torch.tensor(10.0)],
    "num_colors": [0, -1, 1, True, 2.5, None, "4", 2**24 + 1, 10**30],
    "seed": [None, 1.5, True, "0", 2**64, -(2**63) - 1],
    "sizes": [
        None,
        12,
        "12",
        (12,),
        (12, 14, 16),
        (12.0, 14.0),
        (True, 4),
        ("12", "24"),
        {12, 24},
    ],
    "transform": [5, "Constant", Constant],
    "pre_transform": [5, "Constant", Constant],
}


@pytest.mark.parametrize(
    ("argument", "value"), [(argument, value) for argument in WRONG for value in WRONG[argument]]
)
def test_wrong_arguments(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as caught:
        LongRange(**{"num_graphs": 10, argument: value})
    assert repr(value) in str(caught.value)


def test_numbers_of_numpy() -> None:
    four = np.int64(4)
    rings = LongRange(four, [four, four], four, np.int32(3))  # type: ignore[arg-type]
    assert torch.equal(rings.x, LongRange(4, (4, 4), 4, 3).x)


def test_defaults_of_torch_change_nothing() -> None:
    expected = LongRange(20, pre_transform=AddRandomWalkPE(3))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = LongRange(20, pre_transform=AddRandomWalkPE(3))
            split, graph = got.get_idx_split(), got[3]
    finally:
        torch.set_default_dtype(before)
    for key in ("x", "edge_index", "y", "target_mask"):
        assert torch.equal(getattr(got, key), getattr(expected, key))
        assert torch.equal(graph[key], expected[3][key])
    assert torch.equal(split["train"], torch.arange(16))


def test_parts_and_copies_are_as_pyg_says(rings: LongRange) -> None:
    part = rings[[30, 10, 20]]
    for some in (part, part.copy(), rings.copy([30, 10, 20]), pickle.loads(pickle.dumps(part))):
        assert type(some) is LongRange and len(some) == 3 and some.num_classes == 4
        assert torch.equal(some.y, rings.y[[30, 10, 20]])
        assert torch.equal(some[1].edge_index, rings[10].edge_index)
        assert [len(index) for index in some.get_idx_split().values()] == [1, 1, 1]
    assert torch.equal(rings[:10].y, rings.y[:10])
    # graphs that were read are views of all numbers, and bring none of them along
    small = LongRange(60)
    before = len(pickle.dumps(small))
    assert all(graph.num_nodes for graph in small) and len(pickle.dumps(small)) < 1.1 * before
    for index in rings[:100].get_idx_split().values():
        assert len(rings[:100][index]) == len(index)
    with pytest.raises(ValueError, match="2 graphs have no split"):
        rings[:2].get_idx_split()


@pytest.mark.parametrize("arguments", [{"num_graphs": 2}, {"num_colors": 1}])
def test_too_few(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="num_graphs >= 3.*num_colors >= 2"):
        LongRange(**{"num_graphs": 10, **arguments})  # type: ignore[arg-type]
