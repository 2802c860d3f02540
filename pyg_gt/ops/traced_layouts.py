"""Layouts inside of ops: what stands in for them in traced code, and what it stands for.

An op takes tensors and numbers alone. Traced code hands it ``batch`` and ``edge_index``; the op
finds their layouts by their numbers when it runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layout.checks import check_num_nodes
from ..layout.deferred import DeferredLayout
from ..layout.edge_layout import EdgeLayout, edges_of
from ..layout.graph_layout import GraphLayout, layout_of
from ..layout.values import is_readable, is_traced

NOT_IN_A_TRACE = (
    "the numbers of nodes by which it checks edges would be constants in a 'torch.jit.trace'; use "
    "'torch.export.export', which keeps them open"
)

# in place of the number of graphs: the queries' layout is the keys'
SHARED_LAYOUT = -2


def layout_arguments(
    query_layout: GraphLayout | DeferredLayout, layout: GraphLayout | DeferredLayout
) -> tuple[Tensor | None, int, Tensor | None, int]:
    """``batch`` and the number of graphs of the queries and of the keys."""
    if query_layout is layout:
        return None, SHARED_LAYOUT, layout.batch, layout.num_graphs
    return query_layout.batch, query_layout.num_graphs, layout.batch, layout.num_graphs


def layouts_of(
    query: Tensor,
    key: Tensor,
    query_batch: Tensor | None,
    query_graphs: int,
    batch: Tensor | None,
    graphs: int,
) -> tuple[GraphLayout, GraphLayout]:
    """What :func:`layout_arguments` were made of; for code that runs, not traced.

    Raises:
        ValueError: if one layout stands for both, but there are other queries than keys.
    """
    key_side = query_side = DeferredLayout(batch, key.size(0), graphs)
    if query_graphs != SHARED_LAYOUT:
        query_side = DeferredLayout(query_batch, query.size(0), query_graphs)
    elif query.size(0) != key.size(0):
        raise ValueError(f"there are {query.size(0)} queries, but their layout is the keys'")
    return resolved_layouts(query_side, key_side, query.device)


def needs_no_node(*tensors: Tensor | None) -> bool:
    """Whether a ``torch.jit.trace`` need not record who makes gradients, and can be saved."""
    if not is_traced():
        return False
    grad = torch.is_grad_enabled()
    return not grad or not any(x is not None and x.requires_grad for x in tensors)


def as_separate_tensors(*tensors: Tensor | None) -> list[Any]:
    """The same tensors as separate objects, which traced ``autograd.Function``s insist on."""
    if not torch.compiler.is_compiling():
        return list(tensors)
    result: list[Any] = []
    for tensor in tensors:
        seen = tensor is not None and any(tensor is other for other in result)
        result.append(tensor.view_as(tensor) if tensor is not None and seen else tensor)
    return result


def resolved_layout(
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


def resolved_edges(edges: Tensor, num_src: int, num_dst: int) -> EdgeLayout:
    """The layout of ``edges [2, E]``, found by its numbers; for code that runs, not traced."""
    layout = edges_of(edges, num_src, num_dst, by_value=True)
    if not isinstance(layout, EdgeLayout):
        raise NotImplementedError(
            "the ends of the edges are needed, and tensors without values (meta, fake) do not "
            "tell them"
        )
    return layout


def resolved_layouts(
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
    queries = resolved_layout(query_batch, query_layout.num_nodes, graphs[0], device)
    if query_batch is batch and query_layout.num_nodes == layout.num_nodes:
        return queries, queries
    keys = resolved_layout(batch, layout.num_nodes, graphs[1], device)
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
