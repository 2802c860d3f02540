"""Attention along edges by compiled code: the calls of ``csrc/edges.cpp``, below autograd.

Nothing of the size ``[E, H, C]`` is made. The backward pass computes the weights anew target by
target, and hands on two numbers for each edge and head to the pass over the sources.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ...memory import HOST, check, empty_like, materialized, with_dense_channels
from ..problem import EdgeGradients, EdgeProblem, Saved
from .edges_library import EDGES, Call, Rows

TYPES = (torch.float32, torch.bfloat16)
_MOST = 2**31 - 1  # nodes and edges have 32-bit numbers


MAX_CHANNELS = None  # any number


def why_not() -> str | None:
    """Why there is no compiled code, or None."""
    return EDGES.why_not()


def forward(
    problem: EdgeProblem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, None]:
    """Outputs ``[Nq, H, C]``; there are no statistics, since the backward needs none."""
    out = empty_like(query)
    call, held = _call(problem, query, key, value)
    call.out = _rows(out)
    _check(EDGES.get().edges_forward(ctypes.byref(call)))
    del held
    return out, None


def backward(
    problem: EdgeProblem, grad: Tensor, saved: Saved, needs: tuple[bool, ...]
) -> EdgeGradients:
    """The gradients that ``needs``, in their order, asks for; output and statistics go unread."""
    query, key, value = saved[:3]
    call, held = _call(problem, query, key, value)
    grad = with_dense_channels(grad.to(query.dtype))
    call.grad = _rows(grad)
    tensors = query, key, value, _as_read(problem.values, query), problem.features
    made: list[Tensor | None] = [
        empty_like(x) if need and x is not None else None
        for x, need in zip(tensors, needs, strict=True)
    ]
    dq, dk, dv, dvalues, dfeatures = made
    for name, x in (("dquery", dq), ("dkey", dk), ("dvalue", dv), ("dfeatures", dfeatures)):
        if x is not None:
            setattr(call, name, _rows(x))
    if dvalues is not None:
        call.dvalues = dvalues.data_ptr()
    if dk is not None or dv is not None:
        order = _by_source(problem.edges)
        held.append(order)
        call.most = max(call.most, order.most)
        call.source_ptr, call.target, call.slot = order.addresses
    _check(EDGES.get().edges_backward(ctypes.byref(call)))
    del held
    if dvalues is not None and problem.values is not None:
        dvalues = dvalues.to(problem.values.dtype)
    return EdgeGradients(dq, dk, dv, dvalues, dfeatures)


def _as_read(values: Tensor | None, query: Tensor) -> Tensor | None:
    """``[E, H]`` in float32, or as it is if it is of the type of ``query``."""
    if values is None or values.dtype == query.dtype:
        return values
    return values.float()


class _Order(NamedTuple):
    """Edges sorted by one of their ends.

    Attributes:
        tensors: ``ptr [N + 1]`` and two lists of ``E`` and some more.
        addresses: of those.
        most: the largest number of edges of a node.
    """

    tensors: tuple[Tensor, Tensor, Tensor]
    addresses: tuple[int, int, int]
    most: int


def _by_target(edges: EdgeLayout) -> _Order:
    """Sources, and the caller's numbers."""

    def make() -> _Order:
        _check_size(edges)
        ends = edges.ends.int().contiguous()
        check("ends", ends, (2, edges.num_edges), torch.int32)
        source = ends.data_ptr()
        target = source + ends.stride(0) * ends.element_size()
        tensors = _lists(edges, edges.num_dst)
        addresses = _addresses(tensors)
        most = EDGES.get().edges_by_target(
            source, target, edges.num_edges, edges.num_src, edges.num_dst, *addresses
        )
        _check(most == -3)
        if most < 0:
            name, size = ("source", edges.num_src) if most == -1 else ("target", edges.num_dst)
            raise IndexError(f"a {name} index in 'edge_index' does not lie in [0, {size})")
        return _Order(tensors, addresses, most)

    return edges.cached("cpu_by_target", make)


def _by_source(edges: EdgeLayout) -> _Order:
    """Targets, and places in the order by target."""

    def make() -> _Order:
        order = _by_target(edges)
        tensors = _lists(edges, edges.num_src)
        addresses = _addresses(tensors)
        ptr, source, _ = order.addresses
        most = EDGES.get().edges_by_source(ptr, source, edges.num_edges, edges.num_src, *addresses)
        return _Order(tensors, addresses, most)

    return edges.cached("cpu_by_source", make)


def _lists(edges: EdgeLayout, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    room = edges.num_edges + EDGES.get().edges_spare()
    first, second, third = (
        torch.empty(n, dtype=torch.int32, device=HOST) for n in (nodes + 1, room, room)
    )
    return first, second, third


def _addresses(tensors: tuple[Tensor, Tensor, Tensor]) -> tuple[int, int, int]:
    ptr, first, second = tensors
    return ptr.data_ptr(), first.data_ptr(), second.data_ptr()


def _check_size(edges: EdgeLayout) -> None:
    if max(edges.num_edges, edges.num_src, edges.num_dst) >= _MOST:
        raise NotImplementedError(
            f"compiled attention counts edges and nodes in 32 bits (got {edges.num_edges} edges, "
            f"{edges.num_src} key and {edges.num_dst} query nodes); pass backend='sparse'"
        )


def _call(
    problem: EdgeProblem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Call, list[object]]:
    """What both C functions read, and what must live as long as they do."""
    edges, values, features, seed, scale, dropout_p = problem
    values = _as_read(values, query)
    query, key, value = (with_dense_channels(x) for x in (query, key, value))
    held: list[object] = [query, key, value]
    if values is not None:
        values = materialized(values).contiguous()
        held.append(values)
    if features is not None:
        features = with_dense_channels(features)
        held.append(features)
    order = _by_target(edges)
    held.append(order)
    heads, channels = query.size(1), query.size(2)
    call = Call(
        query.size(0), key.size(0), edges.num_edges, heads, channels,
        query.dtype == torch.bfloat16, values is not None and values.dtype == torch.bfloat16,
        torch.get_num_threads(), order.most, *order.addresses,
        _rows(query), _rows(key), _rows(value), Rows() if features is None else _rows(features),
        None if values is None else values.data_ptr(), None if seed is None else seed.data_ptr(),
        scale, dropout_p,
    )  # fmt: skip
    return call, held


def _rows(x: Tensor) -> Rows:
    row, head, _ = x.stride()
    return Rows(x.data_ptr(), row, head)


def _check(code: int | bool) -> None:
    if code != 0:
        raise MemoryError("there is no memory left for the scratch space of an attention")
