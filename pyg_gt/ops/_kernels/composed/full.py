"""Attention on buckets, forward and backward, written out: it runs below autograd, inside ops."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...dropout import keep_rows
from .buckets import Bucket, Plan, Tile, tiles

# On a CPU the fused kernel of scaled_dot_product_attention is level with matrix products here and
# ahead from 64 nodes on, but has neither a bias with gradients nor dropout (measured:
# benchmarks/cpu/attention.py).
_FUSED_FROM = 48


class Problem(NamedTuple):
    """One attention over a plan.

    Attributes:
        plan: the buckets.
        heads: ``H``.
        scale: factor of the scores.
        bias: ``[P, H]`` or ``[P, 1]`` added to scores, or None.
        dropout_p: probability of dropping a weight.
        seed: ``[1]``, or None without dropout.
    """

    plan: Plan
    heads: int
    scale: float
    bias: Tensor | None
    dropout_p: float
    seed: Tensor | None

    @property
    def rescale(self) -> float:
        """What makes up for dropped weights."""
        if self.seed is None or self.dropout_p >= 1:
            return 1.0
        if self.seed.device.type != "cpu":
            return 1 / (1 - self.dropout_p)
        return 1 / (1 - (_threshold(self.dropout_p) + 2**15) / 2**16)

    def fused(self, bucket: Bucket, device: torch.device) -> bool:
        """Whether torch's own CPU kernel takes this bucket."""
        plain = self.bias is None and self.seed is None
        return plain and device.type == "cpu" and bucket.cols >= _FUSED_FROM


def forward(
    problem: Problem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]`` and the logarithms ``[Nq, H]`` that the fused kernel wants back."""
    heads, plan = problem.heads, problem.plan
    rows, cols = plan.rows_of(heads), plan.cols_of(heads)
    q = _into_slots(query, rows, plan.row_slots.total)
    k, v = (_into_slots(x, cols, plan.col_slots.total) for x in (key, value))
    lse = q.new_zeros(q.size(0))
    out = q  # what a query gives takes its place
    q[plan.row_slots.used * heads :] = 0.0
    generator = _generator(problem)
    for bucket in plan.buckets:
        q_b = _rows_view(bucket, heads, q)
        k_b, v_b = (_cols_view(bucket, heads, x) for x in (k, v))
        if problem.fused(bucket, q.device):
            result, log = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_b, k_b, v_b, attn_mask=_fused_mask(bucket, q.dtype), scale=problem.scale
            )
            q_b.copy_(result)
            _rows_view(bucket, heads, lse).copy_(log)
            continue
        for tile in tiles(bucket, heads):
            q_t, k_t, v_t = q_b[tile.graphs, :, tile.rows], k_b[tile.graphs], v_b[tile.graphs]
            weights = _weights(problem, tile, q_t, k_t)
            if problem.seed is not None:
                weights.mul_(_kept(problem, tile, weights, generator))
            q_t.copy_((weights @ v_t).mul_(problem.rescale))
    shape = query.shape
    return (
        out.index_select(0, rows).view(shape).to(query.dtype),
        lse.index_select(0, rows).view(shape[:2]),
    )


def backward(
    problem: Problem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of query, key, value and, where asked for, the bias ``[P, H]``."""
    heads, plan = problem.heads, problem.plan
    rows, cols = plan.rows_of(heads), plan.cols_of(heads)
    q, g = (_into_slots(x, rows, plan.row_slots.total) for x in (query, grad))
    k, v = (_into_slots(x, cols, plan.col_slots.total) for x in (key, value))
    o = logs = q  # only the fused kernel reads them
    # it takes differences from products with the output, which in half precision was rounded: its
    # gradients of sharp attention would be off by some per cent
    exact = out.dtype == q.dtype
    if exact and any(problem.fused(bucket, q.device) for bucket in plan.buckets):
        o = _into_slots(out, rows, plan.row_slots.total)
        logs = q.new_zeros(q.size(0)).index_copy_(0, rows, lse.flatten().to(q.dtype))
    dq, dk, dv = q, k, v  # gradients take the place of what is no longer read
    q[plan.row_slots.used * heads :] = 0.0
    for x in (k, v):
        x[plan.col_slots.used * heads :] = 0.0
    dbias = None
    if needs_bias and problem.bias is not None:
        dbias = torch.zeros(problem.bias.size(0), heads, dtype=q.dtype, device=q.device)
    generator = _generator(problem)
    for bucket in plan.buckets:
        q_b, g_b = (_rows_view(bucket, heads, x) for x in (q, g))
        k_b, v_b = (_cols_view(bucket, heads, x) for x in (k, v))
        if exact and problem.fused(bucket, q.device):
            o_b = _rows_view(bucket, heads, o)
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                g_b, q_b, k_b, v_b, o_b, _rows_view(bucket, heads, logs), 0.0, False,
                attn_mask=_fused_mask(bucket, q.dtype), scale=problem.scale,
            )  # fmt: skip
            for target, result in zip((q_b, k_b, v_b), grads, strict=True):
                target.copy_(result)
            continue
        dk_b, dv_b = torch.zeros_like(k_b), torch.zeros_like(v_b)
        for tile in tiles(bucket, heads):
            q_t, g_t = q_b[tile.graphs, :, tile.rows], g_b[tile.graphs, :, tile.rows]
            k_t, v_t = k_b[tile.graphs], v_b[tile.graphs]
            weights = _weights(problem, tile, q_t, k_t)
            g_t = g_t * problem.rescale
            dweights = g_t @ v_t.mT
            if problem.seed is None:
                dv_b[tile.graphs] += weights.mT @ g_t
            else:
                kept = _kept(problem, tile, weights, generator)
                dweights.mul_(kept)
                dv_b[tile.graphs] += kept.mul_(weights).mT @ g_t
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            dk_b[tile.graphs] += (dscores.mT @ q_t).mul_(problem.scale)
            q_t.copy_((dscores @ k_t).mul_(problem.scale))
            if dbias is not None:
                pairs, there = tile.pairs()
                dbias.index_copy_(0, pairs[there], dscores.permute(0, 2, 3, 1)[there])
        k_b.copy_(dk_b)
        v_b.copy_(dv_b)
    return (
        dq.index_select(0, rows).view(query.shape).to(query.dtype),
        dk.index_select(0, cols).view(key.shape).to(key.dtype),
        dv.index_select(0, cols).view(value.shape).to(value.dtype),
        dbias,
    )


def _into_slots(x: Tensor, slots: Tensor, total: int) -> Tensor:
    """``[N, H, C] -> [total * H, C]``, zeros in empty slots: NaN must not leak from memory."""
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    flat = x.reshape(-1, x.size(-1)).to(dtype)
    return flat.new_zeros(total * x.size(1), x.size(-1)).index_copy_(0, slots, flat)


def _rows_view(bucket: Bucket, heads: int, buffer: Tensor) -> Tensor:
    return _view(buffer, bucket.row_start, bucket.num, heads, bucket.rows)


def _cols_view(bucket: Bucket, heads: int, buffer: Tensor) -> Tensor:
    return _view(buffer, bucket.col_start, bucket.num, heads, bucket.cols)


def _view(buffer: Tensor, start: int, count: int, heads: int, width: int) -> Tensor:
    part = buffer[start * heads : (start + count * width) * heads]
    return part.view(count, heads, width, *buffer.shape[1:])


def _fused_mask(bucket: Bucket, dtype: torch.dtype) -> Tensor | None:
    return None if bucket.padding is None else bucket.padding.to(dtype)


def _weights(problem: Problem, tile: Tile, q: Tensor, k: Tensor) -> Tensor:
    """Softmax weights ``[b, H, rows, cols]``."""
    scores = (q * problem.scale) @ k.mT
    if problem.bias is None:
        if tile.bucket.padding is not None:
            scores += tile.bucket.padding[tile.graphs]
        return scores.softmax(-1)
    pairs, there = tile.pairs()
    # by filling, not adding: what stands there belongs to another pair and may be infinite
    added = problem.bias[pairs].to(scores.dtype).masked_fill_(~there.unsqueeze(-1), float("-inf"))
    scores += added.permute(0, 3, 1, 2)  # [b, H or 1, rows, cols]
    alone = scores.amax(-1, keepdim=True) == float("-inf")
    weights = scores.masked_fill_(alone, 0.0).softmax(-1)
    return weights.masked_fill_(alone, 0.0)


def _generator(problem: Problem) -> torch.Generator | None:
    if problem.seed is None or problem.seed.device.type != "cpu":
        return None
    return torch.Generator().manual_seed(int(problem.seed))


def _kept(
    problem: Problem, tile: Tile, weights: Tensor, generator: torch.Generator | None
) -> Tensor:
    """1 where a weight is kept, 0 where it is dropped; the backward draws the same once more."""
    assert problem.seed is not None
    if generator is None:
        # reading a seed from a device would stall it, so there the counter-based generator
        kept = keep_rows(
            problem.seed, tile.query_rows(), tile.bucket.cols, problem.heads, problem.dropout_p,
            weights.dtype,
        )  # fmt: skip
        return kept.sign().permute(0, 3, 1, 2)
    if problem.dropout_p >= 1:
        return torch.zeros_like(weights)
    # four 16-bit numbers from one draw: 'bernoulli_' costs ten times as much
    draws = torch.empty((weights.numel() + 3) // 4, dtype=torch.int64, device="cpu")
    draws.random_(-(2**63), None, generator=generator)
    below = draws.view(torch.int16)[: weights.numel()].view(weights.shape)
    return torch.ge(below, _threshold(problem.dropout_p), out=torch.empty_like(weights))


def _threshold(dropout_p: float) -> int:
    """The 16-bit number below which a weight is dropped: p to the nearest of 65,536 steps."""
    return min(round(dropout_p * 2**16), 2**16 - 1) - 2**15
