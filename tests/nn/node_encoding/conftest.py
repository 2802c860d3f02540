"""Small graphs, and their eigenvectors by numpy or by our transform."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_gt.transforms import AddLaplacianEigenvectorPE


def undirected(pairs: list[tuple[int, int]]) -> Tensor:
    """``[2, 2 * len(pairs)]``: each pair in both directions."""
    return torch.tensor(pairs + [(b, a) for a, b in pairs], dtype=torch.int64).reshape(-1, 2).t()


def cycle(n: int) -> list[tuple[int, int]]:
    return [(i, (i + 1) % n) for i in range(n)]


GRAPHS: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "cycle": (8, cycle(8)),
    "grid": (
        9,
        [(i, i + 1) for i in range(9) if i % 3 < 2] + [(i, i + 3) for i in range(6)],
    ),
    "complete": (5, [(i, j) for i in range(5) for j in range(i)]),
    "path": (4, [(0, 1), (1, 2), (2, 3)]),
    "pair": (2, [(0, 1)]),
    "one node": (1, []),
    "no edge": (3, []),
    "disconnected": (10, [*cycle(5), (5, 6), (6, 7), (8, 9)]),
}


@pytest.fixture
def graph() -> Callable[[str], Data]:
    """Makes one of `GRAPHS`."""

    def make(name: str) -> Data:
        n, pairs = GRAPHS[name]
        return Data(edge_index=undirected(pairs), num_nodes=n)

    return make


@pytest.fixture
def batched(graph: Callable[[str], Data]) -> Callable[..., tuple[Data, list[Tensor]]]:
    """A batch of `GRAPHS` and its ``vectors``, ``values`` and ``mask``, by our transform."""

    def make(*names: str, k: int = 4) -> tuple[Data, list[Tensor]]:
        transform = AddLaplacianEigenvectorPE(k, attr_name="pe")
        data = Batch.from_data_list([transform(graph(name)) for name in names or GRAPHS])
        return data, [data.pe.double(), data.pe_values.double(), data.pe_mask]

    return make


@pytest.fixture
def eigenpairs(graph: Callable[[str], Data]) -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """``edge_index`` of a connected graph, and what `numpy.linalg.eigh` makes of it."""

    def make(name: str, k: int, noise: float = 0.0) -> tuple[Tensor, list[Tensor]]:
        data = graph(name)
        n = int(data.num_nodes)
        weight = np.zeros((n, n))
        weight[tuple(data.edge_index.numpy())] = 1
        bumps = np.random.default_rng(0).uniform(-1, 1, (n, n))
        weight *= 1 + noise * (bumps + bumps.T)
        scale = weight.sum(1) ** -0.5
        values, vectors = np.linalg.eigh(np.eye(n) - scale[:, None] * weight * scale)
        values, vectors = values[1 : k + 1], vectors[:, 1 : k + 1]
        pairs = [torch.from_numpy(vectors.copy()), torch.from_numpy(values).expand(n, -1)]
        return data.edge_index, [*pairs, torch.ones(n, values.size, dtype=torch.bool)]

    return make
