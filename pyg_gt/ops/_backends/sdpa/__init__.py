"""Dense attention on graphs of like size: torch's products and its fused CPU kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ....layout.values import is_readable, is_traced
from ...bias import EdgeBias, checked_edges_of
from ...inputs import Inputs
from ...traced_layouts import as_separate_tensors, layout_arguments, needs_no_node
from .bucketed_op import BucketedAttention
from .score_mods import attention_under_score_mods

NAME = "sdpa"


def unsupported(inputs: Inputs) -> str | None:
    """Why not: features of edges, dropout on repeated edges, score functions in traced code."""
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
        return attention_under_score_mods(inputs)
    dtype = torch.float64 if inputs.query.dtype == torch.float64 else torch.float32
    pair_values: Tensor | None = None
    edge_sets: list[Tensor] = []
    edge_values: list[Tensor] = []
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            edge_sets.append(checked_edges_of(bias).edge_index)
            edge_values.append(bias.values)
            continue
        values = inputs.pair_values(bias)
        pair_values = values if pair_values is None else pair_values.to(dtype) + values.to(dtype)
    mask = inputs.mask
    mask_values = None if mask is None else mask.values
    mask_edges = None if mask is None else checked_edges_of(mask).edge_index
    query_batch, query_graphs, batch, graphs = layout_arguments(inputs.query_layout, inputs.layout)
    query, key, value, query_batch, batch, mask_edges, *edge_sets = as_separate_tensors(
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
