"""The sparse eigensolver against LAPACK, with both of its ways and with what can go wrong."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError

from pyg_gt.transforms.spectra import lanczos

GRAPHS = {
    "grid": nx.grid_2d_graph(15, 15),
    "hypercube": nx.hypercube_graph(8),
    "star": nx.star_graph(150),
    "complete": nx.complete_graph(60),
    "expander": nx.random_regular_graph(6, 200, seed=1),
    "tree": nx.balanced_tree(3, 4),
    "petals": nx.windmill_graph(20, 6),
}


def joined_copies(graph: nx.Graph, copies: int) -> nx.Graph:
    """Copies of one graph and a node that is joined to the first node of each."""
    whole = nx.disjoint_union_all([graph] * copies)
    n = len(graph)
    whole.add_edges_from((-1, n * i) for i in range(copies))
    return whole


# Their smallest eigenvalues are repeated, some many times, some with others close by.
REPETITIVE = {
    "torus": nx.cartesian_product(nx.cycle_graph(9), nx.cycle_graph(9)),
    "prism": nx.cartesian_product(nx.cycle_graph(40), nx.path_graph(3)),
    "grid": nx.grid_2d_graph(9, 9),
    "box": nx.grid_graph([4, 4, 4]),
    "hypercube": nx.hypercube_graph(6),
    "star": nx.star_graph(70),
    "sides of like size": nx.complete_bipartite_graph(20, 21),
    "sides of unlike size": nx.complete_bipartite_graph(3, 60),
    "strongly regular": nx.paley_graph(61),
    "joined cycles": joined_copies(nx.cycle_graph(8), 9),
    "joined cliques": joined_copies(nx.complete_graph(6), 12),
    "joined paths": joined_copies(nx.path_graph(12), 7),
    "caterpillar": nx.full_rary_tree(4, 85),
    "lollipop": nx.lollipop_graph(30, 40),
}


def laplacian(graph: nx.Graph) -> tuple[csr_array, np.ndarray, float]:
    """``D - A``, its null vector and its bound."""
    matrix = csr_array(nx.laplacian_matrix(graph, weight=None).astype(float))
    n = matrix.shape[0]
    return matrix, np.full(n, n**-0.5), 2.0 * matrix.diagonal().max()


def check(matrix: csr_array, values: np.ndarray, vectors: np.ndarray) -> None:
    k = len(values)
    scale = matrix.diagonal().max()
    expected = np.linalg.eigvalsh(matrix.toarray())[1 : k + 1]
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-10)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-8 * scale)
    np.testing.assert_allclose(vectors.sum(axis=0), 0, atol=1e-8)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("inverse", [False, True])
def test_repeated_eigenvalues_are_all_found(name: str, inverse: bool) -> None:
    matrix, trivial, bound = laplacian(GRAPHS[name])
    way = (lanczos._shift_inverted if inverse else lanczos._flipped)(matrix, bound)
    found = lanczos._checked(matrix, trivial, 12, bound, way, {"ncv": 40}, inverse=inverse)
    check(matrix, *found)


@pytest.mark.parametrize("name", REPETITIVE)
@pytest.mark.parametrize("inverse", [False, True])
def test_whatever_k_cuts_none_is_missed(name: str, inverse: bool) -> None:
    matrix, trivial, bound = laplacian(REPETITIVE[name])
    way = (lanczos._shift_inverted if inverse else lanczos._flipped)(matrix, bound)
    for k in (1, 2, 3, 5, 8, 13, 21):
        options = {"ncv": 50, "tol": 1e-11}
        found = lanczos._checked(matrix, trivial, k, bound, way, options, inverse=inverse)
        check(matrix, *found)


@pytest.mark.parametrize("name", REPETITIVE)
def test_counting_tells_any_missing_eigenvalue(name: str) -> None:
    matrix, _, _ = laplacian(REPETITIVE[name])
    values = np.linalg.eigvalsh(matrix.toarray())[1:]
    for k in (1, 2, 5, 8, 13, 21, 30):
        for lost in range(k):
            left = np.delete(values, lost)[:k]
            # all copies of a value are as good as each other where the columns end
            missing = bool(left[-1] > values[lost] * (1 + 1e-5))
            assert not (missing and lanczos._none_is_missing(matrix, left, k, 1e-6)), (k, lost)


def test_counting_sees_one_eigenvalue_before_many() -> None:
    # a few steps from a random start see the many only
    weight = np.concatenate([np.ones(9), np.linspace(1.02, 1.1, 800)])
    graph = nx.Graph()
    graph.add_weighted_edges_from((0, leaf + 1, w) for leaf, w in enumerate(weight.tolist()))
    matrix = csr_array(nx.laplacian_matrix(graph).astype(float))
    values = np.linalg.eigvalsh(matrix.toarray())[1:]
    assert lanczos._none_is_missing(matrix, values[:9], 9, 1e-6)
    assert not lanczos._none_is_missing(matrix, values[1:10], 9, 1e-6)


@pytest.mark.parametrize("name", ["grid", "torus", "joined paths", "caterpillar", "star"])
def test_counting_mostly_spares_another_run(name: str) -> None:
    matrix, _, _ = laplacian(REPETITIVE[name])
    values = np.linalg.eigvalsh(matrix.toarray())[1:]
    counted = [lanczos._none_is_missing(matrix, values[:k], k, 1e-6) for k in range(1, 30)]
    assert np.mean(counted) > 0.9


@pytest.mark.parametrize("lost", [[0], [1], [0, 1, 2], [11]])
def test_eigenpairs_that_arpack_misses_are_found(
    lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, runs = lanczos.eigsh, []

    def careless(operator: Any, k: int, **kwargs: Any) -> Any:
        runs.append(k)
        if len(runs) > 1:
            return real(operator, k=k, **kwargs)
        values, vectors = real(operator, k=k + len(lost), **kwargs)
        kept = np.delete(np.arange(k + len(lost)), [-1 - i for i in lost])  # largest is last
        return values[kept], vectors[:, kept]

    monkeypatch.setattr(lanczos, "eigsh", careless)
    matrix, trivial, bound = laplacian(GRAPHS["grid"])
    check(matrix, *lanczos.smallest_sparse_eigenpairs(matrix, trivial, 12, bound, {}))
    assert runs[0] == 12 and 1 + len(lost) <= len(runs) <= 2 + len(lost)


def test_the_other_way_is_tried_when_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise MemoryError("factors")

    monkeypatch.setattr(lanczos, "_shift_inverted", fails)
    matrix, trivial, bound = laplacian(GRAPHS["tree"])
    check(matrix, *lanczos.smallest_sparse_eigenpairs(matrix, trivial, 3, bound, {}))
    monkeypatch.undo()
    monkeypatch.setattr(lanczos, "_flipped", fails)
    matrix, trivial, bound = laplacian(GRAPHS["expander"])
    check(matrix, *lanczos.smallest_sparse_eigenpairs(matrix, trivial, 3, bound, {}))


def test_a_wrong_vector_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lanczos.eigsh

    def inexact(*args: Any, **kwargs: Any) -> Any:
        values, vectors = real(*args, **kwargs)
        vectors = vectors + 1e-3 * np.random.standard_normal(vectors.shape)
        return values, vectors / np.linalg.norm(vectors, axis=0)

    monkeypatch.setattr(lanczos, "eigsh", inexact)
    matrix, trivial, bound = laplacian(GRAPHS["grid"])
    with pytest.raises(lanczos.NotConvergedError, match="a residual of"):
        lanczos.smallest_sparse_eigenpairs(matrix, trivial, 4, bound, {})


@pytest.mark.parametrize(("k", "options"), [(100, {}), (4, {"maxiter": 1, "ncv": 6})])
def test_no_convergence_is_told(k: int, options: dict[str, Any]) -> None:
    matrix, trivial, bound = laplacian(nx.path_graph(200))
    with pytest.raises(lanczos.NotConvergedError) as told:
        lanczos.smallest_sparse_eigenpairs(matrix, trivial, k, bound, options)
    assert k == 100 or isinstance(told.value.__cause__, ArpackError)


def test_a_long_path_keeps_its_tiny_eigenvalues_apart() -> None:
    n = 30_000
    matrix, trivial, bound = laplacian(nx.path_graph(n))
    values, _ = lanczos.smallest_sparse_eigenpairs(matrix, trivial, 5, bound, {})
    expected = 4 * np.sin(np.pi * np.arange(1, 6) / (2 * n)) ** 2  # from 1e-8 on
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("graph", "small"),
    [
        (nx.grid_2d_graph(40, 40), True),
        (nx.random_labeled_tree(1000, seed=0), True),
        (nx.star_graph(1000), True),
        (nx.random_regular_graph(8, 1000, seed=0), False),
        (nx.complete_graph(400), False),
    ],
)
def test_factors_are_made_where_they_stay_sparse(graph: nx.Graph, small: bool) -> None:
    assert lanczos.has_small_cuts(laplacian(graph)[0]) is small
