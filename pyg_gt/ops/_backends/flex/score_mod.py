"""One FlexAttention function of scores for all biases of a call."""

from __future__ import annotations

import torch
from torch import Tensor

from ....layout.comparison import same_numbers
from ....layout.tensor_cache import IdentityCache
from ...bias import EdgeMask, TableBias, segment_logsumexp
from ...inputs import Inputs
from ...memory import materialized
from .compiled import Function
from .edge_masks import EdgeMaps
from .packing import PackedAxes, nearest

_INT32: IdentityCache[Tensor] = IdentityCache()


def score_mod_of(inputs: Inputs, axes: PackedAxes, maps: EdgeMaps | None) -> Function | None:
    """One function for all biases, in the order in which they apply; None if there is nothing.

    Between graphs, where the mask hides what it gives, it is shown the nearest pair of the
    query's own graph: what it reads is always there, and never another graph's.
    """
    low, high, pair, graph = axes.low, axes.high, axes.pair, axes.graph
    query_node, key_node = axes.query_node, axes.key_node
    tables: list[tuple[Tensor, Tensor]] = []
    for bias in inputs.biases:
        if isinstance(bias, TableBias):
            # a tensor that is read at two places has no gradient in flex, but its copy has
            is_read = any(bias.table is table for table, _ in tables)
            values = bias.table.clone() if is_read else materialized(bias.table)
            tables.append((values, _int32(bias.index)))
    mods = [mod.fn for mod in inputs.score_mods]
    on_edges = None
    if maps is not None and inputs.mask is not None:
        on_edges = _on_edges(inputs.mask, maps, inputs.heads)
    if not tables and not mods and on_edges is None:
        return None

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        near = nearest(kv, low[q], high[q])
        at = pair[q] + (near - low[q])
        for values, index in tables:
            score = score + values[index[at], h]
        for mod in mods:
            score = mod(score, graph[q], h, query_node[q], key_node[near])
        if on_edges is not None:
            values, slots = on_edges
            number = slots[at]
            # -1 - n where the number n is that of no edge
            score = score + values[torch.where(number < 0, -1 - number, number), h]
        return score

    return score_mod


def _int32(index: Tensor) -> Tensor:
    """Flex gathers no narrower integers; made once for an index, not in each layer."""
    if index.dtype in (torch.int32, torch.int64):
        return index
    made = _INT32.get(index, None, lambda known: same_numbers(known, index))
    if made is None:
        made = index.int()
        _INT32.put(index, made)
    return made


def _on_edges(mask: EdgeMask, maps: EdgeMaps, heads: int) -> tuple[Tensor, Tensor] | None:
    """``[slots, H]``, what is added at each, and the slots; None where nothing is.

    A repeated edge counts as often as it stands: the logarithm of the sum of exponentials.
    """
    if maps.slot is None:
        return None
    values, log_counts = mask.values, maps.log_counts
    if log_counts is not None and values is None:
        values = log_counts.unsqueeze(1).repeat(1, heads)
    elif log_counts is not None and values is not None and maps.slot_of_edge is not None:
        values = segment_logsumexp(values.float(), maps.slot_of_edge, log_counts.numel())
    assert values is not None
    if values.size(0) == 0:  # no edge at all, but the function reads one
        values = values.new_zeros(2, heads)
    return values, maps.slot
