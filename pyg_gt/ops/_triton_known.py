"""Calls of Triton's kernels that are like an earlier one on the same layouts.

What was checked then is not checked again: on a batch of small graphs, checks take as long as all
the rest.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..edge_layout import EdgeLayout
from ..layout import DeferredLayout, GraphLayout
from . import _triton_edges_op
from ._addresses import PLAIN, is_plain
from ._philox import draw_seed
from ._triton_full import Problem
from ._triton_full_eager import attend
from .bias import AttentionBias, EdgeMask

_CHECKED = "triton checked"
# calls on one layout that are remembered
_MOST = 256


class Call(NamedTuple):
    """The arguments of ``attention``."""

    query: Tensor
    key: Tensor
    value: Tensor
    layout: GraphLayout | DeferredLayout
    biases: Sequence[AttentionBias]
    query_layout: GraphLayout | DeferredLayout | None
    scale: float | None
    dropout_p: float
    backend: str


class _Along(NamedTuple):
    """What is read of an ``EdgeMask``."""

    edges: EdgeLayout
    values: Tensor | None
    features: Tensor | None


def as_before(call: Call) -> Tensor | None:
    """``[Nq, H, C]``, or None if there was no such call; not for traced code.

    Calls without a bias are known, and those with no bias but an ``EdgeMask``.
    """
    query, key, value, layout, biases, query_layout, scale, dropout_p, _ = call
    if type(layout) is not GraphLayout:
        return None
    known: set[Any] | None = layout._made.get(_CHECKED)
    if known is None or not _is_readable(call):
        return None
    along = _along(call) if biases else None
    if biases and along is None or _key(call, along) not in known:
        return None
    seed = draw_seed(query.device) if dropout_p > 0 else None
    scale = query.size(2) ** -0.5 if scale is None else scale
    if along is not None:
        return _triton_edges_op.forward(
            query, key, value, *along, seed, scale, dropout_p, is_checked=True
        )
    assert query_layout is None or isinstance(query_layout, GraphLayout)
    problem = Problem(query_layout or layout, layout, None, None, None, seed, scale, dropout_p)
    return attend(problem, query, key, value)


def remember(call: Call) -> None:
    """That Triton can run this call."""
    if type(call.layout) is not GraphLayout or not _is_readable(call):
        return
    along = _along(call) if call.biases else None
    if call.biases and along is None:
        return
    known: set[Any] = call.layout.once(_CHECKED, set)
    if len(known) >= _MOST:  # one layout for long, and a scale that changes
        known.clear()
    known.add(_key(call, along))


def _is_readable(call: Call) -> bool:
    """Whether nothing looks on, and tensors are what they seem."""
    query, key, value, _, _, query_layout, _, _, _ = call
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return (
        isinstance(query, Tensor) and is_plain(query)
        and type(key) in PLAIN and type(value) in PLAIN
        and not wrapped(key) and not wrapped(value)
        and (query_layout is None or type(query_layout) is GraphLayout)
        and torch.autograd.forward_ad._current_level < 0
    )  # fmt: skip


def _along(call: Call) -> _Along | None:
    """Of the one ``EdgeMask``; None if there is more, or less."""
    query, key, (mask, *more) = call.query, call.key, call.biases
    if more or type(mask) is not EdgeMask or key.dim() != 3 or query.dim() != 3:
        return None
    edges = EdgeLayout.of(mask.edges, key.size(0), query.size(0))
    if not isinstance(edges, EdgeLayout):
        return None
    for x in (mask.values, mask.features):
        if x is not None and (
            type(x) not in PLAIN or torch._C._functorch.is_functorch_wrapped_tensor(x)
        ):
            return None
    return _Along(edges, mask.values, mask.features)


def _key(call: Call, along: _Along | None) -> tuple[Any, ...]:
    """What calls on a layout have in common that are checked alike."""
    query, key, value, layout, _, query_layout, scale, dropout_p, backend = call
    other = None if query_layout is None or query_layout is layout else weakref.ref(query_layout)
    kind: tuple[Any, ...] = (
        other, scale, dropout_p, backend,
        query.dtype, query.shape, query.get_device(), key.dtype, key.shape, key.get_device(),
        value.dtype, value.shape, value.get_device(),
    )  # fmt: skip
    if along is None:
        return kind
    edges, values, features = along
    beside = [
        None if x is None else (x.dtype, x.shape, x.get_device()) for x in (values, features)
    ]
    return *kind, *beside, weakref.ref(edges)
