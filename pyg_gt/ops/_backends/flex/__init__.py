"""FlexAttention on the packed batch: block-sparse between graphs, biases read in the kernel."""

from __future__ import annotations

import weakref
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from ....layout.comparison import same_numbers
from ....layout.edge_layout import EdgeLayout
from ....layout.graph_layout import GraphLayout
from ....layout.identity import IdentityCache
from ....layout.values import is_readable
from ...bias import EdgeBias, EdgeMask, PairBias, TableBias, segment_logsumexp
from ...deferred import resolved
from ...inputs import Inputs
from ...memory import in_memory
from ...pairs import num_pairs
from .compiled import Function, run
from .edges import Joined, edge_mask, objection
from .tables import Packed, full_mask, nearest, packed

NAME = "flex"

# On a CPU every pair of the batch has a score, across graphs too: 1 GiB here.
_MAX_CPU_SCORES = 2**28

_INT32: IdentityCache[Tensor] = IdentityCache()


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query = inputs.query
    if not is_readable(query):
        return "it compiles itself and reads block tables: call it outside of traced code"
    if inputs.is_transformed:
        return "it compiles itself, which forward-mode AD and 'torch.func' do not see through"
    if _is_watched():
        return "it compiles itself, which a 'TorchDispatchMode' does not see through"
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
    if torch.are_deterministic_algorithms_enabled() and (reason := _adds_with_atomics(inputs)):
        return reason
    mask = inputs.mask
    if mask is not None and mask.features is not None:
        return "an 'EdgeMask' with 'features' changes keys and values per edge"
    query_layout, layout = resolved(inputs.query_layout, inputs.layout, query.device)
    if mask is not None:
        has_values = mask.values is not None
        if (reason := objection(_edges(mask), query_layout, layout, has_values)) is not None:
            return reason
    scores = query_layout.num_nodes * layout.num_nodes * inputs.heads
    if query.device.type == "cpu" and scores > _MAX_CPU_SCORES:
        return f"on a CPU it fills all {scores:,} scores between the nodes of the batch"
    return None


def _is_watched() -> bool:
    return torch._C._len_torch_dispatch_stack() > 0


def _adds_with_atomics(inputs: Inputs) -> str | None:
    """Which gradient is not deterministic, in words."""
    if not torch.is_grad_enabled():
        return None
    for bias in inputs.biases:
        if isinstance(bias, TableBias) and bias.table.requires_grad:
            return "the gradient of a 'TableBias' is added with atomics: it is not deterministic"
    if inputs.score_mods:
        return (
            "gradients of what a 'ScoreMod' captures are added with atomics: they are not "
            "deterministic"
        )
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    query_layout, layout = resolved(inputs.query_layout, inputs.layout, inputs.query.device)
    if num_pairs(query_layout, layout) == 0:
        return inputs.query.masked_fill(torch.ones_like(inputs.query, dtype=torch.bool), 0.0)
    compact = inputs.query.device.type == "cuda"  # the CPU kernel wants full-width tables
    other = weakref.ref(layout)
    table = query_layout.cached(("flex", other), lambda: packed(query_layout, layout))
    joined: Joined | None = None
    if inputs.mask is None:
        block_mask = query_layout.cached(
            ("flex full", other, compact), lambda: full_mask(table, compact)
        )
    else:
        joined = _joined(inputs.mask, table, query_layout, layout, compact)
        block_mask = joined.mask
    score_mod = _score_mod(inputs, table, joined)
    # a product with zero lets NaN through to the other graphs of a tile
    finite = inputs.value.nan_to_num(0.0, 0.0, 0.0)
    # autocast would lower the scores that softmax wants in full precision
    with torch.autocast(inputs.query.device.type, enabled=False):
        out = run(
            _pack(inputs.query, table.query_row, table.rows),
            _pack(inputs.key, table.key_col, table.cols),
            _pack(finite, table.key_col, table.cols),
            score_mod,
            block_mask,
            inputs.scale,
            _kind(inputs, joined),
            reads=score_mod is not None or joined is not None,
        )
    out = out[0].transpose(0, 1).index_select(0, table.query_row)  # [Nq, H, C']
    out = out[..., : inputs.query.size(-1)]
    return out + _not_finite(inputs.value, layout)[query_layout.batch, None, None]


def _joined(
    mask: EdgeMask, table: Packed, query_layout: GraphLayout, layout: GraphLayout, compact: bool
) -> Joined:
    edges, has_values = _edges(mask), mask.values is not None
    key = ("flex", weakref.ref(query_layout), weakref.ref(layout), has_values, compact)
    return edges.cached(
        key, lambda: edge_mask(table, edges, query_layout, layout, has_values, compact)
    )


def _edges(mask: EdgeMask) -> EdgeLayout:
    assert isinstance(mask.edges, EdgeLayout)
    return mask.edges


def _pack(x: Tensor, place: Tensor, total: int) -> Tensor:
    """``[N, H, C] -> [1, H, total, C']``, each node at its place, zeros elsewhere."""
    width = max(16, x.size(-1))  # the kernel's products have at least 16 channels
    x = F.pad(x, (0, width - x.size(-1)))
    x = x.new_zeros(total, x.size(1), width).index_copy(0, place, x)
    return x.transpose(0, 1).unsqueeze(0)


def _not_finite(value: Tensor, layout: GraphLayout) -> Tensor:
    """``[B]``: NaN for a graph that has a value which is not finite, else 0."""
    of_node = (value.detach() * 0).sum((1, 2))
    return of_node.new_zeros(layout.num_graphs).index_add_(0, layout.batch, of_node)


def _kind(inputs: Inputs, joined: Joined | None) -> Hashable:
    """What the compiled kernel depends on, other than sizes that vary with the batch."""
    query = inputs.query
    functions = (getattr(mod.fn, "__code__", type(mod.fn)) for mod in inputs.score_mods)
    tables = sum(isinstance(bias, TableBias) for bias in inputs.biases)
    has_slots = joined is not None and joined.slot is not None
    return (
        query.device, query.dtype, query.shape[1:], torch.is_grad_enabled(), inputs.requires_grad,
        tables, joined is not None, has_slots, *functions,
    )  # fmt: skip


def _score_mod(inputs: Inputs, table: Packed, joined: Joined | None) -> Function | None:
    """One function for all biases, in the order in which they apply; None if there is nothing.

    Between graphs, where the mask hides what it gives, it is shown the nearest pair of the
    query's own graph: what it reads is always there, and never another graph's.
    """
    low, high, pair, graph = table.low, table.high, table.pair, table.graph
    query_node, key_node = table.query_node, table.key_node
    tables: list[tuple[Tensor, Tensor]] = []
    for bias in inputs.biases:
        if isinstance(bias, TableBias):
            # a tensor that is read at two places has no gradient in flex, but its copy has
            twice = any(bias.table is other for other, _ in tables)
            values = bias.table.clone() if twice else in_memory(bias.table)
            tables.append((values, _int32(bias.index)))
    mods = [mod.fn for mod in inputs.score_mods]
    on_edges = None
    if joined is not None and inputs.mask is not None:
        on_edges = _on_edges(inputs.mask, joined, inputs.heads)
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


def _on_edges(mask: EdgeMask, joined: Joined, heads: int) -> tuple[Tensor, Tensor] | None:
    """``[slots, H]``, what is added at each, and the slots; None where nothing is.

    A repeated edge counts as often as it stands: the logarithm of the sum of exponentials.
    """
    if joined.slot is None:
        return None
    values, log_counts = mask.values, joined.log_counts
    if log_counts is not None and values is None:
        values = log_counts.unsqueeze(1).repeat(1, heads)
    elif log_counts is not None and values is not None and joined.slot_of_edge is not None:
        values = segment_logsumexp(values.float(), joined.slot_of_edge, log_counts.numel())
    assert values is not None
    if values.size(0) == 0:  # no edge at all, but the function reads one
        values = values.new_zeros(2, heads)
    return values, joined.slot
