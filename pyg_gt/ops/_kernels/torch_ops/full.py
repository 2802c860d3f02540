"""Attention of all pairs in torch operations: batched matrix products on buckets of graphs.

Forward and backward are written out: they run below autograd, inside ops. They take every
floating-point type and compute in float32, or float64 where that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from ..problem import FullGradients, FullProblem, Saved
from .biases import bias_gradients, sum_of_biases
from .buckets import Bucket, Tile, plan_of, tiles
from .dropout import Dropout, philox_dropout

# Padded keys from which torch's fused CPU kernel takes a bucket; it has no gradient of a bias and
# no dropout. Forward it is level with matrix products at 48 nodes and takes 0.76 of their time at
# 96, 0.60 at 450 ("fused or products" in benchmarks/results/attention_cpu.json; python -m
# benchmarks.cpu.attention).
_FUSED_FROM = 48

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MAX_CHANNELS = None  # any number


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _outside_of_autocast(
    function: Callable[Concatenate[FullProblem, Arguments], Result],
) -> Callable[Concatenate[FullProblem, Arguments], Result]:
    """``function``, without autocast: softmax wants its products in full precision."""

    @wraps(function)
    def call(problem: FullProblem, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.autocast(problem.layout.device.type, enabled=False):
            return function(problem, *args, **kwargs)

    return call


@_outside_of_autocast
def forward(
    problem: FullProblem,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: Callable[[FullProblem], Dropout | None] = philox_dropout,
) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]`` of the type of ``query``, and statistics for the backward pass.

    Args:
        problem: the attention; ``pairs`` may be ``[P, 1]`` where it is the only bias.
        query: ``[Nq, H, C]``, of any strides as are the others.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        dropout: how weights are dropped; the backward pass has to be given the same.

    Returns:
        The output, and statistics ``[Nq, H, 2]`` in the type of the computation: ``[..., 0]`` is
        the log-sum-exp of the scores where torch's fused kernel computed, whose backward wants it,
        and zero elsewhere; ``[..., 1]`` is zero.
    """
    dropped = dropout(problem)
    heads, plan = query.size(1), plan_of(problem.query_layout, problem.layout)
    rows, cols = plan.rows_of(heads), plan.cols_of(heads)
    q = _into_slots(query, rows, plan.row_slots.total)
    k, v = (_into_slots(x, cols, plan.col_slots.total) for x in (key, value))
    bias = sum_of_biases(problem, q.dtype)
    lse = q.new_zeros(q.size(0))
    out = q  # a query's output takes its place
    q[plan.row_slots.used * heads :] = 0.0
    for bucket in plan.buckets:
        q_b = _rows_of(bucket, heads, q)
        k_b, v_b = (_cols_of(bucket, heads, x) for x in (k, v))
        if _is_fused(bucket, q, bias, dropped):
            result, log = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_b, k_b, v_b, attn_mask=_fused_mask(bucket, q.dtype), scale=problem.scale
            )
            q_b.copy_(result)
            _rows_of(bucket, heads, lse).copy_(log)
            continue
        for tile in tiles(bucket, heads):
            q_t, k_t, v_t = q_b[tile.graphs, :, tile.rows], k_b[tile.graphs], v_b[tile.graphs]
            weights = _weights(problem.scale, bias, tile, q_t, k_t)
            if dropped is None:
                q_t.copy_(weights @ v_t)
            else:
                weights.mul_(dropped.factors(tile, weights))
                q_t.copy_((weights @ v_t).mul_(dropped.rescale))
    stats = q.new_zeros(*query.shape[:2], 2)
    stats[..., 0] = lse.index_select(0, rows).view(query.shape[:2])
    return out.index_select(0, rows).view(query.shape).to(query.dtype), stats


@_outside_of_autocast
def backward(
    problem: FullProblem,
    grad: Tensor,
    saved: Saved,
    needs: tuple[bool, ...],
    joined: Tensor | None = None,
    dropout: Callable[[FullProblem], Dropout | None] = philox_dropout,
) -> FullGradients:
    """Gradients of query, key and value, and of those biases that ``needs`` names.

    Args:
        problem: as in the forward pass.
        grad: ``[Nq, H, C]``, the gradient of the output.
        saved: what the forward pass was given and gave.
        needs: whether pairs, table and edge values need a gradient.
        joined: ``[N, 3, H, C]``, where the gradients of query, key and value are written; None:
            one tensor for each.
        dropout: as in the forward pass.
    """
    query, key, value, out, stats = saved
    assert out is not None and stats is not None
    dropped = dropout(problem)
    heads, plan = query.size(1), plan_of(problem.query_layout, problem.layout)
    rows, cols = plan.rows_of(heads), plan.cols_of(heads)
    q, g = (_into_slots(x, rows, plan.row_slots.total) for x in (query, grad))
    k, v = (_into_slots(x, cols, plan.col_slots.total) for x in (key, value))
    bias = sum_of_biases(problem, q.dtype)
    o = logs = q  # read by the fused kernel alone
    # which takes differences from products with the output. In half precision that was rounded:
    # gradients of sharp attention would be off by some per cent
    exact = out.dtype == q.dtype
    if exact and any(_is_fused(bucket, q, bias, dropped) for bucket in plan.buckets):
        o = _into_slots(out, rows, plan.row_slots.total)
        logs = q.new_zeros(q.size(0)).index_copy_(0, rows, stats[..., 0].flatten().to(q.dtype))
    dq, dk, dv = q, k, v  # gradients take the place of what is no longer read
    q[plan.row_slots.used * heads :] = 0.0
    for x in (k, v):
        x[plan.col_slots.used * heads :] = 0.0
    grad_scores = None
    if bias is not None and any(needs):
        grad_scores = torch.zeros(bias.size(0), heads, dtype=q.dtype, device=q.device)
    for bucket in plan.buckets:
        q_b, g_b = (_rows_of(bucket, heads, x) for x in (q, g))
        k_b, v_b = (_cols_of(bucket, heads, x) for x in (k, v))
        if exact and _is_fused(bucket, q, bias, dropped):
            o_b = _rows_of(bucket, heads, o)
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                g_b, q_b, k_b, v_b, o_b, _rows_of(bucket, heads, logs), 0.0, False,
                attn_mask=_fused_mask(bucket, q.dtype), scale=problem.scale,
            )  # fmt: skip
            for target, result in zip((q_b, k_b, v_b), grads, strict=True):
                target.copy_(result)
            continue
        dk_b, dv_b = torch.zeros_like(k_b), torch.zeros_like(v_b)
        for tile in tiles(bucket, heads):
            q_t, g_t = q_b[tile.graphs, :, tile.rows], g_b[tile.graphs, :, tile.rows]
            k_t, v_t = k_b[tile.graphs], v_b[tile.graphs]
            weights = _weights(problem.scale, bias, tile, q_t, k_t)
            if dropped is None:
                grad_weights = g_t @ v_t.mT
                dv_b[tile.graphs] += weights.mT @ g_t
            else:
                g_t = g_t * dropped.rescale
                factors = dropped.factors(tile, weights)
                grad_weights = (g_t @ v_t.mT).mul_(factors)
                dv_b[tile.graphs] += factors.mul_(weights).mT @ g_t
            tile_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            dk_b[tile.graphs] += (tile_scores.mT @ q_t).mul_(problem.scale)
            q_t.copy_((tile_scores @ k_t).mul_(problem.scale))
            if grad_scores is not None:
                pairs, is_pair = tile.pairs()
                grad_scores.index_copy_(
                    0, pairs[is_pair], tile_scores.permute(0, 2, 3, 1)[is_pair]
                )
        k_b.copy_(dk_b)
        v_b.copy_(dv_b)
    dq, dk, dv = (
        x.index_select(0, nodes).view(like.shape).to(like.dtype)
        for x, nodes, like in ((dq, rows, query), (dk, cols, key), (dv, cols, value))
    )
    if joined is not None:
        for part, x in zip(joined.unbind(1), (dq, dk, dv), strict=True):
            part.copy_(x)
        dq, dk, dv = joined.unbind(1)
    return FullGradients(dq, dk, dv, *bias_gradients(problem, grad_scores, needs))


def _is_fused(bucket: Bucket, x: Tensor, bias: Tensor | None, dropout: Dropout | None) -> bool:
    """Whether torch's fused CPU kernel takes this bucket."""
    plain = bias is None and dropout is None
    return plain and x.device.type == "cpu" and bucket.cols >= _FUSED_FROM


def _into_slots(x: Tensor, slots: Tensor, total: int) -> Tensor:
    """``[N, H, C] -> [total * H, C]``, zeros in empty slots: NaN must not leak from memory."""
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    flat = x.reshape(-1, x.size(-1)).to(dtype)
    return flat.new_zeros(total * x.size(1), x.size(-1)).index_copy_(0, slots, flat)


def _rows_of(bucket: Bucket, heads: int, buffer: Tensor) -> Tensor:
    return _of_bucket(buffer, bucket.row_start, bucket.num, heads, bucket.rows)


def _cols_of(bucket: Bucket, heads: int, buffer: Tensor) -> Tensor:
    return _of_bucket(buffer, bucket.col_start, bucket.num, heads, bucket.cols)


def _of_bucket(buffer: Tensor, start: int, count: int, heads: int, width: int) -> Tensor:
    """A view ``[b, H, width, ...]`` of ``buffer [total * H, ...]``."""
    part = buffer[start * heads : (start + count * width) * heads]
    return part.view(count, heads, width, *buffer.shape[1:])


def _fused_mask(bucket: Bucket, dtype: torch.dtype) -> Tensor | None:
    return None if bucket.padding is None else bucket.padding.to(dtype)


def _weights(scale: float, bias: Tensor | None, tile: Tile, q: Tensor, k: Tensor) -> Tensor:
    """Softmax weights ``[b, H, rows, cols]``; zeros where there is nothing to attend to."""
    scores = (q * scale) @ k.mT
    if bias is None:
        if tile.bucket.padding is not None:
            scores += tile.bucket.padding[tile.graphs]
        return scores.softmax(-1)
    pairs, is_pair = tile.pairs()
    # by filling, not adding: what stands there belongs to another pair and may be infinite
    added = bias[pairs].masked_fill_(~is_pair.unsqueeze(-1), float("-inf"))
    scores += added.permute(0, 3, 1, 2)  # [b, H or 1, rows, cols]
    empty = scores.amax(-1, keepdim=True) == float("-inf")
    return scores.masked_fill_(empty, 0.0).softmax(-1).masked_fill_(empty, 0.0)
