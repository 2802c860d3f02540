"""Attention along edges by Triton, forward and backward.

Nothing of the size ``[E, H]`` is made, let alone ``[E, H, C]``: the backward pass computes the
weights anew, once query by query and once key by key.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....memory import empty_like
from ...problem import EdgeGradients, EdgeProblem, Saved
from .launches import launch_backward, launch_forward


def forward(
    problem: EdgeProblem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Output ``[Nq, H, C]`` and softmax statistics ``[Nq, H, 2]`` float32 for the backward pass.

    Args:
        problem: the attention without its query, key and value.
        query: ``[Nq, H, C]`` of one of ``TYPES``, with at most ``MAX_CHANNELS`` channels.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.

    Raises:
        NotImplementedError: for more edges or nodes than 32 bits count.
    """
    out = empty_like(query)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    launch_forward(problem, query, key, value, out, stats)
    return out, stats


def backward(
    problem: EdgeProblem, grad: Tensor, saved: Saved, needs: tuple[bool, ...]
) -> EdgeGradients:
    """The gradients.

    Args:
        problem: that of :func:`forward`.
        grad: ``[Nq, H, C]``, the gradient of the output.
        saved: what :func:`forward` was given and gave.
        needs: whether the gradients of query, key, value, values and features are wanted.
    """
    query, key, value, out, stats = saved
    assert out is not None and stats is not None
    leaves = query, key, value, problem.values, problem.features
    grads = EdgeGradients(
        *(
            empty_like(x) if need and x is not None else None
            for x, need in zip(leaves, needs, strict=True)
        )
    )
    grad = grad if grad.dtype == query.dtype else grad.to(query.dtype)
    launch_backward(problem, query, key, value, grad, out.contiguous(), stats.contiguous(), grads)
    return grads
