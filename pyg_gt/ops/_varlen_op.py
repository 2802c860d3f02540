"""The ops behind the ``varlen`` backend, and their place in autograd.

Host numbers are read only inside the ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _varlen_packed
from .deferred import LIBRARY, TAGS
from .second_derivatives import differentiable_once


class PackedAttention(torch.autograd.Function):
    """Two ops, so that ``torch.compile`` sees one node forward and one backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_batch: Tensor | None,
        query_graphs: int,
        batch: Tensor | None,
        graphs: int,
        scale: float,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        out, lse = torch.ops.pyg_gt.varlen(
            query, key, value, query_batch, query_graphs, batch, graphs, scale
        )
        ctx.save_for_backward(query, key, value, query_batch, batch, out, lse)
        ctx.numbers = query_graphs, graphs, scale
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        query, key, value, query_batch, batch, out, lse = ctx.saved_tensors
        query_graphs, graphs, scale = ctx.numbers
        with torch.no_grad():
            grads = torch.ops.pyg_gt.varlen_backward(
                grad, query, key, value, out, lse, query_batch, query_graphs, batch, graphs, scale
            )
        tensors = grad, query, key, value
        made = differentiable_once("varlen", "backend='reference'", grads, tensors)
        return *made, *(None,) * 5


_PROBLEM = "Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs, float scale"
LIBRARY.define(
    f"varlen(Tensor query, Tensor key, Tensor value, {_PROBLEM}) -> (Tensor, Tensor)", tags=TAGS
)
LIBRARY.define(
    f"varlen_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor lse, {_PROBLEM}) -> (Tensor, Tensor, Tensor)",
    tags=TAGS,
)
LIBRARY.impl("varlen", _varlen_packed.forward, "CompositeExplicitAutograd")
LIBRARY.impl("varlen_backward", _varlen_packed.backward, "CompositeExplicitAutograd")


@torch.library.register_fake("pyg_gt::varlen", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    lse = query.new_empty((query.size(1), query.size(0)), dtype=torch.float32)
    return query.new_empty(query.shape), lse


@torch.library.register_fake("pyg_gt::varlen_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (query, key, value))
