"""Pairs of nodes of one component, and the graph that they form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout


class ComponentPairs(NamedTuple):
    """The ``P`` ordered pairs (query ``i``, key ``j``), by queries.

    Attributes:
        columns: ``[N, M]``, the keys of each query; where its component has fewer than ``M``
            nodes, its last one again.
        slots: ``[P]``, where each pair stands in ``[N * M]``.
        query: ``[P]``.
        edge_index: ``[2, Q]``: from pair ``(u, j)`` to pair ``(i, j)`` for each edge from ``u`` to
            ``i``.
    """

    columns: Tensor
    slots: Tensor
    query: Tensor
    edge_index: Tensor


def component_pairs(edges: EdgeLayout | DeferredEdges) -> ComponentPairs:
    """The pairs, made once for an edge set; in traced code by an op, since P and Q are data."""
    if isinstance(edges, EdgeLayout):
        return edges.cached(
            "component_pairs", lambda: ComponentPairs(*_make(edges.edge_index, edges.num_src))
        )
    return ComponentPairs(*_make_op(edges.edge_index, edges.num_src))


def _make(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    N = num_nodes
    layout = GraphLayout.from_batch(_components(edge_index, N)).to(edge_index.device)
    M, P = max(layout.max_nodes, 2), layout.num_pairs  # the compiler's matrix product asks for 2
    nodes = torch.arange(N, device=layout.device)
    size = layout.ptr.diff()[layout.batch]  # [N]
    start = layout.ptr[layout.batch]  # [N]

    place = torch.arange(M, device=layout.device).minimum(size.unsqueeze(-1) - 1)  # [N, M]
    columns = (nodes if layout.order is None else layout.order)[start.unsqueeze(-1) + place]

    first = size.cumsum(0) - size  # [N], of each query's pairs
    query = nodes.repeat_interleave(size, output_size=P)
    slots = query * M + torch.arange(P, device=layout.device) - first[query]

    copies = size[edge_index[0]]  # [E]
    edge = torch.arange(copies.numel(), device=layout.device).repeat_interleave(copies)  # [Q]
    key = torch.arange(edge.numel(), device=layout.device) - (copies.cumsum(0) - copies)[edge]
    return columns, slots, query, first[edge_index][:, edge] + key


def _components(edge_index: Tensor, num_nodes: int) -> Tensor:
    """``[N]`` on the host: the component of each node, whatever the direction of edges."""
    if num_nodes == 0:
        return torch.empty(0, dtype=torch.int64)
    row, col = edge_index.cpu().numpy()
    adjacency = coo_array((np.ones(row.size), (row, col)), shape=(num_nodes, num_nodes))
    _, label = connected_components(adjacency, directed=False)
    return torch.from_numpy(label).long()


_make_op = torch.library.custom_op(
    "pyg_gt::component_pairs", _make, mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,)
)


@_make_op.register_fake
def _(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    M, P, Q = (torch.library.get_ctx().new_dynamic_size(min=n) for n in (2, 0, 0))
    return (
        edge_index.new_empty(num_nodes, M),
        edge_index.new_empty(P),
        edge_index.new_empty(P),
        edge_index.new_empty(2, Q),
    )
