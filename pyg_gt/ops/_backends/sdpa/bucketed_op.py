"""The ops ``pyg_gt::bucketed`` and ``pyg_gt::bucketed_backward``, and their place in autograd.

Host lists are read only inside these ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ..._kernels.problem import FullProblem, Saved
from ..._kernels.torch_ops import full as kernels
from ..._kernels.torch_ops.biases import with_edge_values
from ..._kernels.torch_ops.dropout import Dropout, generator_dropout, philox_dropout
from ...bias import EdgeMask
from ...checks import check_pairs
from ...pairs import pair_of_edge
from ...second_derivatives import differentiable_once
from ...torch_library import LIBRARY, TAGS
from ...traced_layouts import layouts_of, resolved_edges


class BucketedAttention(torch.autograd.Function):
    """Two ops, so that ``torch.compile`` sees one node forward and one backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pair_values: Tensor | None,
        mask_values: Tensor | None,
        seed: Tensor | None,
        query_batch: Tensor | None,
        query_graphs: int,
        batch: Tensor | None,
        graphs: int,
        mask_edges: Tensor | None,
        edge_sets: list[Tensor],
        scale: float,
        dropout_p: float,
        *edge_values: Tensor,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        out, stats = torch.ops.pyg_gt.bucketed(
            query, key, value, query_batch, query_graphs, batch, graphs, pair_values, edge_sets,
            edge_values, mask_edges, mask_values, seed, scale, dropout_p,
        )  # fmt: skip
        ctx.save_for_backward(
            query, key, value, out, stats, pair_values, mask_values, seed, query_batch, batch,
            mask_edges, *edge_sets, *edge_values,
        )  # fmt: skip
        ctx.numbers = query_graphs, graphs, scale, dropout_p
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        (
            query, key, value, out, stats, pair_values, mask_values, seed, query_batch, batch,
            mask_edges, *edges,
        ) = ctx.saved_tensors  # fmt: skip
        query_graphs, graphs, scale, dropout_p = ctx.numbers
        count = len(edges) // 2
        edge_sets, edge_values = edges[:count], edges[count:]
        needs = ctx.needs_input_grad
        with torch.no_grad():
            dq, dk, dv, dpairs, dmask, dedges = torch.ops.pyg_gt.bucketed_backward(
                grad, query, key, value, out, stats, query_batch, query_graphs, batch, graphs,
                pair_values, edge_sets, edge_values, mask_edges, mask_values, seed, scale,
                dropout_p, [needs[3], needs[4], any(needs[14:])],
            )  # fmt: skip
        dq, dk, dv, dpairs, dmask, *dedges = differentiable_once(
            "sdpa", "backend='reference' (all pairs) or 'sparse' (along edges)",
            (dq, dk, dv, dpairs, dmask, *dedges),
            (grad, query, key, value, pair_values, mask_values, *edge_values),
        )  # fmt: skip
        return (
            dq, dk, dv, dpairs if needs[3] else None, dmask if needs[4] else None,
            *(None,) * 9, *(d if n else None for d, n in zip(dedges, needs[14:], strict=True)),
        )  # fmt: skip


_LAYOUTS = "Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs"
_BIASES = (
    "Tensor? pair_values, Tensor[] edge_sets, Tensor[] edge_values, Tensor? mask_edges, "
    "Tensor? mask_values, Tensor? seed, float scale, float dropout_p"
)
LIBRARY.define(
    f"bucketed(Tensor query, Tensor key, Tensor value, {_LAYOUTS}, {_BIASES}) -> (Tensor, Tensor)",
    tags=TAGS,
)
LIBRARY.define(
    f"bucketed_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor stats, {_LAYOUTS}, {_BIASES}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor[])",
    tags=TAGS,
)


class _Problem(NamedTuple):
    """What both ops compute.

    Attributes:
        full: the attention, all biases as one sum over pairs.
        edge_sets: the edges of the biases on edges.
        mask: the edges that attend, or None.
        mask_bias: ``[P, H]`` (``[P, 1]`` without values), what the mask adds; None without one.
    """

    full: FullProblem
    edge_sets: list[EdgeLayout]
    mask: EdgeLayout | None
    mask_bias: Tensor | None


def _problem(
    query: Tensor,
    key: Tensor,
    query_batch: Tensor | None,
    query_graphs: int,
    batch: Tensor | None,
    graphs: int,
    pair_values: Tensor | None,
    edge_sets: Sequence[Tensor],
    edge_values: Sequence[Tensor],
    mask_edges: Tensor | None,
    mask_values: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
) -> _Problem:
    layouts = layouts_of(query, key, query_batch, query_graphs, batch, graphs)
    query_layout, layout = layouts

    def edges_of(edge_index: Tensor) -> EdgeLayout:
        edges = resolved_edges(edge_index, layout.num_nodes, query_layout.num_nodes)
        edges.check_within_graphs(query_layout, layout)
        return edges

    dtype = query.dtype if query.dtype == torch.float64 else torch.float32
    if pair_values is not None:
        check_pairs(pair_values, query_layout, layout)
        pair_values = pair_values.to(dtype)
    sets = [edges_of(edges) for edges in edge_sets]
    on_edges = zip(sets, edge_values, strict=True)
    total = with_edge_values(pair_values, on_edges, query_layout, layout, dtype)
    mask = mask_bias = None
    if mask_edges is not None:
        mask = edges_of(mask_edges)
        if mask_values is None:  # repeats turn into logarithms: in the type of the scores
            mask_values = torch.zeros(mask.num_edges, 1, device=mask.device)
        mask_bias = EdgeMask(mask, mask_values.to(dtype)).pair_values(query_layout, layout)
        total = mask_bias if total is None else total + mask_bias
    full = FullProblem(*layouts, total, None, None, None, None, seed, scale, dropout_p)
    return _Problem(full, sets, mask, mask_bias)


def _dropout_of(query: Tensor) -> Callable[[FullProblem], Dropout | None]:
    # to read a seed stalls an accelerator
    return generator_dropout if query.device.type == "cpu" else philox_dropout


@torch.library.impl(LIBRARY, "bucketed", "CompositeExplicitAutograd")
def _forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    full = _problem(query, key, *rest).full
    return kernels.forward(full, query, key, value, _dropout_of(query))


@torch.library.impl(LIBRARY, "bucketed_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    *given, (needs_pairs, needs_mask, needs_edges) = rest
    problem = _problem(query, key, *given)
    needs = needs_pairs or needs_mask or needs_edges, False, False
    dq, dk, dv, dbias, _, _ = kernels.backward(
        problem.full, grad, Saved(query, key, value, out, stats), needs,
        dropout=_dropout_of(query),
    )
    pair_values, edge_values, mask_values = (given[i] for i in (4, 6, 8))
    dpairs, dmask = query.new_empty(0), query.new_empty(0)  # outputs must not be one tensor
    dedges = [torch.empty_like(values) for values in edge_values]
    if dbias is not None:
        if needs_pairs:
            dpairs = dbias.to(pair_values.dtype)
        if needs_mask:
            dmask = _mask_gradient(problem, mask_values, dbias)
        if needs_edges:
            layouts = problem.full.query_layout, problem.full.layout
            dedges = [
                dbias[pair_of_edge(edges, *layouts)].to(values.dtype)
                for edges, values in zip(problem.edge_sets, edge_values, strict=True)
            ]
    return dq, dk, dv, dpairs, dmask, dedges


def _mask_gradient(problem: _Problem, mask_values: Tensor, dbias: Tensor) -> Tensor:
    """``[E, H]``: a repeated edge has its share of the sum of exponentials."""
    assert problem.mask is not None and problem.mask_bias is not None
    pair = pair_of_edge(problem.mask, problem.full.query_layout, problem.full.layout)
    total = problem.mask_bias[pair]
    share = (mask_values.to(total.dtype) - total).exp()
    gradient = torch.where(total == float("-inf"), 0.0, dbias[pair] * share)
    return gradient.to(mask_values.dtype)


@torch.library.register_fake("pyg_gt::bucketed", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype = query.dtype if query.dtype == torch.float64 else torch.float32
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty((*query.shape[:2], 2), dtype=dtype)


@torch.library.register_fake("pyg_gt::bucketed_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    *given, (needs_pairs, needs_mask, _) = rest
    pair_values, edge_values, mask_values = (given[i] for i in (4, 6, 8))
    dq, dk, dv = (x.new_empty(x.shape) for x in (query, key, value))
    dpairs = pair_values.new_empty(pair_values.shape) if needs_pairs else query.new_empty(0)
    dmask = mask_values.new_empty(mask_values.shape) if needs_mask else query.new_empty(0)
    return dq, dk, dv, dpairs, dmask, [x.new_empty(x.shape) for x in edge_values]
