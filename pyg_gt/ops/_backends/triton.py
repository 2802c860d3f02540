"""Fused ragged attention on CUDA devices: kernels in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...layout.values import is_readable
from .._fused import triton_edges_op as _triton_edges_op
from .._fused.triton_full_eager import attend
from .._fused.triton_full_op import FullAttention
from .._kernels.triton.full.bias_gradients import pairs_of_edges
from .._kernels.triton.full.problem import MAX_CHANNELS, TYPES, Problem, interprets, is_installed
from .._triton_known import Call, biases_as_before
from ..bias import EdgeBias, EdgeMask, PairBias, TableBias, checked_edges_of
from ..deferred import checked_edges
from ..dropout import draw_seed
from ..inputs import Inputs
from ..memory import is_plain
from ..op_arguments import distinct, layout_arguments
from ..pairs import pair_of_edge

NAME = "triton"


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query = inputs.query
    if query.device.type != "cuda" and not (query.device.type == "cpu" and interprets()):
        return f"it needs a CUDA device (got '{query.device}')"
    if not _is_there():
        return "it needs the package 'triton' (pip install 'pyg_gt[triton]')"
    if query.is_cuda and _capability(query.device) < (8, 0):
        found = ".".join(map(str, _capability(query.device)))
        return f"it needs a device of compute capability 8.0 (got {found})"
    if query.dtype not in TYPES:
        return f"it computes in float32 from float32, float16 or bfloat16 (got {query.dtype})"
    if query.size(2) > MAX_CHANNELS:
        return f"it takes at most {MAX_CHANNELS} channels per head (got {query.size(2)})"
    if inputs.score_mods:
        return "compiled code cannot call a 'ScoreMod'"
    if inputs.is_transformed:
        return "its ops have no forward-mode derivative and no rule for 'torch.func'"
    return _edge_biases(inputs) if inputs.mask is None else _along_edges(inputs, inputs.mask)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_there() -> bool:
    return is_installed()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _edge_biases(inputs: Inputs) -> str | None:
    edges = {id(checked_edges_of(b)) for b in inputs.additive if isinstance(b, EdgeBias)}
    if len(edges) > 1 and not _is_known(inputs):
        return "two sets of edges with a bias are joined outside of traced code only"
    return None


def _along_edges(inputs: Inputs, mask: EdgeMask) -> str | None:
    edges = checked_edges_of(mask)
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
    return _full(inputs) if inputs.mask is None else _on_edges(inputs, inputs.mask)


def as_before(call: Call) -> Tensor | None:
    """``[Nq, H, C]``, or None where a call like this one was not checked before."""
    biases = biases_as_before(call)
    if biases is None:
        return None
    query, key, value, layout, _, query_layout, scale, dropout_p, _ = call
    assert isinstance(layout, GraphLayout)
    assert query_layout is None or isinstance(query_layout, GraphLayout)
    seed = draw_seed(query.device) if dropout_p > 0 else None
    scale = query.size(-1) ** -0.5 if scale is None else scale
    queries = query_layout or layout
    if not biases:
        problem = Problem(queries, layout, None, None, None, seed, scale, dropout_p)
        return attend(problem, query, key, value)
    mask = biases[0]
    qkv = None
    if key is None or value is None:
        qkv = query
        query, key, value = qkv.unbind(1)
    if len(biases) == 1 and isinstance(mask, EdgeMask):
        edges, values, features = checked_edges_of(mask), mask.values, mask.features
        return _triton_edges_op.forward(
            query, key, value, edges, values, features, seed, scale, dropout_p, is_checked=True
        )
    return forward(Inputs(query, key, value, queries, layout, biases, scale, dropout_p, seed, qkv))


def _on_edges(inputs: Inputs, mask: EdgeMask) -> Tensor:
    edges: EdgeLayout | DeferredEdges | Tensor = checked_edges_of(mask)
    if isinstance(edges, DeferredEdges) and inputs.layout.num_graphs != 1:
        edges = checked_edges(edges, inputs.query_layout, inputs.layout)  # inside graphs
    query, key, value, values, features = distinct(
        inputs.query, inputs.key, inputs.value, _values_on_edges(inputs, mask), mask.features
    )
    return _triton_edges_op.forward(
        query, key, value, edges, values, features, inputs.seed, inputs.scale, inputs.dropout_p
    )


def _values_on_edges(inputs: Inputs, mask: EdgeMask) -> Tensor | None:
    """``[E, H]``: what all biases together add to the score of each edge."""
    values = mask.values
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
        # not 'index_select', whose gradient is atomic
        if isinstance(bias, PairBias):
            values = _sum(values, bias.values[pairs])
        else:
            values = _sum(values, bias.table[bias.index[pairs].long()])
    return values


def _full(inputs: Inputs) -> Tensor:
    pairs: Tensor | None = None
    table: TableBias | None = None
    edges: EdgeBias | None = None
    edge_values: Tensor | None = None
    for bias in inputs.additive:
        if isinstance(bias, TableBias) and table is None:
            table = bias
        elif isinstance(bias, EdgeBias) and (edges is None or edges.edges is bias.edges):
            edges, edge_values = bias, _sum(edge_values, bias.values)
        elif isinstance(bias, PairBias):
            pairs = _sum(pairs, bias.values)
        elif isinstance(bias, TableBias):
            # not 'index_select', whose gradient is atomic
            pairs = _sum(pairs, bias.table[bias.index.long()])
        else:
            assert isinstance(inputs.layout, GraphLayout)
            assert isinstance(inputs.query_layout, GraphLayout)
            pairs = _sum(pairs, bias.pair_values(inputs.query_layout, inputs.layout))
    query_layout, layout = inputs.query_layout, inputs.layout
    rows, index = (None, None) if table is None else (table.table, table.index)
    own = None if edges is None else checked_edges_of(edges)
    if (
        isinstance(query_layout, GraphLayout)
        and isinstance(layout, GraphLayout)
        and not isinstance(own, DeferredEdges)
        and is_plain(inputs.query)
    ):
        edge_pairs, repeat = None, False
        if own is not None:
            edge_pairs, repeat = pairs_of_edges(own, query_layout, layout)
        problem = Problem(
            query_layout, layout, pairs, rows, index, inputs.seed, inputs.scale, inputs.dropout_p,
            repeat,
        )  # fmt: skip
        edge_index = None if own is None else own.edge_index
        own_edges = edge_index, edge_pairs, edge_values
        if inputs.qkv is not None:
            return attend(problem, inputs.qkv, None, None, *own_edges)
        return attend(problem, inputs.query, inputs.key, inputs.value, *own_edges)
    query_batch, query_graphs, batch, graphs = layout_arguments(query_layout, layout)
    *first, query_batch, batch = distinct(
        inputs.query, inputs.key, inputs.value, pairs, rows, edge_values, index,
        None if own is None else own.edge_index, inputs.seed, query_batch, batch,
    )  # fmt: skip
    out: Tensor = FullAttention.apply(  # type: ignore[no-untyped-call]
        *first, query_batch, query_graphs, batch, graphs, inputs.scale, inputs.dropout_p
    )
    return out


def _sum(total: Tensor | None, added: Tensor) -> Tensor:
    """One bias as it is; two in float32, since kernels read any type."""
    return added if total is None else total.float() + added.float()
