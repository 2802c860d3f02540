"""The ops around ``_cpu_full``, and their place in autograd.

Host numbers are read only inside the ops, so that traced code sees one node forward and one
backward, whatever the sizes of the graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._identity import is_readable
from ..edge_layout import EdgeLayout
from ..layout import DeferredLayout, GraphLayout
from . import _cpu_full
from ._checked import LIBRARY, TAGS, checked_table_index, resolved
from ._cpu_full import Problem
from .bias import num_pairs

# in place of the number of graphs: the queries' layout is the keys'
SAME = -2


class FullAttention(torch.autograd.Function):
    """Two ops, or in eager code what stands behind them."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pairs: Tensor | None,
        table: Tensor | None,
        edge_values: Tensor | None,
        index: Tensor | None,
        edges: Tensor | None,
        seed: Tensor | None,
        query_batch: Tensor | None,
        query_graphs: int,
        batch: Tensor | None,
        graphs: int,
        scale: float,
        dropout_p: float,
    ) -> Tensor:
        """``[Nq, H, C]``."""
        rest = (
            pairs, table, edge_values, index, edges, seed, query_batch, query_graphs, batch,
            graphs, scale, dropout_p,
        )  # fmt: skip
        run = _forward_op if is_plain(query) else torch.ops.pyg_gt.cpu_full
        out, stats = run(query, key, value, *rest)
        ctx.save_for_backward(
            query, key, value, pairs, table, edge_values, index, edges, seed, query_batch, batch,
            out, stats,
        )  # fmt: skip
        ctx.numbers = query_graphs, graphs, scale, dropout_p
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        (
            query, key, value, pairs, table, edge_values, index, edges, seed, query_batch, batch,
            out, stats,
        ) = ctx.saved_tensors  # fmt: skip
        query_graphs, graphs, scale, dropout_p = ctx.numbers
        needs = list(ctx.needs_input_grad[3:6])
        rest = (
            pairs, table, edge_values, index, edges, seed, query_batch, query_graphs, batch,
            graphs, scale, dropout_p,
        )  # fmt: skip
        with torch.no_grad():
            if is_plain(query) and is_plain(grad):
                grads = _gradients(grad, query, key, value, out, stats, *rest, needs, joined=True)
            else:
                grads = torch.ops.pyg_gt.cpu_full_backward(
                    grad, query, key, value, out, stats, *rest, needs
                )
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # 'create_graph=True'
            grads = _DifferentiableOnce.apply(  # type: ignore[no-untyped-call]
                *grads, grad, query, key, value, pairs, table, edge_values
            )
        dq, dk, dv, *rest_of = grads
        wanted = (d if need else None for d, need in zip(rest_of, needs, strict=True))
        return dq, dk, dv, *wanted, *(None,) * 9


class _DifferentiableOnce(torch.autograd.Function):
    """Gradients that refuse to be differentiated, as in ``_bucketed_op``."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The first six: the gradients, without what they were made from."""
        return tensors[:6]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Nothing."""
        raise NotImplementedError(
            "the 'cpu' backend has no second derivative; pass backend='reference' (all pairs) or "
            "'sparse' (along edges)"
        )


def is_plain(x: Tensor) -> bool:
    """Whether nothing but autograd looks on, so that an op is not needed."""
    if not is_readable(x) or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    return (
        torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


_PROBLEM = (
    "Tensor? pairs, Tensor? table, Tensor? edge_values, Tensor? index, Tensor? edges, "
    "Tensor? seed, Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs, "
    "float scale, float dropout_p"
)
LIBRARY.define(
    f"cpu_full(Tensor query, Tensor key, Tensor value, {_PROBLEM}) -> (Tensor, Tensor)", tags=TAGS
)
LIBRARY.define(
    f"cpu_full_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor stats, {_PROBLEM}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)


def _problem(
    query: Tensor,
    key: Tensor,
    pairs: Tensor | None,
    table: Tensor | None,
    edge_values: Tensor | None,
    index: Tensor | None,
    edges: Tensor | None,
    seed: Tensor | None,
    query_batch: Tensor | None,
    query_graphs: int,
    batch: Tensor | None,
    graphs: int,
    scale: float,
    dropout_p: float,
) -> Problem:
    """Everything is checked here: behind it are addresses."""
    key_side = DeferredLayout(batch, key.size(0), graphs)
    query_side = key_side
    if query_graphs != SAME:
        query_side = DeferredLayout(query_batch, query.size(0), query_graphs)
    query_layout, layout = resolved(query_side, key_side, query.device)
    heads = query.size(1)
    for name, bias, size in (("pairs", pairs, None), ("table", table, None)):
        if bias is not None and (bias.dtype != torch.float32 or bias.shape[1:] != (heads,)):
            raise ValueError(
                f"'{name}' must be float32 of shape [*, {heads}] (got {list(bias.shape)}, "
                f"{bias.dtype})"
            )
    for bias in (pairs, index):
        size = num_pairs(query_layout, layout)
        if bias is not None and bias.size(0) != size:
            raise ValueError(f"a bias describes {bias.size(0)} pairs, but the layout has {size}")
    if index is not None:
        assert table is not None
        checked_table_index(index, table.size(0))
    edge_layout = None
    if edges is not None:
        made = EdgeLayout.of(edges, layout.num_nodes, query_layout.num_nodes)
        assert isinstance(made, EdgeLayout) and edge_values is not None
        made.check_within_graphs(query_layout, layout)
        if edge_values.dtype != torch.float32 or edge_values.shape != (made.num_edges, heads):
            raise ValueError(
                f"'edge_values' must be float32 of shape [{made.num_edges}, {heads}] (got "
                f"{list(edge_values.shape)}, {edge_values.dtype})"
            )
        edge_layout = made
    return Problem(
        query_layout, layout, pairs, table, index, edge_layout, edge_values, seed, scale, dropout_p
    )


def _forward_op(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _cpu_full.forward(_problem(query, key, *rest), query, key, value)


def _gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    *rest: Any,
    joined: bool = False,
) -> tuple[Tensor, ...]:
    *problem, needs = rest
    made = _cpu_full.backward(
        _problem(query, key, *problem), grad, query, key, value, out, stats, tuple(needs), joined
    )
    # an op returns tensors, and no tensor twice
    return tuple(query.new_empty(0) if x is None else x for x in made)


LIBRARY.impl("cpu_full", _forward_op, "CPU")
LIBRARY.impl("cpu_full_backward", _gradients, "CPU")


@torch.library.register_fake("pyg_gt::cpu_full", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _forward_fake(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    stats = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
    return query.new_empty(query.shape), stats


@torch.library.register_fake("pyg_gt::cpu_full_backward", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *biases, _, _, _, _, _, _, _, _, _, needs = rest
    like = [x.new_empty(x.shape) for x in (query, key, value)]
    made = [
        x.new_empty(x.shape) if need and x is not None else query.new_empty(0)
        for x, need in zip(biases, needs, strict=True)
    ]
    return (*like, *made)
