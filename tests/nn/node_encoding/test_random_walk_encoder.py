"""`RandomWalkEncoder` is torch's norm and torch's linear maps."""

import pytest
import torch
from torch_geometric.data import Batch

from pyg_gt.nn import RandomWalkEncoder
from pyg_gt.transforms import AddRandomWalkPE

K, F = 5, 6


@pytest.fixture
def walks(graph):
    names = ("cycle", "path", "no edge", "one node")
    data = [AddRandomWalkPE(K, attr_name="pe")(graph(name)) for name in names]
    return Batch.from_data_list(data).pe.double()


@pytest.mark.parametrize("num_layers", [1, 3])
def test_is_torchs_norm_and_linear_maps(num_layers, walks):
    nn = torch.nn
    ours = RandomWalkEncoder(K, F, num_layers).double()
    widths = [K, *[2 * F] * (num_layers - 1), F]
    lins = [nn.Linear(a, b).double() for a, b in zip(widths, widths[1:], strict=False)]
    for lin, own in zip(lins, ours.mlp.lins, strict=True):
        lin.load_state_dict(own.state_dict())
    norm = nn.BatchNorm1d(K).double()

    def theirs(x):
        x = norm(x)
        for lin in lins[:-1]:
            x = lin(x).relu()
        return lins[-1](x)

    for _ in range(3):  # the running statistics too
        torch.testing.assert_close(ours(walks), theirs(walks))
    ours.eval()
    norm.eval()
    torch.testing.assert_close(ours(walks), theirs(walks))


def test_one_node_in_training(walks):
    ours = RandomWalkEncoder(K, F).double()
    ours(walks)
    out = ours(walks[:1])
    torch.testing.assert_close(out, ours.eval()(walks[:1]))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"\[N, 5\] \(got \[3, 4\]\)"):
        RandomWalkEncoder(K, F)(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"\[N, 5\] \(got \[5\]\)"):
        RandomWalkEncoder(K, F)(torch.ones(5))
