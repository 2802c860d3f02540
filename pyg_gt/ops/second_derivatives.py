"""Gradients that refuse to be differentiated, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def differentiable_once(
    backend: str, cure: str, gradients: Sequence[Tensor | None], made_from: Sequence[Tensor | None]
) -> tuple[Any, ...]:
    """``gradients``; if somebody records what is done with them, those that refuse.

    torch's ``once_differentiable`` cuts them off from their inputs instead, and where another path
    leads to the same input, ``torch.autograd.grad`` gives its part alone, in silence.

    Args:
        backend: whose gradients they are.
        cure: what to pass in place of it.
        gradients: as an ``autograd.Function`` returns them.
        made_from: the tensors that they depend on.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # no 'create_graph=True'
        return tuple(gradients)
    message = f"the '{backend}' backend has no second derivative; pass {cure}"
    made: tuple[Any, ...] = _Refusal.apply(  # type: ignore[no-untyped-call]
        message, len(gradients), *gradients, *made_from
    )
    return made


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, message: str, count: int, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The first ``count`` of the tensors."""
        ctx.message = message
        return tensors[:count]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Nothing."""
        raise NotImplementedError(ctx.message)
