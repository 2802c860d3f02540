"""Full attention by Triton, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from ....memory import empty_like
from ....pairs import num_pairs
from ...problem import FullGradients, FullProblem, Needs, Saved
from .edge_values import edge_values_grad, with_edge_values
from .launches import launch_backward, launch_forward, tiles_for
from .programs import programs_of

# A kernel sums the gradient of a table by going through its rows, tile by tile. For a larger one
# it writes the gradients of all scores, and torch sorts them.
MAX_TABLE_ROWS = 128


def forward(
    problem: FullProblem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Output ``[Nq, H, C]`` and softmax statistics ``[Nq, H, 2]`` float32 for the backward pass.

    Args:
        problem: the attention without its query, key and value.
        query: ``[Nq, H, C]`` of one of ``TYPES``, with at most ``MAX_CHANNELS`` channels.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
    """
    if problem.scale < 0:  # kernels look for the largest score before they multiply
        return forward(problem._replace(scale=-problem.scale), -query, key, value)
    problem = problem._replace(pairs=with_edge_values(problem))
    out = empty_like(query)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    launch_forward(problem, query, key, value, {"out": out, "stats": stats})
    return out, stats


def backward(
    problem: FullProblem, grad: Tensor, saved: Saved, needs: Needs, joined: Tensor | None = None
) -> FullGradients:
    """The gradients.

    Args:
        problem: that of :func:`forward`.
        grad: ``[Nq, H, C]``, the gradient of the output.
        saved: what :func:`forward` was given and gave.
        needs: whether the gradients of pairs, table and edge values are wanted.
        joined: ``[N, 3, H, C]``, written with the gradients of query, key and value; None: each
            has memory of its own.
    """
    query, key, value, out, stats = saved
    assert out is not None and stats is not None
    if problem.scale < 0:
        positive = problem._replace(scale=-problem.scale)
        made = backward(positive, grad, saved._replace(query=-query), needs, joined)
        made.query.neg_()
        return made
    if joined is None:
        dq, dk, dv = empty_like(query), empty_like(key), empty_like(value)
    else:
        dq, dk, dv = joined.unbind(1)
    pairs, table = problem.pairs, problem.table
    needs_pairs, needs_table, needs_edges = needs
    folded = problem._replace(pairs=with_edge_values(problem))
    sorts_table = needs_table and table is not None and table.size(0) > MAX_TABLE_ROWS
    scores_grad = partials = deltas = None
    if needs_pairs or needs_edges or sorts_table:
        exact = pairs is None or needs_edges or sorts_table
        size = num_pairs(problem.query_layout, problem.layout)
        dtype = torch.float32 if exact or pairs is None else pairs.dtype
        scores_grad = _empty_head_by_head(query, size, dtype)
    tiles = tiles_for(folded, query)
    if needs_table and table is not None and not sorts_table:
        count = programs_of(problem.query_layout, problem.layout, tiles).count
        partials = table.new_empty((count, *table.shape), dtype=torch.float32)
    if max(problem.query_layout.max_nodes, problem.layout.max_nodes) > tiles.small:
        deltas = query.new_empty(query.shape[:2], dtype=torch.float32)
    launch_backward(
        folded, query, key, value, grad if grad.dtype == query.dtype else grad.to(query.dtype),
        {
            "out": out.contiguous(), "stats": stats.contiguous(), "query_grad": dq,
            "key_grad": dk, "value_grad": dv, "scores_grad": scores_grad,
            "table_partials": partials, "deltas": deltas,
        },
    )  # fmt: skip
    dpairs = dtable = dedges = None
    if partials is not None and table is not None:
        dtable = partials.sum(0).to(table.dtype)
    if scores_grad is not None:
        if sorts_table:
            dtable = _sums_by_table_row(problem, scores_grad)
        if needs_edges:
            dedges = edge_values_grad(problem, scores_grad)
        if needs_pairs and pairs is not None:
            dpairs = scores_grad.to(pairs.dtype)
    return FullGradients(dq, dk, dv, dpairs, dtable, dedges)


def _empty_head_by_head(query: Tensor, pairs: int, dtype: torch.dtype) -> Tensor:
    """``[P, H]``; the numbers of a head lie side by side, as a program writes them."""
    # the distance between heads is always a multiple of 16, so that one kernel is compiled
    room = query.new_empty((query.size(1), (pairs + 15) // 16 * 16), dtype=dtype)
    return room[:, :pairs].t()


def _sums_by_table_row(problem: FullProblem, scores_grad: Tensor) -> Tensor:
    """``[K, H]``: the gradient of the table from ``scores_grad [P, H]``; torch sorts."""
    table, index = problem.table, problem.table_index
    assert table is not None and index is not None
    sums = torch.zeros_like(table, dtype=torch.float32)
    return sums.index_put_((index.long(),), scores_grad, accumulate=True).to(table.dtype)
