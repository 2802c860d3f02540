"""Attention along edges by Triton: the kernels' launches, below autograd and ops.

Nothing of the size ``[E, H]`` is made, let alone ``[E, H, C]``: the backward pass computes the
weights anew, once query by query and once key by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .....layout.edge_layout import EdgeLayout
from ....dropout import threshold
from ....memory import aligned_strides, empty_like, in_memory, with_dense_channels
from ..again import Again, Known, key_of
from ..launch import Arguments, Call, likeness, number_kind
from .programs import EdgePrograms, programs_by_source, programs_by_target
from .tiles import EdgeTiles, edge_tiles

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


# names of what the kernels read of a call, and of what they write
_READ = "query", "key", "value", "values", "features", "seed"
_FORWARD = *_READ, "out", "stats"
_BACKWARD = (
    *_READ, "grad", "out", "stats", "query_grad", "key_grad", "value_grad", "values_grad",
    "features_grad", "deltas",
)  # fmt: skip


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``[Nq, H, C]``, and ``[Nq, H, 2]`` by which the backward finds the weights again."""
    edges, values, features, seed, scale, p = problem
    out = empty_like(query)
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    reads = query, key, value, values, features, seed
    tensors = *reads, out, stats
    kind = key_of("forward", scale, p, reads=reads)
    known: Known = edges.cached("triton calls", Known)
    if not known.done(kind, tensors, query):
        programs, tiles = programs_by_target(edges), _tiles(problem, query)
        call, as_given = _call("forward", problem, tiles, programs.lists, _FORWARD, tensors)
        made = _launch_forward(programs, tiles, call.arguments(), out, stats)
        if as_given:
            known.keep(kind, made, tensors)
    return out, stats


def _launch_forward(
    programs: EdgePrograms, tiles: EdgeTiles, arguments: Arguments, out: Tensor, stats: Tensor
) -> Again | None:
    from .forward import combine_weighted, edge_forward

    _launch_light(edge_forward, programs, tiles, arguments)
    count = programs.parts.size(0)
    if count:
        parts, part_stats = (
            x.new_empty((count, *x.shape[1:]), dtype=torch.float32) for x in (out, stats)
        )
        _launch_parts(edge_forward, programs, tiles, arguments, out=parts, stats=part_stats)
        to = {"parts": parts, "part_stats": part_stats, "out": out, "stats": stats}
        _combine(combine_weighted, programs, tiles, arguments, to)
    again = arguments.end()
    return None if count else again  # parts lie elsewhere in every call


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
    edges, values, features, seed, scale, p = problem
    leaves = query, key, value, values, features
    made = [
        empty_like(x) if need and x is not None else None
        for x, need in zip(leaves, needs, strict=True)
    ]
    deltas = query.new_empty(query.shape[:2], dtype=torch.float32)
    grad = grad if grad.dtype == query.dtype else grad.to(query.dtype)
    reads = *leaves, seed, grad, out, stats
    tensors = *reads, *made, deltas
    kind = key_of("backward", scale, p, *needs, reads=reads)
    known: Known = edges.cached("triton calls", Known)
    if not known.done(kind, tensors, query):
        tiles = _tiles(problem, query)
        call, as_given = _call("backward", problem, tiles, {}, _BACKWARD, tensors)
        launched = _launch_backward(problem, tiles, call.arguments(), call.varying)
        if as_given:
            known.keep(kind, launched, tensors)
    return made


def _launch_backward(
    problem: Problem, tiles: EdgeTiles, arguments: Arguments, given: Mapping[str, Any]
) -> Again | None:
    from .backward import edge_backward_keys, edge_backward_queries

    heavy = 0
    needs = {name for name in _BACKWARD if name.endswith("_grad") and given[name] is not None}
    if needs - {"value_grad"}:
        programs = programs_by_target(problem.edges)
        heavy += programs.heavy.size(0)
        rows = {"query_grad": given["query_grad"]}
        _launch_rows(edge_backward_queries, programs, tiles, arguments, rows)
    if needs & {"key_grad", "value_grad"}:
        programs = programs_by_source(problem.edges)
        heavy += programs.heavy.size(0)
        rows = {name: given[name] for name in ("key_grad", "value_grad")}
        _launch_rows(edge_backward_keys, programs, tiles, arguments, rows)
    again = arguments.end()
    return None if heavy else again


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
    from .forward import combine_sums

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
    own = {**tensors, "programs": table, "count": table.size(0), "BE": _PARTS}
    grid = table.size(0) * _quotient(given["H"], given["HB"])
    given.launch(kernel, grid, own, num_warps=tiles.warps)


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


def _call(
    of: str,
    problem: Problem,
    tiles: EdgeTiles,
    lists: Mapping[str, Tensor],
    names: Sequence[str],
    tensors: Sequence[Tensor | None],
) -> tuple[Call, bool]:
    """All that kernels are given by name, and whether they read the tensors as they came.

    Args:
        of: name of the kind of call.
        problem: the attention.
        tiles: how it is cut.
        lists: the edges, where all kernels go through the same.
        names: of the tensors.
        tensors: what kernels read and write.
    """
    given = dict(zip(names, tensors, strict=True))
    for name in ("query", "key", "value", "features", "grad"):
        if (x := given.get(name)) is not None:
            given[name] = with_dense_channels(x)
    if (values := given["values"]) is not None:
        given["values"] = in_memory(values).contiguous()
    as_given = all(x is given[name] for name, x in zip(names, tensors, strict=True))
    p, query = problem.dropout_p, given["query"]
    assert query is not None
    smallest = threshold(p) - 2**31
    numbers = {
        "scale": float(problem.scale), "threshold": smallest,
        "factor": 0.0 if p >= 1 else 1 / (1 - p),
    }  # fmt: skip

    def fixed() -> dict[str, Any]:
        rows = {name: given.get(name) for name in ("query", "key", "value", "features", "grad")}
        strides, align = aligned_strides({k: x for k, x in rows.items() if x is not None})
        return {
            "features_row": 0, "features_head": 0, **strides,
            "H": query.size(1), "C": query.size(2), "D": tiles.width, "HB": tiles.heads,
            "ALIGN": align,
            "NUMBERED": any(given[name] is not None for name in ("features", "values", "seed")),
        }  # fmt: skip

    key = (
        "edges", of, number_kind(smallest), *map(likeness, given.values()),
        *map(likeness, lists.values()),
    )  # fmt: skip
    return Call(key, {**given, **lists, **numbers}, names, fixed, query), as_given
