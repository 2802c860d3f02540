"""Dense attention on graphs of like size: torch's products and its fused CPU kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ....layout.graph_layout import GraphLayout
from ....layout.values import is_readable, is_traced
from ..._kernels.composed.buckets import Tile, padded, plan_of
from ...bias import EdgeBias, EdgeMask, PairBias, TableBias, checked_edges_of
from ...deferred import resolved
from ...inputs import Inputs
from ...op_arguments import distinct, layout_arguments, needs_no_node
from .op import BucketedAttention

NAME = "sdpa"


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
    if is_traced() and inputs.requires_grad:
        if any(isinstance(bias, EdgeBias) for bias in inputs.additive):
            return "a 'torch.jit.trace' cannot record gradients where edges have a bias"
    if not inputs.score_mods and inputs.is_transformed:
        return "its op has no forward-mode derivative and no rule for 'torch.func'"
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    if inputs.score_mods:
        # autocast would lower the products that softmax wants in full precision
        with torch.autocast(inputs.query.device.type, enabled=False):
            return _with_score_mods(inputs)
    wide = torch.float64 if inputs.query.dtype == torch.float64 else torch.float32
    pair_values: Tensor | None = None
    edge_sets: list[Tensor] = []
    edge_values: list[Tensor] = []
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            edge_sets.append(checked_edges_of(bias).edge_index)
            edge_values.append(bias.values)
            continue
        values = bias.values if isinstance(bias, PairBias) else _table_values(bias)
        pair_values = values if pair_values is None else pair_values.to(wide) + values.to(wide)
    mask = inputs.mask
    mask_values = None if mask is None else mask.values
    mask_edges = None if mask is None else checked_edges_of(mask).edge_index
    query_batch, query_graphs, batch, graphs = layout_arguments(inputs.query_layout, inputs.layout)
    query, key, value, query_batch, batch, mask_edges, *edge_sets = distinct(
        inputs.query, inputs.key, inputs.value, query_batch, batch, mask_edges, *edge_sets
    )
    if needs_no_node(query, key, value, pair_values, mask_values, *edge_values):
        out: Tensor = torch.ops.pyg_gt.bucketed(
            query, key, value, query_batch, query_graphs, batch, graphs, pair_values, edge_sets,
            edge_values, mask_edges, mask_values, inputs.seed, inputs.scale, inputs.dropout_p,
        )[0]  # fmt: skip
        return out
    return BucketedAttention.apply(  # type: ignore[no-any-return,no-untyped-call]
        query, key, value, pair_values, mask_values, inputs.seed,
        query_batch, query_graphs, batch, graphs, mask_edges, edge_sets,
        inputs.scale, inputs.dropout_p, *edge_values,
    )  # fmt: skip


def _table_values(bias: TableBias) -> Tensor:
    return bias.table.index_select(0, bias.index.long())


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
        on_edges = inputs.mask.values
        wide = EdgeMask(inputs.mask.edges, None if on_edges is None else on_edges.to(dtype))
        mask = wide.pair_values(query_layout, layout).to(dtype)
    # zeros that autograd can follow where no bucket is
    out = query.masked_fill(query.new_ones((), dtype=torch.bool), 0.0)
    row_nodes, col_nodes = _padded_nodes(query_layout), _padded_nodes(layout)
    buckets = plan_of(query_layout, layout).buckets
    if not buckets:
        for x in (key, value, bias, mask):
            if x is not None:
                out = out + x.masked_fill(x.new_ones((), dtype=torch.bool), 0.0).sum()
    for bucket in buckets:
        tile = Tile(bucket, slice(0, bucket.num), slice(0, bucket.rows))
        pairs, there = tile.pairs()
        rows = row_nodes[bucket.graphs, : bucket.rows]
        cols = col_nodes[bucket.graphs, : bucket.cols]
        scores = inputs.scale * torch.einsum("bihc,bjhc->bijh", query[rows], key[cols])
        if bias is not None:
            scores = scores + bias[pairs]
        for mod in inputs.score_mods:
            graph = bucket.graphs[:, None, None]
            scores = mod.apply(scores, graph, rows[:, :, None], cols[:, None, :])
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
    """``[B, M']``: the nodes of each graph, behind them its first one again.

    So a function of the scores sees real pairs of one graph only, whatever it cannot stand.
    """
    width = int(padded(torch.tensor(layout.max_nodes, device="cpu")))
    every = torch.arange(layout.num_nodes, device=layout.device)
    first = every.new_zeros(layout.num_graphs)
    first[layout.batch[layout.pos == 0]] = every[layout.pos == 0]
    nodes = first.unsqueeze(1).repeat(1, width)
    return nodes.index_put((layout.batch, layout.pos), every)
