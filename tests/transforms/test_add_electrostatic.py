"""Electrostatic encoding: closed forms and the pseudoinverse written out as oracles."""

import tracemalloc
from fractions import Fraction
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_gt.transforms import AddElectrostaticSE
from pyg_gt.transforms.spectra import electrostatics, green_functions
from tests.transforms.samples import (
    as_data,
    components,
    random_graph,
    symmetric_adjacency,
    weighted_graphs,
)

NAME = "electrostatic_se"


def encode(data: Data) -> Tensor:
    """``[N, 8]``, in float64."""
    found = AddElectrostaticSE()(data)[NAME]
    assert found.dtype == torch.float32 and found.shape == (data.num_nodes, 8)
    return found.double()


def definition(data: Data) -> np.ndarray:
    """Component by component with NumPy's ``pinv``."""
    W = symmetric_adjacency(data)
    result = np.zeros((len(W), 8))
    for nodes in components(W):
        if len(nodes) == 1:
            continue
        part = W[np.ix_(nodes, nodes)]
        degree = part.sum(1)
        G = np.linalg.pinv(np.diag(degree) - part, hermitian=True)
        result[nodes] = statistics(G, part)
    return result


def statistics(G: np.ndarray, W: np.ndarray) -> np.ndarray:
    V = G - G.diagonal()
    share = W / W.sum(1)[:, None] * V
    return np.stack(
        [V.min(0), V.mean(0), V.std(0, ddof=1), V.min(1), V.mean(1), V.std(1, ddof=1)]
        + [share.sum(0), share.sum(1)],
        axis=1,
    )


def close(found: Any, expected: Any, rtol: float = 2e-6) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol, rtol * np.abs(expected).max(initial=1))


@pytest.mark.parametrize("n", [2, 3, 12, 130])
def test_complete_graph(n: int) -> None:
    # G = (I - 11^T / n) / n, so V is -1/n but for zeros on its diagonal.
    mean, deviation = -(n - 1) / n**2, np.sqrt(1 / n) / n
    expected = [-1 / n, mean, deviation, -1 / n, mean, deviation, -1 / n, -1 / n]
    close(encode(as_data(nx.complete_graph(n))), np.tile(expected, (n, 1)))


def test_path_in_fractions() -> None:
    # Along a path j..i the potential of a charge at j falls by the charge that passes each edge.
    n = 6
    V = [[Fraction(0)] * n for _ in range(n)]
    for j in range(n):
        for i in range(j + 1, n):
            V[i][j] = V[i - 1][j] - Fraction(n - i, n)
        for i in range(j - 1, -1, -1):
            V[i][j] = V[i + 1][j] - Fraction(i + 1, n)
    G = np.array(V, dtype=float)
    W = nx.to_numpy_array(nx.path_graph(n))
    close(encode(as_data(nx.path_graph(n))), statistics(G, W))


def test_star() -> None:
    leaves = 5
    n = leaves + 1
    found = encode(as_data(nx.star_graph(leaves)))
    # A unit charge on the hub: a charge 1/n flows to each leaf. On a leaf: all but 1/n leaves it.
    from_hub, from_leaf = -1 / n, -(n - 1) / n
    close(found[0, [0, 3]], [from_hub, from_leaf])
    close(found[1, [0, 3]], [from_leaf + from_hub] * 2)
    close(found[0, 6:], [leaves * from_hub, from_leaf])
    close(found[1, 6:], [from_leaf / leaves, from_hub])


def test_effective_resistances() -> None:
    graph = nx.random_regular_graph(3, 10, seed=0)
    V = green_functions.green_functions(nx.to_numpy_array(graph)[None])[0]
    V = V - V.diagonal()
    for a in range(10):
        for b in range(a):
            assert abs(V[a, b] + V[b, a] + nx.resistance_distance(graph, a, b)) < 1e-12


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("n", [1, 2, 9, 40, 90])
def test_agrees_with_the_pseudoinverse(n: int, weighted: bool) -> None:
    data = random_graph(n, n, weights="positive" if weighted else None)
    close(encode(data), definition(data))


def test_largest_potential_is_at_the_charge() -> None:
    # The reason why there are no columns of maxima.
    W = symmetric_adjacency(random_graph(40, 1, weights="positive"))
    nodes = max(components(W), key=len)
    W = W[np.ix_(nodes, nodes)]
    V = np.linalg.pinv(np.diag(W.sum(1)) - W)
    V = V - V.diagonal()
    off = ~np.eye(len(V), dtype=bool)
    assert (V[off] < -1e-3).all()


def test_weights_and_directed_edges() -> None:
    path = as_data(nx.path_graph(5))
    expected = encode(path)
    once = path.edge_index[:, path.edge_index[0] < path.edge_index[1]]
    close(encode(Data(edge_index=once, num_nodes=5)), 2 * expected)
    path.edge_weight = torch.full((8,), 4.0)
    close(encode(path), expected / 4)


def squares_joined_by(weight: float) -> Data:
    """Two squares with one edge of a small weight between."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4)]
    index = torch.tensor(edges).T
    weights = torch.tensor([1.0] * 8 + [weight], dtype=torch.float64)
    data = Data(edge_index=torch.cat([index, index.flip(0)], 1), num_nodes=8)
    data.edge_weight = weights.repeat(2)
    return data


@pytest.mark.parametrize("weight", [1e-3, 1e-8, 1e-12, 1e-20, 1e-30])
def test_weak_edges_lose_no_digits(weight: float) -> None:
    data = squares_joined_by(weight)
    # A charge on one square passes the weak edge but for its own half: the drop is 1 / (2 weight).
    found = encode(data)
    close(found[:, 0] * weight, -np.full(8, 0.5), rtol=5 * weight + 2e-6)
    assert bool((found[:, 1] < 0).all())
    if weight >= 1e-8:
        # numpy's pinv loses digits itself
        close(found, definition(data), rtol=1e-5)


def test_both_inverses_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [random_graph(30, 0), random_graph(30, 1), as_data(nx.path_graph(30))]
    graphs = [Data(edge_index=g.edge_index, num_nodes=30) for g in graphs]
    batch = Batch.from_data_list(graphs)
    expected = encode(batch)
    monkeypatch.setattr(green_functions, "_WORST_CONDITION", 0)
    close(encode(batch), expected)


def test_potentials_beyond_float32_are_refused() -> None:
    data = squares_joined_by(1e-40)
    with pytest.raises(ValueError, match="potentials are beyond the range of float32"):
        encode(data)


@pytest.mark.parametrize("small_cuts", [True, False])
@pytest.mark.parametrize("entries", [1, 300, 10**6])
def test_sparse_and_dense_paths_agree(
    entries: int, small_cuts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(electrostatics, "_ENTRIES", entries)
    monkeypatch.setattr(electrostatics, "_COLUMNS", 3)
    monkeypatch.setattr(green_functions, "has_small_cuts", lambda laplacian: small_cuts)
    graphs = [random_graph(60, seed, weights=None) for seed in (0, 1)]
    graphs += [as_data(nx.path_graph(50))]
    for data in (random_graph(70, 2, weights="positive"), Batch.from_data_list(graphs)):
        for limit in (0, 50):
            transform = AddElectrostaticSE()
            transform.DENSE_LIMIT = limit
            close(transform(data)[NAME], encode(data))


def test_factors_stand_in_where_conjugate_gradients_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(green_functions, "has_small_cuts", lambda laplacian: False)
    monkeypatch.setattr(green_functions, "_MAX_STEPS", 3)
    transform = AddElectrostaticSE()
    transform.DENSE_LIMIT = 0
    data = random_graph(60, 0, weights="positive")
    close(transform(data)[NAME], encode(data))


@pytest.mark.parametrize("small_cuts", [True, False])
@pytest.mark.parametrize("weight", [1e-4, 1e-6, 1e-9, 1e-12, 1e-15, 1e-30])
def test_weak_edges_of_a_large_component_lose_no_digits_or_are_refused(
    weight: float, small_cuts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(green_functions, "has_small_cuts", lambda laplacian: small_cuts)
    data = squares_joined_by(weight)
    transform = AddElectrostaticSE()
    transform.DENSE_LIMIT = 0
    try:
        found = transform(data)[NAME]
    except ValueError as error:
        assert "too many orders of magnitude; leave out the least" in str(error)
        assert weight < 1e-7
        return
    close(found, encode(data))
    assert weight > 1e-14


def test_memory_of_a_large_graph_is_far_from_its_square() -> None:
    n = 3000  # 72 MB as a dense matrix
    data = as_data(nx.cycle_graph(n))
    tracemalloc.start()
    found = encode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e7
    # The potential of a charge on a cycle is a parabola.
    k = np.arange(n)
    V = -k * (n - k) / (2 * n)
    expected = [V.min(), V.mean(), V.std(ddof=1), V.min(), V.mean(), V.std(ddof=1), V[1], V[1]]
    close(found, np.tile(expected, (n, 1)))


@given(weighted_graphs([0, 0.01, 0.3, 1, 2, 100]))
def test_any_graph(data: Data) -> None:
    close(encode(data), definition(data))


@given(weighted_graphs([0, 0.01, 0.3, 1, 2, 100]))
def test_any_graph_as_a_large_one(data: Data) -> None:
    transform = AddElectrostaticSE()
    transform.DENSE_LIMIT = 1
    close(transform(data)[NAME], definition(data))
