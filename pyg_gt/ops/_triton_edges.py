"""Attention along edges by Triton: the kernels' launches, below autograd and ops.

Nothing of the size ``[E, H]`` is made, let alone ``[E, H, C]``: the backward pass computes the
weights anew, once query by query and once key by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..edge_layout import EdgeLayout
from ._addresses import aligned_strides, in_memory, with_dense_channels
from ._philox import threshold
from ._triton_again import Again, Launches, launches_like
from ._triton_edge_programs import EdgePrograms, programs_by_source, programs_by_target
from ._triton_edge_tiles import EdgeTiles, edge_tiles
from ._triton_launch import Arguments

# parts of a heavy node that are summed at a time
_PARTS = 4


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


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]``, and ``[Nq, H, 2]`` by which the backward finds the weights again."""
    from ._triton_edge_kernels import combine_weighted, edge_forward

    out = query.new_empty(query.shape)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    given = _given(problem, query, key, value)
    tensors = given | {"out": out, "stats": stats}
    launches = _launches(problem, query, given, "forward")
    if launches.done_again(tensors):
        return out, stats
    tiles = _tiles(problem, query)
    programs = programs_by_target(problem.edges)
    arguments = _arguments(problem, tiles, tensors, **programs.lists)
    _launch_light(edge_forward, programs, tiles, arguments)
    if count := programs.parts.size(0):
        parts, part_stats = (
            x.new_empty((count, *x.shape[1:]), dtype=torch.float32) for x in (out, stats)
        )
        _launch_parts(edge_forward, programs, tiles, arguments, out=parts, stats=part_stats)
        to = {"parts": parts, "part_stats": part_stats, "out": out, "stats": stats}
        _combine(combine_weighted, programs, tiles, arguments, to)
    else:
        launches.keep(arguments.again(tensors))
    return out, stats


def backward(
    problem: Problem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of query, key, value, values and features, those that ``needs`` asks for."""
    from ._triton_edge_backward_kernels import edge_backward_keys, edge_backward_queries

    leaves = query, key, value, problem.values, problem.features
    made = [
        x.new_empty(x.shape) if need and x is not None else None
        for x, need in zip(leaves, needs, strict=True)
    ]
    dq, dk, dv, dvalues, dfeatures = made
    given = _given(problem, query, key, value, grad.to(query.dtype)) | {"out": out, "stats": stats}
    grads = {
        "query_grad": dq, "key_grad": dk, "value_grad": dv, "values_grad": dvalues,
        "features_grad": dfeatures,
    }  # fmt: skip
    deltas = query.new_empty(query.shape[:2], dtype=torch.float32)
    tensors = given | grads | {"deltas": deltas}
    wanted = (name for name, x in grads.items() if x is not None)
    launches = _launches(problem, query, given, *wanted)
    if launches.done_again(tensors):
        return made
    tiles = _tiles(problem, query)
    arguments = _arguments(problem, tiles, tensors)
    heavy = 0
    if any(x is not None for x in (dq, dk, dvalues, dfeatures)):
        programs = programs_by_target(problem.edges)
        heavy += programs.heavy.size(0)
        _launch_rows(edge_backward_queries, programs, tiles, arguments, {"query_grad": dq})
    if dk is not None or dv is not None:
        programs = programs_by_source(problem.edges)
        heavy += programs.heavy.size(0)
        rows = {"key_grad": dk, "value_grad": dv}
        _launch_rows(edge_backward_keys, programs, tiles, arguments, rows)
    if not heavy:
        launches.keep(arguments.again(tensors))
    return made


def _launches(
    problem: Problem, query: Tensor, given: Mapping[str, Tensor | None], *of: str
) -> Launches:
    """Those of an earlier call that was like this one, if no node is heavy."""
    known: dict[Any, Again] = problem.edges.once("triton launches", dict)
    return launches_like(known, query, given, of, problem.scale, problem.dropout_p)


def _given(
    problem: Problem, query: Tensor, key: Tensor, value: Tensor, grad: Tensor | None = None
) -> dict[str, Tensor | None]:
    """What the kernels read of the caller's, by name."""
    values, rows = problem.values, {"query": query, "key": key, "value": value}
    named = {**rows, "features": problem.features, "grad": grad}
    given = {name: None if x is None else with_dense_channels(x) for name, x in named.items()}
    given["values"] = None if values is None else in_memory(values).contiguous()
    given["seed"] = problem.seed
    return given


def _tiles(problem: Problem, query: Tensor) -> EdgeTiles:
    return edge_tiles(query.size(1), query.size(2), query.dtype, problem.features is not None)


def _launch_rows(
    kernel: Any,
    programs: EdgePrograms,
    tiles: EdgeTiles,
    given: Arguments,
    rows: dict[str, Tensor | None],
) -> None:
    """Runs a kernel whose ``rows`` are sums over the edges of a node, in parts where there are."""
    from ._triton_edge_kernels import combine_sums

    _launch_light(kernel, programs, tiles, given, **programs.lists)
    if count := programs.parts.size(0):
        parts = {
            name: None if x is None else x.new_empty((count, *x.shape[1:]), dtype=torch.float32)
            for name, x in rows.items()
        }
        _launch_parts(kernel, programs, tiles, given, **programs.lists, **parts)
        for name, part in parts.items():
            if part is not None and (x := rows[name]) is not None:
                _combine(combine_sums, programs, tiles, given, {"parts": part, "out": x})


def _launch_light(
    kernel: Any, programs: EdgePrograms, tiles: EdgeTiles, given: Arguments, **own: Any
) -> None:
    own["PARTS"] = False
    if tiles.few == tiles.many:
        _launch(kernel, programs.light, tiles.few, tiles, given, own)
    else:
        _launch(kernel, programs.many, tiles.many, tiles, given, own)
        _launch(kernel, programs.few, tiles.few, tiles, given, own)


def _launch_parts(
    kernel: Any, programs: EdgePrograms, tiles: EdgeTiles, given: Arguments, **own: Any
) -> None:
    _launch(kernel, programs.parts, tiles.many, tiles, given, own | {"PARTS": True})


def _combine(
    kernel: Any,
    programs: EdgePrograms,
    tiles: EdgeTiles,
    given: Arguments,
    tensors: Mapping[str, Tensor],
) -> None:
    table = programs.heavy
    named = {**tensors, **{name: given[name] for name in ("H", "C", "D", "HB")}}
    own = {"programs": table, "count": table.size(0), "BE": _PARTS}
    grid = table.size(0) * _quotient(given["H"], given["HB"])
    Arguments(named, table).launch(kernel, grid, own, num_warps=tiles.warps)


def _launch(
    kernel: Any,
    table: Tensor,
    tile: tuple[int, int],
    tiles: EdgeTiles,
    given: Arguments,
    own: dict[str, Any],
) -> None:
    """Runs a kernel over the nodes of ``table``, with so many of them, and of edges, a program."""
    count, (nodes, edges) = table.size(0), tile
    own = own | {"programs": table, "count": count, "BT": nodes, "BE": edges}
    grid = _quotient(count, nodes) * _quotient(given["H"], given["HB"])
    given.launch(kernel, grid, own, num_warps=tiles.warps)


def _quotient(a: int, b: int) -> int:
    """Rounded up."""
    return (a + b - 1) // b


def _arguments(
    problem: Problem, tiles: EdgeTiles, tensors: Mapping[str, Tensor | None], **more: Tensor | None
) -> Arguments:
    """What all kernels read, by name: ``tensors``, what follows from them, and ``more``."""
    p, query = problem.dropout_p, tensors["query"]
    assert query is not None
    rows = {name: tensors.get(name) for name in ("query", "key", "value", "features", "grad")}
    strides, align = aligned_strides({k: x for k, x in rows.items() if x is not None})
    named = {
        "features_row": 0, "features_head": 0, **tensors, **strides, **more,
        "scale": problem.scale, "threshold": threshold(p) - 2**31,
        "factor": 0.0 if p >= 1 else 1 / (1 - p),
        "H": query.size(1), "C": query.size(2), "D": tiles.width, "HB": tiles.heads,
        "ALIGN": align,
        "NUMBERED": any(tensors[name] is not None for name in ("features", "values", "seed")),
    }  # fmt: skip
    return Arguments(named, query)
