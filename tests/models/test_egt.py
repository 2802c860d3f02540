"""EGT: its virtual nodes, counts, presets, and the checks of every model."""

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_smiles

from pyg_gt.models import EGT, FeatureEncoder
from pyg_gt.transforms import AddShortestPathDistance
from tests.models.checks import check_compiled, check_model, close, make_eval, ring


def again(data: Data) -> Data:
    return AddShortestPathDistance(4)(data)


def graph(num_nodes: int, seed: int) -> Data:
    edge_index = ring(num_nodes, seed)
    generator = torch.Generator().manual_seed(num_nodes + 77 * seed)
    x = torch.randn(num_nodes, 5, generator=generator)
    edge_attr = torch.randn(edge_index.size(1), 3, generator=generator)
    return again(Data(x, edge_index, edge_attr))


def make_model(virtual_nodes: int = 0, **arguments) -> EGT:
    return EGT(
        5, 16, 2, 1, 8, 4, 4, virtual_nodes,
        edge_encoder=FeatureEncoder(3, 8, "edge_attr"), **arguments,
    )  # fmt: skip


@pytest.mark.parametrize("virtual_nodes", [0, 2])
def test_model(virtual_nodes) -> None:
    check_model(lambda: make_model(virtual_nodes, scale_degree=True), graph, again)


def by_hand(model: EGT, data: Data) -> torch.Tensor:
    """One graph, its pairs as a square, virtual nodes in front as in the paper."""
    x, n, V = model.node_encoder(data), data.num_nodes, model.virtual.num_nodes
    e = model.distance(data.pair_distance.long()).view(n, n, -1).clone()
    for (source, target), f in zip(
        data.edge_index.t().tolist(), model.edge_encoder(data), strict=True
    ):
        e[target, source] = e[target, source] + f
    a = model.virtual.pairs
    square = torch.empty(V + n, V + n, a.size(1))
    square[V:, V:] = e
    square[:V, V:] = a[:, None]
    square[V:, :V] = a[None]
    square[:V, :V] = 0.5 * (a[None] + a[:, None])
    x, pairs = torch.cat([model.virtual.nodes, x]), square.flatten(0, 1)
    is_virtual = torch.arange(V + n) < V
    for layer in model.layers:
        x, pairs = layer(x, pairs, None, is_virtual)
    return model.head(model.norm(x)[:V].reshape(1, -1))


def test_virtual_nodes_by_hand() -> None:
    model = make_eval(lambda: make_model(3, scale_degree=True))
    graphs = [graph(n, n) for n in (5, 1, 7)]
    with torch.no_grad():
        want = torch.cat([by_hand(model, data) for data in graphs])
        close(model(Batch.from_data_list(graphs)), want)
        # an empty graph has its virtual nodes still
        empty = Data(torch.empty(0, 5), torch.empty(2, 0).long(), torch.empty(0, 3))
        empty.pair_distance = torch.empty(0, dtype=torch.uint8)
        out = model(Batch.from_data_list([graphs[0], empty, *graphs[1:], empty]))
    close(out[[0, 2, 3]], want)
    assert torch.equal(out[1], out[4]) and bool(out.isfinite().all())


@pytest.mark.parametrize(
    ("size", "official", "millions"), [("47m", 47_414_273, 47.4), ("90m", 89_322_369, 89.3)]
)
def test_counts_without_singular_vectors(size, official, millions) -> None:
    """The official code has a map of sixteen singular values' vectors, and two zero rows more."""
    with torch.device("meta"):
        model = EGT.pcqm4mv2(size)
    width = model.layers[0].channels
    more = (16 + 1) * width + width + 64
    assert sum(p.numel() for p in model.parameters()) + more == official
    assert round(official / 1e6, 1) == millions


def test_presets_run_on_what_their_transforms_add() -> None:
    model = EGT.pcqm4mv2(num_layers=2, hidden_channels=64)
    graphs = [from_smiles(s) for s in ("CCO", "c1ccccc1O", "C")]
    for data in graphs:  # PyG's numbers of bonds are others than ogb's
        data.edge_attr = data.edge_attr % 4
    for transform in model.recipe.transforms:
        graphs = [transform(data) for data in graphs]
    batch = Batch.from_data_list(graphs)
    out = model(batch)
    assert out.shape == (3, 1)
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    del batch.pair_distance
    with pytest.raises(ValueError, match=r"AddShortestPathDistance\(16"):
        model(batch)


def test_farther_pairs_are_one() -> None:
    model = make_model().eval()
    data = graph(12, 0)
    assert torch.equal(model(data), model(AddShortestPathDistance(9)(data)))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="did you mean '47m'"):
        EGT.pcqm4mv2("47")
    with pytest.raises(ValueError, match="'virtual_nodes'"):
        make_model(-1)
    with pytest.raises(ValueError, match="'in_channels', the width of 'data.x', or by a"):
        EGT(None, 8, 1, 1)
    data = graph(4, 0)
    data.pair_distance = graph(5, 0).pair_distance
    with pytest.raises(ValueError, match="16 in all .got 25 rows."):
        make_model()(data)
    data.pair_distance = data.pair_distance.float()
    with pytest.raises(ValueError, match="'pair_distance' must be a tensor of uint8"):
        make_model()(data)


def test_compiled() -> None:
    check_compiled(lambda: make_model(2, scale_degree=True), graph)
