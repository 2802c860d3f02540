"""Dense attention on graphs of like size: torch's products and its fused CPU kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._identity import is_readable
from ..edge_layout import EdgeLayout
from ..layout import DeferredLayout, GraphLayout
from . import _bucketed
from ._buckets import Tile, padded, plan_of
from ._checked import LIBRARY, TAGS, resolved
from ._inputs import Inputs
from .bias import (
    EdgeBias,
    EdgeMask,
    PairBias,
    TableBias,
    checked_edges_of,
    num_pairs,
    pair_of_edge,
)

NAME = "sdpa"

# in place of the number of graphs: the queries' layout is the keys'
_SAME = -2


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    mask = inputs.mask
    if mask is not None and mask.features is not None:
        return "an 'EdgeMask' with 'features' changes keys and values per edge"
    if mask is not None and inputs.dropout_p > 0:
        if not isinstance(mask.edges, EdgeLayout):
            return "with dropout it needs to know whether edges repeat, which traced code cannot"
        if mask.edges.has_repeats:
            return "an edge that stands twice cannot be dropped once in a dense matrix"
    if inputs.score_mods and not is_readable(inputs.query):
        return "a 'ScoreMod' needs the sizes of the graphs, which traced code cannot read"
    if not inputs.score_mods and _is_transformed(inputs.query, inputs.key, inputs.value):
        return "it has no forward-mode derivative and no vmap rule"
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    if inputs.score_mods:
        return _with_score_mods(inputs)
    pair_values: Tensor | None = None
    edge_sets: list[Tensor] = []
    edge_values: list[Tensor] = []
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            edge_sets.append(checked_edges_of(bias).edge_index)
            edge_values.append(bias.values)
            continue
        values = bias.values if isinstance(bias, PairBias) else _table_values(bias)
        pair_values = values if pair_values is None else pair_values + values
    mask = inputs.mask
    mask_edges = None if mask is None else checked_edges_of(mask).edge_index
    query_batch, query_graphs = inputs.query_layout.batch, inputs.query_layout.num_graphs
    if inputs.query_layout is inputs.layout:
        query_batch, query_graphs = None, _SAME
    query, key, value, query_batch, batch, mask_edges, *edge_sets = _distinct(
        inputs.query, inputs.key, inputs.value, query_batch, inputs.layout.batch, mask_edges,
        *edge_sets,
    )  # fmt: skip
    return _Attention.apply(  # type: ignore[no-any-return,no-untyped-call]
        query, key, value, pair_values, None if mask is None else mask.values, inputs.seed,
        query_batch, query_graphs, batch, inputs.layout.num_graphs, mask_edges, edge_sets,
        inputs.scale, inputs.dropout_p, *edge_values,
    )  # fmt: skip


def _distinct(*tensors: Tensor | None) -> list[Any]:
    """The same tensors as separate objects, which traced ``autograd.Function``s insist on."""
    if not torch.compiler.is_compiling():
        return list(tensors)
    result: list[Any] = []
    for tensor in tensors:
        seen = tensor is not None and any(tensor is other for other in result)
        result.append(tensor.view_as(tensor) if tensor is not None and seen else tensor)
    return result


def _table_values(bias: TableBias) -> Tensor:
    return bias.table.index_select(0, bias.index.long())


def _is_transformed(*tensors: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return any(torch.autograd.forward_ad.unpack_dual(x).tangent is not None for x in tensors)


class _Attention(torch.autograd.Function):
    """Two ops, so that ``torch.compile`` sees one node forward and one backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pair_values: Tensor | None,
        mask_values: Tensor | None,
        seed: Tensor | None,
        query_batch: Tensor | None,
        query_graphs: int,
        batch: Tensor | None,
        graphs: int,
        mask_edges: Tensor | None,
        edge_sets: list[Tensor],
        scale: float,
        dropout_p: float,
        *edge_values: Tensor,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        out, lse = torch.ops.pyg_gt.bucketed(
            query, key, value, query_batch, query_graphs, batch, graphs, pair_values, edge_sets,
            edge_values, mask_edges, mask_values, seed, scale, dropout_p,
        )  # fmt: skip
        ctx.save_for_backward(
            query, key, value, out, lse, pair_values, mask_values, seed, query_batch, batch,
            mask_edges, *edge_sets, *edge_values,
        )  # fmt: skip
        ctx.numbers = query_graphs, graphs, scale, dropout_p
        return out  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        (
            query, key, value, out, lse, pair_values, mask_values, seed, query_batch, batch,
            mask_edges, *edges,
        ) = ctx.saved_tensors  # fmt: skip
        query_graphs, graphs, scale, dropout_p = ctx.numbers
        count = len(edges) // 2
        edge_sets, edge_values = edges[:count], edges[count:]
        needs = ctx.needs_input_grad
        dq, dk, dv, dpairs, dmask, dedges = torch.ops.pyg_gt.bucketed_backward(
            grad, query, key, value, out, lse, query_batch, query_graphs, batch, graphs,
            pair_values, edge_sets, edge_values, mask_edges, mask_values, seed, scale, dropout_p,
            [needs[3], needs[4], any(needs[14:])],
        )  # fmt: skip
        return (
            dq, dk, dv, dpairs if needs[3] else None, dmask if needs[4] else None,
            *(None,) * 9, *(d if n else None for d, n in zip(dedges, needs[14:], strict=True)),
        )  # fmt: skip


_LAYOUTS = "Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs"
_BIASES = (
    "Tensor? pair_values, Tensor[] edge_sets, Tensor[] edge_values, Tensor? mask_edges, "
    "Tensor? mask_values, Tensor? seed, float scale, float dropout_p"
)
LIBRARY.define(
    f"bucketed(Tensor query, Tensor key, Tensor value, {_LAYOUTS}, {_BIASES}) -> (Tensor, Tensor)",
    tags=TAGS,
)
LIBRARY.define(
    f"bucketed_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor lse, {_LAYOUTS}, {_BIASES}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor[])",
    tags=TAGS,
)


class _Call:
    """What both ops read on the host: the layouts, the edges, the sum of all biases."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        query_batch: Tensor | None,
        query_graphs: int,
        batch: Tensor | None,
        graphs: int,
        pair_values: Tensor | None,
        edge_sets: Sequence[Tensor],
        edge_values: Sequence[Tensor],
        mask_edges: Tensor | None,
        mask_values: Tensor | None,
        seed: Tensor | None,
        scale: float,
        dropout_p: float,
    ) -> None:
        key_side = DeferredLayout(batch, key.size(0), graphs)
        query_side = key_side
        if query_graphs != _SAME:
            query_side = DeferredLayout(query_batch, query.size(0), query_graphs)
        self.query_layout, self.layout = resolved(query_side, key_side, query.device)
        self.heads = query.size(1)
        self.dtype = query.dtype if query.dtype == torch.float64 else torch.float32
        self.mask = None if mask_edges is None else self._edges(mask_edges)
        self.mask_values = mask_values
        self.edge_sets = [self._edges(edges) for edges in edge_sets]
        self.mask_bias: Tensor | None = None
        bias = self._sum(pair_values, edge_values)
        self.problem = _bucketed.Problem(
            plan_of(self.query_layout, self.layout), self.heads, scale, bias, dropout_p, seed
        )

    def pairs(self, edges: EdgeLayout) -> Tensor:
        return pair_of_edge(edges, self.query_layout, self.layout)

    def _edges(self, edge_index: Tensor) -> EdgeLayout:
        made = EdgeLayout.of(edge_index, self.layout.num_nodes, self.query_layout.num_nodes)
        assert isinstance(made, EdgeLayout)
        made.check_within_graphs(self.query_layout, self.layout)
        return made

    def _sum(self, pair_values: Tensor | None, edge_values: Sequence[Tensor]) -> Tensor | None:
        total: Tensor | None = None
        size = num_pairs(self.query_layout, self.layout)
        if pair_values is not None:
            if pair_values.size(0) != size:
                raise ValueError(
                    f"a bias describes {pair_values.size(0)} pairs, but the layout has {size}"
                )
            total = pair_values.to(self.dtype)
        for edges, values in zip(self.edge_sets, edge_values, strict=True):
            if total is None:
                total = torch.zeros(size, self.heads, dtype=self.dtype, device=values.device)
            total = total.index_add(0, self.pairs(edges), values.to(self.dtype))
        if self.mask is not None:
            wide = None if self.mask_values is None else self.mask_values.to(self.dtype)
            mask = EdgeMask(self.mask, wide).pair_values(self.query_layout, self.layout)
            self.mask_bias = mask.to(self.dtype)
            total = self.mask_bias if total is None else total + self.mask_bias
        return total


@torch.library.impl(LIBRARY, "bucketed", "CPU")
@torch.library.impl(LIBRARY, "bucketed", "CUDA")
def _bucketed_op(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    # autocast would lower the products that softmax wants in full precision
    with torch.autocast(query.device.type, enabled=False):
        return _bucketed.forward(_Call(query, key, *rest).problem, query, key, value)


@torch.library.impl(LIBRARY, "bucketed_backward", "CPU")
@torch.library.impl(LIBRARY, "bucketed_backward", "CUDA")
def _bucketed_backward_op(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    *call_args, (needs_pairs, needs_mask, needs_edges) = rest
    with torch.autocast(query.device.type, enabled=False):
        call = _Call(query, key, *call_args)
        needs_bias = needs_pairs or needs_mask or needs_edges
        dq, dk, dv, dbias = _bucketed.backward(
            call.problem, grad, query, key, value, out, lse, needs_bias
        )
    pair_values, edge_values, mask_values = (call_args[i] for i in (4, 6, 8))
    none = query.new_empty(0)
    dpairs, dmask = none, none
    dedges = [torch.empty_like(values) for values in edge_values]
    if dbias is not None:
        if needs_pairs:
            dpairs = dbias.to(pair_values.dtype)
        if needs_mask:
            dmask = _mask_gradient(call, dbias).to(mask_values.dtype)
        if needs_edges:
            dedges = [
                dbias[call.pairs(edges)].to(values.dtype)
                for edges, values in zip(call.edge_sets, edge_values, strict=True)
            ]
    return dq, dk, dv, dpairs, dmask, dedges


def _mask_gradient(call: _Call, dbias: Tensor) -> Tensor:
    """``[E, H]``: a repeated edge has its share of the sum of exponentials."""
    assert call.mask is not None and call.mask_values is not None and call.mask_bias is not None
    pairs = call.pairs(call.mask)
    total = call.mask_bias[pairs]
    share = (call.mask_values.to(total.dtype) - total).exp()
    return torch.where(total == float("-inf"), 0.0, dbias[pairs] * share)


@torch.library.register_fake("pyg_gt::bucketed", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _bucketed_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wide = query.dtype if query.dtype == torch.float64 else torch.float32
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(query.shape[:2], dtype=wide)


@torch.library.register_fake("pyg_gt::bucketed_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _bucketed_backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    *call_args, (needs_pairs, needs_mask, _) = rest
    pair_values, edge_values, mask_values = (call_args[i] for i in (4, 6, 8))
    like = [x.new_empty(x.shape) for x in (query, key, value)]
    dpairs = pair_values.new_empty(pair_values.shape) if needs_pairs else query.new_empty(0)
    dmask = mask_values.new_empty(mask_values.shape) if needs_mask else query.new_empty(0)
    return *like, dpairs, dmask, [x.new_empty(x.shape) for x in edge_values]  # type: ignore[return-value]


def _with_score_mods(inputs: Inputs) -> Tensor:
    """Recorded by autograd, since the gradient of the user's function is its business."""
    query_layout, layout = resolved(inputs.query_layout, inputs.layout, inputs.query.device)
    dtype = inputs.query.dtype if inputs.query.dtype == torch.float64 else torch.float32
    query, key, value = (x.to(dtype) for x in (inputs.query, inputs.key, inputs.value))
    bias: Tensor | None = None
    for added in inputs.additive:
        values = added.pair_values(query_layout, layout).to(dtype)
        bias = values if bias is None else bias + values
    mask = None
    if inputs.mask is not None:
        mask = inputs.mask.pair_values(query_layout, layout).to(dtype)
    out = torch.zeros_like(query)
    row_nodes, col_nodes = _padded_nodes(query_layout), _padded_nodes(layout)
    query, key, value = (torch.cat([x, x.new_zeros(1, *x.shape[1:])]) for x in (query, key, value))
    for bucket in plan_of(query_layout, layout).buckets:
        tile = Tile(bucket, slice(0, bucket.num), slice(0, bucket.rows))
        pairs, there = tile.pairs()
        rows = row_nodes[bucket.graphs, : bucket.rows]
        cols = col_nodes[bucket.graphs, : bucket.cols]
        scores = inputs.scale * torch.einsum("bihc,bjhc->bijh", query[rows], key[cols])
        if bias is not None:
            scores = scores + bias[pairs]
        for mod in inputs.score_mods:
            # a function may index with the nodes: padding shows it node 0
            row, col = rows % query_layout.num_nodes, cols % layout.num_nodes
            graph = bucket.graphs[:, None, None]
            scores = mod.apply(scores, graph, row[:, :, None], col[:, None, :])
        if mask is not None:
            scores = scores + mask[pairs]
        scores = scores.masked_fill(~there.unsqueeze(-1), float("-inf"))
        alone = (scores == float("-inf")).all(2, keepdim=True)
        weights = scores.masked_fill(alone, 0.0).softmax(2).masked_fill(alone, 0.0)
        weights = torch.dropout(weights, inputs.dropout_p, inputs.seed is not None)
        result = torch.einsum("bijh,bjhc->bihc", weights, value[cols])
        real = there.any(2)
        out = out.index_put((rows[real],), result[real])
    return out.to(inputs.query.dtype)


def _padded_nodes(layout: GraphLayout) -> Tensor:
    """``[B, M']``: the nodes of each graph, and ``N`` where there is none."""
    width = int(padded(torch.tensor(layout.max_nodes)))
    nodes = layout.batch.new_full((layout.num_graphs, width), layout.num_nodes)
    every = torch.arange(layout.num_nodes, device=layout.device)
    return nodes.index_put((layout.batch, layout.pos), every)
