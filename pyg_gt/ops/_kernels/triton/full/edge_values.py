"""Values on edges as values of pairs, which is what the kernels add to scores."""

from __future__ import annotations

import weakref
from typing import NamedTuple

from torch import Tensor

from .....layout.edge_layout import EdgeLayout
from .....layout.graph_layout import GraphLayout
from ....pairs import num_pairs, pair_of_edge
from ...problem import FullProblem


class EdgePairs(NamedTuple):
    """Where values of edges are added.

    Attributes:
        pair: ``[E]``, the pair of each edge.
        has_repeats: whether two edges join one pair.
    """

    pair: Tensor
    has_repeats: bool


def pairs_of_edges(edges: EdgeLayout, query_layout: GraphLayout, layout: GraphLayout) -> EdgePairs:
    """The pairs that edges join, found once for each pair of layouts.

    Raises:
        ValueError: if an edge joins two graphs.
    """

    def find() -> EdgePairs:
        index = pair_of_edge(edges, query_layout, layout)
        ordered = index.sort().values
        return EdgePairs(index, bool((ordered[1:] == ordered[:-1]).any()))

    edges.check_within_graphs(query_layout, layout)
    return edges.cached(("pairs", weakref.ref(query_layout), weakref.ref(layout)), find)


def with_edge_values(problem: FullProblem) -> Tensor | None:
    """``[P, H]``: values of pairs and, in float32, what is added on edges; None without either."""
    edges, values, pairs = problem.edges, problem.edge_values, problem.pairs
    if edges is None or values is None:
        return pairs
    index, has_repeats = pairs_of_edges(edges, problem.query_layout, problem.layout)
    values = values.float()
    if pairs is None:
        size = num_pairs(problem.query_layout, problem.layout)
        # head by head, as kernels read them
        pairs = values.new_zeros((values.size(1), size)).t()
    elif not has_repeats:
        values = values + pairs[index].float()
    # with 'accumulate' torch sorts, where 'index_add' and 'scatter' are atomic
    return pairs.float().index_put((index,), values, accumulate=has_repeats)


def edge_values_grad(problem: FullProblem, scores_grad: Tensor) -> Tensor:
    """``[E, H]`` from ``scores_grad [P, H]``."""
    assert problem.edges is not None and problem.edge_values is not None
    pairs = pairs_of_edges(problem.edges, problem.query_layout, problem.layout)
    return scores_grad[pairs.pair].to(problem.edge_values.dtype)
