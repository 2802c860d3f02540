"""What ops are handed in place of layouts, and what they check before an address is taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layout.deferred import DeferredLayout
from ..layout.graph_layout import GraphLayout
from ..layout.values import is_traced
from .deferred import resolved
from .pairs import num_pairs

NOT_IN_A_TRACE = (
    "the numbers of nodes by which it checks edges would be constants in a 'torch.jit.trace'; use "
    "'torch.export.export', which keeps them open"
)

# in place of the number of graphs: the queries' layout is the keys'
SAME = -2


def layout_arguments(
    query_layout: GraphLayout | DeferredLayout, layout: GraphLayout | DeferredLayout
) -> tuple[Tensor | None, int, Tensor | None, int]:
    """``batch`` and the number of graphs of the queries and of the keys."""
    if query_layout is layout:
        return None, SAME, layout.batch, layout.num_graphs
    return query_layout.batch, query_layout.num_graphs, layout.batch, layout.num_graphs


def layouts_of(
    query: Tensor,
    key: Tensor,
    query_batch: Tensor | None,
    query_graphs: int,
    batch: Tensor | None,
    graphs: int,
) -> tuple[GraphLayout, GraphLayout]:
    """What :func:`layout_arguments` were made of; for code that runs, not traced.

    Raises:
        ValueError: if one layout stands for both, but there are other queries than keys.
    """
    key_side = query_side = DeferredLayout(batch, key.size(0), graphs)
    if query_graphs != SAME:
        query_side = DeferredLayout(query_batch, query.size(0), query_graphs)
    elif query.size(0) != key.size(0):
        raise ValueError(f"there are {query.size(0)} queries, but their layout is the keys'")
    return resolved(query_side, key_side, query.device)


def needs_no_node(*tensors: Tensor | None) -> bool:
    """Whether a ``torch.jit.trace`` need not record who makes gradients, and can be saved."""
    if not is_traced():
        return False
    grad = torch.is_grad_enabled()
    return not grad or not any(x is not None and x.requires_grad for x in tensors)


def distinct(*tensors: Tensor | None) -> list[Any]:
    """The same tensors as separate objects, which traced ``autograd.Function``s insist on."""
    if not torch.compiler.is_compiling():
        return list(tensors)
    result: list[Any] = []
    for tensor in tensors:
        seen = tensor is not None and any(tensor is other for other in result)
        result.append(tensor.view_as(tensor) if tensor is not None and seen else tensor)
    return result


def check_like(
    name: str, x: Tensor, shape: tuple[int, ...], query: Tensor, *dtypes: torch.dtype
) -> None:
    """Compiled code takes a tensor to be what it is said to be, beside ``query``.

    Raises:
        ValueError: for another shape, type or device.
    """
    if x.shape != shape or x.dtype not in dtypes or x.device != query.device:
        raise ValueError(
            f"'{name}' must have shape {list(shape)} and type {dtypes[0]} on '{query.device}' "
            f"(got {list(x.shape)}, {x.dtype} on '{x.device}')"
        )


def check_pairs(bias: Tensor, query_layout: GraphLayout, layout: GraphLayout) -> None:
    """Raises ``ValueError`` unless there is a row a pair."""
    pairs = num_pairs(query_layout, layout)
    if bias.size(0) != pairs:
        raise ValueError(f"a bias describes {bias.size(0)} pairs, but the layout has {pairs}")
