"""What may be added to attention scores, and hence what may be masked.

A bias is a frozen value object; the additive ones are defined by ``materialize``. Pairs are flat:
graph by graph, within a graph row-major by (query, key) in the caller's node order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ..layout.deferred import DeferredEdges
from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout
from .pairs import num_pairs, pair_of_edge, pair_ptr

# 'Any' stands for a SparseTensor, whose package is optional
EdgeSet = Tensor | EdgeLayout | DeferredEdges | Any


@dataclass(frozen=True, eq=False)
class PairBias:
    """A score added to every pair: ``values [P, H]`` (pair bias of Jumper et al. 2021)."""

    values: Tensor

    def pair_values(self, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
        """``[P, H]``."""
        return self.values

    def materialize(self, layout: GraphLayout, query_layout: GraphLayout | None = None) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no pair."""
        return _to_dense(self, layout, query_layout, 0.0)


@dataclass(frozen=True, eq=False)
class TableBias:
    """A learned table read at an integer map (shortest-path buckets of Ying et al. 2021).

    ``table [K, H]``, ``index [P]`` (uint8, int16, int32 or int64) with values in ``[0, K)``.
    """

    table: Tensor
    index: Tensor

    def pair_values(self, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
        """``[P, H]``."""
        return self.table.index_select(0, self.index.long())

    def materialize(self, layout: GraphLayout, query_layout: GraphLayout | None = None) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no pair."""
        return _to_dense(self, layout, query_layout, 0.0)


@dataclass(frozen=True, eq=False)
class EdgeBias:
    """A score added on edges, nothing elsewhere: ``values [E, H]``; repeated edges add up.

    ``edges`` is an ``edge_index [2, E]`` (source = key, target = query) or an ``EdgeLayout``.
    """

    edges: EdgeSet
    values: Tensor

    def pair_values(self, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
        """``[P, H]``."""
        edges = _edge_layout(self.edges, query_layout, layout)
        pairs = pair_of_edge(edges, query_layout, layout)
        size = num_pairs(query_layout, layout)
        values: Tensor = scatter(self.values, pairs, dim=0, dim_size=size, reduce="sum")
        return values

    def materialize(self, layout: GraphLayout, query_layout: GraphLayout | None = None) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no edge."""
        return _to_dense(self, layout, query_layout, 0.0)


@dataclass(frozen=True, eq=False)
class EdgeMask:
    """Only these pairs attend.

    ``values [E, H]`` is added to their scores, ``features [E, H, C]`` to their keys and values
    (the edge features of PyG's ``TransformerConv``). ``edges`` is an ``edge_index [2, E]``
    (source = key, target = query) or an ``EdgeLayout``. A repeated edge counts as often as it
    stands.
    """

    edges: EdgeSet
    values: Tensor | None = None
    features: Tensor | None = None

    def pair_values(self, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
        """``[P, H]`` (or ``[P, 1]`` without values), minus infinity where no edge is.

        Repeated edges become the logarithm of the sum of their exponentials, which gives the
        same attention as counting each of them.
        """
        edges = _edge_layout(self.edges, query_layout, layout)
        if self.features is not None:
            raise ValueError("an 'EdgeMask' with 'features' is no function of the pair alone")
        values = self.values
        if values is None:
            values = torch.zeros(edges.num_edges, 1, device=edges.device)
        pairs = pair_of_edge(edges, query_layout, layout)
        return segment_logsumexp(values, pairs, num_pairs(query_layout, layout))

    def materialize(self, layout: GraphLayout, query_layout: GraphLayout | None = None) -> Tensor:
        """``[B, H or 1, Mq, Mk]``, minus infinity where no edge is. Only without ``features``."""
        return _to_dense(self, layout, query_layout, float("-inf"))


@dataclass(frozen=True, eq=False)
class ScoreMod:
    """FlexAttention's ``score_mod`` on graphs.

    ``fn(score, graph, head, query_node, key_node)`` gives the new score; all are scalars for the
    function (it is vectorised), the nodes numbered as in the batch. Tensors that it captures may
    require gradients.
    """

    fn: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

    def apply(self, scores: Tensor, graph: Tensor, query_node: Tensor, key_node: Tensor) -> Tensor:
        """New ``scores [..., H]``; graph and nodes have (or broadcast to) the shape ``[...]``."""
        if scores.numel() == 0:  # vmap over nothing reads out of range
            return scores
        head = torch.arange(scores.size(-1), device=scores.device).expand(scores.shape)
        wide = [x.unsqueeze(-1).expand(scores.shape) for x in (graph, query_node, key_node)]
        graph, query_node, key_node = (x.flatten() for x in wide)
        self.check()
        flat = torch.vmap(self._one)(scores.flatten(), graph, head.flatten(), query_node, key_node)
        return flat.view(scores.shape)

    def check(self) -> None:
        """Raises ``ValueError`` unless ``fn`` can be called with five arguments."""
        if not callable(self.fn):
            raise ValueError(f"'ScoreMod.fn' must be callable (got '{type(self.fn).__name__}')")
        fn = self.fn.forward if isinstance(self.fn, torch.nn.Module) else self.fn
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):  # of compiled code nothing is known
            return
        try:
            signature.bind(*"shqkg")
        except TypeError as error:
            raise ValueError(
                f"'ScoreMod.fn' must take five arguments (score, graph, head, query_node, "
                f"key_node); got one that takes {signature}: {error}"
            ) from None

    def _one(self, score: Tensor, *where: Tensor) -> Tensor:
        new = self.fn(score, *where)
        if isinstance(new, Tensor) and new.dim() == 0 and new.is_floating_point():
            return new
        got = f"'{type(new).__name__}'"
        if isinstance(new, Tensor):
            got = f"{list(new.shape)} of {new.dtype}"
        raise ValueError(
            f"'ScoreMod.fn' must give back a new score, a floating-point tensor of shape [] (got "
            f"{got}); to forbid a pair, 'torch.where(allowed, score, -torch.inf)'"
        )


AdditiveBias = PairBias | TableBias | EdgeBias
AttentionBias = PairBias | TableBias | EdgeBias | EdgeMask | ScoreMod


def checked_edges_of(bias: EdgeBias | EdgeMask) -> EdgeLayout | DeferredEdges:
    """The edges of a bias that has passed the door of ``attention``."""
    assert isinstance(bias.edges, (EdgeLayout, DeferredEdges))
    return bias.edges


def segment_logsumexp(values: Tensor, index: Tensor, size: int) -> Tensor:
    """``[E, H] -> [size, H]``; minus infinity where nothing stands."""
    top = scatter(values.detach(), index, 0, size, reduce="max")
    seen = torch.zeros(size, dtype=torch.bool, device=index.device).index_fill_(0, index, True)
    top = torch.where(torch.isfinite(top) & seen.unsqueeze(1), top, 0.0)
    total = scatter((values - top[index]).exp(), index, 0, size, reduce="sum")
    found = total > 0
    # log(0) has an infinite slope: take the logarithm of something harmless instead
    return torch.where(found, torch.where(found, total, 1.0).log() + top, float("-inf"))


def _edge_layout(edges: EdgeSet, query_layout: GraphLayout, layout: GraphLayout) -> EdgeLayout:
    made = EdgeLayout.of(edges, layout.num_nodes, query_layout.num_nodes)
    if not isinstance(made, EdgeLayout):
        raise NotImplementedError("a bias on edges cannot be materialized while it is traced")
    made.check_within_graphs(query_layout, layout)
    return made


def _to_dense(
    bias: PairBias | TableBias | EdgeBias | EdgeMask,
    layout: GraphLayout,
    query_layout: GraphLayout | None,
    fill: float,
) -> Tensor:
    query_layout = layout if query_layout is None else query_layout
    for name, given in (("layout", layout), ("query_layout", query_layout)):
        if not isinstance(given, GraphLayout):
            raise ValueError(f"'{name}' must be a 'GraphLayout' (got {given!r})")
    flat = bias.pair_values(query_layout, layout)  # [P, H]
    if flat.size(0) != num_pairs(query_layout, layout):
        raise ValueError(
            f"a '{type(bias).__name__}' of {flat.size(0)} pairs does not fit a layout that has "
            f"{num_pairs(query_layout, layout)}"
        )
    ptr = pair_ptr(query_layout, layout)
    graph = torch.repeat_interleave(ptr.diff())
    local = torch.arange(flat.size(0), device=flat.device) - ptr[graph]
    width = layout.ptr.diff()[graph]
    shape = (layout.num_graphs, query_layout.max_nodes, layout.max_nodes, flat.size(1))
    where = (graph, local // width, local % width)
    return flat.new_full(shape, fill).index_put(where, flat).permute(0, 3, 1, 2)
