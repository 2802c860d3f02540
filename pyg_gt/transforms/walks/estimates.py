"""Unbiased estimates of return probabilities, with their standard errors."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from ..graphs.components import component_blocks
from ..graphs.graphs import Floats, Graphs
from .return_probabilities import exact_diagonals
from .transition_matrix import sparse_walk_matrix

# Entries of the random vectors that are followed at once: 32 MiB.
_ENTRIES = 2**22


def estimated_return_probabilities(
    graphs: Graphs, walk_length: int, num_samples: int, seed: int, *, exact_up_to: int
) -> tuple[Floats, Floats]:
    """``[N, walk_length]`` twice: return probabilities and their standard errors.

    Components of at most ``exact_up_to`` nodes get exact values. The others get the mean over
    random sign vectors ``z`` of ``(P^a z)_i ((P^b)^T z)_i``, whose expectation is
    ``(P^{a + b})_ii``; where walks are reversible ``S`` stands for ``P``, and even steps are means
    of squares.
    """
    mean = np.zeros((graphs.num_nodes, walk_length))
    error = np.zeros((graphs.num_nodes, walk_length))
    for block in component_blocks(graphs, 0):
        if block.width <= exact_up_to:
            mean[block.nodes] = exact_diagonals(block, walk_length, exact_up_to)
            continue
        walk, reversible = sparse_walk_matrix(block.sparse())
        found = _estimate(walk, reversible, walk_length, num_samples, seed)
        mean[block.nodes], error[block.nodes] = found
    return np.clip(mean, 0, 1, out=mean), error


def _estimate(
    walk: csr_array, reversible: bool, walk_length: int, num_samples: int, seed: int
) -> tuple[Floats, Floats]:
    n = walk.shape[0]
    draw = np.random.default_rng(seed)
    back = walk if reversible else csr_array(walk.T)
    total = np.zeros((n, walk_length))
    squares = np.zeros((n, walk_length))
    at_once = max(1, min(num_samples, _ENTRIES // n))
    for done in range(0, num_samples, at_once):
        size = (n, min(at_once, num_samples - done))
        ahead = draw.integers(0, 2, size).astype(np.float64) * 2 - 1
        behind = ahead
        for t in range(walk_length):
            # One of the two takes a step at a time: together they have gone t + 1.
            if t % 2 == 0:
                previous, ahead = ahead, walk @ ahead
                factor = previous if reversible else behind
            else:
                if not reversible:
                    behind = back @ behind
                factor = ahead if reversible else behind
            product = ahead * factor
            total[:, t] += product.sum(axis=1)
            squares[:, t] += np.einsum("ij,ij->i", product, product)
    # Each walk of one step is known.
    total[:, 0], squares[:, 0] = num_samples * walk.diagonal(), num_samples * walk.diagonal() ** 2
    mean = total / num_samples
    variance = np.maximum(squares / num_samples - mean**2, 0) / (num_samples - 1)
    return mean, np.sqrt(variance)
