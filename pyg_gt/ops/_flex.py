"""FlexAttention on the packed batch: block-sparse between graphs, biases read in the kernel."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from .._identity import is_readable
from ..edge_layout import EdgeLayout
from ..layout import GraphLayout
from ._checked import resolved
from ._flex_tables import Packed, edge_mask, full_mask, packed
from ._inputs import Inputs
from .bias import (
    EdgeBias,
    EdgeMask,
    PairBias,
    TableBias,
    num_pairs,
    pair_of_edge,
    segment_logsumexp,
)

NAME = "flex"

# The slot map of an edge mask has one int32 for each pair: 4 GiB here.
_MAX_PAIRS = 2**30

# On a CPU every pair of the batch has a score, across graphs too: 1 GiB here.
_MAX_CPU_SCORES = 2**28


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query = inputs.query
    if not is_readable(query):
        return "it compiles itself and reads block tables: call it outside of traced code"
    if inputs.is_transformed:
        return "it compiles itself, which forward-mode AD and 'torch.func' do not see through"
    if inputs.dropout_p > 0:
        return f"FlexAttention has no dropout (got {inputs.dropout_p})"
    for bias in inputs.biases:
        if isinstance(bias, (PairBias, EdgeBias)):
            return f"it cannot read a '{type(bias).__name__}'"
    if query.device.type == "cpu" and inputs.requires_grad:
        return "FlexAttention has no backward on the CPU"
    if query.device.type not in ("cpu", "cuda"):
        return f"FlexAttention needs CUDA or a CPU (got '{query.device}')"
    if query.dtype == torch.float64:
        return "FlexAttention has no float64"
    if query.size(-1) > 256:
        return f"it takes at most 256 channels per head (got {query.size(-1)})"
    mask = inputs.mask
    if mask is not None and mask.features is not None:
        return "an 'EdgeMask' with 'features' changes keys and values per edge"
    query_layout, layout = resolved(inputs.query_layout, inputs.layout, query.device)
    if mask is not None and num_pairs(query_layout, layout) > _MAX_PAIRS:
        return (
            f"its map of edges holds every pair, and {num_pairs(query_layout, layout):,} pairs "
            f"are more than {_MAX_PAIRS:,}"
        )
    scores = query_layout.num_nodes * layout.num_nodes * inputs.heads
    if query.device.type == "cpu" and scores > _MAX_CPU_SCORES:
        return f"on a CPU it fills all {scores:,} scores between the nodes of the batch"
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    query_layout, layout = resolved(inputs.query_layout, inputs.layout, inputs.query.device)
    if num_pairs(query_layout, layout) == 0:
        return torch.zeros_like(inputs.query)
    compact = inputs.query.device.type == "cuda"  # the CPU kernel wants full-width tables
    other = weakref.ref(layout)
    table = query_layout.once(("flex", other), lambda: packed(query_layout, layout))
    slot: Tensor | None = None
    if inputs.mask is None:
        block_mask = query_layout.once(
            ("flex full", other, compact), lambda: full_mask(table, compact)
        )
    else:
        edges = _edges(inputs.mask)
        key = ("flex", weakref.ref(query_layout), other, compact)
        block_mask, slot = edges.once(
            key, lambda: edge_mask(table, edges, query_layout, layout, compact)
        )
    q = _pack(inputs.query, table.query_node, query_layout.num_nodes, table.rows)
    k, v = (
        _pack(x, table.key_node, layout.num_nodes, table.cols) for x in (inputs.key, inputs.value)
    )
    score_mod = _score_mod(inputs, query_layout, layout, table, slot)
    kernel = _compiled("inductor" if compact else "eager")
    out = kernel(q, k, v, score_mod=score_mod, block_mask=block_mask, scale=inputs.scale)
    out = out[0, :, : query_layout.num_nodes, : inputs.query.size(-1)].transpose(0, 1)
    if query_layout.order is not None:
        return torch.empty_like(out).index_copy(0, query_layout.order, out)
    contiguous: Tensor = out.contiguous()
    return contiguous


@cache
def _compiled(backend: str) -> Callable[..., Any]:
    # Inductor's CPU template replaces names of sizes by text, 'ks1' also in 'ks17': with tensors
    # that a function captures it gives C++ errors or wrong numbers (torch 2.13).
    # fullgraph: past the recompile limit an error, not a silent fallback that fills N x N
    return torch.compile(flex_attention, dynamic=True, fullgraph=True, backend=backend)


def _pack(x: Tensor, nodes: Tensor, num_nodes: int, total: int) -> Tensor:
    """``[N, H, C] -> [1, H, total, C']``, graph by graph, zeros behind."""
    width = max(16, x.size(-1))  # the kernel's products have at least 16 channels
    x = x.index_select(0, nodes[:num_nodes])
    x = F.pad(x, (0, width - x.size(-1), 0, 0, 0, total - num_nodes))
    return x.transpose(0, 1).unsqueeze(0).contiguous()


def _edges(mask: EdgeMask) -> EdgeLayout:
    assert isinstance(mask.edges, EdgeLayout)
    return mask.edges


def _score_mod(
    inputs: Inputs,
    query_layout: GraphLayout,
    layout: GraphLayout,
    table: Packed,
    slot: Tensor | None,
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """One function for all biases, in the order in which they apply; None if there is nothing."""
    low, pair, graph = table.low, table.pair, table.graph
    query_node, key_node = table.query_node, table.key_node
    tables = [(b.table, b.index.int()) for b in inputs.biases if isinstance(b, TableBias)]
    last = num_pairs(query_layout, layout) - 1
    mods = [mod.fn for mod in inputs.score_mods]
    on_edges = None
    if inputs.mask is not None and slot is not None:
        on_edges = _distinct_values(inputs, inputs.mask, query_layout, layout, slot)
    if not tables and not mods and on_edges is None:
        return None

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        at = (pair[q] + kv - low[q]).clamp(0, last)
        for values, index in tables:
            score = score + values[index[at], h]
        for mod in mods:
            score = mod(score, graph[q], h, query_node[q], key_node[kv])
        if on_edges is not None and slot is not None:
            score = score + on_edges[slot[at], h]
        return score

    return score_mod


def _distinct_values(
    inputs: Inputs, mask: EdgeMask, query_layout: GraphLayout, layout: GraphLayout, slot: Tensor
) -> Tensor | None:
    """``[distinct edges + 1, H]``: what to add at each slot; None where that is nothing.

    A repeated edge counts as often as it stands: the logarithm of the sum of exponentials.
    """
    edges = _edges(mask)
    if mask.values is None and not edges.has_repeats:
        return None
    slots = slot[pair_of_edge(edges, query_layout, layout)].long()
    size = int(slots.max()) + 1 if slots.numel() else 1
    values = mask.values
    if values is None:
        values = torch.zeros(edges.num_edges, inputs.heads, device=slots.device)
    summed = segment_logsumexp(values.float(), slots, size)
    return summed.index_fill(0, slots.new_zeros(1), 0.0)
