"""Attention along edges by compiled code: the call into ``csrc/edges.cpp``, below autograd and ops.

Nothing of the size ``[E, H, C]`` is made. The backward pass computes the weights anew target by
target, and hands on two numbers for each edge and head to the pass over the sources.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._native import Library
from ..edge_layout import EdgeLayout

TYPES = (torch.float32, torch.bfloat16)
_MOST = 2**31 - 1  # nodes and edges have 32-bit numbers


class Problem(NamedTuple):
    """One attention along edges, but for query, key and value.

    Attributes:
        edges: along which attention runs.
        values: ``[E, H]`` added to scores, or None.
        features: ``[E, H, C]`` added to keys and values, or None.
        seed: ``[1]`` int64, or None without dropout.
        scale: factor of the products.
        dropout_p: probability of dropping a weight.
    """

    edges: EdgeLayout
    values: Tensor | None
    features: Tensor | None
    seed: Tensor | None
    scale: float
    dropout_p: float


class Gradients(NamedTuple):
    """One for each tensor; None where it was not asked for."""

    query: Tensor | None
    key: Tensor | None
    value: Tensor | None
    values: Tensor | None
    features: Tensor | None


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Outputs ``[Nq, H, C]``."""
    out = torch.empty(query.shape, dtype=query.dtype)
    call, held = _call(problem, query, key, value)
    call.out = _rows(out)
    _check(EDGES.get().edges_forward(ctypes.byref(call)))
    del held
    return out


def backward(
    problem: Problem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    needs: tuple[bool, ...],
) -> Gradients:
    """The gradients that ``needs``, in the order of :class:`Gradients`, asks for."""
    call, held = _call(problem, query, key, value)
    grad = _with_dense_channels(grad.to(query.dtype))
    call.grad = _rows(grad)
    made: list[Tensor | None] = [
        torch.empty(x.shape, dtype=x.dtype) if need and x is not None else None
        for x, need in zip((query, key, value, problem.values, problem.features), needs, strict=True)
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
        padded = 1 << (query.size(1) - 1).bit_length()
        scratch = torch.empty((problem.edges.num_edges + 1) * 2 * padded)  # an address without edges too
        held.append(scratch)
        call.scratch = scratch.data_ptr()
    _check(EDGES.get().edges_backward(ctypes.byref(call)))
    del held
    return Gradients(*made)


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
        ends = edges.edge_index.contiguous()
        source = ends.data_ptr()
        target = source + ends.stride(0) * ends.element_size()
        tensors = _lists(edges, edges.num_dst)
        addresses = _addresses(tensors)
        most = EDGES.get().edges_by_target(
            source, target, edges.num_edges, edges.num_src, edges.num_dst, *addresses
        )
        if most < 0:
            name, size = ("source", edges.num_src) if most == -1 else ("target", edges.num_dst)
            raise IndexError(f"a {name} index in 'edge_index' does not lie in [0, {size})")
        return _Order(tensors, addresses, most)

    return edges.once("cpu_by_target", make)


def _by_source(edges: EdgeLayout) -> _Order:
    """Targets, and places in the order by target."""

    def make() -> _Order:
        order = _by_target(edges)
        tensors = _lists(edges, edges.num_src)
        addresses = _addresses(tensors)
        ptr, source, _ = order.addresses
        most = EDGES.get().edges_by_source(
            ptr, source, edges.num_edges, edges.num_src, *addresses
        )
        return _Order(tensors, addresses, most)

    return edges.once("cpu_by_source", make)


def _lists(edges: EdgeLayout, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    room = edges.num_edges + EDGES.get().edges_spare()
    first, second, third = (torch.empty(n, dtype=torch.int32) for n in (nodes + 1, room, room))
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


class _Rows(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("row", ctypes.c_int64), ("head", ctypes.c_int64))


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Call(ctypes.Structure):
    """``struct Call`` of ``csrc/edges.cpp``, field by field."""

    _fields_ = (
        *_fields("queries keys edges heads channels half values_half threads most", ctypes.c_int64),
        *_fields("ptr source number", ctypes.c_void_p),
        *_fields("query key value features", _Rows),
        *_fields("values seed", ctypes.c_void_p),
        *_fields("scale dropout_p", ctypes.c_double),
        *_fields("out", _Rows),
        *_fields("source_ptr target slot scratch", ctypes.c_void_p),
        *_fields("grad dquery dkey dvalue dfeatures", _Rows),
        *_fields("dvalues", ctypes.c_void_p),
    )


def _call(
    problem: Problem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[_Call, list[object]]:
    """What both C functions read, and what must live as long as they do."""
    edges, values, features, seed, scale, dropout_p = problem
    query, key, value = (_with_dense_channels(x) for x in (query, key, value))
    held: list[object] = [query, key, value]
    if values is not None:
        values = values.contiguous()
        held.append(values)
    if features is not None:
        features = _with_dense_channels(features)
        held.append(features)
    order = _by_target(edges)
    held.append(order)
    heads, channels = query.size(1), query.size(2)
    call = _Call(
        query.size(0), key.size(0), edges.num_edges, heads, channels,
        query.dtype == torch.bfloat16, values is not None and values.dtype == torch.bfloat16,
        torch.get_num_threads(), order.most, *order.addresses,
        _rows(query), _rows(key), _rows(value), _Rows() if features is None else _rows(features),
        None if values is None else values.data_ptr(), None if seed is None else seed.data_ptr(),
        scale, dropout_p,
    )  # fmt: skip
    return call, held


def _with_dense_channels(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 or x.size(2) == 1 else x.contiguous()


def _rows(x: Tensor) -> _Rows:
    row, head, _ = x.stride()
    return _Rows(x.data_ptr(), row, head)


def _check(code: int) -> None:
    if code != 0:
        raise MemoryError("there is no memory left for the scratch space of an attention")


def _declare(library: ctypes.CDLL) -> None:
    number, address = ctypes.c_int64, ctypes.c_void_p
    for function in (library.edges_forward, library.edges_backward):
        function.argtypes = [ctypes.POINTER(_Call)]
        function.restype = ctypes.c_int
    library.edges_by_target.argtypes = [*(address,) * 2, *(number,) * 3, *(address,) * 3]
    library.edges_by_source.argtypes = [*(address,) * 2, *(number,) * 2, *(address,) * 3]
    for function in (library.edges_by_target, library.edges_by_source):
        function.restype = number
    library.edges_spare.argtypes = []
    library.edges_spare.restype = ctypes.c_int


def _self_test(library: ctypes.CDLL) -> str | None:
    """Three edges, of which two share a target, by hand."""
    room = 3 + library.edges_spare()
    ends = (ctypes.c_int64 * 6)(0, 2, 1, 1, 0, 1)
    ptr, source, number = (ctypes.c_int32 * 3)(), (ctypes.c_int32 * room)(), (ctypes.c_int32 * room)()
    at = ctypes.addressof
    most = library.edges_by_target(at(ends), at(ends) + 24, 3, 3, 2, at(ptr), at(source), at(number))
    if (most, ptr[:], source[:3], number[:3]) != (2, [0, 1, 3], [2, 0, 1], [1, 0, 2]):
        return f"edges came out in the order {number[:3]}"
    query, key, value = [0.5, -1.0], [1.0, 2.0, 3.0], [10.0, -20.0, 30.0]
    rows = [(ctypes.c_float * 3)(*x) for x in (query, key, value)]
    out = (ctypes.c_float * 2)()
    call = _Call(
        2, 3, 3, 1, 1, 0, 0, 1, most, at(ptr), at(source), at(number),
        *(_Rows(at(x), 1, 1) for x in rows), scale=1.0, out=_Rows(at(out), 1, 1),
    )  # fmt: skip
    library.edges_forward(ctypes.byref(call))
    weights = [math.exp(query[1] * key[j]) for j in range(2)]
    want = [value[2], sum(w * v for w, v in zip(weights, value, strict=False)) / sum(weights)]
    if any(abs(a - b) > 1e-4 for a, b in zip(out, want, strict=True)):
        return f"got {list(out)} where {want} was expected"
    return None


EDGES = Library(Path(__file__).parent / "csrc" / "edges.cpp", _declare, _self_test)
