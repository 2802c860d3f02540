"""Biases of a full attention as one sum over pairs, and their gradients from the sum's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ....layout.graph_layout import GraphLayout
from ...pairs import num_pairs, pair_of_edge
from ..problem import FullProblem


def sum_of_biases(problem: FullProblem, dtype: torch.dtype) -> Tensor | None:
    """``[P, H]``, or None where nothing is added; ``[P, 1]`` if ``pairs`` is and stands alone."""
    total = None if problem.pairs is None else problem.pairs.to(dtype)
    if problem.table is not None and problem.table_index is not None:
        rows = problem.table.to(dtype).index_select(0, problem.table_index.long())
        total = rows if total is None else rows.add_(total)
    if problem.edges is None or problem.edge_values is None:
        return total
    edge_sets = [(problem.edges, problem.edge_values)]
    return with_edge_values(total, edge_sets, problem.query_layout, problem.layout, dtype)


def with_edge_values(
    total: Tensor | None,
    edge_sets: Iterable[tuple[EdgeLayout, Tensor]],
    query_layout: GraphLayout,
    layout: GraphLayout,
    dtype: torch.dtype,
) -> Tensor | None:
    """``total [P, H]`` and values ``[E, H]`` at the pairs of edges; repeated edges add up."""
    for edges, values in edge_sets:
        if total is None:
            shape = num_pairs(query_layout, layout), values.size(1)
            total = torch.zeros(shape, dtype=dtype, device=values.device)
        pair = pair_of_edge(edges, query_layout, layout)
        total = total.index_add(0, pair, values.to(dtype))
    return total


def bias_gradients(
    problem: FullProblem, grad_scores: Tensor | None, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of pairs, table and edge values, where ``needs`` says so.

    Args:
        problem: the attention.
        grad_scores: ``[P, H]``, gradients of scores; None if nothing needs them.
        needs: whether pairs, table and edge values need one.
    """
    pairs, table, edge_values = problem.pairs, problem.table, problem.edge_values
    of_pairs = of_table = of_edges = None
    if grad_scores is not None and needs[0] and pairs is not None:
        of_pairs = grad_scores.to(pairs.dtype)
    if grad_scores is not None and needs[1] and table is not None:
        assert problem.table_index is not None
        rows = grad_scores.new_zeros(table.shape)
        rows.index_add_(0, problem.table_index.long(), grad_scores)
        of_table = rows.to(table.dtype)
    if grad_scores is not None and needs[2] and edge_values is not None:
        assert problem.edges is not None
        pair = pair_of_edge(problem.edges, problem.query_layout, problem.layout)
        of_edges = grad_scores[pair].to(edge_values.dtype)
    return of_pairs, of_table, of_edges
