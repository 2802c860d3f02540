"""Attention under functions of scores: dense, bucket by bucket, recorded by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from ....layout.graph_layout import GraphLayout
from ..._kernels.torch_ops.buckets import Tile, padded, plan_of
from ...bias import EdgeMask
from ...inputs import Inputs


def attention_under_score_mods(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``. The gradient of the user's function is autograd's business."""
    # autocast would lower the products that softmax wants in full precision
    with torch.autocast(inputs.query.device.type, enabled=False):
        return _attention(inputs)


def _attention(inputs: Inputs) -> Tensor:
    query_layout, layout = inputs.resolved_layouts()
    dtype = inputs.query.dtype if inputs.query.dtype == torch.float64 else torch.float32
    query, key, value = (x.to(dtype) for x in (inputs.query, inputs.key, inputs.value))
    bias: Tensor | None = None
    for additive in inputs.additive:
        added = additive.pair_values(query_layout, layout).to(dtype)
        bias = added if bias is None else bias + added
    mask = None
    if inputs.mask is not None:
        values = inputs.mask.values
        edge_mask = EdgeMask(inputs.mask.edges, None if values is None else values.to(dtype))
        mask = edge_mask.pair_values(query_layout, layout).to(dtype)
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
        pairs, is_pair = tile.pairs()
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
        scores = scores.masked_fill(~is_pair.unsqueeze(-1), float("-inf"))
        empty = (scores == float("-inf")).all(2, keepdim=True)
        weights = scores.masked_fill(empty, 0.0).softmax(2).masked_fill(empty, 0.0)
        weights = torch.dropout(weights, inputs.dropout_p, inputs.seed is not None)
        result = torch.einsum("bijh,bjhc->bihc", weights, value[cols])
        is_query = is_pair.any(2)
        out = out.index_put((rows[is_query],), result[is_query])
    return out.to(inputs.query.dtype)


def _padded_nodes(layout: GraphLayout) -> Tensor:
    """``[B, M']``: the nodes of each graph, padded with its first one.

    So a function of scores is shown pairs of one graph only.
    """
    width = int(padded(torch.tensor(layout.max_nodes, device="cpu")))
    numbers = torch.arange(layout.num_nodes, device=layout.device)
    is_first = layout.pos == 0
    first = numbers.new_zeros(layout.num_graphs)
    first[layout.batch[is_first]] = numbers[is_first]
    nodes = first.unsqueeze(1).repeat(1, width)
    return nodes.index_put((layout.batch, layout.pos), numbers)
