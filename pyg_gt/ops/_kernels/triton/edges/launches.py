"""Launches of the kernels along edges: their arguments, and which of them an edge set takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....memory import aligned_strides, materialized, with_dense_channels
from ...problem import EdgeGradients, EdgeProblem
from ..launch import Launch, dropout_arguments, launch_all
from ..rounding import ceil_div
from .programs import EdgePrograms, programs_by_source, programs_by_target
from .tiles import EdgeTiles, edge_tiles

# parts of a heavy node that are summed at a time
_PARTS = 4


class _Pass(NamedTuple):
    """One pass over the edges, node by node: its programs, tiles and number of heads."""

    programs: EdgePrograms
    tiles: EdgeTiles
    heads: int


def launch_forward(
    problem: EdgeProblem, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor
) -> None:
    """Runs the forward kernels, which write ``out [Nq, H, C]`` and ``stats [Nq, H, 2]``."""
    from .kernels.combine import combine_weighted
    from .kernels.forward import edge_forward

    over = _Pass(programs_by_target(problem.edges), _tiles(problem, query), query.size(1))
    rows = {"query": query, "key": key, "value": value}
    arguments = {**_arguments(problem, over.tiles, rows), "out": out, "stats": stats}
    launches = _of_light_nodes(edge_forward, over)
    if over.programs.parts.size(0):
        partials = _partials(over, {"out": out, "stats": stats})
        launches.append(_of_parts(edge_forward, over, partials))
        combined = {"partials": partials["out"], "partial_stats": partials["stats"]}
        launches.append(_combine(combine_weighted, over, combined))
    launch_all(launches, arguments, query)


def launch_backward(
    problem: EdgeProblem,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    out: Tensor,
    stats: Tensor,
    grads: EdgeGradients,
) -> None:
    """Runs the backward kernels, which write ``grads``; None is not computed.

    Args:
        problem: the attention.
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        grad: ``[Nq, H, C]``, the gradient of the output.
        out: contiguous ``[Nq, H, C]`` of the forward kernels.
        stats: contiguous ``[Nq, H, 2]`` of the forward kernels.
        grads: what is written.
    """
    from .kernels.backward import edge_backward_keys, edge_backward_queries

    tiles, heads, edges = _tiles(problem, query), query.size(1), problem.edges
    rows = {"query": query, "key": key, "value": value, "grad": grad}
    arguments = {
        **_arguments(problem, tiles, rows), "out": out, "stats": stats,
        "deltas": query.new_empty(query.shape[:2], dtype=torch.float32),
        "query_grad": grads.query, "key_grad": grads.key, "value_grad": grads.value,
        "values_grad": grads.values, "features_grad": grads.features,
    }  # fmt: skip
    launches = []
    # the pass by key node reads the deltas that the one by query node writes
    if any(grads[i] is not None for i in (0, 1, 3, 4)):
        over = _Pass(programs_by_target(edges), tiles, heads)
        launches += _of_sums(edge_backward_queries, over, {"query_grad": grads.query})
    if grads.key is not None or grads.value is not None:
        over = _Pass(programs_by_source(edges), tiles, heads)
        sums = {"key_grad": grads.key, "value_grad": grads.value}
        launches += _of_sums(edge_backward_keys, over, sums)
    launch_all(launches, arguments, query)


def _tiles(problem: EdgeProblem, query: Tensor) -> EdgeTiles:
    return edge_tiles(query.size(1), query.size(2), query.dtype, problem.features is not None)


def _of_sums(kernel: Any, over: _Pass, rows: Mapping[str, Tensor | None]) -> list[Launch]:
    """Of a kernel whose ``rows`` are sums over the edges of a node, in parts where there are."""
    from .kernels.combine import combine_sums

    launches = _of_light_nodes(kernel, over)
    if over.programs.parts.size(0):
        partials = _partials(over, rows)
        launches.append(_of_parts(kernel, over, partials))
        for name, part in partials.items():
            if part is not None:
                summed = {"partials": part, "out": rows[name]}
                launches.append(_combine(combine_sums, over, summed))
    return launches


def _of_light_nodes(kernel: Any, over: _Pass) -> list[Launch]:
    programs, tiles = over.programs, over.tiles
    if tiles.few == tiles.many:
        return [_of_table(kernel, over, programs.light, tiles.few, {"PARTS": False})]
    return [
        _of_table(kernel, over, programs.many, tiles.many, {"PARTS": False}),
        _of_table(kernel, over, programs.few, tiles.few, {"PARTS": False}),
    ]


def _of_parts(kernel: Any, over: _Pass, partials: Mapping[str, Tensor | None]) -> Launch:
    arguments = {**partials, "PARTS": True}
    return _of_table(kernel, over, over.programs.parts, over.tiles.many, arguments)


def _partials(over: _Pass, rows: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """Rows of the parts of heavy nodes, by the names of those of nodes."""
    count = over.programs.parts.size(0)
    return {
        name: None if x is None else x.new_empty((count, *x.shape[1:]), dtype=torch.float32)
        for name, x in rows.items()
    }


def _combine(kernel: Any, over: _Pass, tensors: Mapping[str, Tensor | None]) -> Launch:
    table, tiles = over.programs.heavy, over.tiles
    arguments = {**tensors, "programs": table, "count": table.size(0), "BE": _PARTS}
    grid = table.size(0) * ceil_div(over.heads, tiles.heads)
    return Launch(kernel, grid, arguments, {"num_warps": tiles.warps})


def _of_table(
    kernel: Any, over: _Pass, table: Tensor, tile: tuple[int, int], more: Mapping[str, Any]
) -> Launch:
    """Over the nodes of ``table``, with so many of them, and of edges of each, a program."""
    programs, tiles, heads = over
    count, (nodes, edges) = table.size(0), tile
    arguments = {
        **programs.csr, **more, "programs": table, "count": count, "BT": nodes, "BE": edges,
    }  # fmt: skip
    grid = ceil_div(count, nodes) * ceil_div(heads, tiles.heads)
    return Launch(kernel, grid, arguments, {"num_warps": tiles.warps})


def _arguments(
    problem: EdgeProblem, tiles: EdgeTiles, rows: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What forward and backward kernels are given alike, and ``rows [N, H, C]`` with strides."""
    values, features, seed = problem.values, problem.features, problem.seed
    if features is not None:
        rows = {**rows, "features": features}
    rows = {name: with_dense_channels(x) for name, x in rows.items()}
    strides, align = aligned_strides(rows)
    _, heads, channels = rows["query"].shape
    return {
        "features": None, "features_row": 0, "features_head": 0, **rows, **strides,
        **dropout_arguments(problem.dropout_p), "seed": seed, "scale": float(problem.scale),
        "values": None if values is None else materialized(values).contiguous(), "H": heads,
        "C": channels, "D": tiles.width, "HB": tiles.heads, "ALIGN": align,
        # whether a kernel reads the caller's numbers of edges
        "NUMBERED": any(x is not None for x in (features, values, seed)),
    }  # fmt: skip
