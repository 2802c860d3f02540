"""Real molecules, all of them: loaded by OGB's own classes, encoded without one failure."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path
from torch_geometric.data import Data

from pyg_gt.datasets import load_ogb
from pyg_gt.transforms import (
    AddDegree,
    AddElectrostaticSE,
    AddExpanderEdges,
    AddHeatKernelSE,
    AddKHopEdges,
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddShortestPathDistance,
    precompute,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def molhiv(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    source = data_root / "ogb" / "ogbg_molhiv"
    if not source.is_dir():
        pytest.skip(f"no ogbg-molhiv at {source}")
    root = tmp_path_factory.mktemp("ogb")
    copied = shutil.copytree(source, root / source.name)
    for path in (copied, *copied.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    dataset, split, _ = load_ogb("ogbg-molhiv", root)
    assert len(dataset) == 41127
    assert [split[part].numel() for part in ("train", "valid", "test")] == [32901, 4113, 4113]
    yield dataset
    shutil.rmtree(root)


def laplacian_of(data: Data) -> csr_array:
    n = data.num_nodes
    adjacency = csr_array((np.ones(data.num_edges), data.edge_index.numpy()), shape=(n, n))
    degree = adjacency.sum(axis=1)
    root = csr_array((1 / np.sqrt(np.maximum(degree, 1)), (range(n), range(n))))
    return csr_array(csr_array((np.sign(degree), (range(n), range(n)))) - root @ adjacency @ root)


def test_all_molecules_get_eigenvectors_and_walks(molhiv: object) -> None:
    graphs = list(molhiv)  # type: ignore[call-overload]
    k = 8
    encoded = precompute(graphs, [AddLaplacianEigenvectorPE(k), AddRandomWalkPE(16)])
    assert len(encoded) == len(graphs)
    small = disconnected = 0
    for graph, data in zip(graphs, encoded, strict=True):
        n = graph.num_nodes
        assert torch.equal(data.edge_index, graph.edge_index) and data.num_nodes == n
        vectors = data.laplacian_eigenvector_pe.double().numpy()
        values = data.laplacian_eigenvector_pe_values.double().numpy()
        mask = data.laplacian_eigenvector_pe_mask.numpy()
        laplacian = laplacian_of(data)
        assert vectors.shape == (n, k) and not vectors[~mask].any()
        # Padding is zero, so this is L u = lambda u for each component alone.
        assert np.abs(laplacian @ vectors - values * vectors).max() < 1e-6
        parts, label = connected_components(laplacian, directed=False)
        for part in range(parts) if parts > 1 else ():
            own = label == part
            assert mask[own].sum(1).tolist() == [min(k, own.sum() - 1)] * own.sum()
            gram = vectors[own].T @ vectors[own]
            np.testing.assert_allclose(gram, np.diag(mask[own][0]), atol=1e-5)
        walks = data.random_walk_pe
        assert walks.shape == (n, 16) and bool(((walks >= 0) & (walks <= 1)).all())
        small += n < 9  # where PyG's transform raises
        disconnected += parts > 1
    assert (small, disconnected) == (204, 3087)


def test_every_tenth_molecule_gets_everything(molhiv: object) -> None:
    graphs = [molhiv[i] for i in range(0, 41127, 10)]  # type: ignore[index]
    encode = [
        AddShortestPathDistance(12, path_length=3),
        AddKHopEdges(2),
        AddExpanderEdges(4),
        AddHeatKernelSE([0.5, 1, 4]),
        AddElectrostaticSE(),
        AddDegree(),
    ]
    for data in precompute(graphs, encode):
        n = data.num_nodes
        adjacency = csr_array((np.ones(data.num_edges), data.edge_index.numpy()), shape=(n, n))
        hops = shortest_path(adjacency, unweighted=True)
        distance = np.minimum(hops, 13)
        assert np.array_equal(data.pair_distance.view(n, n).numpy(), distance)
        assert data.pair_distance_edges.shape == (n * n, 3)
        near = np.argwhere((hops > 0) & (hops <= 2))
        assert np.array_equal(data.k_hop_edge_index.numpy().T, near)
        degree = np.bincount(data.expander_edge_index[0], minlength=n)
        assert degree.min(initial=min(n - 1, 4)) >= min(n - 1, 4) and degree.max(initial=0) <= 5
        heat = data.heat_kernel_se
        assert bool(((heat >= 0) & (heat <= 1)).all()) and bool((heat.diff(dim=1) <= 0).all())
        assert bool(torch.isfinite(data.electrostatic_se).all())
        assert np.array_equal(data.degree[:, 1], np.bincount(data.edge_index[0], minlength=n))
