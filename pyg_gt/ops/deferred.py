"""Range checks that also hold inside ``torch.compile``.

Traced code cannot read an index, so there an op checks when it runs and hands back a copy: nothing
behind it sees an unchecked index. On a CPU eager code checks the index of a table in each call;
on an accelerator once for each version of a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout.checks import check_num_nodes
from ..layout.deferred import DeferredEdges, DeferredLayout
from ..layout.edge_layout import EdgeLayout, edges_of
from ..layout.graph_layout import GraphLayout, layout_of
from ..layout.identity import IdentityCache
from ..layout.values import check_not_mapped, in_numpy, is_readable

LIBRARY = torch.library.Library("pyg_gt", "DEF")
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)

_CHECKED_TABLES: IdentityCache[bool] = IdentityCache()


def found(
    batch: Tensor | None, num_nodes: int, num_graphs: int, device: torch.device
) -> GraphLayout:
    """The layout that a :class:`DeferredLayout` stands for; for code that runs, not traced.

    Found by its numbers: compiled code hands an op the same tensor object with others.
    """
    known = None if num_graphs < 0 else num_graphs
    layout = GraphLayout.of(None, num_nodes, known, device) if batch is None else None
    if batch is not None and is_readable(batch):
        check_num_nodes(batch.numel(), num_nodes, "batch")
        layout = layout_of(batch, known, by_value=True)
    if not isinstance(layout, GraphLayout):
        raise NotImplementedError(
            "the sizes of the graphs are needed, and tensors without values (meta, fake) do not "
            "tell them"
        )
    return layout


def found_edges(edges: Tensor, num_src: int, num_dst: int) -> EdgeLayout:
    """The layout of ``edges [2, E]``, found by its numbers; for code that runs, not traced."""
    layout = edges_of(edges, num_src, num_dst, by_value=True)
    if not isinstance(layout, EdgeLayout):
        raise NotImplementedError(
            "the ends of the edges are needed, and tensors without values (meta, fake) do not "
            "tell them"
        )
    return layout


def resolved(
    query_layout: GraphLayout | DeferredLayout,
    layout: GraphLayout | DeferredLayout,
    device: torch.device,
) -> tuple[GraphLayout, GraphLayout]:
    """Both layouts, with as many graphs each; for code that runs, not traced."""
    if isinstance(query_layout, GraphLayout) and isinstance(layout, GraphLayout):
        if query_layout.num_graphs == layout.num_graphs:
            return query_layout, layout
    query_batch, batch = query_layout.batch, layout.batch
    graphs = query_layout.num_graphs, layout.num_graphs
    queries = found(query_batch, query_layout.num_nodes, graphs[0], device)
    if query_batch is batch and query_layout.num_nodes == layout.num_nodes:
        return queries, queries
    keys = found(batch, layout.num_nodes, graphs[1], device)
    # a batch vector does not show trailing empty graphs
    most = max(queries.num_graphs, keys.num_graphs)
    if any(0 <= known < most for known in graphs):
        raise ValueError(
            f"'query_layout' has {queries.num_graphs} graphs and 'layout' {keys.num_graphs}; give "
            f"both the same number ('num_graphs=' counts empty ones)"
        )
    return _with_graphs(queries, most), _with_graphs(keys, most)


def _with_graphs(layout: GraphLayout, num_graphs: int) -> GraphLayout:
    if layout.num_graphs == num_graphs:
        return layout
    return layout.cached(
        ("graphs", num_graphs), lambda: GraphLayout.from_batch(layout.batch, num_graphs)
    )


def checked_table_index(index: Tensor, size: int) -> Tensor:
    """``index [P]``, known to lie in ``[0, size)``.

    Raises:
        ValueError: if it is not a vector of uint8, int16, int32 or int64.
        IndexError: if a value is out of range.
    """
    if not isinstance(index, Tensor):
        raise ValueError(f"'TableBias.index' must be a tensor (got '{type(index).__name__}')")
    if index.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64) or index.dim() != 1:
        raise ValueError(
            f"'TableBias.index' must be a vector of uint8, int16, int32 or int64 (got shape "
            f"{list(index.shape)}, {index.dtype})"
        )
    if not is_readable(index):
        copy: Tensor = torch.ops.pyg_gt.checked_table_index(index, size)
        return copy
    check_not_mapped("TableBias.index", index, "the rows of pairs, which are checked on the host")
    if index.is_cpu:  # whose memory numpy, '.data' and other processes may write to unseen
        _check_table_index(index, size)
    elif _CHECKED_TABLES.get(index, size, lambda _: False) is None:
        _check_table_index(index, size)
        _CHECKED_TABLES.put(index, True, size)
    return index


def _check_table_index(index: Tensor, size: int) -> None:
    # 8 bits cannot name a row beyond such a table
    if index.numel() == 0 or (index.dtype == torch.uint8 and size >= 256):
        return
    if index.is_cuda:
        low, high = index.aminmax()
        torch._assert_async((low >= 0) & (high < size), "a table index is out of range")
        return
    numbers = in_numpy(index)
    first, last = int(numbers.min()), int(numbers.max())
    if first < 0 or last >= size:
        raise IndexError(
            f"Found table index {first if first < 0 else last}, but the table has {size} rows: "
            f"indices must lie in [0, {size})"
        )


LIBRARY.define("checked_table_index(Tensor index, SymInt size) -> Tensor", tags=TAGS)


@torch.library.impl(LIBRARY, "checked_table_index", "CompositeExplicitAutograd")
def _checked_table_index(index: Tensor, size: int) -> Tensor:
    _check_table_index(index, size)
    return index.clone()


@torch.library.register_fake("pyg_gt::checked_table_index", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _checked_table_index_fake(index: Tensor, size: int) -> Tensor:
    return torch.empty_like(index)


def checked_edges(
    edges: EdgeLayout | DeferredEdges,
    query_layout: GraphLayout | DeferredLayout,
    layout: GraphLayout | DeferredLayout,
) -> Tensor:
    """``edge_index [2, E]``, known to lie in range and inside graphs."""
    if isinstance(edges, EdgeLayout):
        return edges.edge_index
    index: Tensor = torch.ops.pyg_gt.checked_edges(
        edges.edge_index,
        edges.num_src,
        edges.num_dst,
        query_layout.batch,
        query_layout.num_graphs,
        layout.batch,
        layout.num_graphs,
    )
    return index


LIBRARY.define(
    "checked_edges(Tensor edge_index, SymInt num_src, SymInt num_dst, Tensor? query_batch, "
    "SymInt query_graphs, Tensor? batch, SymInt graphs) -> Tensor",
    tags=TAGS,
)


@torch.library.impl(LIBRARY, "checked_edges", "CompositeExplicitAutograd")
def _checked_edges(
    edge_index: Tensor,
    num_src: int,
    num_dst: int,
    query_batch: Tensor | None,
    query_graphs: int,
    batch: Tensor | None,
    graphs: int,
) -> Tensor:
    edges = found_edges(edge_index, num_src, num_dst)
    edges.check_within_graphs(
        *resolved(
            DeferredLayout(query_batch, num_dst, query_graphs),
            DeferredLayout(batch, num_src, graphs),
            edge_index.device,
        )
    )
    return edges.ends.to(torch.int64, copy=True)


@torch.library.register_fake("pyg_gt::checked_edges", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _checked_edges_fake(edge_index: Tensor, *rest: object) -> Tensor:
    return edge_index.new_empty(edge_index.shape, dtype=torch.int64)
