"""Estimated return probabilities against exact ones, in units of their own standard error."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_gt.transforms import AddRandomWalkPE
from tests.transforms.samples import as_data

GRAPHS = {
    "undirected": nx.gnp_random_graph(200, 0.05, seed=0),
    "directed": nx.gnp_random_graph(200, 0.05, seed=1, directed=True),
    "leaves": nx.gn_graph(150, seed=2),
    "parts": nx.disjoint_union(nx.cycle_graph(101), nx.gnp_random_graph(99, 0.1, seed=3)),
}


def estimate(data: Data, num_samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    transform = AddRandomWalkPE(9, num_samples=num_samples, seed=seed)
    transform.DENSE_LIMIT = 50
    out = transform(data)
    return out.random_walk_pe.double().numpy(), out.random_walk_pe_std.double().numpy()


@pytest.mark.parametrize("name", GRAPHS)
def test_estimates_lie_about_the_truth_as_far_as_they_say(name: str) -> None:
    data = as_data(GRAPHS[name])
    exact = AddRandomWalkPE(9)(data).random_walk_pe.double().numpy()
    mean, error = estimate(data, 2000)
    assert mean.shape == error.shape == exact.shape
    # Neighbours share their random vectors, so 1,800 scores are far fewer draws than that.
    known = error > 1e-8
    np.testing.assert_allclose(mean[~known], exact[~known], atol=1e-6)
    score = (mean - exact)[known] / error[known]
    assert np.abs(score).max() < 6
    if name != "leaves":  # walks that end leave nothing to estimate
        assert known[:, 1:].mean() > 0.4
        # Clipping to [0, 1] takes the negative ones away, hence the loose bounds.
        assert 0.6 < np.sqrt((score**2).mean()) < 1.3


def test_error_falls_with_the_root_of_the_number_of_samples() -> None:
    data = as_data(GRAPHS["undirected"])
    few, many = estimate(data, 200)[1], estimate(data, 3200)[1]
    assert 3.5 < few[:, 1:].mean() / many[:, 1:].mean() < 4.5


def test_first_step_and_small_components_are_exact() -> None:
    small, large = nx.path_graph(40), nx.cycle_graph(60)
    data = as_data(nx.disjoint_union(small, large))
    mean, error = estimate(data, 10)
    assert not error[:40].any() and not error[:, 0].any() and error[40:, 1].any()
    exact = AddRandomWalkPE(9)(data).random_walk_pe.double().numpy()
    np.testing.assert_allclose(mean[:40], exact[:40], atol=1e-7)
    np.testing.assert_allclose(mean[:, 0], exact[:, 0], atol=1e-7)


def test_seed_decides() -> None:
    data = as_data(GRAPHS["undirected"])
    assert np.array_equal(estimate(data, 20)[0], estimate(data, 20)[0])
    assert not np.array_equal(estimate(data, 20)[0], estimate(data, 20, seed=1)[0])


def test_graph_gets_in_a_batch_what_it_gets_alone() -> None:
    datas = [as_data(graph) for graph in GRAPHS.values()]
    alone = np.concatenate([estimate(data, 20)[0] for data in datas])
    together = estimate(Batch.from_data_list(datas), 20)[0]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_estimates_need_a_name_and_two_samples() -> None:
    with pytest.raises(ValueError, match="standard error"):
        AddRandomWalkPE(3, None, num_samples=5)
    with pytest.raises(ValueError, match="at least 2"):
        AddRandomWalkPE(3, num_samples=1)
    with pytest.raises(ValueError, match="seed=-1"):
        AddRandomWalkPE(3, num_samples=5, seed=-1)


def test_integers_stay_exact_in_float64_graphs() -> None:
    data = as_data(nx.cycle_graph(70))
    data.edge_weight = torch.full((140,), 3.0, dtype=torch.float64)
    weighted = estimate(data, 50)[0]
    np.testing.assert_allclose(weighted, estimate(as_data(nx.cycle_graph(70)), 50)[0], atol=1e-6)
