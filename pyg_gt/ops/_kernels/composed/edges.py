"""Attention along edges, some targets at a time: no temporary of the size of all edges.

Forward and backward written out on edges sorted by target. A slice stays in a CPU's cache, which
also makes it faster than one pass over all edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ...dropout import keep_edges

# Edges of one slice, unless a single target has more.
_MAX_EDGES = {"cpu": 2**12, "other": 2**20}


class Problem(NamedTuple):
    """One attention along edges; see :class:`~pyg_gt.ops.inputs.Inputs` for the fields."""

    edges: EdgeLayout
    scale: float
    dropout_p: float
    seed: Tensor | None


class Slice(NamedTuple):
    """The edges of some targets.

    Attributes:
        number: ``[e]``, the caller's numbers of the edges.
        source: ``[e]``.
        target: ``[e]``.
        row: ``[e]``, the target counted from the first of the slice.
        rows: those targets.
    """

    number: Tensor
    source: Tensor
    target: Tensor
    row: Tensor
    rows: slice


def forward(
    problem: Problem,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]`` and the logarithms ``[Nq, H]`` of the sums, in the wide type."""
    out = torch.zeros_like(query, dtype=_wide(query), memory_format=torch.contiguous_format)
    lse = out.new_zeros(out.shape[:2])
    for part in _slices(problem.edges):
        q, k, v = _gather(part, query, key, value, features)
        scores = _scores(problem, part, q, k, values)
        count = part.rows.stop - part.rows.start
        index = part.row.unsqueeze(1).expand_as(scores)
        top = scores.new_full((count, scores.size(1)), float("-inf"))
        top.scatter_reduce_(0, index, scores, "amax")
        top.masked_fill_(top == float("-inf"), 0.0)
        weights = scores.sub_(top[part.row]).exp_()
        total = torch.zeros_like(top).scatter_add_(0, index, weights)
        total.masked_fill_(total == 0, 1.0)  # nothing to attend to: zeros
        weights /= total[part.row]
        lse[part.rows] = top + total.log()
        factors = _factors(problem, part, weights)
        if factors is not None:
            weights *= factors
        _add(out[part.rows], part.row, v.mul_(weights.unsqueeze(-1)))
    return out, lse


def backward(
    problem: Problem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    values: Tensor | None,
    features: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of query, key, value, ``values [E, H]`` and ``features [E, H, C]``."""
    wide = _wide(query)
    dq, dk, dv = (
        torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format)
        for x in (query, key, value)
    )
    dvalues = None if values is None else torch.zeros_like(values)
    dfeatures = None if features is None else torch.zeros_like(features)
    grad = grad.to(wide)
    delta = (grad * out).sum(-1)  # [Nq, H]
    for part in _slices(problem.edges):
        q, k, v = _gather(part, query, key, value, features)
        weights = _scores(problem, part, q.clone(), k, values).sub_(lse[part.target]).exp_()
        g = grad[part.target]
        dweights = v.mul_(g).sum(-1)  # [e, H]
        kept = weights
        factors = _factors(problem, part, weights)
        if factors is not None:
            dweights *= factors
            kept = weights * factors
        dscores = dweights.sub_(delta[part.target]).mul_(weights)
        dv_e = g.mul_(kept.unsqueeze(-1))
        if dvalues is not None:
            dvalues[part.number] = dscores.to(dvalues.dtype)
        dscores = (dscores * problem.scale).unsqueeze(-1)
        dk_e = q.mul_(dscores)
        _add(dv, part.source, dv_e)
        _add(dk, part.source, dk_e)
        _add(dq[part.rows], part.row, k.mul_(dscores))
        if dfeatures is not None:
            dfeatures[part.number] = (dv_e + dk_e).to(dfeatures.dtype)
    return dq.to(query.dtype), dk.to(key.dtype), dv.to(value.dtype), dvalues, dfeatures


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _slices(edges: EdgeLayout) -> Iterator[Slice]:
    ptr, order = edges.by_target
    most = _MAX_EDGES["cpu" if order.device.type == "cpu" else "other"]
    bounds = edges.cached(("slices", most), lambda: _bounds(ptr.tolist(), most))
    for first, last, start, stop in bounds:
        number = order[start:stop]
        source, target = edges.ends[:, number].long()
        yield Slice(number, source, target, target - first, slice(first, last))


def _bounds(ptr: list[int], most: int) -> list[tuple[int, int, int, int]]:
    """First and last target, first and last edge of each slice; targets without edges go along."""
    bounds = []
    first = 0
    for target in range(1, len(ptr)):
        end = target == len(ptr) - 1
        if end or ptr[target + 1] - ptr[first] > most:
            if ptr[target] > ptr[first]:
                bounds.append((first, target, ptr[first], ptr[target]))
            first = target
    return bounds


def _gather(
    part: Slice, query: Tensor, key: Tensor, value: Tensor, features: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh ``[e, H, C]`` of the queries, keys and values of each edge, in the wide type."""
    wide = _wide(query)
    q = query.index_select(0, part.target).to(wide)
    k, v = (x.index_select(0, part.source).to(wide) for x in (key, value))
    if features is not None:
        extra = features.index_select(0, part.number).to(wide)
        k, v = k.add_(extra), v.add_(extra)
    return q, k, v


def _scores(problem: Problem, part: Slice, q: Tensor, k: Tensor, values: Tensor | None) -> Tensor:
    """``[e, H]``; overwrites ``q``."""
    scores = q.mul_(k).sum(-1).mul_(problem.scale)
    return scores if values is None else scores.add_(values[part.number])


def _factors(problem: Problem, part: Slice, weights: Tensor) -> Tensor | None:
    if problem.seed is None:
        return None
    return keep_edges(problem.seed, part.number, weights.size(1), problem.dropout_p, weights.dtype)


def _add(target: Tensor, index: Tensor, rows: Tensor) -> None:
    # sorted and summed: 'index_add_' goes row by row on a CPU
    target.index_put_((index,), rows, accumulate=True)
