"""Calls of Triton's kernels that are like an earlier one on the same layouts.

What was checked then is not checked again: on a batch of small graphs, checks take as long as all
the rest. Only where :func:`~pyg_gt.ops._kernels.triton.replay.replays`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout.deferred import DeferredLayout
from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout
from .bias import AttentionBias, EdgeBias, EdgeMask, PairBias, TableBias
from .memory import PLAIN, is_plain

_CHECKED = "triton checked"
# calls on one layout that are remembered
_MOST = 256


class Call(NamedTuple):
    """The arguments of ``attention``, or of ``qkv_attention``, which has no key and no value.

    Attributes:
        query: ``[Nq, H, C]``; of ``qkv_attention``, ``[N, 3, H, C]``.
        key: ``[Nk, H, C]``, or None.
        value: ``[Nk, H, C]``, or None.
        layout: as given, like all that follows.
        biases: as given.
        query_layout: as given.
        scale: as given.
        dropout_p: as given.
        backend: as given.
    """

    query: Tensor
    key: Tensor | None
    value: Tensor | None
    layout: GraphLayout | DeferredLayout | Tensor
    biases: AttentionBias | Sequence[AttentionBias]
    query_layout: GraphLayout | DeferredLayout | Tensor | None
    scale: float | None
    dropout_p: float
    backend: str


class _Read(NamedTuple):
    """What is read of the biases.

    Attributes:
        biases: with their edges found.
        key: what another call must have in common with this one.
    """

    biases: tuple[AttentionBias, ...]
    key: tuple[Any, ...]


_NOTHING = _Read((), ())


def biases_as_before(call: Call) -> tuple[AttentionBias, ...] | None:
    """The biases as they are when they are checked, or None if there was no call like this one.

    All calls that Triton can run are known. Not for traced code.
    """
    if type(call.layout) is not GraphLayout:
        return None
    known: set[Any] | None = call.layout._cache.get(_CHECKED)
    if known is None or not _is_readable(call):
        return None
    read = _read(call) if call.biases else _NOTHING
    return None if read is None or _key(call, read) not in known else read.biases


def remember(call: Call) -> None:
    """That Triton can run this call."""
    if type(call.layout) is not GraphLayout or not _is_readable(call):
        return
    read = _read(call)
    if read is None:
        return
    known: set[Any] = call.layout.cached(_CHECKED, set)
    if len(known) >= _MOST:  # one layout for long, and a scale that changes
        known.clear()
    known.add(_key(call, read))


def _is_readable(call: Call) -> bool:
    """Whether nothing looks on, and tensors are what they seem."""
    query, key, value, _, _, query_layout, _, _, _ = call
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return (
        isinstance(query, Tensor) and is_plain(query)
        and (key is None or (type(key) in PLAIN and not wrapped(key)))
        and (value is None or (type(value) in PLAIN and not wrapped(value)))
        and (query_layout is None or type(query_layout) is GraphLayout)
        and torch.autograd.forward_ad._current_level < 0
    )  # fmt: skip


def _read(call: Call) -> _Read | None:
    """None if one of the biases is none whose checks hold for calls like this one."""
    query, layout = call.query, call.layout
    if isinstance(layout, Tensor) or isinstance(call.query_layout, Tensor):
        return None
    if not isinstance(call.biases, (tuple, list)):
        return None
    key = query if call.key is None else call.key
    if query.dim() != (4 if call.key is None else 3) or key.dim() != query.dim():
        return None
    # of other numbers of nodes the check of all arguments tells, and not that of edges
    queries = (call.query_layout or layout).num_nodes
    if (query.size(0), key.size(0)) != (queries, layout.num_nodes):
        return None
    biases: list[AttentionBias] = []
    parts: list[Any] = []
    tensors: tuple[Tensor | None, ...]
    for bias in call.biases:
        parts.append(type(bias))
        if isinstance(bias, (EdgeMask, EdgeBias)):
            edges = EdgeLayout.of(bias.edges, key.size(0), query.size(0))
            if not isinstance(edges, EdgeLayout):
                return None
            parts.append(weakref.ref(edges))
            if isinstance(bias, EdgeBias):
                tensors = (bias.values,)
                bias = EdgeBias(edges, bias.values)
            else:
                tensors = bias.values, bias.features
                bias = EdgeMask(edges, bias.values, bias.features)
        elif isinstance(bias, PairBias):
            tensors = (bias.values,)
        elif isinstance(bias, TableBias):
            tensors = bias.table, bias.index
            if not isinstance(bias.index, Tensor) or bias.index.is_inference():
                return None
            # the very numbers that were found to be rows of a table of this size
            parts += weakref.ref(bias.index), bias.index._version
        else:
            return None
        for x in tensors:
            if x is None:
                parts.append(None)
            elif type(x) in PLAIN and not torch._C._functorch.is_functorch_wrapped_tensor(x):
                parts += x.dtype, x.shape, x.get_device()
            else:
                return None
        biases.append(bias)
    return _Read(tuple(biases), tuple(parts))


def _key(call: Call, read: _Read) -> tuple[Any, ...]:
    """What calls on a layout have in common that are checked alike."""
    query, key, value, layout, _, query_layout, scale, dropout_p, backend = call
    other = None if query_layout is None or query_layout is layout else weakref.ref(query_layout)
    kind = (
        other, scale, type(scale), dropout_p, type(dropout_p), backend, query.dtype, query.shape,
        query.get_device(), read.key,
    )  # fmt: skip
    if key is None or value is None:
        return kind
    return (
        *kind, key.dtype, key.shape, key.get_device(), value.dtype, value.shape,
        value.get_device(),
    )  # fmt: skip
