"""Attention along edges by Triton: the kernels' launches, below autograd and ops.

Nothing of the size ``[E, H]`` is made, let alone ``[E, H, C]``: the backward pass computes the
weights anew, once query by query and once key by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..edge_layout import EdgeLayout
from ._addresses import aligned_strides, in_memory, with_dense_channels
from ._philox import threshold
from ._triton_edge_programs import EdgePrograms, programs_by_source, programs_by_target
from ._triton_edge_tiles import EdgeTiles, edge_tiles

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
    tiles = _tiles(problem, query)
    programs = programs_by_target(problem.edges)
    given = _arguments(problem, tiles, query, key, value) | programs.lists
    _launch_light(edge_forward, programs, tiles, given | {"out": out, "stats": stats})
    if count := programs.parts.size(0):
        parts, part_stats = (
            x.new_empty((count, *x.shape[1:]), dtype=torch.float32) for x in (out, stats)
        )
        _launch_parts(edge_forward, programs, tiles, given | {"out": parts, "stats": part_stats})
        to = {"parts": parts, "part_stats": part_stats, "out": out, "stats": stats}
        _combine(combine_weighted, programs, given, to)
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

    tensors = query, key, value, problem.values, problem.features
    made = [
        x.new_empty(x.shape) if need and x is not None else None
        for x, need in zip(tensors, needs, strict=True)
    ]
    dq, dk, dv, dvalues, dfeatures = made
    grad = grad.to(query.dtype)
    tiles = _tiles(problem, query)
    given = _arguments(problem, tiles, query, key, value, grad)
    given["stats"] = stats
    given["deltas"] = query.new_empty(query.shape[:2], dtype=torch.float32)
    if any(x is not None for x in (dq, dk, dvalues, dfeatures)):
        programs = programs_by_target(problem.edges)
        more = {"out": out, "values_grad": dvalues, "features_grad": dfeatures}
        given_rows = given | programs.lists | more
        _launch_rows(edge_backward_queries, programs, tiles, given_rows, {"query_grad": dq})
    if dk is not None or dv is not None:
        programs = programs_by_source(problem.edges)
        rows = {"key_grad": dk, "value_grad": dv}
        _launch_rows(edge_backward_keys, programs, tiles, given | programs.lists, rows)
    return made


def _tiles(problem: Problem, query: Tensor) -> EdgeTiles:
    return edge_tiles(query.size(1), query.size(2), query.dtype, problem.features is not None)


def _launch_rows(
    kernel: Any,
    programs: EdgePrograms,
    tiles: EdgeTiles,
    given: dict[str, Any],
    rows: dict[str, Tensor | None],
) -> None:
    """Runs a kernel whose ``rows`` are sums over the edges of a node, in parts where there are."""
    from ._triton_edge_kernels import combine_sums

    _launch_light(kernel, programs, tiles, given | rows)
    if count := programs.parts.size(0):
        parts = {
            name: None if x is None else x.new_empty((count, *x.shape[1:]), dtype=torch.float32)
            for name, x in rows.items()
        }
        _launch_parts(kernel, programs, tiles, given | parts)
        for name, x in rows.items():
            if x is not None:
                _combine(combine_sums, programs, given, {"parts": parts[name], "out": x})


def _launch_light(
    kernel: Any, programs: EdgePrograms, tiles: EdgeTiles, given: dict[str, Any]
) -> None:
    if tiles.few == tiles.many:
        _launch(kernel, programs.light, *tiles.few, given, PARTS=False)
    else:
        _launch(kernel, programs.many, *tiles.many, given, PARTS=False)
        _launch(kernel, programs.few, *tiles.few, given, PARTS=False)


def _launch_parts(
    kernel: Any, programs: EdgePrograms, tiles: EdgeTiles, given: dict[str, Any]
) -> None:
    _launch(kernel, programs.parts, *tiles.many, given, PARTS=True)


def _combine(
    kernel: Any, programs: EdgePrograms, given: dict[str, Any], tensors: dict[str, Any]
) -> None:
    shape = {name: given[name] for name in ("H", "C", "D", "HB", "num_warps")}
    _run(kernel, programs.heavy, 1, shape | tensors, BE=_PARTS)


def _launch(
    kernel: Any, table: Tensor, nodes: int, edges: int, given: dict[str, Any], **more: Any
) -> None:
    _run(kernel, table, nodes, given, BT=nodes, BE=edges, **more)


def _run(kernel: Any, table: Tensor, nodes: int, given: dict[str, Any], **more: Any) -> None:
    """Runs a kernel on the device of its tensors and on its current stream."""
    count = table.size(0)
    tiles = (count + nodes - 1) // nodes
    if grid := tiles * ((given["H"] + given["HB"] - 1) // given["HB"]):
        with torch.cuda.device_of(table):
            kernel[(grid,)](table, count, **given, **more)


def _arguments(
    problem: Problem,
    tiles: EdgeTiles,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor | None = None,
) -> dict[str, Any]:
    """What all kernels read, by name, but for the edges."""
    p, features, values = problem.dropout_p, problem.features, problem.values
    named = {"query": query, "key": key, "value": value, "features": features, "grad": grad}
    rows = {name: with_dense_channels(x) for name, x in named.items() if x is not None}
    strides, align = aligned_strides(rows)
    return {"features": None, "features_row": 0, "features_head": 0} | rows | strides | {
        "values": None if values is None else in_memory(values).contiguous(), "seed": problem.seed,
        "scale": problem.scale, "threshold": threshold(p) - 2**31,
        "factor": 0.0 if p >= 1 else 1 / (1 - p),
        "H": query.size(1), "C": query.size(2), "D": tiles.width, "HB": tiles.heads,
        "ALIGN": align, "num_warps": tiles.warps,
        "NUMBERED": features is not None or values is not None or problem.seed is not None,
    }  # fmt: skip
