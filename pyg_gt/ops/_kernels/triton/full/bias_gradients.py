"""What of an attention the Triton kernels do not see: biases on edges, and gradients of biases."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from .....layout.edge_layout import EdgeLayout
from .....layout.graph_layout import GraphLayout
from ....pairs import num_pairs, pair_of_edge
from . import launches as _triton_full
from .problem import MAX_TABLE_ROWS, Problem


class Biases(NamedTuple):
    """Those of a call, as they came."""

    pairs: Tensor | None
    table: Tensor | None
    edge_values: Tensor | None


class EdgePairs(NamedTuple):
    """Where values of edges are added.

    Attributes:
        numbers: ``[E]``, the pair of each edge.
        repeat: whether two edges join one pair.
    """

    numbers: Tensor
    repeat: bool


def pairs_of_edges(
    edges: EdgeLayout, query_layout: GraphLayout, layout: GraphLayout
) -> EdgePairs:
    """The pairs that edges join, found once.

    Raises:
        ValueError: if an edge joins two graphs.
    """

    def find() -> EdgePairs:
        numbers = pair_of_edge(edges, query_layout, layout)
        ordered = numbers.sort().values
        return EdgePairs(numbers, bool((ordered[1:] == ordered[:-1]).any()))

    edges.check_within_graphs(query_layout, layout)
    return edges.cached(("pairs", weakref.ref(query_layout), weakref.ref(layout)), find)


def on_pairs(
    pairs: Tensor | None, edge_pairs: Tensor | None, edge_values: Tensor | None, size: int,
    repeat: bool,
) -> Tensor | None:  # fmt: skip
    """``[P, H]``: ``pairs`` and, in float32, what is added on edges."""
    if edge_pairs is None or edge_values is None:
        return pairs
    edge_values = edge_values.float()
    if pairs is None:
        pairs = edge_values.new_zeros((edge_values.size(1), size)).t()  # as they are read
    elif not repeat:
        edge_values = edge_values + pairs[edge_pairs].float()
    # with 'accumulate' torch sorts, where 'index_add' and 'scatter' are atomic
    return pairs.float().index_put((edge_pairs,), edge_values, accumulate=repeat)


def gradients(
    problem: Problem,
    edge_pairs: Tensor | None,
    biases: Biases,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    needs: tuple[bool, ...],
    joined: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Of query, key, value and each of ``biases``; None where one of these is not in ``needs``.

    Args:
        problem: what the kernels saw, with values on edges among those of pairs.
        edge_pairs: ``[E]``, or None.
        biases: values of pairs, table and values of edges.
        grad: ``[Nq, H, C]``.
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        out: ``[Nq, H, C]``.
        stats: ``[Nq, H, 2]``.
        needs: of the three biases.
        joined: room for the gradients of query, key and value, ``[N, 3, H, C]``, or None.
    """
    needs_pairs, needs_table, needs_edges = needs
    pairs, table, edge_values = biases
    sorts = needs_table and table is not None and table.size(0) > MAX_TABLE_ROWS
    slopes = None
    if needs_pairs or needs_edges or sorts:
        size = num_pairs(problem.query_layout, problem.layout)
        dtype = torch.float32 if pairs is None or needs_edges or sorts else pairs.dtype
        slopes = _triton_full.room_for_slopes(query, size, dtype)
    made = _triton_full.backward(
        problem, grad, query, key, value, out.contiguous(), stats.contiguous(), slopes,
        needs_table and not sorts, joined,
    )  # fmt: skip
    dpairs = dtable = dedges = None
    if table is not None and made.table is not None:
        dtable = made.table.to(table.dtype)
    if slopes is not None:
        if sorts:
            assert table is not None and problem.table_index is not None
            sums = torch.zeros_like(table, dtype=torch.float32)
            sums.index_put_((problem.table_index.long(),), slopes, accumulate=True)
            dtable = sums.to(table.dtype)
        if needs_edges:
            assert edge_pairs is not None and edge_values is not None
            dedges = slopes[edge_pairs].to(edge_values.dtype)
        if needs_pairs:
            assert pairs is not None
            dpairs = slopes.to(pairs.dtype)
    return made.query, made.key, made.value, dpairs, dtable, dedges
