"""Calls of Triton's full attention that are like an earlier one on the same layouts.

What was checked then is not checked again: on a batch of small graphs, checks take as long as all
the rest.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from ..layout import GraphLayout
from ._addresses import is_plain
from ._inputs import Inputs, Layout
from ._philox import draw_seed
from ._triton_full import Problem
from ._triton_full_eager import attend

_CHECKED = "triton checked"
_PLAIN = (Tensor, torch.nn.Parameter)
# calls on one layout that are remembered
_MOST = 256


def as_before(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    query_layout: Layout | None,
    scale: float | None,
    dropout_p: float,
    backend: str,
) -> Tensor | None:
    """``[Nq, H, C]``, or None if there was no such call without biases; not for traced code."""
    if type(layout) is not GraphLayout or not isinstance(query, Tensor) or not is_plain(query):
        return None
    known = layout._made.get(_CHECKED)
    if known is None or type(key) not in _PLAIN or type(value) not in _PLAIN:
        return None
    if query_layout is not None and type(query_layout) is not GraphLayout:
        return None
    if _key(query, key, value, layout, query_layout, scale, dropout_p, backend) not in known:
        return None
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if wrapped(key) or wrapped(value) or torch.autograd.forward_ad._current_level >= 0:
        return None
    seed = draw_seed(query.device) if dropout_p > 0 else None
    scale = query.size(2) ** -0.5 if scale is None else scale
    problem = Problem(query_layout or layout, layout, None, None, None, seed, scale, dropout_p)
    return attend(problem, query, key, value)


def remember(inputs: Inputs, scale: float | None, backend: str) -> None:
    """That Triton can run these inputs, given with this ``scale`` to this ``backend``."""
    layout, query_layout = inputs.layout, inputs.query_layout
    if inputs.biases or type(layout) is not GraphLayout or not is_plain(inputs.query):
        return
    known: set[Any] = layout.once(_CHECKED, set)
    if len(known) >= _MOST:  # one layout for long, and a scale that changes
        known.clear()
    tensors = inputs.query, inputs.key, inputs.value
    known.add(_key(*tensors, layout, query_layout, scale, inputs.dropout_p, backend))


def _key(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: GraphLayout,
    query_layout: Layout | None,
    scale: float | None,
    dropout_p: float,
    backend: str,
) -> tuple[Any, ...]:
    other = None if query_layout is None or query_layout is layout else weakref.ref(query_layout)
    kinds = [(x.dtype, x.shape, x.get_device()) for x in (query, key, value)]
    return (*kinds, other, scale, dropout_p, backend)
