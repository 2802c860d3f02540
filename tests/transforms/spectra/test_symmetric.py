"""Eigenpairs by compiled code against LAPACK."""

from typing import Any

import networkx as nx
import numpy as np
import pytest

from pyg_gt.transforms.compiled.library import COMPILED
from pyg_gt.transforms.spectra import symmetric
from pyg_gt.transforms.spectra.symmetric import MOST_ROWS, symmetric_eigenpairs

needs_compiler = pytest.mark.skipif(COMPILED.why_not() is not None, reason=str(COMPILED.why_not()))
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 25, 31, 33, 40, 63, 64, 65, MOST_ROWS]


class Without:
    """No compiled code."""

    @staticmethod
    def why_not() -> str:
        return "switched off"


def random_matrices(count: int, n: int, seed: int = 0) -> np.ndarray:
    matrices = np.random.default_rng(seed).standard_normal((count, n, n))
    return matrices + matrices.swapaxes(1, 2)


def laplacians(n: int) -> np.ndarray:
    """Graphs of ``n`` nodes, with many repeated eigenvalues, and random trees."""
    graphs = [nx.path_graph(n), nx.complete_graph(n), nx.star_graph(n - 1), nx.empty_graph(n)]
    graphs += [nx.random_labeled_tree(n, seed=seed) for seed in range(4)]
    graphs += [nx.cycle_graph(n)] if n > 2 else []
    graphs += [nx.disjoint_union(nx.path_graph(n // 2), nx.complete_graph(n - n // 2))]
    plain = [nx.laplacian_matrix(graph).toarray() for graph in graphs]
    scaled = [nx.normalized_laplacian_matrix(graph).toarray() for graph in graphs]
    return np.stack(plain + scaled).astype(np.float64)


def check(matrices: np.ndarray) -> None:
    values, vectors = symmetric_eigenpairs(matrices)
    n = matrices.shape[-1]
    size = np.maximum(np.abs(matrices).sum(axis=1).max(axis=1), 1e-300)[:, None]
    assert (np.diff(values, axis=1) >= 0).all()
    expected = np.linalg.eigvalsh(matrices)
    np.testing.assert_allclose(values / size, expected / size, rtol=0, atol=2e-15 * n**0.5)
    errors = matrices / size[:, None] @ vectors - vectors * (values / size)[:, None]
    assert np.linalg.norm(errors, axis=1).max(initial=0) < 2e-15 * n**0.5
    product = vectors.swapaxes(1, 2) @ vectors
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(n), product.shape), atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e10, 1e-200, 1e200])
def test_random_matrices(n: int, scale: float) -> None:
    check(scale * random_matrices(11, n))


@needs_compiler
@pytest.mark.parametrize("n", SIZES)
def test_graphs(n: int) -> None:
    check(laplacians(n))


@needs_compiler
@pytest.mark.parametrize("n", [2, 5, 8, 30])
def test_special_matrices(n: int) -> None:
    random = np.random.default_rng(0)
    rows_of_zeros = random_matrices(3, n)
    rows_of_zeros[0, n // 2 :] = rows_of_zeros[0, :, n // 2 :] = 0
    rows_of_zeros[1, : n // 2] = rows_of_zeros[1, :, : n // 2] = 0
    rows_of_zeros[2, 1] = rows_of_zeros[2, :, 1] = 0
    vector = random.standard_normal((n, 1))
    graded = 10.0 ** -np.arange(0, n)
    clustered = np.linalg.qr(random.standard_normal((n, n)))[0]
    others = np.stack(
        [
            np.zeros((n, n)),
            np.eye(n),
            np.diag(random.standard_normal(n)),
            np.ones((n, n)),
            vector @ vector.T,
            np.sqrt(graded[:, None] * graded),
            np.diag(graded) + 1e-14 * rows_of_zeros[0],
            (clustered * (1 + 1e-15 * np.arange(n))) @ clustered.T,
            (clustered * np.where(np.arange(n) % 2, 1.0, 1e-12)) @ clustered.T,
            np.eye(n, k=1) + np.eye(n, k=-1),
            np.eye(n) + 1e-160 * rows_of_zeros[2],
        ]
    )
    others = (others + others.swapaxes(1, 2)) / 2
    check(np.concatenate([rows_of_zeros, others]))


@needs_compiler
@pytest.mark.parametrize("n", [1, 2, 6, 13, 25, 50])
def test_companions_do_not_matter(n: int) -> None:
    matrices = np.concatenate(
        [random_matrices(9, n), laplacians(n) if n > 1 else np.ones((3, 1, 1))]
    )
    values, vectors = symmetric_eigenpairs(matrices)
    shuffled = np.random.default_rng(1).permutation(len(matrices))
    again = symmetric_eigenpairs(matrices[shuffled])
    assert (again[0] == values[shuffled]).all() and (again[1] == vectors[shuffled]).all()
    for i, matrix in enumerate(matrices):
        alone = symmetric_eigenpairs(matrix[None])
        assert (alone[0][0] == values[i]).all() and (alone[1][0] == vectors[i]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_ends_as_in_lapack(bad: float) -> None:
    matrices = random_matrices(5, 6)
    matrices[3, 2, 2] = bad

    def outcome(solve: Any) -> Any:
        try:
            return np.isnan(solve(matrices[3:4])[0]).any()
        except np.linalg.LinAlgError as error:
            return str(error)

    assert outcome(symmetric_eigenpairs) == outcome(np.linalg.eigh)


@needs_compiler
@pytest.mark.parametrize("largest", [1e-310, 1e305])
def test_what_cannot_be_scaled_is_left_to_lapack(largest: float) -> None:
    matrices = random_matrices(3, 4)
    matrices[1] *= largest / np.abs(matrices[1]).max()
    values, vectors = symmetric_eigenpairs(matrices)
    expected = np.linalg.eigh(matrices[1])
    assert (values[1] == expected[0]).all() and (vectors[1] == expected[1]).all()
    np.testing.assert_allclose(values[[0, 2]], np.linalg.eigvalsh(matrices[[0, 2]]), rtol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_no_matrices(n: int) -> None:
    values, vectors = symmetric_eigenpairs(np.empty((0, n, n)))
    assert values.shape == (0, n) and vectors.shape == (0, n, n)


def test_any_layout_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = random_matrices(6, 5)
    expected = np.linalg.eigvalsh(matrices)
    for each in (matrices[::2], np.asfortranarray(matrices)[::2], matrices.swapaxes(1, 2)[::2]):
        np.testing.assert_allclose(symmetric_eigenpairs(each)[0], expected[::2], rtol=1e-12)
    monkeypatch.setattr(symmetric, "COMPILED", Without)
    np.testing.assert_allclose(symmetric_eigenpairs(matrices)[0], expected, rtol=1e-12)
