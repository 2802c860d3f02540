"""`TunedGNN`: its formula, its presets."""

import pytest
import torch
from torch_geometric.data import Data

from pyg_gt.models import TunedGNN
from tests.models.checks import close, make_eval, permuted, ring

PRESETS = [
    *(TunedGNN.minesweeper, TunedGNN.amazon_ratings, TunedGNN.roman_empire),
    *(TunedGNN.questions, TunedGNN.cora, TunedGNN.ogbn_arxiv),
]


def graph(num_nodes: int = 9, channels: int = 5) -> Data:
    x = torch.randn(num_nodes, channels, generator=torch.Generator().manual_seed(0))
    return Data(x, ring(num_nodes, 0))


def test_gcn_by_hand() -> None:
    model = TunedGNN(5, 8, 2, 3, norm="layer_norm", residual=True, jk=True, in_linear=True)
    model = model.double().eval()
    data = graph()
    x = data.x.double()
    adjacency = torch.zeros(9, 9, dtype=torch.double)
    adjacency[data.edge_index[1], data.edge_index[0]] = 1
    adjacency = adjacency + torch.eye(9)
    scale = adjacency.sum(1).rsqrt()
    adjacency = scale[:, None] * adjacency * scale
    h, total = model.in_lin(x), 0
    for conv, lin, norm in zip(model.convs, model.lins, model.norms, strict=True):
        h = norm(adjacency @ conv.lin(h) + conv.bias + lin(h)).relu()
        total = total + h
    data.x = x
    torch.testing.assert_close(model(data), model.head(total))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_presets(preset) -> None:
    model = preset(hidden_channels=16, num_layers=2)
    data = graph(channels=model.in_channels)
    for transform in model.recipe.transforms:
        data = transform(data)
    assert data.has_self_loops() and data.is_undirected()
    out = model(data)
    out.sum().backward()
    assert out.shape == (9, model.head.out_features)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("conv", ["gcn", "sage", "gat"])
def test_it_learns_and_knows_no_order(conv) -> None:
    torch.manual_seed(0)
    model = TunedGNN(5, 16, 2, 2, conv, heads=2, dropout=0.0, norm="batch_norm", residual=True)
    data, labels = graph(), torch.arange(9) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(data), labels)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    model = make_eval(lambda: model)
    with torch.no_grad():
        close(model(permuted(data, order)), model(data)[order])
    other = TunedGNN(5, 16, 2, 2, conv, heads=2, norm="batch_norm", residual=True).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(data), model(data))
        other.reset_parameters()
        assert not torch.equal(other(data), model(data))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="did you mean 'gcn'"):
        TunedGNN(5, 8, 2, 2, "gcm")
    with pytest.raises(ValueError, match="divisible by 'heads'"):
        TunedGNN(5, 8, 2, 2, "gat", heads=3)
    with pytest.raises(ValueError, match=r"'data.x' must be .* \[N, 5\]"):
        TunedGNN(5, 8, 2, 2)(graph(channels=4))
