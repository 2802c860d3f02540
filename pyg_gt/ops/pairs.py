"""The arithmetic of flat pairs: graph by graph, within a graph row-major by (query, key)."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout


def num_pairs(query_layout: GraphLayout, layout: GraphLayout) -> int:
    """``P``: pairs of a query node and a key node of one graph."""

    def count() -> int:
        return sum(a * b for a, b in zip(query_layout.sizes, layout.sizes, strict=True))

    # a thousand graphs take as long to go through as a call on them
    if torch.compiler.is_compiling():
        return count()
    other = None if query_layout is layout else weakref.ref(layout)
    return query_layout.cached(("number of pairs", other), count)


def pair_ptr(query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
    """``[B + 1]``: where the pairs of each graph begin."""
    sizes = query_layout.ptr.diff() * layout.ptr.diff()
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def pair_of_edge(edges: EdgeLayout, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
    """``[E]``: the flat number of the pair that each edge joins."""
    source, target = edges.ends
    graph = query_layout.batch[target]
    start = pair_ptr(query_layout, layout)[graph]
    width = layout.ptr.diff()[graph]
    return start + query_layout.pos[target] * width + layout.pos[source]
