"""Biases of attention scores, masks among them, as frozen value objects.

The additive ones and the mask are defined by ``materialize``. Pairs are flat: graph by graph,
within a graph row-major by (query, key) in the caller's node order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ..layout.deferred import DeferredEdges, DeferredLayout
from ..layout.edge_layout import EdgeLayout
from ..layout.edge_union import EdgePart, union_of
from ..layout.graph_layout import GraphLayout
from .pairs import num_pairs, pair_of_edge, pair_ptr

# 'Any' stands for a SparseTensor, whose package is optional
EdgeSet = Tensor | EdgeLayout | DeferredEdges | Any


@dataclass(frozen=True, eq=False)
class PairBias:
    """A score added to every pair of nodes of a graph.

    The pair bias of `"Highly accurate protein structure prediction with AlphaFold"
    <https://doi.org/10.1038/s41586-021-03819-2>`_ (Jumper et al. 2021).

    Args:
        values (Tensor): ``[P, H]``, graph by graph, within a graph row-major by (query, key).
            Minus infinity forbids a pair.

    Example:
        >>> import torch
        >>> from pyg_gt import GraphLayout, PairBias, attention
        >>> layout = GraphLayout.from_sizes([3, 2])
        >>> bias = PairBias(torch.randn(layout.num_pairs, 4))
        >>> q, k, v = torch.randn(3, 5, 4, 8)
        >>> attention(q, k, v, layout, bias).shape
        torch.Size([5, 4, 8])
        >>> dense = torch.randn(2, 4, 3, 3)  # [B, H, M, M]
        >>> PairBias.from_dense(dense, layout).values.shape
        torch.Size([13, 4])
    """

    values: Tensor

    @classmethod
    def from_dense(
        cls,
        dense: Tensor,
        layout: GraphLayout | Tensor,
        query_layout: GraphLayout | Tensor | None = None,
    ) -> PairBias:
        """The bias of a dense batch, as :func:`~torch_geometric.utils.to_dense_batch` pads it.

        Args:
            dense (Tensor): ``[B, H, Mq, Mk]``; both may be larger than the largest graph. What
                lies outside of the graphs is not read, and has no gradient.
            layout (GraphLayout or Tensor): How the keys are split into graphs; or ``batch [Nk]``.
            query_layout (GraphLayout or Tensor, optional): How the queries are; None: as the
                keys. (default: :obj:`None`)

        In compiled code layouts have to be made before; a ``batch`` of fewer graphs than ``dense``
        has leaves the last ones empty.

        Raises:
            ValueError: For a wrong shape, type or device.
        """
        _check_dense(dense)
        query_layout, layout = _concrete_layouts(layout, query_layout, dense.size(0))
        want = (layout.num_graphs, query_layout.max_nodes, layout.max_nodes)
        got = (dense.size(0), dense.size(2), dense.size(3))
        if got[0] != want[0] or got[1] < want[1] or got[2] < want[2]:
            raise ValueError(
                f"'dense' must have shape [{want[0]}, H, Mq, Mk] with Mq >= {want[1]} queries and "
                f"Mk >= {want[2]} keys (got {list(dense.shape)}); pad smaller graphs, and bring "
                f"heads to the front of the pairs ('dense.permute(0, 3, 1, 2)')"
            )
        if dense.device != layout.device:
            raise ValueError(
                f"'dense' lies on '{dense.device}', but the layout on '{layout.device}'; move one "
                f"of them with '.to()'"
            )
        graph, query, key = _places_of_pairs(query_layout, layout)
        return cls(dense[graph, :, query, key])

    def to_dense(
        self, layout: GraphLayout | Tensor, query_layout: GraphLayout | Tensor | None = None
    ) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no pair: the inverse of :meth:`from_dense`."""
        return self.materialize(layout, query_layout)

    def pair_values(self, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
        """``[P, H]``."""
        return self.values

    def materialize(
        self, layout: GraphLayout | Tensor, query_layout: GraphLayout | Tensor | None = None
    ) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no pair."""
        return _to_dense(self, layout, query_layout, 0.0)


@dataclass(frozen=True, eq=False)
class TableBias:
    """A learned table read at an integer for each pair, such as the length of a shortest path.

    The spatial encoding of `"Do Transformers Really Perform Bad for Graph Representation?"
    <https://arxiv.org/abs/2106.05234>`_ (Ying et al. 2021).

    Args:
        table (Tensor): ``[K, H]``.
        index (Tensor): ``[P]`` (uint8, int16, int32 or int64) with values in ``[0, K)``.

    Example:
        >>> import torch
        >>> from pyg_gt import GraphLayout, TableBias, attention
        >>> layout = GraphLayout.from_sizes([3, 2])
        >>> table = torch.nn.Parameter(torch.zeros(6, 4))
        >>> bias = TableBias(table, torch.randint(6, (layout.num_pairs,)))
        >>> q, k, v = torch.randn(3, 5, 4, 8)
        >>> attention(q, k, v, layout, bias).shape
        torch.Size([5, 4, 8])
    """

    table: Tensor
    index: Tensor

    def pair_values(self, query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
        """``[P, H]``."""
        return self.table.index_select(0, self.index.long())

    def materialize(
        self, layout: GraphLayout | Tensor, query_layout: GraphLayout | Tensor | None = None
    ) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no pair."""
        return _to_dense(self, layout, query_layout, 0.0)


@dataclass(frozen=True, eq=False)
class EdgeBias:
    """A score added on edges, and nothing elsewhere; repeated edges add up.

    Args:
        edges (Tensor or EdgeLayout): ``edge_index [2, E]`` (source = key, target = query), or a
            layout of it.
        values (Tensor): ``[E, H]``.

    Example:
        >>> import torch
        >>> from pyg_gt import EdgeBias, GraphLayout, attention
        >>> edge_index = torch.tensor([[0, 1, 3], [1, 2, 4]])
        >>> q, k, v = torch.randn(3, 5, 4, 8)
        >>> bias = EdgeBias(edge_index, torch.randn(3, 4))
        >>> attention(q, k, v, GraphLayout.from_sizes([3, 2]), bias).shape
        torch.Size([5, 4, 8])
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

    def materialize(
        self, layout: GraphLayout | Tensor, query_layout: GraphLayout | Tensor | None = None
    ) -> Tensor:
        """``[B, H, Mq, Mk]``, zero where there is no edge."""
        return _to_dense(self, layout, query_layout, 0.0)


@dataclass(frozen=True, eq=False)
class EdgeMask:
    """Attention along edges alone: only the pairs that an edge joins attend.

    A repeated edge counts as often as it stands, as in PyG.

    Args:
        edges (Tensor or EdgeLayout): ``edge_index [2, E]`` (source = key, target = query), or a
            layout of it.
        values (Tensor, optional): ``[E, H]``, added to the scores of the edges.
            (default: :obj:`None`)
        features (Tensor, optional): ``[E, H, C]``, added to keys and values, as the edge features
            of PyG's ``TransformerConv``. (default: :obj:`None`)

    Example:
        >>> import torch
        >>> from pyg_gt import EdgeMask, GraphLayout, attention
        >>> edge_index = torch.tensor([[0, 1, 3], [1, 2, 4]])
        >>> q, k, v = torch.randn(3, 5, 4, 8)
        >>> out = attention(q, k, v, GraphLayout.from_sizes([3, 2]), EdgeMask(edge_index))
        >>> bool((out[[0, 3]] == 0).all())  # nothing to attend to
        True
    """

    edges: EdgeSet
    values: Tensor | None = None
    features: Tensor | None = None

    @classmethod
    def union(cls, *edge_sets: EdgeMask | EdgeSet, coalesce: bool = False) -> EdgeMask:
        """One mask of several edge sets: edges of the graph, of an expander, of virtual nodes.

        A node attends along every edge of every set, with the values and features that the edge
        has in its own; a set without them adds nothing, so it has zeros where another has some.
        An edge of two sets counts twice, unless ``coalesce``.

        Make it once for a batch: all layers that are given it find the same order of its edges.

        Args:
            *edge_sets (EdgeMask or Tensor or EdgeLayout): Masks, or edge sets in any form that a
                mask takes; all number the same nodes.
            coalesce (bool): Whether an edge that stands several times becomes one, which has the
                sum of its values and of its features, and the edges are sorted. Their number has
                to be found, so not in compiled code. (default: :obj:`False`)

        Raises:
            ValueError: If there is no set, or their nodes, heads, channels or devices differ.

        Example:
            >>> import torch
            >>> from pyg_gt import EdgeMask
            >>> ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
            >>> expander = torch.tensor([[0, 1], [2, 2]])
            >>> EdgeMask.union(ring, expander).edges.tolist()
            [[0, 1, 2, 0, 1], [1, 2, 0, 2, 2]]
            >>> mask = EdgeMask.union(EdgeMask(ring, torch.ones(3, 4)), expander, coalesce=True)
            >>> mask.edges.tolist(), mask.values[:, 0].tolist()
            ([[0, 0, 1, 2], [1, 2, 2, 0]], [1.0, 0.0, 1.0, 1.0])
        """
        if not edge_sets:
            raise ValueError("a union is of one edge set at least (got none)")
        parts = [
            EdgePart(each.edges, each.values, each.features)
            if isinstance(each, EdgeMask)
            else EdgePart(each, None, None)
            for each in edge_sets
        ]
        return cls(*union_of(parts, coalesce))

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

    def materialize(
        self, layout: GraphLayout | Tensor, query_layout: GraphLayout | Tensor | None = None
    ) -> Tensor:
        """``[B, H or 1, Mq, Mk]``, minus infinity where no edge is. Only without ``features``."""
        return _to_dense(self, layout, query_layout, float("-inf"))


@dataclass(frozen=True, eq=False)
class ScoreMod:
    """A function of each score: FlexAttention's ``score_mod`` on graphs.

    Args:
        fn (Callable): ``fn(score, graph, head, query_node, key_node)`` gives the new score; all
            are scalars for the function (it is vectorised), the nodes numbered as in the batch.
            Tensors that it captures may require gradients.

    Example:
        >>> import torch
        >>> from pyg_gt import GraphLayout, ScoreMod, attention
        >>> strength = torch.nn.Parameter(torch.ones(4))
        >>> far = ScoreMod(lambda s, graph, head, q, k: s - strength[head] * (q - k).abs())
        >>> q, k, v = torch.randn(3, 5, 4, 8)
        >>> attention(q, k, v, GraphLayout.from_sizes([3, 2]), far).shape
        torch.Size([5, 4, 8])
    """

    fn: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

    def apply(self, scores: Tensor, graph: Tensor, query_node: Tensor, key_node: Tensor) -> Tensor:
        """New ``scores [..., H]``; graph and nodes have (or broadcast to) the shape ``[...]``."""
        if scores.numel() == 0:  # vmap over nothing reads out of range
            return scores
        head = torch.arange(scores.size(-1), device=scores.device).expand(scores.shape)
        graph, query_node, key_node = (
            x.unsqueeze(-1).expand(scores.shape).flatten() for x in (graph, query_node, key_node)
        )
        self.check()
        flat = torch.vmap(self._new_score)(
            scores.flatten(), graph, head.flatten(), query_node, key_node
        )
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

    def _new_score(self, score: Tensor, *indices: Tensor) -> Tensor:
        new = self.fn(score, *indices)
        if isinstance(new, Tensor) and new.dim() == 0 and new.is_floating_point():
            return new
        got = f"'{type(new).__name__}'"
        if isinstance(new, Tensor):
            got = f"{list(new.shape)} of {new.dtype}"
        raise ValueError(
            f"'ScoreMod.fn' must give back a new score, a floating-point tensor of shape [] (got "
            f"{got}); to forbid a pair, 'torch.where(allowed, score, -torch.inf)'"
        )


# what is added to scores; a class that is neither here nor in KINDS is refused everywhere
ADDITIVE = (PairBias, TableBias, EdgeBias)
KINDS = (*ADDITIVE, EdgeMask, ScoreMod)
AdditiveBias = PairBias | TableBias | EdgeBias
AttentionBias = PairBias | TableBias | EdgeBias | EdgeMask | ScoreMod


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [P]`` of ``x [K, H]``, with a gradient that is summed in one order."""
    # on CUDA the gradient of indexing sorts, where that of 'index_select' adds atomically
    return x[index] if x.is_cuda else x.index_select(0, index)


def check_is_bias(bias: object) -> None:
    """Raises ``ValueError`` unless it is of one of the :data:`KINDS`."""
    if not isinstance(bias, KINDS):
        *names, last = (kind.__name__ for kind in KINDS)
        raise ValueError(
            f"a bias must be one of {', '.join(names)} and {last} (got '{type(bias).__name__}')"
        )


def checked_edges_of(bias: EdgeBias | EdgeMask) -> EdgeLayout | DeferredEdges:
    """The edges of a bias that has passed the door of ``attention``."""
    assert isinstance(bias.edges, (EdgeLayout, DeferredEdges))
    return bias.edges


def segment_logsumexp(values: Tensor, index: Tensor, size: int) -> Tensor:
    """``[E, H] -> [size, H]``; minus infinity where nothing stands."""
    largest = scatter(values.detach(), index, 0, size, reduce="max")
    occurs = torch.zeros(size, dtype=torch.bool, device=index.device).index_fill_(0, index, True)
    largest = torch.where(torch.isfinite(largest) & occurs.unsqueeze(1), largest, 0.0)
    total = scatter((values - largest[index]).exp(), index, 0, size, reduce="sum")
    positive = total > 0
    # log(0) has an infinite slope: take the logarithm of something harmless instead
    logarithm = torch.where(positive, total, 1.0).log() + largest
    return torch.where(positive, logarithm, float("-inf"))


def _edge_layout(edges: EdgeSet, query_layout: GraphLayout, layout: GraphLayout) -> EdgeLayout:
    concrete = EdgeLayout.of(edges, layout.num_nodes, query_layout.num_nodes)
    if not isinstance(concrete, EdgeLayout):
        raise NotImplementedError("a bias on edges cannot be materialized while it is traced")
    concrete.check_within_graphs(query_layout, layout)
    return concrete


def _to_dense(
    bias: PairBias | TableBias | EdgeBias | EdgeMask,
    layout: GraphLayout | Tensor,
    query_layout: GraphLayout | Tensor | None,
    fill: float,
) -> Tensor:
    query_layout, layout = _concrete_layouts(layout, query_layout)
    flat = bias.pair_values(query_layout, layout)  # [P, H]
    if not isinstance(flat, Tensor) or flat.dim() != 2:
        got = list(flat.shape) if isinstance(flat, Tensor) else f"'{type(flat).__name__}'"
        raise ValueError(f"a '{type(bias).__name__}' must hold a tensor [P, H] (got {got})")
    if flat.size(0) != num_pairs(query_layout, layout):
        raise ValueError(
            f"a '{type(bias).__name__}' of {flat.size(0)} pairs does not fit a layout that has "
            f"{num_pairs(query_layout, layout)}"
        )
    shape = (layout.num_graphs, query_layout.max_nodes, layout.max_nodes, flat.size(1))
    places = _places_of_pairs(query_layout, layout)
    return flat.new_full(shape, fill).index_put(places, flat).permute(0, 3, 1, 2)


def _places_of_pairs(
    query_layout: GraphLayout, layout: GraphLayout
) -> tuple[Tensor, Tensor, Tensor]:
    """``[P]`` each: the graph of every pair, and its row and column there."""
    size = num_pairs(query_layout, layout)
    ptr = pair_ptr(query_layout, layout)
    graph = torch.repeat_interleave(ptr.diff(), output_size=size)
    local = torch.arange(size, device=ptr.device) - ptr[graph]
    width = layout.ptr.diff()[graph]
    return graph, local // width, local % width


def _concrete_layouts(
    layout: GraphLayout | Tensor,
    query_layout: GraphLayout | Tensor | None,
    num_graphs: int | None = None,
) -> tuple[GraphLayout, GraphLayout]:
    """Those of queries and of keys; ``num_graphs`` counts the empty ones behind a ``batch``.

    Raises:
        ValueError: if one is neither a layout nor a ``batch``.
    """
    given = [
        ("layout", layout),
        ("query_layout", layout if query_layout is None else query_layout),
    ]
    layouts = [_concrete_layout(name, x, num_graphs) for name, x in given]
    num_graphs = max(x.num_graphs for x in layouts)
    of_keys, of_queries = (
        _concrete_layout(name, x, num_graphs) if isinstance(x, Tensor) else made
        for (name, x), made in zip(given, layouts, strict=True)
    )
    if of_queries.num_graphs != of_keys.num_graphs:
        raise ValueError(
            f"'query_layout' has {of_queries.num_graphs} graphs and 'layout' "
            f"{of_keys.num_graphs}; give both the same number ('num_graphs=' counts empty ones)"
        )
    return of_queries, of_keys


def _concrete_layout(name: str, layout: object, num_graphs: int | None) -> GraphLayout:
    made = layout
    if isinstance(layout, Tensor):
        made = GraphLayout.of(layout, layout.numel(), num_graphs)
    if isinstance(made, GraphLayout):
        return made
    if isinstance(made, DeferredLayout):
        raise ValueError(
            f"'{name}' has to tell the sizes of the graphs, which traced code and tensors without "
            f"values do not: make a 'GraphLayout' before ('GraphLayout.from_batch') and pass it"
        )
    raise ValueError(
        f"'{name}' must be a 'GraphLayout' or a 'batch' tensor (got '{type(layout).__name__}')"
    )


def _check_dense(dense: object) -> None:
    """Raises ``ValueError`` unless ``dense`` is a floating-point ``[B, H, Mq, Mk]``."""
    if not isinstance(dense, Tensor) or dense.is_nested or dense.layout is not torch.strided:
        raise ValueError(
            f"'dense' must be a dense tensor of shape [B, H, Mq, Mk] (got "
            f"'{type(dense).__name__}')"
        )
    cure = ""
    if dense.dtype is torch.bool:
        cure = "; of a mask: 'torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)'"
    elif dense.dim() == 3:
        cure = "; one score for all heads: 'dense.unsqueeze(1).expand(-1, H, -1, -1)'"
    if cure or dense.dim() != 4 or not dense.is_floating_point():
        raise ValueError(
            f"'dense' must be a floating-point tensor of shape [B, H, Mq, Mk] (got {dense.dtype} "
            f"of shape {list(dense.shape)}){cure}"
        )
