"""The definition: one graph at a time, in plain PyTorch. Slow, and right for every input."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...layout.values import is_readable
from ..bias import EdgeMask, checked_edges_of
from ..dropout import keep_edges, keep_pairs
from ..inputs import Inputs
from ..pairs import num_pairs
from ..traced_layouts import resolved_edges

NAME = "reference"


def unsupported(inputs: Inputs) -> str | None:
    """Why not: tensors without values. It runs whatever else ``attention`` lets pass."""
    if not torch.compiler.is_compiling() and not is_readable(inputs.query):
        return "it loops over graphs, whose sizes no traced tensor, nor one without values, tells"
    return None


@torch.compiler.disable(reason="the reference loops over graphs in Python")  # type: ignore[untyped-decorator]
def forward(inputs: Inputs) -> Tensor:
    r"""``[Nq, H, C]``: :math:`\sum_j \mathrm{dropout}(\mathrm{softmax}_j(s_{ij})) v_j`."""
    # autocast would lower the products that softmax wants in full precision
    with torch.autocast(inputs.query.device.type, enabled=False):
        return _by_graph(inputs)


def _by_graph(inputs: Inputs) -> Tensor:
    query_layout, layout = inputs.resolved_layouts()
    dtype = inputs.query.dtype
    score_dtype = dtype if dtype == torch.float64 else torch.float32
    query, key, value = (x.to(score_dtype) for x in (inputs.query, inputs.key, inputs.value))
    flat = query.new_zeros(num_pairs(query_layout, layout), inputs.heads)
    for bias in inputs.additive:
        flat = flat + bias.pair_values(query_layout, layout).to(score_dtype)

    # every row is written below; where there is none, autograd has a graph all the same
    empty = [x.sum() for x in (key, value, flat) if x.numel() == 0]
    out = query + sum(empty) if empty else query.clone()
    query_order, key_order = _nodes(query_layout), _nodes(layout)
    first_query = first_key = first_pair = 0
    for graph, (n, m) in enumerate(zip(query_layout.sizes, layout.sizes, strict=True)):
        rows = query_order[first_query : first_query + n]
        cols = key_order[first_key : first_key + m]
        pairs = first_pair + torch.arange(n * m, device=query.device).view(n, m)
        q, k, v = query[rows], key[cols], value[cols]  # [n, H, C], [m, H, C]
        added = flat[pairs]  # [n, m, H]
        if inputs.mask is None:
            scores = inputs.scale * torch.einsum("ihc,jhc->ijh", q, k) + added
            for mod in inputs.score_mods:
                scores = mod.apply(scores, rows.new_tensor(graph), rows[:, None], cols[None, :])
            weights = _softmax(scores, dim=1)
            if inputs.seed is not None:
                number = first_query + torch.arange(n, device=query.device)[:, None]
                weights = weights * keep_pairs(
                    inputs.seed, number, layout.pos[cols], inputs.heads, inputs.dropout_p,
                    score_dtype,
                )  # fmt: skip
            result = torch.einsum("ijh,jhc->ihc", weights, v)
        else:
            result = _along_edges(inputs, graph, query_layout, layout, rows, q, key, value, added)
        out = out.index_copy(0, rows, result)
        first_query, first_key, first_pair = first_query + n, first_key + m, first_pair + n * m
    return out.to(dtype)


def _along_edges(
    inputs: Inputs,
    graph: int,
    query_layout: GraphLayout,
    layout: GraphLayout,
    rows: Tensor,
    query: Tensor,
    all_keys: Tensor,
    all_values: Tensor,
    added: Tensor,
) -> Tensor:
    """``[n, H, C]`` for the queries of one graph; an edge that stands twice counts twice."""
    mask, edges, numbers = _edges_of(inputs.mask, graph, query_layout, layout)
    source, target = edges.ends[:, numbers].long()
    row, col = query_layout.pos[target], layout.pos[source]
    k, v = all_keys[source], all_values[source]  # [e, H, C]
    if mask.features is not None:
        features = mask.features[numbers].to(k.dtype)
        k, v = k + features, v + features
    scores = inputs.scale * (query[row] * k).sum(-1)  # [e, H]
    if added.size(1) > 0:
        scores = scores + added[row, col]
    for mod in inputs.score_mods:
        scores = mod.apply(scores, rows.new_tensor(graph), target, source)
    if mask.values is not None:
        scores = scores + mask.values[numbers].to(scores.dtype)
    # which edge belongs to which query: [n, e, 1]
    belongs = (row == torch.arange(rows.numel(), device=row.device)[:, None]).unsqueeze(-1)
    table = torch.where(belongs, scores, float("-inf"))  # [n, e, H]
    weights = _softmax(table, dim=1)
    if inputs.seed is not None:
        factors = keep_edges(inputs.seed, numbers, inputs.heads, inputs.dropout_p, weights.dtype)
        weights = weights * factors
    return torch.einsum("neh,ehc->nhc", weights, v)


def _edges_of(
    mask: EdgeMask | None, graph: int, query_layout: GraphLayout, layout: GraphLayout
) -> tuple[EdgeMask, EdgeLayout, Tensor]:
    assert mask is not None
    edges = checked_edges_of(mask)
    if not isinstance(edges, EdgeLayout):  # deferred edges that reached eager code
        made = resolved_edges(edges.edge_index, edges.num_src, edges.num_dst)
        made.check_within_graphs(query_layout, layout)
        edges = made
    return mask, edges, (query_layout.batch[edges.ends[1]] == graph).nonzero().squeeze(1)


def _softmax(scores: Tensor, dim: int) -> Tensor:
    """Softmax that is zero, with zero gradient, where every score is minus infinity."""
    empty = (scores == float("-inf")).all(dim, keepdim=True)
    return scores.masked_fill(empty, 0.0).softmax(dim).masked_fill(empty, 0.0)


def _nodes(layout: GraphLayout) -> Tensor:
    if layout.order is not None:
        return layout.order
    return torch.arange(layout.num_nodes, device=layout.device)
