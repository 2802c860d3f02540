"""Full attention by compiled code: the call into ``csrc/full.cpp``, below autograd and ops."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ....layout.graph_layout import GraphLayout
from ....layout.values import unwrapped
from ....native import Library
from ...dropout import threshold
from ...memory import HOST, check, empty_like, materialized, with_dense_channels
from ..problem import FullGradients, FullProblem, Needs, Saved

TYPES = (torch.float32, torch.bfloat16)
MAX_CHANNELS = None  # any number


def why_not() -> str | None:
    """Why there is no compiled code, or None."""
    return FULL.why_not()


def forward(
    problem: FullProblem, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]``, and ``[Nq, H, 2]`` by which the backward finds the weights again."""
    query, key, value = (with_dense_channels(x) for x in (query, key, value))
    out = empty_like(query)
    stats = torch.empty((*query.shape[:2], 2), dtype=torch.float32, device=HOST)
    arguments, held = _arguments(problem, query, key, value, out, stats)
    _check(FULL.get().full_forward(ctypes.byref(arguments)))
    del held
    return out, stats


def backward(
    problem: FullProblem, grad: Tensor, saved: Saved, needs: Needs, joined: Tensor | None = None
) -> FullGradients:
    """The gradients; ``needs`` tells which of pairs, table and edge values are wanted.

    With ``joined [N, 3, H, C]``, those of query, key and value are written there.
    """
    query, key, value = (with_dense_channels(x) for x in saved[:3])
    grad = with_dense_channels(grad.to(query.dtype))
    assert saved.out is not None and saved.stats is not None
    out, stats = (materialized(x).contiguous() for x in (saved.out, saved.stats))
    if joined is None:
        dq, dk, dv = (empty_like(x) for x in (query, key, value))
    else:
        dq, dk, dv = joined.unbind(1)
    dpairs, dtable, dedges = (
        torch.empty(x.shape, dtype=torch.float32, device=HOST) if need and x is not None else None
        for x, need in zip((problem.pairs, problem.table, problem.edge_values), needs, strict=True)
    )
    arguments, held = _arguments(problem, query, key, value, out, stats)
    arguments.grad, arguments.grad_strides = grad.data_ptr(), _strides(grad)
    arguments.query_grad, arguments.query_grad_strides = dq.data_ptr(), _strides(dq)
    arguments.key_grad, arguments.key_grad_strides = dk.data_ptr(), _strides(dk)
    arguments.value_grad, arguments.value_grad_strides = dv.data_ptr(), _strides(dv)
    arguments.pairs_grad = _at(dpairs)
    arguments.table_grad = _at(dtable)
    arguments.edge_values_grad = _at(dedges)
    _check(FULL.get().full_backward(ctypes.byref(arguments)))
    del held
    biases = problem.pairs, problem.table, problem.edge_values
    made = (
        None if d is None or x is None else d.to(x.dtype)
        for d, x in zip((dpairs, dtable, dedges), biases, strict=True)
    )
    return FullGradients(dq, dk, dv, *made)


class _Strides(ctypes.Structure):
    _fields_ = (("row", ctypes.c_int64), ("head", ctypes.c_int64))


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Arguments(ctypes.Structure):
    """``struct Arguments`` of ``csrc/full.h``, field by field."""

    _fields_ = (
        *_fields("graphs queries keys heads channels half threads", ctypes.c_int64),
        *_fields("scale dropout_factor", ctypes.c_double),
        *_fields("dropout_threshold", ctypes.c_int64),
        *_fields("seed query_ptr key_ptr query_order key_order", ctypes.c_void_p),
        *_fields("query key value", ctypes.c_void_p),
        *_fields("query_strides key_strides value_strides", _Strides),
        *_fields("out stats", ctypes.c_void_p),
        *_fields("pair_rows", ctypes.c_int64),
        *_fields("pairs index", ctypes.c_void_p),
        *_fields("index_bytes table_rows", ctypes.c_int64),
        *_fields("table edge_ptr edge_number edge_source key_position", ctypes.c_void_p),
        *_fields("edge_values grad", ctypes.c_void_p),
        *_fields("grad_strides", _Strides),
        *_fields("query_grad key_grad value_grad", ctypes.c_void_p),
        *_fields("query_grad_strides key_grad_strides value_grad_strides", _Strides),
        *_fields("pairs_grad table_grad edge_values_grad", ctypes.c_void_p),
    )


def _arguments(
    problem: FullProblem, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor
) -> tuple[_Arguments, list[Tensor]]:
    """What the C function reads, and the tensors that must live as long as it does."""
    query_layout, layout = problem.query_layout, problem.layout
    held: list[Tensor] = []
    query_ptr, query_order = _place(query_layout)
    key_ptr, key_order = _place(layout)
    if query_ptr.shape != key_ptr.shape:
        raise ValueError(
            f"queries lie in {query_ptr.numel() - 1} graphs and keys in {key_ptr.numel() - 1}"
        )

    def at(tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        # every bias is read as float32, an index as it is
        found = materialized(tensor).float() if tensor.is_floating_point() else tensor
        if not found.is_contiguous():
            found = found.contiguous()
        if found is not tensor:
            held.append(found)
        return found.data_ptr()

    index, edges, p = problem.table_index, problem.edges, problem.dropout_p
    by_target = (0, 0, 0, 0) if edges is None else (
        *(at(x) for x in _by_target(edges)), at(_positions(layout, key.size(0))),
    )  # fmt: skip
    rows = min((x.size(0) for x in (problem.pairs, index) if x is not None), default=0)
    arguments = _Arguments(
        query_ptr.numel() - 1, query.size(0), key.size(0), query.size(1), query.size(2),
        query.dtype == torch.bfloat16, torch.get_num_threads(),
        problem.scale, 0.0 if p >= 1 else 1 / (1 - p), threshold(p),
        _at(problem.seed), query_ptr.data_ptr(), key_ptr.data_ptr(),
        _at(query_order), _at(key_order),
        query.data_ptr(), key.data_ptr(), value.data_ptr(),
        _strides(query), _strides(key), _strides(value),
        out.data_ptr(), stats.data_ptr(), rows, at(problem.pairs), at(index),
        0 if index is None else index.element_size(),
        0 if problem.table is None else problem.table.size(0),
        at(problem.table), *by_target, at(problem.edge_values),
    )  # fmt: skip
    return arguments, held


def _place(layout: GraphLayout) -> tuple[Tensor, Tensor | None]:
    """Where graphs begin and, unless nodes stand graph by graph, their order.

    Copies that nobody else can write to: the compiled code goes by them. What it can compare with
    the sizes of other tensors, it does, each time.
    """

    def make() -> tuple[Tensor, Tensor | None]:
        ptr, order = _own(layout.ptr), layout.order
        if ptr.dim() != 1 or ptr.numel() == 0:
            raise ValueError(f"'ptr' of a layout must be a vector (got {list(ptr.shape)})")
        if order is None:
            return ptr, None
        order, nodes = _own(order), layout.num_nodes
        if order.shape != (nodes,) or not _lies_in(order, nodes):
            raise ValueError(f"'order' of a layout must hold the numbers of its {nodes} nodes")
        return ptr, order

    return layout.cached("cpu_full", make)


def _by_target(edges: EdgeLayout) -> tuple[Tensor, Tensor, Tensor]:
    """``ptr [Nq + 1]``, and of the edges by target their numbers and, by number, sources ``[E]``.

    All of them are made from one copy, that nobody else can write to.
    """

    def make() -> tuple[Tensor, Tensor, Tensor]:
        source, target = _own(edges.ends).unbind()
        with torch._C._DisableFuncTorch():  # or what is made belongs to a transform at work
            for name, end, size in (
                ("source", source, edges.num_src), ("target", target, edges.num_dst),
            ):  # fmt: skip
                if not _lies_in(end, size):
                    raise IndexError(f"a {name} index does not lie in [0, {size})")
            ptr = torch.zeros(edges.num_dst + 1, dtype=torch.int64, device=HOST)
            torch.cumsum(torch.bincount(target, minlength=edges.num_dst), 0, out=ptr[1:])
            return ptr, target.argsort(stable=True), source

    return edges.cached("cpu_full", make)


def _positions(layout: GraphLayout, keys: int) -> Tensor:
    """``[Nk]``, the place of each key in its graph; any number in it is as good to C++."""
    positions = layout.pos
    check("pos", positions, (keys,), torch.int64)
    return positions


def _own(numbers: Tensor) -> Tensor:
    with torch._C._DisableFuncTorch():  # inside of a transform a copy would be wrapped
        numbers = unwrapped(numbers)
        return numbers.to(HOST, torch.int64, memory_format=torch.contiguous_format, copy=True)


def _lies_in(numbers: Tensor, size: int) -> bool:
    if numbers.numel() == 0:
        return True
    first, last = numbers.aminmax()
    return 0 <= int(first) and int(last) < size


def _strides(x: Tensor) -> _Strides:
    return _Strides(x.stride(0), x.stride(1))


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(code: int) -> None:
    """Raises what ``enum Code`` of ``csrc/full.h`` means."""
    if code == 1:
        raise MemoryError("there is no memory left for the scratch space of an attention")
    if code == 2:
        raise IndexError(
            "'TableBias.index' holds a number that is no row of its table: it was changed after "
            "it was checked (through numpy, '.data' or another process); pass a new tensor"
        )
    if code == 3:
        raise ValueError(
            "a layout does not fit the tensors: its 'ptr' must begin at 0, never fall and end at "
            "the number of nodes, and there must be a row of a bias for each pair"
        )


def _declare(library: ctypes.CDLL) -> None:
    for function in (library.full_forward, library.full_backward):
        function.argtypes = [ctypes.POINTER(_Arguments)]
        function.restype = ctypes.c_int


def _self_test(library: ctypes.CDLL) -> str | None:
    """Two graphs, of two nodes and of one, by hand."""
    query, key, value = [0.5, -1.0, 2.0], [1.0, 2.0, 3.0], [10.0, -20.0, 30.0]
    numbers = ctypes.c_float * 3
    out, stats = numbers(), (ctypes.c_float * 6)()
    ptr = (ctypes.c_int64 * 3)(0, 2, 3)
    arguments = _Arguments(
        graphs=2, queries=3, keys=3, heads=1, channels=1, threads=1, scale=1.0
    )
    fields: dict[str, Any] = {
        "query": numbers(*query), "key": numbers(*key), "value": numbers(*value), "out": out,
        "stats": stats, "query_ptr": ptr, "key_ptr": ptr,
    }  # fmt: skip
    for name, array in fields.items():
        setattr(arguments, name, ctypes.addressof(array))
    for name in ("query_strides", "key_strides", "value_strides"):
        setattr(arguments, name, _Strides(1, 1))
    library.full_forward(ctypes.byref(arguments))
    want = [30.0] * 3
    for i in range(2):
        weights = [math.exp(query[i] * key[j]) for j in range(2)]
        want[i] = sum(w * value[j] for j, w in enumerate(weights)) / sum(weights)
    if any(abs(a - b) > 1e-4 for a, b in zip(out, want, strict=True)):
        return f"got {list(out)} where {want} was expected"
    return None


# as fast as with -O3, in half the time to compile
FULL = Library(Path(__file__).parent / "csrc" / "full.cpp", _declare, _self_test, ("-O2",))
