"""The ops behind the ``sdpa`` backend, and their place in autograd.

Host lists are read only inside these ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....layout.edge_layout import EdgeLayout
from ..._kernels.composed import full as _bucketed
from ..._kernels.composed.buckets import plan_of
from ...bias import EdgeMask
from ...deferred import LIBRARY, TAGS, found_edges
from ...op_arguments import layouts_of
from ...pairs import num_pairs, pair_of_edge
from ...second_derivatives import differentiable_once


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
        out, lse = torch.ops.pyg_gt.bucketed(
            query, key, value, query_batch, query_graphs, batch, graphs, pair_values, edge_sets,
            edge_values, mask_edges, mask_values, seed, scale, dropout_p,
        )  # fmt: skip
        ctx.save_for_backward(
            query, key, value, out, lse, pair_values, mask_values, seed, query_batch, batch,
            mask_edges, *edge_sets, *edge_values,
        )  # fmt: skip
        ctx.numbers = query_graphs, graphs, scale, dropout_p
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        (
            query, key, value, out, lse, pair_values, mask_values, seed, query_batch, batch,
            mask_edges, *edges,
        ) = ctx.saved_tensors  # fmt: skip
        query_graphs, graphs, scale, dropout_p = ctx.numbers
        count = len(edges) // 2
        edge_sets, edge_values = edges[:count], edges[count:]
        needs = ctx.needs_input_grad
        with torch.no_grad():
            dq, dk, dv, dpairs, dmask, dedges = torch.ops.pyg_gt.bucketed_backward(
                grad, query, key, value, out, lse, query_batch, query_graphs, batch, graphs,
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
    f"Tensor lse, {_LAYOUTS}, {_BIASES}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor[])",
    tags=TAGS,
)


class _Call:
    """What both ops read on the host: the layouts, the edges, the sum of all biases."""

    def __init__(
        self,
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
    ) -> None:
        self.query_layout, self.layout = layouts_of(
            query, key, query_batch, query_graphs, batch, graphs
        )
        self.heads = query.size(1)
        self.dtype = query.dtype if query.dtype == torch.float64 else torch.float32
        self.mask = None if mask_edges is None else self._edges(mask_edges)
        self.mask_values = mask_values
        self.edge_sets = [self._edges(edges) for edges in edge_sets]
        self.mask_bias: Tensor | None = None
        bias = self._sum(pair_values, edge_values)
        self.problem = _bucketed.Problem(
            plan_of(self.query_layout, self.layout), self.heads, scale, bias, dropout_p, seed
        )

    def pairs(self, edges: EdgeLayout) -> Tensor:
        return pair_of_edge(edges, self.query_layout, self.layout)

    def _edges(self, edge_index: Tensor) -> EdgeLayout:
        made = found_edges(edge_index, self.layout.num_nodes, self.query_layout.num_nodes)
        made.check_within_graphs(self.query_layout, self.layout)
        return made

    def _sum(self, pair_values: Tensor | None, edge_values: Sequence[Tensor]) -> Tensor | None:
        total: Tensor | None = None
        size = num_pairs(self.query_layout, self.layout)
        if pair_values is not None:
            if pair_values.size(0) != size:
                raise ValueError(
                    f"a bias describes {pair_values.size(0)} pairs, but the layout has {size}"
                )
            total = pair_values.to(self.dtype)
        for edges, values in zip(self.edge_sets, edge_values, strict=True):
            if total is None:
                total = torch.zeros(size, self.heads, dtype=self.dtype, device=values.device)
            total = total.index_add(0, self.pairs(edges), values.to(self.dtype))
        if self.mask is not None:
            plain = self.mask_values
            if plain is None:  # repeats turn into logarithms: in the type of the scores
                plain = torch.zeros(self.mask.num_edges, 1, device=self.mask.device)
            mask = EdgeMask(self.mask, plain.to(self.dtype))
            self.mask_bias = mask.pair_values(self.query_layout, self.layout)
            total = self.mask_bias if total is None else total + self.mask_bias
        return total


@torch.library.impl(LIBRARY, "bucketed", "CompositeExplicitAutograd")
def _bucketed_op(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    # autocast would lower the products that softmax wants in full precision
    with torch.autocast(query.device.type, enabled=False):
        return _bucketed.forward(_Call(query, key, *rest).problem, query, key, value)


@torch.library.impl(LIBRARY, "bucketed_backward", "CompositeExplicitAutograd")
def _bucketed_backward_op(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    *call_args, (needs_pairs, needs_mask, needs_edges) = rest
    with torch.autocast(query.device.type, enabled=False):
        call = _Call(query, key, *call_args)
        needs_bias = needs_pairs or needs_mask or needs_edges
        dq, dk, dv, dbias = _bucketed.backward(
            call.problem, grad, query, key, value, out, lse, needs_bias
        )
    pair_values, edge_values, mask_values = (call_args[i] for i in (4, 6, 8))
    dpairs, dmask = query.new_empty(0), query.new_empty(0)  # outputs must not be one tensor
    dedges = [torch.empty_like(values) for values in edge_values]
    if dbias is not None:
        if needs_pairs:
            dpairs = dbias.to(pair_values.dtype)
        if needs_mask:
            dmask = _mask_gradient(call, dbias).to(mask_values.dtype)
        if needs_edges:
            dedges = [
                dbias[call.pairs(edges)].to(values.dtype)
                for edges, values in zip(call.edge_sets, edge_values, strict=True)
            ]
    return dq, dk, dv, dpairs, dmask, dedges


def _mask_gradient(call: _Call, dbias: Tensor) -> Tensor:
    """``[E, H]``: a repeated edge has its share of the sum of exponentials."""
    assert call.mask is not None and call.mask_values is not None and call.mask_bias is not None
    pairs = call.pairs(call.mask)
    total = call.mask_bias[pairs]
    share = (call.mask_values.to(total.dtype) - total).exp()
    return torch.where(total == float("-inf"), 0.0, dbias[pairs] * share)


@torch.library.register_fake("pyg_gt::bucketed", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _bucketed_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wide = query.dtype if query.dtype == torch.float64 else torch.float32
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(query.shape[:2], dtype=wide)


@torch.library.register_fake("pyg_gt::bucketed_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _bucketed_backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    *call_args, (needs_pairs, needs_mask, _) = rest
    pair_values, edge_values, mask_values = (call_args[i] for i in (4, 6, 8))
    like = [x.new_empty(x.shape) for x in (query, key, value)]
    dpairs = pair_values.new_empty(pair_values.shape) if needs_pairs else query.new_empty(0)
    dmask = mask_values.new_empty(mask_values.shape) if needs_mask else query.new_empty(0)
    return *like, dpairs, dmask, [x.new_empty(x.shape) for x in edge_values]  # type: ignore[return-value]
