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
from ._addresses import is_plain
from ._philox import draw_seed
from ._triton_full import Problem
from ._triton_full_eager import attend
from .bias import AttentionBias, EdgeMask

_CHECKED = "triton checked"
_PLAIN = (Tensor, torch.nn.Parameter)
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


class _Known(NamedTuple):
    """What is read of a call.

    Attributes:
        key: what an earlier call must have in common with it.
        known: calls on its layout that were checked.
        edges: those of its mask, if it has one.
        values: of its mask.
        features: of its mask.
    """

    key: tuple[Any, ...]
    known: set[Any]
    edges: EdgeLayout | None
    values: Tensor | None
    features: Tensor | None


def as_before(call: Call) -> Tensor | None:
    """``[Nq, H, C]``, or None if there was no such call; not for traced code.

    Calls without a bias are known, and those with no bias but an ``EdgeMask``.
    """
    read = _read(call, make=False)
    if read is None or read.key not in read.known:
        return None
    query, key, value, layout, _, query_layout, scale, dropout_p, _ = call
    seed = draw_seed(query.device) if dropout_p > 0 else None
    scale = query.size(2) ** -0.5 if scale is None else scale
    if read.edges is not None:
        rest = read.edges, read.values, read.features, seed, scale, dropout_p
        return _triton_edges_op.forward(query, key, value, *rest, is_checked=True)
    assert isinstance(layout, GraphLayout)
    assert query_layout is None or isinstance(query_layout, GraphLayout)
    problem = Problem(query_layout or layout, layout, None, None, None, seed, scale, dropout_p)
    return attend(problem, query, key, value)


def remember(call: Call) -> None:
    """That Triton can run this call."""
    read = _read(call, make=True)
    if read is not None:
        if len(read.known) >= _MOST:  # one layout for long, and a scale that changes
            read.known.clear()
        read.known.add(read.key)


def _read(call: Call, make: bool) -> _Known | None:
    query, key, value, layout, biases, query_layout, scale, dropout_p, backend = call
    if type(layout) is not GraphLayout or not isinstance(query, Tensor) or not is_plain(query):
        return None
    known: set[Any] | None = layout._made.get(_CHECKED)
    if make:
        known = layout.once(_CHECKED, set)
    if known is None or query_layout is not None and type(query_layout) is not GraphLayout:
        return None
    edges = values = features = None
    others = [key, value]
    if biases:
        (mask, *more) = biases
        if more or type(mask) is not EdgeMask:
            return None
        if type(key) not in _PLAIN or key.dim() != 3 or query.dim() != 3:
            return None
        found = EdgeLayout.of(mask.edges, key.size(0), query.size(0))
        if not isinstance(found, EdgeLayout):
            return None
        edges, values, features = found, mask.values, mask.features
        others += [x for x in (values, features) if x is not None]
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if any(type(x) not in _PLAIN or wrapped(x) for x in others):
        return None
    if torch.autograd.forward_ad._current_level >= 0:
        return None
    key_of_call = (
        None if query_layout is None or query_layout is layout else weakref.ref(query_layout),
        None if edges is None else weakref.ref(edges), values is None, features is None,
        scale, dropout_p, backend, *[(x.dtype, x.shape, x.get_device()) for x in (query, *others)],
    )  # fmt: skip
    return _Known(key_of_call, known, edges, values, features)
