"""Heat kernels: closed forms and SciPy's matrix exponential as oracles."""

import tracemalloc
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_gt.transforms import AddHeatKernelSE
from pyg_gt.transforms.spectra import heat_kernel
from tests.transforms.samples import (
    as_data,
    components,
    random_graph,
    symmetric_adjacency,
    weighted_graphs,
)

NAME = "heat_kernel_se"
TIMES = [0.1, 1, 3.5, 20]
NORMALIZATIONS = [None, "sym", "rw"]


def encode(data: Data, times: Any = TIMES, **kwargs: Any) -> Tensor:
    """``[N, T]``, in float64."""
    found = AddHeatKernelSE(times, **kwargs)(data)[NAME]
    assert found.dtype == torch.float32 and found.shape == (data.num_nodes, len(times))
    assert bool(((found >= 0) & (found <= 1)).all())
    return found.double()


def definition(data: Data, times: Any = TIMES, normalization: str | None = None) -> np.ndarray:
    """Component by component with SciPy's ``expm``."""
    W = symmetric_adjacency(data)
    result = np.zeros((len(W), len(times)))
    for nodes in components(W):
        if len(nodes) == 1:
            continue
        part = W[np.ix_(nodes, nodes)]
        degree = part.sum(1)
        L = np.diag(degree) - part
        left = np.full(len(nodes), 1 / len(nodes))
        if normalization == "sym":
            L = L / np.sqrt(np.outer(degree, degree))
        if normalization == "rw":
            L = L / degree[:, None]
        if normalization is not None:
            left = degree / degree.sum()
        for column, t in enumerate(times):
            result[nodes, column] = scipy.linalg.expm(-t * L).diagonal() - left
    return result


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("n", [2, 3, 12, 130])
def test_complete_graph(n: int) -> None:
    t = np.array(TIMES)
    expected = np.exp(-n * t) * (n - 1) / n
    close(encode(as_data(nx.complete_graph(n))), np.tile(expected, (n, 1)))
    expected = np.exp(-n / (n - 1) * t) * (n - 1) / n
    found = encode(as_data(nx.complete_graph(n)), normalization="sym")
    close(found, np.tile(expected, (n, 1)))


def test_path() -> None:
    n, t = 9, np.array(TIMES)
    k = np.arange(1, n)
    u = np.sqrt(2 / n) * np.cos((np.arange(n)[:, None] + 0.5) * k * np.pi / n)
    expected = u**2 @ np.exp(-np.outer(2 - 2 * np.cos(np.pi * k / n), t))
    close(encode(as_data(nx.path_graph(n))), expected)


@pytest.mark.parametrize("n", [5, 70])
def test_cycle(n: int) -> None:
    value = 2 - 2 * np.cos(2 * np.pi * np.arange(1, n) / n)
    expected = np.exp(-np.outer(value, TIMES)).sum(0) / n
    close(encode(as_data(nx.cycle_graph(n))), np.tile(expected, (n, 1)))
    expected = np.exp(-np.outer(value / 2, TIMES)).sum(0) / n
    found = encode(as_data(nx.cycle_graph(n)), normalization="rw")
    close(found, np.tile(expected, (n, 1)))


def test_star() -> None:
    leaves, t = 6, np.array(TIMES)
    n = leaves + 1
    hub = np.exp(-n * t) * leaves / n
    leaf = np.exp(-t) * (leaves - 1) / leaves + np.exp(-n * t) / (n * leaves)
    close(encode(as_data(nx.star_graph(leaves))), np.stack([hub] + [leaf] * leaves))


def test_grid_is_a_product() -> None:
    # With their stationary part, kernels of a Cartesian product are products of kernels.
    path = encode(as_data(nx.path_graph(6))).numpy() + 1 / 6
    expected = (path[:, None] * path[None, :]).reshape(36, -1) - 1 / 36
    close(encode(as_data(nx.grid_2d_graph(6, 6))), expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("n", [1, 2, 9, 40, 90])
def test_agrees_with_matrix_exponential(n: int, weighted: bool, normalization: Any) -> None:
    data = random_graph(n, n, weights="any" if weighted else None)
    found = encode(data, normalization=normalization)
    close(found, definition(data, normalization=normalization))


def test_weights_and_directed_edges() -> None:
    path = as_data(nx.path_graph(5))
    once = Data(edge_index=path.edge_index[:, path.edge_index[0] < path.edge_index[1]])
    once.num_nodes = 5
    close(encode(once), encode(path, [t / 2 for t in TIMES]))
    path.edge_weight = torch.full((8,), 2.5)
    close(
        encode(path),
        encode(Data(edge_index=path.edge_index, num_nodes=5), [2.5 * t for t in TIMES]),
    )


def test_long_and_short_times() -> None:
    data = random_graph(30, 0)
    found = encode(data, [1e-30, 1e-6, 1e30])
    assert not found[:, 2].any()
    close(found, definition(data, [1e-30, 1e-6, 1e6]))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("entries", [1, 200, 10**6])
@pytest.mark.parametrize("times", [TIMES, [1e-20], [1e-20, 1e-3], [300]])
def test_sparse_and_dense_paths_agree(
    entries: int, normalization: Any, times: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat_kernel, "_ENTRIES", entries)
    monkeypatch.setattr(heat_kernel, "_COLUMNS", 3)
    graphs = [random_graph(60, 0), random_graph(60, 1), as_data(nx.star_graph(40))]
    batch = Batch.from_data_list(
        [Data(edge_index=g.edge_index, num_nodes=g.num_nodes) for g in graphs]
    )
    for data in (graphs[0], batch):
        for limit in (0, 50):
            transform = AddHeatKernelSE(times, normalization=normalization)
            transform.DENSE_LIMIT = limit
            close(transform(data)[NAME], encode(data, times, normalization=normalization))


def test_time_beyond_reason_is_refused_for_a_large_component() -> None:
    transform = AddHeatKernelSE([1e9])
    transform.DENSE_LIMIT = 4
    with pytest.raises(ValueError, match="products of sparse matrices; choose smaller times"):
        transform(as_data(nx.path_graph(5)))


def test_memory_of_a_large_graph_is_far_from_its_square() -> None:
    n = 3000  # 72 MB as a dense matrix
    data = as_data(nx.cycle_graph(n))
    tracemalloc.start()
    found = encode(data, [1.0, 5])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e7
    value = 2 - 2 * np.cos(2 * np.pi * np.arange(1, n) / n)
    expected = np.exp(-np.outer(value, [1.0, 5])).sum(0) / n
    close(found, np.tile(expected, (n, 1)))


@given(weighted_graphs([0, 1e-20, 0.3, 1, 2, 1e5]), st.sampled_from(NORMALIZATIONS))
def test_any_graph(data: Data, normalization: Any) -> None:
    expected = definition(data, normalization=normalization)
    found = encode(data, normalization=normalization)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "times", [[], [0], [1, -1], [float("nan")], [float("inf")], 3, "12", [None], [[1, 2]], [1e39]]
)
def test_times_are_checked(times: Any) -> None:
    with pytest.raises(ValueError, match="expected a sequence of positive finite numbers"):
        AddHeatKernelSE(times)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="normalization='left'; expected 'sym', 'rw' or None"):
        AddHeatKernelSE([1], normalization="left")
    with pytest.raises(ValueError, match="choose another name"):
        AddHeatKernelSE([1], attr_name="batch_heat")
