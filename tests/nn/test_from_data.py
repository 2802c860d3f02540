"""`from_data` reads what the transforms have stored, under the names that they use."""

import re

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import MLP

from pyg_gt import transforms as T
from pyg_gt.nn import (
    DegreeEncoder,
    EdgePathBias,
    LaplacianEncoder,
    RandomWalkEncoder,
    RelativeWalkBias,
    ShortestPathBias,
    SignNetEncoder,
    StableEncoder,
)

F, H, K = 8, 2, 4


def pe(data, name):
    return data[name], data[f"{name}_values"], data[f"{name}_mask"]


# encoder, transform by its attr_name, the transform's default name, what the call is given
CASES = {
    "laplacian": (
        lambda: LaplacianEncoder(K, F),
        lambda name: T.AddLaplacianEigenvectorPE(K, attr_name=name),
        "laplacian_eigenvector_pe",
        lambda data, name: (*pe(data, name), data.batch),
    ),
    "sign net": (
        lambda: SignNetEncoder(F),
        lambda name: T.AddLaplacianEigenvectorPE(K, attr_name=name),
        "laplacian_eigenvector_pe",
        lambda data, name: (*pe(data, name), data.edge_index),
    ),
    "stable": (
        lambda: StableEncoder(F),
        lambda name: T.AddLaplacianEigenvectorPE(K, attr_name=name),
        "laplacian_eigenvector_pe",
        lambda data, name: (*pe(data, name), data.edge_index),
    ),
    "random walk": (
        lambda: RandomWalkEncoder(K, F),
        lambda name: T.AddRandomWalkPE(K, attr_name=name),
        "random_walk_pe",
        lambda data, name: (data[name],),
    ),
    "degree": (
        lambda: DegreeEncoder(3, F),
        lambda name: T.AddDegree(attr_name=name),
        "degree",
        lambda data, name: (data[name],),
    ),
    "one degree": (
        lambda: DegreeEncoder(3, F, directed=False),
        lambda name: T.AddDegree(attr_name=name),
        "degree",
        lambda data, name: (data[name][:, 0],),
    ),
    "distance": (
        lambda: ShortestPathBias(3, H),
        lambda name: T.AddShortestPathDistance(3, attr_name=name),
        "pair_distance",
        lambda data, name: (data[name],),
    ),
    "paths": (
        lambda: EdgePathBias(5, H, 3),
        lambda name: T.AddShortestPathDistance(3, attr_name=name, path_length=3),
        "pair_distance",
        lambda data, name: (data[f"{name}_edges"], data.edge_attr, data.edge_index, data.batch),
    ),
    "walks": (
        lambda: RelativeWalkBias(K, H),
        lambda name: T.AddRelativeRandomWalkPE(K, attr_name=name),
        "pair_walk",
        lambda data, name: (data[name],),
    ),
}
every = pytest.mark.parametrize("case", CASES)


def graphs():
    """A path, one node, and a triangle with a tail."""
    torch.manual_seed(1)
    made = []
    for n, pairs in ((3, [(0, 1), (1, 2)]), (1, []), (4, [(0, 1), (1, 2), (0, 2), (2, 3)])):
        both = pairs + [(b, a) for a, b in pairs]
        edge_index = torch.tensor(both, dtype=torch.long).reshape(-1, 2).t().contiguous()
        x, edge_attr = torch.randn(n, F), torch.randn(len(both), 5)
        made.append(Data(x=x, edge_index=edge_index, edge_attr=edge_attr))
    return made


def numbers(out):
    if isinstance(out, torch.Tensor):
        return [out]
    return [value for value in vars(out).values() if isinstance(value, torch.Tensor)]


@every
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_it_is_the_call_with_the_stored_tensors(named, batched, case):
    make, transform, default, arguments = CASES[case]
    name = "pair_own" if default.startswith("pair_") else "own"
    name = name if named else default
    data = [transform(name)(graph) for graph in graphs()]
    data = Batch.from_data_list(data) if batched else data[-1]
    encoder = make()
    torch.manual_seed(5)  # signs are random in training
    want = encoder(*arguments(data, name))
    torch.manual_seed(5)
    got = encoder.from_data(data, name) if named else encoder.from_data(data)
    assert type(got) is type(want)
    for a, b in zip(numbers(got), numbers(want), strict=True):
        assert torch.equal(a, b)
    assert numbers(got)[0].size(0) > 0


@every
def test_what_is_missing_is_named_with_the_transform_that_adds_it(case):
    make, transform, default, _ = CASES[case]
    data = graphs()[-1]
    maker = type(transform(default)).__name__
    stored = f"{default}_edges" if case == "paths" else default
    with pytest.raises(ValueError, match=rf"'data.{stored}', .* 'Data' .*{maker}\(.* adds it"):
        make().from_data(data)
    name = "pair_own" if default.startswith("pair_") else "own"
    with pytest.raises(ValueError, match=rf"'data.{name}.*{maker}\(.*attr_name=\"{name}\""):
        make().from_data(transform(default)(data), name)


def test_the_named_transform_mends_it():
    data = graphs()[-1]
    for case in ("distance", "walks", "degree", "random walk"):
        encoder = CASES[case][0]()
        with pytest.raises(ValueError) as error:
            encoder.from_data(data)
        (call,) = re.findall(r"'pyg_gt\.transforms\.(.*)'", str(error.value))
        encoder.from_data(eval(call, vars(T))(data))


@every
def test_other_things_than_graphs(case):
    encoder = CASES[case][0]()
    for wrong in (torch.zeros(3, 4), HeteroData(), None):
        with pytest.raises(ValueError, match="from_data' reads a .*Data' or 'Batch'"):
            encoder.from_data(wrong)


def test_eigenvectors_without_their_mask():
    data = T.AddLaplacianEigenvectorPE(K)(graphs()[-1])
    del data.laplacian_eigenvector_pe_mask
    with pytest.raises(ValueError, match="'data.laplacian_eigenvector_pe_mask'"):
        SignNetEncoder(F).from_data(data)


def test_sign_net_without_edges():
    data = T.AddLaplacianEigenvectorPE(K)(graphs()[-1])
    encoder = SignNetEncoder(F, 6, phi=MLP([2, 6], plain_last=True))
    name = "laplacian_eigenvector_pe"
    want = encoder(*pe(data, name))
    assert torch.equal(encoder.from_data(data, with_edges=False), want)


def test_other_encodings_of_nodes_and_other_features_of_edges():
    data = graphs()[-1]
    heat = T.AddHeatKernelSE([1.0, 2.0, 3.0])(data)
    encoder = RandomWalkEncoder(3, F)
    assert torch.equal(encoder.from_data(heat, "heat_kernel_se"), encoder(heat.heat_kernel_se))
    data = T.AddShortestPathDistance(3, path_length=3)(graphs()[-1])
    features = torch.randn(data.num_edges, 7)
    bias = EdgePathBias(7, H, 3)
    want = bias(data.pair_distance_edges, features, data.edge_index)
    assert torch.equal(bias.from_data(data, edge_attr=features).values, want.values)
    del data.edge_attr
    with pytest.raises(ValueError, match="'data.edge_attr', .* pass 'edge_attr='"):
        bias.from_data(data)


def test_hooks_on_encoders_are_called():
    data = T.AddDegree()(graphs()[-1])
    encoder, seen = DegreeEncoder(3, F), []
    encoder.register_forward_hook(lambda *args: seen.append(1))
    encoder.from_data(data)
    assert seen == [1]
