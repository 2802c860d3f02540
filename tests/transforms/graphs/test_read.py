"""How graphs are read: which belong together, what weights mean, and in whose memory."""

import threading
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex, Index
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_networkx, subgraph

from pyg_gt.transforms import (
    AddDegree,
    AddKHopEdges,
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddShortestPathDistance,
    EncodeAndCollate,
    ReorderNodes,
    block_density,
    precompute,
)
from pyg_gt.transforms.graph_encoding import GraphEncoding
from pyg_gt.transforms.graphs.read import read_graphs
from tests.transforms.samples import ENCODINGS, name_of

WITHOUT_WEIGHTS = [each for each in ENCODINGS if not each.reads_weights]


def graph_of(graph: nx.Graph) -> Data:
    n = graph.number_of_nodes()
    edge_index = torch.empty(2, 0, dtype=torch.long)
    if graph.number_of_edges():
        edge_index = from_networkx(graph).edge_index.long()
    return Data(x=torch.arange(float(n)).view(-1, 1), edge_index=edge_index)


def some_graphs() -> list[Data]:
    """A directed one, one without edges and one of a single node among them."""
    return [
        graph_of(nx.gnp_random_graph(7, 0.4, seed=0)),
        graph_of(nx.gn_graph(6, seed=1)),
        graph_of(nx.empty_graph(2)),
        graph_of(nx.empty_graph(1)),
        graph_of(nx.path_graph(9)),
    ]


def by_hand(graphs: list[Data], nodes: Tensor, seed: int = 0) -> Data:
    """``graphs`` in one `Data` with ``batch`` alone, whose node ``i`` is node ``nodes[i]``."""
    joined = Batch.from_data_list(graphs)
    rank = nodes.argsort()
    shuffled = torch.randperm(joined.num_edges, generator=torch.Generator().manual_seed(seed))
    return Data(
        x=joined.x[nodes],
        edge_index=rank[joined.edge_index[:, shuffled]],
        batch=joined.batch[nodes],
    )


def alone(data: Data, encode: Callable[[Data], Data]) -> list[tuple[Tensor, Data]]:
    """The numbers of the nodes of each graph by ``batch``, and what it gets on its own."""
    found = []
    for graph in data.batch.unique().tolist():
        nodes = (data.batch == graph).nonzero().view(-1)
        edge_index, _ = subgraph(
            nodes, data.edge_index, relabel_nodes=True, num_nodes=data.num_nodes
        )
        found.append((nodes, encode(Data(edge_index=edge_index, num_nodes=len(nodes)))))
    return found


def assert_joined(got: Data, parts: list[tuple[Tensor, Data]]) -> None:
    """``got`` has what ``parts`` have, joined as layers read it."""
    names = [name for name in parts[0][1].keys() if name not in ("edge_index", "num_nodes")]
    assert names
    for name in names:
        if name.endswith("_edge_index"):
            expected = torch.cat([nodes[part[name]] for nodes, part in parts], dim=1)
        elif name.startswith("pair_") or name.endswith("_distance"):
            expected = torch.cat([part[name] for _, part in parts])
        else:
            expected = torch.cat([part[name] for _, part in parts])
            expected = expected[torch.cat([nodes for nodes, _ in parts]).argsort()]
        if expected.is_floating_point():
            torch.testing.assert_close(got[name], expected, rtol=0, atol=2e-6)
        else:
            assert torch.equal(got[name], expected), name


def orders(total: int) -> dict[str, Tensor]:
    shuffled = torch.randperm(total, generator=torch.Generator().manual_seed(3))
    return {
        "sorted": torch.arange(total),
        "backwards": torch.arange(total).flip(0),
        "any": shuffled,
    }


@pytest.mark.parametrize("order", ["sorted", "backwards", "any"])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_a_batch_made_by_hand_is_its_graphs(encoding: GraphEncoding, order: str) -> None:
    data = by_hand(some_graphs(), orders(25)[order])
    parts = alone(data, encoding)
    assert_joined(encoding(data), parts)
    with_ptr = by_hand(some_graphs(), orders(25)[order])
    with_ptr.ptr = Batch.from_data_list(some_graphs()).ptr
    assert_joined(encoding(with_ptr), parts)
    gaps = by_hand(some_graphs(), orders(25)[order])
    gaps.batch = (gaps.batch * 7 + 2).to(torch.int32)  # graphs without nodes in between
    assert_joined(encoding(gaps), parts)
    huge = by_hand(some_graphs(), orders(25)[order])
    huge.batch = torch.where(huge.batch == 4, 2**62, huge.batch)
    assert_joined(encoding(huge), parts)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_a_batch_by_ptr_alone(encoding: GraphEncoding) -> None:
    data = by_hand(some_graphs(), torch.arange(25))
    parts = alone(data, encoding)
    del data.batch
    data.ptr = Batch.from_data_list(some_graphs()).ptr
    assert_joined(encoding(data), parts)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_a_batch_of_pygs_own_tensors(encoding: GraphEncoding) -> None:
    data = by_hand(some_graphs(), orders(25)["any"])
    parts = alone(data, encoding)
    data.edge_index = EdgeIndex(data.edge_index, sparse_size=(25, 25))
    data.batch = Index(data.batch, dim_size=5)
    assert_joined(encoding(data), parts)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_a_batch_whose_nodes_were_reordered(encoding: GraphEncoding) -> None:
    """By hand, so that ``ptr`` and what PyG noted of it tell the old order."""
    batch = Batch.from_data_list(some_graphs())
    nodes = orders(25)["any"]
    batch.x, batch.batch = batch.x[nodes], batch.batch[nodes]
    batch.edge_index = nodes.argsort()[batch.edge_index]
    assert_joined(encoding(batch), alone(batch, encoding))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_a_part_of_a_batch(encoding: GraphEncoding) -> None:
    """`Batch.subgraph` leaves ``ptr`` as it was."""
    for kept in (torch.arange(0, 25, 2), torch.arange(25).flip(0)[3:], torch.tensor([24, 3, 7])):
        part = Batch.from_data_list(some_graphs()).subgraph(kept)
        assert_joined(encoding(part), alone(part, encoding))


class Odd(Data):
    """Counts ``edge_index`` on by another number than its nodes, as for a node to come."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 4 if key == "edge_index" else super().__inc__(key, value, *args, **kwargs)


class Own(Data):
    """Counts on something of its own."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 5 if key == "room" else super().__inc__(key, value, *args, **kwargs)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=name_of)
def test_a_subclass_that_counts_on_by_itself(encoding: GraphEncoding) -> None:
    graphs = [
        Own(**graph.to_dict(), room=torch.zeros(graph.num_edges).long()) for graph in some_graphs()
    ]
    batch = Batch.from_data_list(graphs)
    assert_joined(encoding(batch), alone(batch, encoding))
    path = graph_of(nx.path_graph(3)).to_dict()
    odd = Batch.from_data_list([Odd(**path), Odd(**path)])
    assert odd.edge_index.max() == 6  # of six nodes
    with pytest.raises(IndexError, match="edge_index holds node 6"):
        encoding(odd)
    odd = Batch.from_data_list([Odd(**graph_of(nx.path_graph(n)).to_dict()) for n in (9, 3, 9)])
    with pytest.raises(ValueError, match="node.*belong to different graphs.*__inc__"):
        encoding(odd)


@pytest.mark.parametrize("method", ["edge", "pairs"])
def test_reordered_nodes_stay_in_their_graphs(method: str) -> None:
    data = by_hand(some_graphs(), orders(25)["any"])
    data.place = torch.arange(25)
    if method == "pairs":
        data = AddShortestPathDistance(20)(data)
    before = data.clone()
    out = ReorderNodes()(data)
    moved = out.node_order_index
    assert torch.equal(moved, out.place) and torch.equal(out.batch, before.batch)
    assert torch.equal(out.batch, before.batch[moved]) and torch.equal(out.x, before.x[moved])
    assert torch.equal(moved[out.edge_index], before.edge_index)
    for nodes, part in alone(before, ReorderNodes()):  # each as if it were alone
        assert torch.equal(moved[nodes], nodes[part.node_order_index])
    if method == "pairs":
        again = AddShortestPathDistance(20)(
            Data(edge_index=out.edge_index, batch=out.batch, num_nodes=25)
        )
        assert torch.equal(again.pair_distance, out.pair_distance)
    report = ReorderNodes(block_size=2).report(before)
    assert report.after.visited <= report.before.visited


def contradictions() -> dict[str, tuple[dict[str, Any], str]]:
    """Of four nodes in two graphs."""
    two, ptr = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 4])
    return {
        "longer": ({"batch": torch.zeros(5).long()}, "data.batch has 5, the graph has 4"),
        "shorter": ({"batch": torch.zeros(3).long()}, "data.batch has 3, the graph has 4"),
        "other ptr": ({"batch": two, "ptr": torch.tensor([0, 3, 4])}, "contradict each other"),
        "long ptr": ({"batch": two, "ptr": torch.tensor([0, 2, 5])}, "contradict each other"),
        "one ptr": ({"batch": two, "ptr": torch.tensor([0, 4])}, "contradict each other"),
        "empty ptr": ({"batch": two, "ptr": torch.tensor([0])}, "contradict each other"),
        "ptr alone": ({"ptr": torch.tensor([0, 2, 5])}, "data.ptr ends at 5.*has 4 nodes"),
        "falling": ({"ptr": torch.tensor([0, 5, 4])}, "data.ptr to rise from 0"),
        "late": ({"ptr": torch.tensor([1, 4])}, "data.ptr to rise from 0"),
        "none": ({"ptr": torch.tensor([]).long()}, "data.ptr to rise from 0"),
        "negative": ({"batch": torch.tensor([0, -1, 1, 1])}, "negative numbers, got -1"),
        "floats": ({"batch": two.float(), "ptr": ptr}, "whole numbers, got torch.float32"),
        "bools": ({"batch": two.bool()}, "whole numbers, got torch.bool"),
        "list": ({"batch": [0, 0, 1, 1]}, "vector of whole numbers, got list"),
        "number": ({"batch": 2}, "vector of whole numbers, got int"),
        "matrix": ({"batch": two.view(2, 2)}, r"vector of whole numbers, got \[2, 2\]"),
        "sparse": ({"batch": two.to_sparse()}, "vector of whole numbers"),
        "across": ({"batch": torch.tensor([0, 1, 0, 1])}, "nodes 0 and 1 of the batch, which"),
        "meta": ({"batch": two.to("meta")}, "on the device 'meta'"),
    }


@pytest.mark.parametrize("what", contradictions())
@pytest.mark.parametrize("transform", [*ENCODINGS, ReorderNodes()], ids=repr)
def test_what_contradicts_itself_is_refused(transform: Any, what: str) -> None:
    attributes, message = contradictions()[what]
    edges = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    with pytest.raises(ValueError, match=message):
        transform(Data(x=torch.zeros(4, 1), edge_index=edges, **attributes))


def test_what_contradicts_itself_in_a_batch() -> None:
    pair = graph_of(nx.path_graph(2))
    for edit, message in {
        "ptr = torch.tensor([0, 1, 4])": "contradict each other",
        "ptr = torch.tensor([0, 1, 9])": "contradict each other",
        "batch = torch.zeros(5).long()": "data.batch has 5",
        "x = torch.zeros(3, 1)": "data.x has 3",
        "num_nodes = 3": "the graph has 3",
    }.items():
        batch = Batch.from_data_list([pair, pair])
        exec(f"batch.{edit}")
        with pytest.raises(ValueError, match=message):
            AddDegree()(batch)
    bare = Batch.from_data_list([pair, pair])
    del bare.batch, bare.ptr
    with pytest.raises(ValueError, match="neither; set data.batch"):
        AddDegree()(bare)


@pytest.mark.parametrize("how", ["precompute", "collate"])
def test_in_bulk_a_graph_is_one(how: str) -> None:
    def encode(graphs: list[Data]) -> Any:
        if how == "precompute":
            return precompute(graphs, AddDegree(), progress=False)
        return EncodeAndCollate(AddDegree())(graphs).to_data_list()

    one = graph_of(nx.path_graph(4))
    one.batch = torch.full((4,), 3)
    assert encode([one])[0].degree[:, 0].tolist() == [1, 2, 2, 1]
    two = by_hand([one, one], torch.arange(8))
    for graphs in ([one, two], [one, Batch.from_data_list([one, one])]):
        with pytest.raises(ValueError, match="graph 1: expected single graphs"):
            encode(graphs)


def test_nodes_that_are_none() -> None:
    for bad in (-1, 2.5, "3", True):
        with pytest.raises(ValueError, match="data.num_nodes as a whole number"):
            AddDegree()(Data(edge_index=torch.empty(2, 0).long(), num_nodes=bad))
        with pytest.raises(ValueError, match="graph 0: expected data.num_nodes"):
            graph = Data(edge_index=torch.empty(2, 0).long(), num_nodes=bad)
            precompute([graph], AddDegree(), progress=False)
    for good in (2, np.int32(2), torch.tensor(2)):
        assert AddDegree()(Data(num_nodes=good)).degree.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("huge", [10**12, 2**62, 10**30])
def test_more_nodes_than_memory_holds(huge: int) -> None:
    stated = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=huge)
    with pytest.raises(ValueError, match=f"num_nodes={huge}, which takes"):
        AddDegree()(stated)
    with pytest.raises(ValueError, match=f"graph 0: .*num_nodes={huge}, which takes"):
        precompute([stated], AddDegree(), progress=False)
    if huge < 2**63:
        inferred = Data(edge_index=torch.tensor([[0], [huge]]))
        with pytest.warns(UserWarning, match="infer"):
            with pytest.raises(ValueError, match=f"num_nodes={huge + 1}, which takes"):
                AddDegree()(inferred)


@pytest.mark.parametrize("edges", [torch.ones(2, 3).bool(), torch.ones(2, 3).cfloat()])
def test_edges_that_are_no_numbers(edges: Tensor) -> None:
    with pytest.raises(ValueError, match="whole numbers, got torch"):
        AddDegree()(Data(edge_index=edges, num_nodes=3))
    with pytest.raises(ValueError, match="whole numbers, got torch"):
        block_density(edges, 3)


# Weights.


def weighted(weights: list[float]) -> Data:
    edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    return Data(
        edge_index=edges, edge_weight=torch.tensor(weights, dtype=torch.float64), num_nodes=5
    )


@pytest.mark.parametrize("encoding", WITHOUT_WEIGHTS, ids=name_of)
def test_of_weights_only_zero_matters_where_edges_are_counted(encoding: GraphEncoding) -> None:
    assert len(WITHOUT_WEIGHTS) == 4
    infinite, edges = float("inf"), ["degree", "k_hop_edge_index", "expander_edge_index"]
    for weights in (
        [-1.0] * 6,
        [1.0, -1.0, 2.0, -0.5, -1e-300, 1e300],
        [infinite, -infinite, 1e38, 1e38, 1e308, 1e308],
    ):
        for data in (encoding(weighted(weights)), precompute([weighted(weights)], encoding)[0]):
            plain = encoding(weighted([1.0] * 6))
            for name in set(plain.keys()) - {"edge_weight"}:
                assert torch.equal(torch.as_tensor(data[name]), torch.as_tensor(plain[name]))
    # an edge of weight zero is none, whatever the others weigh
    data = encoding(weighted([-1.0, -1.0, 0.0, -0.0, 2.0, 2.0]))
    kept = [0, 1, 4, 5]
    fewer = weighted([1.0] * 6)
    fewer.edge_index, fewer.edge_weight = fewer.edge_index[:, kept], fewer.edge_weight[kept]
    fewer = encoding(fewer)
    for name in (*edges, "pair_distance"):
        assert name not in data or torch.equal(data[name], fewer[name])
    with pytest.raises(ValueError, match="NaN, of which it cannot be told"):
        encoding(weighted([1.0, float("nan"), 1.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    "encoding", [each for each in ENCODINGS if each.reads_weights], ids=name_of
)
def test_where_weights_are_read_they_have_a_sign(encoding: GraphEncoding) -> None:
    for bad in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"finite and not negative, got {bad}"):
            encoding(weighted([1.0, 1.0, bad, 1.0, 1.0, 1.0]))
        with pytest.raises(ValueError, match=f"graph 1: .*finite and not negative, got {bad}"):
            graphs = [weighted([1.0] * 6), weighted([1.0, 1.0, bad, 1.0, 1.0, 1.0])]
            precompute(graphs, [AddDegree(), encoding], progress=False)


def test_hops_along_signed_edges_are_those_of_networkx() -> None:
    graph = nx.gnp_random_graph(12, 0.2, seed=5, directed=True)
    edges = torch.tensor(list(graph.edges)).t()
    draw = torch.Generator().manual_seed(0)
    data = Data(edge_index=edges, edge_weight=torch.randn(edges.size(1), generator=draw))
    data.num_nodes = 12
    found = AddShortestPathDistance(11)(AddKHopEdges(3)(data))
    expected = dict(nx.all_pairs_shortest_path_length(graph))
    distance = found.pair_distance.view(12, 12)
    for i in range(12):
        for j in range(12):
            assert distance[i, j] == expected[i].get(j, 12)
    near = {(i, j) for i in expected for j, d in expected[i].items() if 1 <= d <= 3}
    assert set(map(tuple, found.k_hop_edge_index.t().tolist())) == near


# Memory and devices.


def test_what_is_read_is_owned() -> None:
    """What was checked is not what a caller, or another thread of theirs, may write to."""
    for weights in (True, False):
        data = weighted([1.0] * 6)
        data.edge_index = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
        data.batch, data.ptr = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 3, 5])
        graphs = read_graphs([data], reads_weights=weights)
        arrays = [each for each in vars(graphs).values() if isinstance(each, np.ndarray)]
        assert len(arrays) == 5
        before = [each.copy() for each in arrays]
        for tensor in (data.edge_index, data.edge_weight, data.batch, data.ptr):
            tensor.fill_(10**9)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("encoding", [AddRandomWalkPE(8), AddLaplacianEigenvectorPE(4)], ids=repr)
def test_edges_written_by_another_thread(encoding: GraphEncoding) -> None:
    """Refused or computed, of numbers that were there at some time; never read out of bounds."""
    graphs = [graph_of(nx.random_regular_graph(3, n, seed=n)) for n in (120, 130)]
    data = Batch.from_data_list(graphs)
    good, stop = data.edge_index.clone(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            data.edge_index[:, ::7] = 2**40
            data.edge_index.copy_(good)

    thread = threading.Thread(target=write)
    thread.start()
    computed = refused = 0
    try:
        for _ in range(150):
            try:
                found = encoding(Batch(edge_index=data.edge_index, batch=data.batch, x=data.x))
                name = encoding.attr_name  # type: ignore[attr-defined]
                assert torch.isfinite(found[name]).all() and found[name].abs().max() <= 1
                computed += 1
            except (IndexError, ValueError) as error:
                assert str(2**40) in str(error) or "different graphs" in str(error)
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert computed + refused == 150


@pytest.mark.parametrize("transform", [*ENCODINGS, ReorderNodes()], ids=repr)
@pytest.mark.parametrize("device", ["meta", "default"])
def test_the_default_device_changes_nothing(transform: Any, device: str) -> None:
    def run() -> list[Data]:
        weights = torch.ones(10, device="cpu")
        edges = [[0, 1, 1, 2, 2, 3, 3, 4, 4, 0], [1, 0, 2, 1, 3, 2, 4, 3, 0, 4]]
        edge_index = torch.tensor(edges, device="cpu")
        x = torch.zeros(5, 1, device="cpu")
        plain = Data(x=x, edge_index=edge_index, edge_weight=weights)
        hand = Data(x=x, edge_index=edge_index, batch=torch.zeros(5, device="cpu").long())
        found = [transform(data) for data in (plain, hand, Data(num_nodes=3))]
        return found

    expected = run()
    if device == "meta":
        with torch.device("meta"):
            found = run()
    else:
        torch.set_default_device("meta")
        try:
            found = run()
        finally:
            torch.set_default_device(None)
    for got, wanted in zip(found, expected, strict=True):
        assert list(got.keys()) == list(wanted.keys())
        for name, value in wanted.to_dict().items():
            if isinstance(value, Tensor):
                assert got[name].device.type == "cpu" and torch.equal(got[name], value)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_the_default_device_changes_nothing_in_bulk(
    num_workers: int, cached: bool, tmp_path: Any
) -> None:
    graphs = some_graphs()
    encode = [each for each in ENCODINGS if "num_samples=4" not in repr(each)]
    expected = precompute(graphs, encode, progress=False)
    joined = EncodeAndCollate(encode)(graphs)
    with torch.device("meta"):
        found = precompute(
            graphs,
            encode,
            progress=False,
            num_workers=num_workers,
            cache_dir=tmp_path if cached else None,
        )
        batch = EncodeAndCollate(encode)(graphs)
    for got, wanted in (*zip(found, expected, strict=True), (batch, joined)):
        for name, value in wanted.to_dict().items():
            assert got[name].device.type == "cpu" and torch.equal(got[name], value), name


def test_a_graph_without_values_is_refused() -> None:
    meta = torch.empty(2, 3, dtype=torch.long, device="meta")
    with pytest.raises(ValueError, match="data.edge_index lies on the device 'meta'"):
        AddDegree()(Data(edge_index=meta, num_nodes=3))
    with pytest.raises(ValueError, match="data.edge_index lies on the device 'meta'"):
        block_density(meta, 3)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    for encoding in (AddDegree(), AddRandomWalkPE(3)):
        with pytest.raises(ValueError, match="data.edge_weight lies on the device 'meta'"):
            weight = torch.ones(3, device="meta")
            encoding(Data(edge_index=edges, edge_weight=weight, num_nodes=3))


@pytest.mark.parametrize("name", ["pair_rw", "rw", "edge_rw"])
def test_an_encoding_of_nodes_may_have_any_name(name: str) -> None:
    """Also where nodes of a batch stand in any order, and a graph has as many edges as nodes."""
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    path = torch.tensor([[0, 1, 1], [1, 2, 0]])
    walk = AddRandomWalkPE(3, attr_name=name)
    alone = [walk(Data(edge_index=e, num_nodes=n))[name] for e, n in ((ring, 4), (path, 3))]
    batch = torch.tensor([1, 0, 0, 1, 0, 1, 0])
    order = batch.argsort(stable=True)
    edges = torch.cat([order[:4][ring], order[4:][path]], 1)
    found = walk(Data(edge_index=edges, batch=batch, num_nodes=7))[name]
    for graph, want in enumerate(alone):
        assert torch.equal(found[batch == graph], want)
