"""Range checks that also hold inside ``torch.compile``.

Traced code cannot read an index, so there an op checks when it runs and hands back a copy: nothing
behind it sees an unchecked index. On a CPU eager code checks the index of a table in each call;
on an accelerator once for each version of a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout.deferred import DeferredEdges, DeferredLayout
from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout
from ..layout.tensor_cache import IdentityCache
from ..layout.values import check_not_mapped, is_readable, out_of_range
from .torch_library import LIBRARY, TAGS
from .traced_layouts import resolved_edges, resolved_layouts

_CHECKED_TABLES: IdentityCache[bool] = IdentityCache()


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
    if index.dtype == torch.uint8 and size >= 256:
        return
    if (wrong := out_of_range(index, size, "table")) is not None:
        raise IndexError(
            f"Found table index {wrong}, but the table has {size} rows: indices must lie in "
            f"[0, {size})"
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
    edges = resolved_edges(edge_index, num_src, num_dst)
    edges.check_within_graphs(
        *resolved_layouts(
            DeferredLayout(query_batch, num_dst, query_graphs),
            DeferredLayout(batch, num_src, graphs),
            edge_index.device,
        )
    )
    return edges.ends.to(torch.int64, copy=True)


@torch.library.register_fake("pyg_gt::checked_edges", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _checked_edges_fake(edge_index: Tensor, *rest: object) -> Tensor:
    return edge_index.new_empty(edge_index.shape, dtype=torch.int64)
