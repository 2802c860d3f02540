"""Rows of ``edge_attr`` along the paths of a batch, computed once for all layers."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor

from ...layout.comparison import same_numbers
from ...layout.deferred import DeferredLayout
from ...layout.edge_layout import EdgeLayout, edges_of
from ...layout.graph_layout import GraphLayout, layout_of
from ...layout.tensor_cache import IdentityCache
from ...layout.values import check_not_mapped, is_readable
from ...ops.pairs import pair_ptr

# The paths, to compare with, and their rows. Finding rows takes a third of a training step of
# EdgePathBias and attention (15 of 46 ms; 128 graphs of 25 nodes, L = 5), comparing 0.05 ms.
_BY_PATH: IdentityCache[tuple[Tensor, Tensor]] = IdentityCache()

_LIBRARY = torch.library.Library("pyg_gt", "FRAGMENT")
_LIBRARY.define(
    "path_rows(Tensor path, Tensor edge_index, Tensor? batch, SymInt num_graphs) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe),
)


def path_rows(path: Tensor, edge_index: Any, num_edges: int, batch: Any) -> Tensor:
    """``[L, P]`` int32: one more than the row of each edge of a path; 0 where there is none.

    ``path [P, L]`` counts the edges of each graph from 0, since PyG's batching renumbers nodes
    only. In traced code an op finds the rows when it runs.
    """
    index = edge_index.edge_index if isinstance(edge_index, EdgeLayout) else edge_index
    if not isinstance(index, Tensor) or index.layout != torch.strided or index.dim() != 2:
        raise ValueError(
            f"'edge_index' must be a tensor of shape [2, E] (got '{type(index).__name__}'); a "
            f"sparse adjacency has its edges in another order than the paths"
        )
    if index.size(1) != num_edges:
        raise ValueError(
            f"'edge_attr' has {num_edges} rows, but 'edge_index' has {index.size(1)} edges"
        )
    known = isinstance(batch, (GraphLayout, DeferredLayout))
    vector, num_graphs = (batch.batch, batch.num_graphs) if known else (batch, -1)
    if all(is_readable(x) for x in (path, index, vector) if isinstance(x, Tensor)):
        return _cached_rows(path, edge_index, batch)
    rows: Tensor = torch.ops.pyg_gt.path_rows(path, index, vector, num_graphs)
    return rows


def _cached_rows(
    path: Tensor,
    edge_index: Any,
    batch: Any,
    num_graphs: int | None = None,
    by_value: bool = False,
) -> Tensor:
    check_not_mapped("pair_distance_edges", path, "the rows of each path, which are found once")
    num_pairs = path.size(0)
    num_nodes = math.isqrt(num_pairs)  # of one graph
    if isinstance(batch, (GraphLayout, DeferredLayout)):
        num_nodes = batch.num_nodes
    elif isinstance(batch, Tensor):
        num_nodes = batch.numel()
    layout = GraphLayout.of(batch, num_nodes, num_graphs, device=path.device)
    if by_value and isinstance(batch, Tensor):
        layout = layout_of(batch, num_graphs, by_value=True)
    assert isinstance(layout, GraphLayout)
    if layout.num_pairs != num_pairs:
        raise ValueError(
            f"'pair_distance_edges' describes {num_pairs} pairs, but the graphs have "
            f"{layout.num_pairs}: the sum of their nodes squared"
            + ("; without 'batch' there is one graph" if batch is None else "")
        )
    edges = EdgeLayout.of(edge_index, num_nodes)
    if by_value and isinstance(edge_index, Tensor):
        edges = edges_of(edge_index, num_nodes, num_nodes, by_value=True)
    assert isinstance(edges, EdgeLayout)
    kind = weakref.ref(edges), weakref.ref(layout)
    entry = _BY_PATH.get(path, kind, lambda known: same_numbers(known[0], path), by_value=by_value)
    if entry is None:
        with torch.inference_mode(False):
            copy = path.detach().clone()
        entry = copy, _compute_rows(copy, edges, layout)
        _BY_PATH.put(path, entry, kind)
    return entry[1]


@torch.inference_mode(False)
def _compute_rows(path: Tensor, edges: EdgeLayout, layout: GraphLayout) -> Tensor:
    edges.check_within_graphs(layout, layout)
    graph = layout.batch[edges.ends[0]]  # [E]
    count = torch.zeros_like(layout.ptr[1:]).index_add_(0, graph, torch.ones_like(graph))
    first = count.cumsum(0) - count
    # edges added to a whole batch stand behind all others: each graph's own keep their places
    row = torch.cat([graph.new_zeros(1), graph.argsort(stable=True) + 1]).int()  # [E + 1]
    sizes = layout.ptr.diff()
    of_pair = torch.repeat_interleave(sizes * sizes, output_size=layout.num_pairs)  # [P]
    start, end = first[of_pair], count[of_pair]
    rows = row.new_empty(path.size(1), path.size(0))
    for place, edge in enumerate(path.unbind(1)):
        _check_range((edge < -1) | (edge >= end), edge, end, of_pair)
        rows[place] = row[torch.where(edge >= 0, edge + start + 1, 0)]
    _check_begin(rows[0], edges, layout, of_pair)
    return rows


def _check_range(wrong: Tensor, edge: Tensor, end: Tensor, of_pair: Tensor) -> None:
    if wrong.is_cuda:  # no sync: the device reports it
        torch._assert_async(~wrong.any(), "a path names an edge that its graph does not have")
    elif bool(wrong.any()):
        pair = int(wrong.nonzero()[0])
        raise IndexError(
            f"Found edge {int(edge[pair])} in 'pair_distance_edges' of pair {pair}, but its graph "
            f"({int(of_pair[pair])}) has {int(end[pair])} edges: numbers must lie in [0, "
            f"{int(end[pair])}), or be -1 where the path has ended"
        )


def _check_begin(rows: Tensor, edges: EdgeLayout, layout: GraphLayout, of_pair: Tensor) -> None:
    """Raises ``ValueError`` if a path begins elsewhere than at its query; reads the device once.

    Edges that were sorted, dropped or joined after the paths were made would give wrong numbers
    without a word.
    """
    place = torch.arange(of_pair.numel(), device=rows.device) - pair_ptr(layout, layout)[of_pair]
    query = layout.ptr[of_pair] + place // layout.ptr.diff()[of_pair]
    if layout.order is not None:
        query = layout.order[query]
    ends = torch.cat([edges.ends.new_full((2, 1), -1), edges.ends], 1)
    ends = ends.index_select(1, rows)
    wrong = (rows > 0) & (ends != query).all(0)
    if bool(wrong.any()):
        pair = int(wrong.nonzero()[0])
        raise ValueError(
            f"the path of pair {pair} begins with edge {int(rows[pair]) - 1}, which joins nodes "
            f"{int(ends[0, pair])} and {int(ends[1, pair])}, not its query {int(query[pair])}: "
            f"'pair_distance_edges' was made of other edges, or of these in another order; run "
            f"'AddShortestPathDistance' after whatever changes 'edge_index'"
        )


@torch.library.impl(_LIBRARY, "path_rows", "CompositeExplicitAutograd")
def _path_rows(path: Tensor, edge_index: Tensor, batch: Tensor | None, num_graphs: int) -> Tensor:
    # what an op returns may be overwritten by compiled code, so the cached rows are not returned
    known = None if num_graphs < 0 else num_graphs
    return _cached_rows(path, edge_index, batch, known, by_value=True).clone()


@torch.library.register_fake("pyg_gt::path_rows", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _path_rows_fake(path: Tensor, *rest: object) -> Tensor:
    return path.new_empty((path.size(1), path.size(0)), dtype=torch.int32)
