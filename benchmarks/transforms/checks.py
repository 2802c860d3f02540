"""What must hold of encodings before a figure of them is worth anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components, shortest_path
from torch_geometric.data import Data


def laplacian_of(data: Data) -> csr_array:
    """``I - D^{-1/2} A D^{-1/2}`` by scipy; an isolated node gets a row of zeros."""
    N = data.num_nodes
    adjacency = csr_array((np.ones(data.num_edges), data.edge_index.numpy()), shape=(N, N))
    degree = adjacency.sum(axis=1)
    root = diags_array(1 / np.sqrt(np.maximum(degree, 1)))
    return csr_array(root @ (diags_array(degree) - adjacency) @ root)


def residual(graphs: Sequence[Data]) -> float:
    """The largest ``|| L u - lambda u ||`` over all eigenpairs of all graphs."""
    worst = 0.0
    for data in graphs:
        vectors = data.laplacian_eigenvector_pe.double().numpy()
        values = data.laplacian_eigenvector_pe_values.double().numpy()
        mask = data.laplacian_eigenvector_pe_mask.numpy()
        assert not vectors[~mask].any()
        if vectors.size:
            error = laplacian_of(data) @ vectors - values * vectors
            worst = max(worst, float(np.linalg.norm(error, axis=0).max()))
    return worst


def check_encodings(graphs: Sequence[Data], theirs: Sequence[Data], k: int) -> dict[str, float]:
    """The largest errors; raises if one is larger than float32 explains.

    Args:
        graphs: with Laplacian eigenvectors and return probabilities.
        theirs: with PyG's return probabilities.
        k: number of eigenvectors.
    """
    errors = {
        "largest residual": residual(graphs),
        "largest error of eigenvalues": eigenvalue_error(graphs, k),
        "largest difference of walks": walk_difference(graphs, theirs),
    }
    for name, error in errors.items():
        if not error < 2e-6:
            raise AssertionError(f"{name}: {error}")
    return errors


def eigenvalue_error(graphs: Sequence[Data], k: int) -> float:
    """The largest difference from the lowest eigenvalues of each component, by LAPACK."""
    worst = 0.0
    for data in graphs:
        laplacian = laplacian_of(data)
        values = data.laplacian_eigenvector_pe_values.double().numpy()
        _, label = connected_components(laplacian, directed=False)
        for component in range(label.max(initial=-1) + 1):
            nodes = np.flatnonzero(label == component)
            expected = np.linalg.eigvalsh(laplacian[nodes][:, nodes].toarray())[1 : k + 1]
            error = np.abs(values[nodes, : expected.size] - expected)
            worst = max(worst, float(error.max(initial=0)))
    return worst


def walk_difference(graphs: Sequence[Data], theirs: Sequence[Data]) -> float:
    """The largest difference between our walks and PyG's."""
    pairs = zip(graphs, theirs, strict=True)
    return max(float((a.random_walk_pe - b.pyg_walk).abs().max()) for a, b in pairs)


def check_same(graphs: Sequence[Data], others: Sequence[Data]) -> None:
    """Raises unless graph by graph all attributes are the same, bit for bit."""
    for a, b in zip(graphs, others, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.to_dict().items():
            assert torch.equal(value, b[name]) if torch.is_tensor(value) else value == b[name]


def check_pairs(graphs: Sequence[Data]) -> None:
    """Raises unless distances are scipy's, and rows of walks sum to one or zero."""
    for data in graphs:
        N = data.num_nodes
        if "pair_distance" in data:
            adjacency = csr_array((np.ones(data.num_edges), data.edge_index.numpy()), shape=(N, N))
            want = shortest_path(adjacency, unweighted=True)
            want[want > 20] = 21
            assert np.array_equal(data.pair_distance.view(N, N).numpy(), want)
        else:
            check_walks(data.pair_walk, N)


def check_walks(pair_walk: torch.Tensor, num_nodes: int) -> None:
    """Raises unless each row of each power sums to one, or to zero."""
    rows = pair_walk.view(num_nodes, num_nodes, -1).sum(1)
    assert bool((torch.minimum(rows.abs(), (rows - 1).abs()) < 1e-4).all())


def second_step_error(data: Data) -> float:
    """``diag(P^2)_i`` is the mean of ``1 / degree`` over the neighbours of ``i``."""
    source, target = data.edge_index
    degree = torch.zeros(data.num_nodes).index_add_(0, source, torch.ones(source.numel()))
    exact = torch.zeros(data.num_nodes).index_add_(0, source, 1 / degree[target]) / degree
    return float((data.random_walk_pe[:, 1] - exact).abs().max())
