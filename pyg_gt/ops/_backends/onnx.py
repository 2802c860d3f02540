"""Attention in torch operations that have an ONNX form, for ``torch.onnx.export``.

Neither an op of ours nor a number read on the host: graphs and edges of any size may come. Over
all pairs it computes a matrix of scores between all nodes of the batch, across graphs too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..bias import EdgeBias, EdgeMask, PairBias, checked_edges_of
from ..inputs import Inputs, Layout

NAME = "onnx"


def unsupported(inputs: Inputs) -> str | None:
    """Why not: dropout, functions of scores."""
    if inputs.dropout_p > 0:
        return "ONNX has no dropout of attention weights; export after 'model.eval()'"
    if inputs.score_mods:
        return "a 'ScoreMod' has no ONNX form; give its values as a 'PairBias'"
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    dtype = torch.float64 if inputs.query.dtype == torch.float64 else torch.float32
    query, key, value = (x.to(dtype) for x in (inputs.query, inputs.key, inputs.value))
    added = _sum_of_biases(inputs, dtype)
    if inputs.mask is not None:
        out = _along_edges(inputs, inputs.mask, query, key, value, added)
    else:
        scores = inputs.scale * torch.einsum("ihc,jhc->ijh", query, key)
        same = _pairs(inputs).same.unsqueeze(-1)
        scores = torch.where(same, scores if added is None else scores + added, float("-inf"))
        top = scores.amax(1, keepdim=True)
        # where there is nothing to attend to, the exponentials are zero, and so is the output
        weights = (scores - torch.where(top.isinf(), torch.zeros_like(top), top)).exp()
        total = weights.sum(1, keepdim=True)
        weights = weights / torch.where(total == 0, torch.ones_like(total), total)
        out = torch.einsum("ijh,jhc->ihc", weights, value)
    return out.to(inputs.query.dtype)


class _Pairs(NamedTuple):
    """Which queries and keys are pairs, ``[Nq, Nk]`` each.

    Attributes:
        same: whether both are of one graph.
        number: the flat number of such a pair.
    """

    same: Tensor
    number: Tensor


def _pairs(inputs: Inputs) -> _Pairs:
    """By comparisons of nodes, so that nothing depends on how many graphs there are."""
    queries = _batch(inputs.query_layout, inputs.query)
    keys = _batch(inputs.layout, inputs.key)
    same = queries[:, None] == keys[None, :]
    width = same.sum(1)  # keys in the graph of each query
    before = queries[None, :] < queries[:, None]
    start = (before * width[None, :]).sum(1)
    row = start + _positions(queries) * width
    return _Pairs(same, row[:, None] + _positions(keys)[None, :])


def _batch(layout: Layout, x: Tensor) -> Tensor:
    if layout.batch is None:  # one graph
        return torch.zeros_like(x[:, :1, :1], dtype=torch.int64).flatten()
    return layout.batch.long()


def _positions(batch: Tensor) -> Tensor:
    """``[N]``: how many nodes of the same graph come before."""
    number = torch.ones_like(batch).cumsum(0)
    earlier = number[None, :] < number[:, None]
    return ((batch[None, :] == batch[:, None]) & earlier).sum(1)


def _sum_of_biases(inputs: Inputs, dtype: torch.dtype) -> Tensor | None:
    """``[Nq, Nk, H]``: what is added to the scores; anything where there is no pair."""
    total: Tensor | None = None
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            source, target = checked_edges_of(bias).edge_index
            shape = inputs.query.size(0), inputs.key.size(0), inputs.heads
            pair = (target * shape[1] + source).unsqueeze(-1).expand(-1, shape[2])
            flat = torch.zeros(
                shape[0] * shape[1], shape[2], dtype=dtype, device=inputs.query.device
            )
            added = flat.scatter_add(0, pair, bias.values.to(dtype)).view(shape)
        else:
            values = bias.values if isinstance(bias, PairBias) else bias.table[bias.index.long()]
            same, number = _pairs(inputs)
            # a row that no pair has, for all the others
            values = torch.cat([torch.zeros_like(inputs.query[:1, :, 0]), values]).to(dtype)
            added = values[torch.where(same, number + 1, torch.zeros_like(number))]
        total = added if total is None else total + added
    return total


def _along_edges(
    inputs: Inputs, mask: EdgeMask, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None
) -> Tensor:
    source, target = checked_edges_of(mask).edge_index
    key, value = key[source], value[source]  # [E, H, C]
    if mask.features is not None:
        features = mask.features.to(key.dtype)
        key, value = key + features, value + features
    scores = inputs.scale * (query[target] * key).sum(-1)  # [E, H]
    if added is not None:
        scores = scores + added[target, source]
    if mask.values is not None:
        scores = scores + mask.values.to(scores.dtype)
    rows = target.unsqueeze(-1).expand(-1, scores.size(1))
    zeros = torch.zeros_like(query[:, :, 0])  # [Nq, H]
    top = torch.full_like(zeros, float("-inf")).scatter_reduce(0, rows, scores, "amax")
    top = torch.where(top.isinf(), zeros, top)
    weights = (scores - top[target]).exp()
    total = zeros.scatter_add(0, rows, weights)
    weights = weights / torch.where(total == 0, torch.ones_like(total), total)[target]
    rows = target[:, None, None].expand(-1, value.size(1), value.size(2))
    return torch.zeros_like(query).scatter_add(0, rows, weights.unsqueeze(-1) * value)
