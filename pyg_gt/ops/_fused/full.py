"""Full attention inside each graph: the op ``pyg_gt::full_attention`` and its eager form.

One schema, one fake and one gradient for all devices. Traced code calls the op, which takes
tensors and numbers alone. Eager code calls the kernels through an ``autograd.Function``, without
the dispatcher: on a batch of molecules a call of the op takes longer than the kernels.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.graph_layout import GraphLayout
from .._kernels.problem import FullProblem, Saved
from ..checks import FLOATS, check_like, check_pairs
from ..index_checks import checked_table_index
from ..inputs import Inputs
from ..memory import apply, empty_like, has_raw_memory, have_raw_memory
from ..second_derivatives import differentiable_once
from ..torch_library import LIBRARY, TAGS
from ..traced_layouts import layout_arguments, layouts_of, resolved_edges
from .biases import full_biases
from .kernels import EAGER_ONLY, ONE_GRADIENT, full_kernels
from .op_checks import check_dropout, check_qkv, check_saved
from .qkv import as_one, parts_of
from .registration import as_outputs, check_needs, empty_where_needed, register
from .saved_tensors import check_kinds, kinds_of

_CURE = "backend='reference' (all pairs) or 'sparse' (along edges)"


def full_attention(
    inputs: Inputs, backend: str, kernels: ModuleType, *, eager_only: bool = False
) -> Tensor:
    """``[Nq, H, C]``.

    Args:
        inputs: checked, with biases that
            :func:`~pyg_gt.ops._fused.biases.unsupported_biases` lets pass.
        backend: the name by which errors call it.
        kernels: those to run in eager code; the op runs those of the device.
        eager_only: whether the kernels are not those of the device.
    """
    biases = full_biases(inputs)
    query_layout, layout, edges = inputs.query_layout, inputs.layout, biases.edges
    if (
        isinstance(query_layout, GraphLayout)
        and isinstance(layout, GraphLayout)
        and not isinstance(edges, DeferredEdges)
        and have_raw_memory(inputs.query, inputs.key, inputs.value, *biases.tensors)
    ):
        problem = FullProblem(
            query_layout, layout, biases.pairs, biases.table, biases.table_index, edges,
            biases.edge_values, inputs.seed, inputs.scale, inputs.dropout_p,
        )  # fmt: skip
        if inputs.qkv is not None:
            return _eager(problem, backend, kernels, inputs.qkv, None, None)
        return _eager(problem, backend, kernels, inputs.query, inputs.key, inputs.value)
    if eager_only:
        raise NotImplementedError(EAGER_ONLY)
    out: Tensor = torch.ops.pyg_gt.full_attention(
        inputs.query, inputs.key, inputs.value, biases.pairs, biases.table, biases.edge_values,
        biases.table_index, None if edges is None else edges.edge_index, inputs.seed,
        *layout_arguments(query_layout, layout), inputs.scale, inputs.dropout_p,
    )[0]  # fmt: skip
    return out


def _eager(
    problem: FullProblem,
    backend: str,
    kernels: ModuleType,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
) -> Tensor:
    leaves = query, key, value, problem.pairs, problem.table, problem.edge_values
    if torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in leaves]):
        return apply(_FullAttention, problem, backend, kernels, *leaves)
    out: Tensor = kernels.forward(problem, *parts_of(query, key, value))[0]
    return out


class _FullAttention(torch.autograd.Function):
    """The eager form.

    Its tensors are query, key, value, pairs, table and edge values; without a key and a value,
    ``query`` is ``[N, 3, H, C]`` of all three.
    """

    @staticmethod
    def forward(
        ctx: Any, problem: FullProblem, backend: str, kernels: ModuleType, *leaves: Tensor | None
    ) -> Tensor:
        """``[Nq, H, C]``."""
        query, key, value = leaves[:3]
        assert query is not None
        out: Tensor
        out, stats = kernels.forward(problem, *parts_of(query, key, value))
        # tensors go through autograd, which sees edits and lets checkpoints drop them
        saved = *leaves, problem.table_index, problem.seed, out, stats
        ctx.save_for_backward(*saved)
        ctx.kinds = kinds_of(saved)
        ctx.problem = problem._replace(
            pairs=None, table=None, table_index=None, edge_values=None, seed=None
        )
        ctx.backend, ctx.kernels = backend, kernels
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient for each argument of ``forward``."""
        saved = ctx.saved_tensors
        check_kinds(saved, ctx.kinds)
        query, key, value, pairs, table, edge_values, index, seed, out, stats = saved
        problem = ctx.problem._replace(
            pairs=pairs, table=table, table_index=index, edge_values=edge_values, seed=seed
        )
        needs = tuple(ctx.needs_input_grad[6:9])
        parts = parts_of(query, key, value)
        with torch.no_grad():
            joined = None
            grads: Any
            if has_raw_memory(grad):
                joined = empty_like(query) if key is None else None
                passed = Saved(*parts, out, stats)
                grads = ctx.kernels.backward(problem, grad, passed, needs, joined)
            else:  # a batch of gradients, or a compiler at work
                if ctx.kernels is not full_kernels(query):
                    raise NotImplementedError(ONE_GRADIENT)
                grads = _backward_by_op(problem, grad, *parts, out, stats, needs)
            if key is None:
                grads = (as_one(grads[:3], joined), None, None, *grads[3:])
        made_from = grad, *saved[:6]
        return None, None, None, *differentiable_once(ctx.backend, _CURE, grads, made_from)


def _backward_by_op(
    problem: FullProblem,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    stats: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    query_layout, layout, pairs, table, index, edges, edge_values, seed, *numbers = problem
    grads = torch.ops.pyg_gt.full_attention_backward(
        grad, query, key, value, out, stats, pairs, table, edge_values, index,
        None if edges is None else edges.edge_index, seed,
        *layout_arguments(query_layout, layout), *numbers, needs,
    )  # fmt: skip
    return _asked_for(grads, needs)


def _asked_for(grads: Any, needs: Any) -> tuple[Tensor | None, ...]:
    """Those of query, key and value, and of the biases those in ``needs``."""
    return *grads[:3], *(x if need else None for x, need in zip(grads[3:], needs, strict=True))


_ARGUMENTS = (
    "Tensor? pairs, Tensor? table, Tensor? edge_values, Tensor? index, Tensor? edges, "
    "Tensor? seed, Tensor? query_batch, SymInt query_graphs, Tensor? batch, SymInt graphs, "
    "float scale, float dropout_p"
)
LIBRARY.define(
    f"full_attention(Tensor query, Tensor key, Tensor value, {_ARGUMENTS}) -> (Tensor, Tensor)",
    tags=TAGS,
)
LIBRARY.define(
    f"full_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor stats, {_ARGUMENTS}, bool[] needs) "
    f"-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)


def _problem(
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
) -> FullProblem:
    """Everything is checked here: kernels go by addresses."""
    check_qkv(full_kernels(query), query, key, value)
    query_layout, layout = layouts_of(query, key, query_batch, query_graphs, batch, graphs)
    heads = query.size(1)
    if pairs is not None:
        check_pairs(pairs, query_layout, layout)
        check_like("pairs", pairs, (pairs.size(0), heads), query, *FLOATS)
    if (table is None) != (index is None) or (edge_values is None) != (edges is None):
        raise ValueError("'table' needs an 'index', 'edge_values' need 'edges', and vice versa")
    if table is not None and index is not None:
        check_like("table", table, (table.size(0), heads), query, *FLOATS)
        checked_table_index(index, table.size(0))
        check_pairs(index, query_layout, layout)
        check_like("index", index, index.shape, query, index.dtype)
        if index.is_cuda and index.dtype in (torch.uint8, torch.int16):
            index = index.int()  # not as kernels do, which find a widened copy by identity
    edge_layout = None
    if edge_values is not None and edges is not None:
        edge_layout = resolved_edges(edges, layout.num_nodes, query_layout.num_nodes)
        edge_layout.check_within_graphs(query_layout, layout)
        check_like("edge_values", edge_values, (edge_layout.num_edges, heads), query, *FLOATS)
    check_dropout(seed, dropout_p, query)
    return FullProblem(
        query_layout, layout, pairs, table, index, edge_layout, edge_values, seed, scale, dropout_p
    )


def _forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    problem = _problem(query, key, value, *rest)
    out, stats = full_kernels(query).forward(problem, query, key, value)
    return out, stats


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *given, needs = rest
    check_needs(needs, 3)
    problem = _problem(query, key, value, *given)
    check_saved(grad, out, stats, query)
    made = full_kernels(query).backward(
        problem, grad, Saved(query, key, value, out, stats), tuple(needs)
    )
    return as_outputs(made, query)


def _backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, stats: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    leaves = query, key, value, *rest[:3]
    return empty_where_needed(leaves, (True, True, True, *rest[-1]), query)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, query_batch, query_graphs, batch, graphs, scale, dropout_p = inputs
    ctx.save_for_backward(*tensors, query_batch, batch, *output)
    ctx.numbers = query_graphs, graphs, scale, dropout_p


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, *rest, query_batch, batch, out, stats = ctx.saved_tensors
    query_graphs, graphs, *numbers = ctx.numbers
    needs = list(ctx.needs_input_grad[3:6])
    with torch.no_grad():
        grads = torch.ops.pyg_gt.full_attention_backward(
            grad, query, key, value, out, stats, *rest, query_batch, query_graphs, batch, graphs,
            *numbers, needs,
        )  # fmt: skip
    backend = "triton" if query.is_cuda else "cpu"
    made_from = grad, query, key, value, *rest[:3]
    grads = differentiable_once(backend, _CURE, grads, made_from)
    return *_asked_for(grads, needs), *(None,) * 9


register("full_attention", _forward, _backward, _backward_fake, _save, _gradients)
