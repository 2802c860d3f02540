"""Fused attention on a CPU: C++ that the system's compiler makes on first use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...layout.values import is_readable, is_traced
from .._fused import cpu_edges_op as _cpu_edges_op
from .._fused.cpu_full_eager import attend
from .._fused.cpu_full_op import FullAttention
from .._kernels.cpu.edges import EDGES
from .._kernels.cpu.full import FULL, TYPES, Problem
from ..bias import EdgeBias, EdgeMask, PairBias, TableBias, checked_edges_of
from ..deferred import checked_edges
from ..inputs import Inputs
from ..memory import is_plain
from ..op_arguments import NOT_IN_A_TRACE, distinct, layout_arguments, needs_no_node
from ..pairs import pair_of_edge

NAME = "cpu"


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query, mask = inputs.query, inputs.mask
    if query.device.type != "cpu":
        return f"it runs on CPU tensors (got '{query.device}')"
    if query.dtype not in TYPES:
        return f"it computes in float32 from float32 or bfloat16 (got {query.dtype})"
    if inputs.score_mods:
        return "compiled code cannot call a 'ScoreMod'"
    if inputs.is_transformed:
        return "its ops have no forward-mode derivative and no rule for 'torch.func'"
    objection = _edge_biases(inputs) if mask is None else _along_edges(inputs, mask)
    return objection or _why_not_native(mask is not None)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _why_not_native(along_edges: bool) -> str | None:
    return (EDGES if along_edges else FULL).why_not()


def _edge_biases(inputs: Inputs) -> str | None:
    edges = {id(checked_edges_of(b)) for b in inputs.additive if isinstance(b, EdgeBias)}
    if len(edges) > 1 and not _is_known(inputs):
        return "two sets of edges with a bias are joined outside of traced code only"
    return None


def _along_edges(inputs: Inputs, mask: EdgeMask) -> str | None:
    if inputs.heads == 0:
        return "it needs heads to attend along edges (got none)"
    if mask.features is not None and mask.features.dtype != inputs.query.dtype:
        return (
            f"'features' must be of the type of 'query' (got {mask.features.dtype} and "
            f"{inputs.query.dtype})"
        )
    edges = checked_edges_of(mask)
    if is_traced() and inputs.layout.num_graphs != 1:
        return NOT_IN_A_TRACE
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            own = checked_edges_of(bias)
            if own is not edges and own.edge_index is not edges.edge_index:
                return "an 'EdgeBias' must lie on the very edges of the 'EdgeMask'"
            if not isinstance(edges, EdgeLayout) or edges.has_repeats:
                return "an 'EdgeBias' adds up over repeated edges, and it goes edge by edge"
        elif not _is_known(inputs) or not isinstance(edges, EdgeLayout):
            return f"a '{type(bias).__name__}' is read along edges outside of traced code only"
    return None


def _is_known(inputs: Inputs) -> bool:
    layouts = inputs.layout, inputs.query_layout
    return is_readable(inputs.query) and all(isinstance(x, GraphLayout) for x in layouts)


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    if inputs.mask is None:
        return _full(inputs)
    values = _values_on_edges(inputs, inputs.mask)
    edges: EdgeLayout | DeferredEdges | Tensor = checked_edges_of(inputs.mask)
    if isinstance(edges, DeferredEdges) and inputs.layout.num_graphs != 1:
        edges = checked_edges(edges, inputs.query_layout, inputs.layout)  # inside graphs
    query, key, value, values, features = distinct(
        inputs.query, inputs.key, inputs.value, values, inputs.mask.features
    )
    return _cpu_edges_op.forward(
        query, key, value, edges, values, features, inputs.scale, inputs.dropout_p, inputs.seed
    )


def _full(inputs: Inputs) -> Tensor:
    pairs: Tensor | None = None
    table: TableBias | None = None
    edges: Any = None
    edge_values: Tensor | None = None
    for bias in inputs.additive:
        if isinstance(bias, TableBias) and table is None:
            table = bias
        elif isinstance(bias, EdgeBias) and (edges is None or edges is bias.edges):
            edges, edge_values = bias.edges, _sum(edge_values, bias.values)
        elif isinstance(bias, PairBias):
            pairs = _sum(pairs, bias.values)
        elif isinstance(bias, TableBias):
            pairs = _sum(pairs, bias.table.index_select(0, bias.index.long()))
        else:
            assert isinstance(inputs.layout, GraphLayout)
            assert isinstance(inputs.query_layout, GraphLayout)
            pairs = _sum(pairs, bias.pair_values(inputs.query_layout, inputs.layout))
    index = None if table is None else table.index
    rows = None if table is None else table.table.float()
    query_layout, layout = inputs.query_layout, inputs.layout
    if (
        isinstance(query_layout, GraphLayout)
        and isinstance(layout, GraphLayout)
        and not isinstance(edges, DeferredEdges)
        and is_plain(inputs.query)
    ):
        problem = Problem(
            query_layout, layout, pairs, rows, index, edges, edge_values,
            inputs.seed, inputs.scale, inputs.dropout_p,
        )  # fmt: skip
        if inputs.qkv is not None:
            return attend(problem, inputs.qkv, None, None)
        return attend(problem, inputs.query, inputs.key, inputs.value)
    query_batch, query_graphs, batch, graphs = layout_arguments(query_layout, layout)
    *first, query_batch, batch = distinct(
        inputs.query, inputs.key, inputs.value, pairs, rows, edge_values, index,
        None if edges is None else edges.edge_index, inputs.seed, query_batch, batch,
    )  # fmt: skip
    rest = query_batch, query_graphs, batch, graphs, inputs.scale, inputs.dropout_p
    out: Tensor
    if needs_no_node(*first):
        out = torch.ops.pyg_gt.cpu_full(*first, *rest)[0]
    else:
        out = FullAttention.apply(*first, *rest)  # type: ignore[no-untyped-call]
    return out


def _values_on_edges(inputs: Inputs, mask: EdgeMask) -> Tensor | None:
    """``[E, H]``: what all biases together add to the score of each edge."""
    values = mask.values
    if values is not None and values.dtype != inputs.query.dtype:
        values = values.float()
    pairs: Tensor | None = None
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            values = _sum(values, bias.values)
            continue
        if pairs is None:
            edges = checked_edges_of(mask)
            assert isinstance(edges, EdgeLayout) and isinstance(inputs.layout, GraphLayout)
            assert isinstance(inputs.query_layout, GraphLayout)
            pairs = pair_of_edge(edges, inputs.query_layout, inputs.layout)
        if isinstance(bias, PairBias):
            values = _sum(values, bias.values.index_select(0, pairs))
        else:
            values = _sum(values, bias.table.index_select(0, bias.index[pairs].long()))
    return values


def _sum(total: Tensor | None, added: Tensor) -> Tensor:
    return added.float() if total is None else total + added.float()
