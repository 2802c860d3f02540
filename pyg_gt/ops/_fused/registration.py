"""Registration of an op with one forward and one backward for all devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..torch_library import LIBRARY
from .op_checks import stats_type


def register(
    name: str,
    forward: Callable[..., tuple[Tensor, Tensor]],
    backward: Callable[..., tuple[Tensor, ...]],
    backward_fake: Callable[..., tuple[Tensor, ...]],
    save: Callable[..., None],
    gradients: Callable[..., tuple[Tensor | None, ...]],
) -> None:
    """Registers ``pyg_gt::{name}`` and ``pyg_gt::{name}_backward``, whose schemas are defined.

    Args:
        name: of the op, which gives an output ``[Nq, H, C]`` and statistics ``[Nq, H, 2]``.
        forward: what it runs on tensors of any device.
        backward: what its backward runs.
        backward_fake: the shapes that this gives.
        save: ``(ctx, inputs) -> None``, keeps what the gradient reads beside the outputs.
        gradients: ``(ctx, grad) -> tuple``, one gradient for each argument of the op.
    """
    for device in ("CPU", "CUDA"):
        LIBRARY.impl(name, forward, device)
        LIBRARY.impl(f"{name}_backward", backward, device)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        save(ctx, inputs, output)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.count = len(inputs)

    def gradient(ctx: Any, grad: Tensor | None, _: object) -> tuple[Tensor | None, ...]:
        return (None,) * ctx.count if grad is None else gradients(ctx, grad)

    torch.library.register_fake(f"pyg_gt::{name}", _forward_fake, lib=LIBRARY)
    torch.library.register_fake(f"pyg_gt::{name}_backward", backward_fake, lib=LIBRARY)
    torch.library.register_autograd(
        f"pyg_gt::{name}", gradient, setup_context=setup_context, lib=LIBRARY
    )


def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    stats = query.new_empty((*query.shape[:2], 2), dtype=stats_type(query))
    return query.new_empty(query.shape), stats


def as_outputs(gradients: Iterable[Tensor | None], query: Tensor) -> tuple[Tensor, ...]:
    """Gradients as an op returns them: tensors, none twice, in memory as its fake says."""
    return tuple(query.new_empty(0) if x is None else x.contiguous() for x in gradients)


def check_needs(needs: Sequence[bool], count: int) -> None:
    """Raises ``ValueError`` unless there is an answer for each of ``count`` tensors."""
    if len(needs) != count:
        raise ValueError(f"'needs' must hold {count} truth values (got {len(needs)})")


def empty_where_needed(
    leaves: Iterable[Tensor | None], needs: Iterable[bool], query: Tensor
) -> tuple[Tensor, ...]:
    """What :func:`as_outputs` gives, without values."""
    return tuple(
        x.new_empty(x.shape) if need and x is not None else query.new_empty(0)
        for x, need in zip(leaves, needs, strict=True)
    )
