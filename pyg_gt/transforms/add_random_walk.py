"""Return probabilities of random walks as positional encoding."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from ._components import dense_stack, split_components
from ._graph import (
    Floats,
    WeightedGraph,
    check_attr_name,
    check_count,
    read_graph,
    write_encoding,
)

# Up to here a dense product is cheaper than looking for zeros, or for components.
_SMALL = 100
# Entries of the largest block of rows made at once: 32 MiB.
_BLOCK_ENTRIES = 2**22


@functional_transform("pyg_gt_add_random_walk_pe")
class AddRandomWalkPE(BaseTransform):
    r"""Adds the probabilities that a random walk is back at its start after 1, 2, ... steps.

    From `"Graph Neural Networks with Learnable Structural and Positional Representations"
    <https://arxiv.org/abs/2110.07875>`_: column ``t - 1`` of ``{attr_name} [N, walk_length]``,
    float32, is the diagonal of ``P^t``. In place of `torch_geometric.transforms.AddRandomWalkPE`,
    whose arguments and meaning it has; the two agree on simple unweighted graphs, also directed
    ones. The functional name is ``pyg_gt_add_random_walk_pe``, since PyG's own is taken.

    **The walk** ``P = D^{-1} W`` leaves a node along its outgoing edges (``edge_index[0]`` to
    ``edge_index[1]``), each with its share of their ``edge_weight``; a repeated edge counts as
    often as it stands, a self-loop is a step, an edge of weight zero is none. So each row of ``P``
    sums to one, or to zero at a node without outgoing edges, where the walk ends.

    A graph in a `Batch` gets what it gets alone, up to rounding. (A `Batch` gives back in
    ``to_data_list`` only what was on its graphs when it was made.) Walks from a component of more
    than :attr:`DENSE_LIMIT` nodes are followed some rows of ``P^t`` at a time.

    Args:
        walk_length: number of columns.
        attr_name: where to store the encoding; None appends it to ``data.x``.

    Raises:
        ValueError: for an argument, an ``edge_index`` or an ``edge_weight`` that is not as said.
        IndexError: if ``edge_index`` holds a node that is not there.
    """

    #: Number of nodes of a component above which ``P`` is never made dense.
    DENSE_LIMIT: int = 2048

    def __init__(self, walk_length: int, attr_name: str | None = "random_walk_pe") -> None:
        self.walk_length = check_count(self, "walk_length", walk_length)
        self.attr_name = check_attr_name(self, attr_name)

    def forward(self, data: Data) -> Data:
        """Adds the encoding to ``data``, a `Data` or a `Batch`."""
        graph = read_graph(data)
        encoding = return_probabilities(graph, self.walk_length, dense_limit=self.DENSE_LIMIT)
        write_encoding(data, self.attr_name, encoding)
        return data

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(walk_length={self.walk_length}, attr_name={self.attr_name!r})"
        )


def return_probabilities(graph: WeightedGraph, walk_length: int, *, dense_limit: int) -> Floats:
    """``[N, walk_length]``: the diagonals of ``P, P^2, ...``."""
    N = graph.num_nodes
    degree = np.bincount(graph.row, graph.weight, minlength=N)
    step = WeightedGraph(graph.row, graph.col, graph.weight / degree[graph.row], N)
    if N <= _SMALL:
        whole = dense_stack(step.row, step.col, step.weight, 1, N)
        return _dense_diagonals(whole, walk_length).reshape(N, walk_length)
    result = np.empty((N, walk_length))
    for nodes, transition in split_components(step, dense_up_to=min(_SMALL, dense_limit)):
        if isinstance(transition, csr_array):
            n = transition.shape[0]
            if n > dense_limit or 16 * transition.nnz < n * n:
                result[nodes[0]] = _blocked_diagonals(transition, walk_length)
                continue
            transition = transition.toarray()[None]
        result[nodes] = _dense_diagonals(transition, walk_length)
    return result


def _dense_diagonals(transition: Floats, walk_length: int) -> Floats:
    """``[G, n, walk_length]`` of ``transition [G, n, n]``, with half as many products as steps.

    ``diag(P^(a + b))_i = sum_j (P^a)_ij (P^b)_ji`` needs powers up to ``walk_length / 2`` only.
    """
    result = np.empty((*transition.shape[:2], walk_length))
    result[..., 0] = np.einsum("gii->gi", transition)
    power = transition
    for t in range(2, walk_length + 1):
        previous = power
        if t % 2:
            power = previous @ transition
        result[..., t - 1] = np.einsum("gij,gji->gi", power, previous)
    return result


def _blocked_diagonals(transition: csr_array, walk_length: int) -> Floats:
    """``[n, walk_length]`` of ``transition [n, n]``, a few rows of the powers at a time."""
    n = transition.shape[0]
    result = np.empty((n, walk_length))
    rows = max(1, _BLOCK_ENTRIES // n)
    for start in range(0, n, rows):
        power = transition[start : start + rows]
        for t in range(walk_length):
            if t > 0:
                power = power @ transition
            # Short walks reach few nodes; once they reach many, zeros cost more than they save.
            if isinstance(power, csr_array) and 8 * power.nnz > power.shape[0] * n:
                power = power.toarray()
            result[start : start + rows, t] = power.diagonal(start)
    return result
