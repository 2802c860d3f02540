"""FlexAttention on the packed batch: block-sparse between graphs, biases read in the kernel."""

from __future__ import annotations

import weakref
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ....layout.graph_layout import GraphLayout
from ....layout.values import is_readable
from ...bias import EdgeMask, ScoreMod, TableBias
from ...inputs import Inputs
from ...pairs import num_pairs
from .block_masks import graph_mask
from .compiled import run
from .edge_masks import EdgeMaps, edge_mask, too_large
from .packing import PackedAxes, packed_axes
from .score_mod import score_mod_of

NAME = "flex"

# On a CPU every pair of the batch has a score, across graphs too: 1 GiB here.
_MAX_CPU_SCORES = 2**28


def unsupported(inputs: Inputs) -> str | None:
    """Why not: traced code, dropout, biases on pairs and edges, float64, maps too large."""
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
        if not isinstance(bias, (TableBias, EdgeMask, ScoreMod)):
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
    query_layout, layout = inputs.resolved_layouts()
    if mask is not None:
        has_values = mask.values is not None
        if (reason := too_large(_edges(mask), query_layout, layout, has_values)) is not None:
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
    query_layout, layout = inputs.resolved_layouts()
    if num_pairs(query_layout, layout) == 0:
        return inputs.query.masked_fill(torch.ones_like(inputs.query, dtype=torch.bool), 0.0)
    compact = inputs.query.device.type == "cuda"  # the CPU kernel wants full-width tables
    keys = weakref.ref(layout)
    axes = query_layout.cached(("flex", keys), lambda: packed_axes(query_layout, layout))
    maps: EdgeMaps | None = None
    if inputs.mask is None:
        block_mask = query_layout.cached(
            ("flex mask", keys, compact), lambda: graph_mask(axes, compact)
        )
    else:
        maps = _edge_maps(inputs.mask, axes, query_layout, layout, compact)
        block_mask = maps.mask
    score_mod = score_mod_of(inputs, axes, maps)
    # a product with zero lets NaN through to the other graphs of a tile
    finite = inputs.value.nan_to_num(0.0, 0.0, 0.0)
    # autocast would lower the scores that softmax wants in full precision
    with torch.autocast(inputs.query.device.type, enabled=False):
        out = run(
            _pack(inputs.query, axes.query_row, axes.rows),
            _pack(inputs.key, axes.key_col, axes.cols),
            _pack(finite, axes.key_col, axes.cols),
            score_mod,
            block_mask,
            inputs.scale,
            _kind(inputs, maps),
            reads=score_mod is not None or maps is not None,
        )
    out = out[0].transpose(0, 1).index_select(0, axes.query_row)  # [Nq, H, C']
    out = out[..., : inputs.query.size(-1)]
    return out + _not_finite(inputs.value, layout)[query_layout.batch, None, None]


def _edge_maps(
    mask: EdgeMask, axes: PackedAxes, query_layout: GraphLayout, layout: GraphLayout, compact: bool
) -> EdgeMaps:
    edges, has_values = _edges(mask), mask.values is not None
    key = ("flex", weakref.ref(query_layout), weakref.ref(layout), has_values, compact)
    return edges.cached(
        key, lambda: edge_mask(axes, edges, query_layout, layout, has_values, compact)
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


def _kind(inputs: Inputs, maps: EdgeMaps | None) -> Hashable:
    """What the compiled kernel depends on, other than sizes that vary with the batch."""
    query = inputs.query
    functions = (getattr(mod.fn, "__code__", type(mod.fn)) for mod in inputs.score_mods)
    tables = sum(isinstance(bias, TableBias) for bias in inputs.biases)
    has_slots = maps is not None and maps.slot is not None
    return (
        query.device, query.dtype, query.shape[1:], torch.is_grad_enabled(), inputs.requires_grad,
        tables, maps is not None, has_slots, *functions,
    )  # fmt: skip
