"""Attention along edges in torch operations, some targets at a time.

Forward and backward are written out on edges sorted by target: they run below autograd, and
nothing of the size of all edges and channels is made or kept. They take every floating-point type
and compute in float32, or float64 where that is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ...dropout import keep_edges
from ..problem import EdgeGradients, EdgeProblem, Saved

# Edges of one slice, unless a single target has more. On a CPU a slice that stays in the cache is
# also faster: 320,000 edges at 32,000 nodes (4 heads of 16 channels, one thread, torch 2.13) take
# 93 ms forward and 149 backward, in one slice 201 and 371, in slices of 2^16 157 and 270.
_MAX_EDGES = {"cpu": 2**12, "other": 2**20}

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MAX_CHANNELS = None  # any number


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
    problem: EdgeProblem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]`` of the type of ``query``, and statistics for the backward pass.

    Args:
        problem: the attention.
        query: ``[Nq, H, C]``, of any strides as are the others.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.

    Returns:
        The output, and statistics ``[Nq, H, 2]`` in the type of the computation: the largest
        score, and the sum of exponentials of scores less that (0 and 1 where nothing attends).
        A log-sum-exp is one number, but large scores would leave few digits for the weights.
    """
    out = torch.zeros_like(query, dtype=_type(query), memory_format=torch.contiguous_format)
    stats = out.new_tensor([0.0, 1.0]).repeat(*out.shape[:2], 1)
    for part in _slices(problem.edges):
        q, k, v = _gather(problem, part, query, key, value)
        scores = _scores(problem, part, q, k)
        top = scores.new_full((part.rows.stop - part.rows.start, scores.size(1)), float("-inf"))
        row = part.row.unsqueeze(1).expand_as(scores)
        top.scatter_reduce_(0, row, scores, "amax")
        top.masked_fill_(top == float("-inf"), 0.0)
        weights = scores.sub_(top[part.row]).exp_()
        total = torch.zeros_like(top).scatter_add_(0, row, weights)
        total.masked_fill_(total == 0, 1.0)  # nothing to attend to: zeros
        weights /= total[part.row]
        stats[part.rows] = torch.stack([top, total], -1)
        factors = _dropout(problem, part, weights)
        if factors is not None:
            weights *= factors
        out[part.rows].index_add_(0, part.row, v.mul_(weights.unsqueeze(-1)))
    return out.to(query.dtype), stats


def backward(
    problem: EdgeProblem, grad: Tensor, saved: Saved, needs: tuple[bool, ...]
) -> EdgeGradients:
    """The gradients that ``needs``, in the order of :class:`EdgeGradients`, asks for.

    Args:
        problem: as in the forward pass.
        grad: ``[Nq, H, C]``, the gradient of the output.
        saved: what the forward pass was given and gave. The output is not read, and may be None:
            products with it would save 1 to 3 % of the time, but in half precision it was rounded,
            and gradients of sharp attention would be off by some per cent.
        needs: whether query, key, value, values and features need a gradient.
    """
    query, key, value, _, stats = saved
    assert stats is not None
    dtype = _type(query)
    dq, dk, dv = (
        torch.zeros_like(x, dtype=dtype, memory_format=torch.contiguous_format) if need else None
        for x, need in zip((query, key, value), needs, strict=False)
    )
    dvalues, dfeatures = (
        torch.zeros_like(x) if need and x is not None else None
        for x, need in zip((problem.values, problem.features), needs[3:], strict=True)
    )
    for part in _slices(problem.edges):
        q, k, v = _gather(problem, part, query, key, value)
        g = grad.index_select(0, part.target).to(dtype)
        top, total = stats.index_select(0, part.target).unbind(-1)
        weights = _scores(problem, part, q.clone(), k).sub_(top).exp_().div_(total)
        grad_weights = v.mul_(g).sum(-1)  # [e, H]
        kept = weights
        factors = _dropout(problem, part, weights)
        if factors is not None:
            grad_weights *= factors
            kept = weights * factors
        grad_v = g.mul_(kept.unsqueeze(-1))
        grad_scores = grad_weights.mul_(weights)
        delta = grad_scores.new_zeros(part.rows.stop - part.rows.start, grad_scores.size(1))
        delta.scatter_add_(0, part.row.unsqueeze(1).expand_as(grad_scores), grad_scores)
        grad_scores.sub_(weights.mul_(delta[part.row]))
        if dvalues is not None:
            dvalues[part.number] = grad_scores.to(dvalues.dtype)
        grad_scores = grad_scores.mul_(problem.scale).unsqueeze(-1)
        grad_k = q.mul_(grad_scores)
        if dfeatures is not None:
            dfeatures[part.number] = (grad_v + grad_k).to(dfeatures.dtype)
        if dv is not None:
            dv.index_add_(0, part.source, grad_v)
        if dk is not None:
            dk.index_add_(0, part.source, grad_k)
        if dq is not None:
            dq[part.rows].index_add_(0, part.row, k.mul_(grad_scores))
    dq, dk, dv = (None if x is None else x.to(query.dtype) for x in (dq, dk, dv))
    return EdgeGradients(dq, dk, dv, dvalues, dfeatures)


def _type(x: Tensor) -> torch.dtype:
    """The type in which is computed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _slices(edges: EdgeLayout) -> Iterator[Slice]:
    ptr, order = edges.by_target
    max_edges = _MAX_EDGES["cpu" if order.device.type == "cpu" else "other"]
    bounds = edges.cached(("slices", max_edges), lambda: _bounds(ptr.tolist(), max_edges))
    for first, last, start, stop in bounds:
        number = order[start:stop]
        source, target = edges.ends[:, number].long()
        yield Slice(number, source, target, target - first, slice(first, last))


def _bounds(ptr: list[int], max_edges: int) -> list[tuple[int, int, int, int]]:
    """First and last target, first and last edge of each slice; targets without edges go along."""
    bounds = []
    first = 0
    for target in range(1, len(ptr)):
        is_last = target == len(ptr) - 1
        if is_last or ptr[target + 1] - ptr[first] > max_edges:
            if ptr[target] > ptr[first]:
                bounds.append((first, target, ptr[first], ptr[target]))
            first = target
    return bounds


def _gather(
    problem: EdgeProblem, part: Slice, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh ``[e, H, C]`` of the queries, keys and values of each edge."""
    dtype = _type(query)
    q = query.index_select(0, part.target).to(dtype)
    k, v = (x.index_select(0, part.source).to(dtype) for x in (key, value))
    if problem.features is not None:
        features = problem.features.index_select(0, part.number).to(dtype)
        k, v = k.add_(features), v.add_(features)
    return q, k, v


def _scores(problem: EdgeProblem, part: Slice, q: Tensor, k: Tensor) -> Tensor:
    """``[e, H]``; overwrites ``q``."""
    scores = q.mul_(k).sum(-1).mul_(problem.scale)
    return scores if problem.values is None else scores.add_(problem.values[part.number])


def _dropout(problem: EdgeProblem, part: Slice, weights: Tensor) -> Tensor | None:
    """``[e, H]``: 0 or 1 / (1 - p), or None without dropout."""
    if problem.seed is None:
        return None
    heads, dtype = weights.size(1), weights.dtype
    return keep_edges(problem.seed, part.number, heads, problem.dropout_p, dtype)
