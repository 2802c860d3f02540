"""Checks of what is given to ``attention``, and of what ops are handed."""

from __future__ import annotations

import weakref
from numbers import Real
from types import CodeType

import torch
from torch import Tensor

from ..layout.deferred import DeferredEdges, DeferredLayout
from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout
from ..layout.values import is_traced
from .bias import (
    AttentionBias,
    EdgeBias,
    EdgeMask,
    PairBias,
    ScoreMod,
    TableBias,
    check_is_bias,
)
from .index_checks import checked_table_index
from .inputs import Layout
from .pairs import num_pairs

FLOATS = torch.float32, torch.float64, torch.bfloat16, torch.float16
# what functions of scores give back was looked at once
_TRIED: weakref.WeakSet[CodeType] = weakref.WeakSet()


def checked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_layout: Layout,
    layout: Layout,
    biases: tuple[AttentionBias, ...],
) -> tuple[AttentionBias, ...]:
    """Checks shapes, types and ranges; returns the biases with their indices checked.

    Raises:
        ValueError: for a wrong shape, type or value.
        IndexError: for an edge or table index out of range.
    """
    check_tensors(query, key, value)
    sides = [("query", query, query_layout), ("key", key, layout)]
    if query_layout is layout and query.size(0) == key.size(0):
        del sides[1]
    for name, tensor, lay in sides:
        if not isinstance(lay, (GraphLayout, DeferredLayout)):
            raise ValueError(
                f"'layout' and 'query_layout' must be a 'GraphLayout' or a 'batch' tensor (got "
                f"'{type(lay).__name__}'); make one with 'GraphLayout.of(batch, num_nodes)' "
                f"(of None: one graph)"
            )
        if isinstance(lay, GraphLayout):
            lay.check_unedited()
        if lay.num_nodes != tensor.size(0):
            raise ValueError(
                f"'{name}' has {tensor.size(0)} nodes, but its layout describes {lay.num_nodes}"
            )
        if lay.batch is not None:
            _check_device(f"layout of {name}", lay.batch, query)
    graphs = query_layout.num_graphs, layout.num_graphs
    if graphs[0] != graphs[1] and min(graphs) >= 0:
        raise ValueError(
            f"'query_layout' has {graphs[0]} graphs and 'layout' {graphs[1]}; give both the same "
            f"number ('num_graphs=' counts empty ones)"
        )
    if not biases:
        return ()
    if sum(isinstance(bias, EdgeMask) for bias in biases) > 1:
        raise ValueError(
            "at most one 'EdgeMask' can be given; 'EdgeMask.union(...)' makes one of several"
        )
    return tuple(_checked_bias(b, query, query_layout, layout) for b in biases)


def check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raises ``ValueError`` unless shapes, types and devices fit together."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if (
            not isinstance(tensor, Tensor) or tensor.layout is not torch.strided
            or tensor.is_nested or tensor.dim() != 3
        ):  # fmt: skip
            raise ValueError(
                f"'{name}' must be a tensor of shape [num_nodes, heads, head_channels] (got "
                f"{kind_of(tensor)})"
            )
    if key.shape != value.shape or query.shape[1:] != key.shape[1:]:
        raise ValueError(
            f"'key' and 'value' must have one shape, and 'query' their heads and head_channels "
            f"(got query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)})"
        )
    if query.size(2) == 0:
        raise ValueError(f"'query' must have head_channels (got {list(query.shape)})")
    if query.dtype not in FLOATS or not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            f"'query', 'key' and 'value' must have one floating-point type (got {query.dtype}, "
            f"{key.dtype} and {value.dtype}); of the narrow ones, float16 and bfloat16"
        )
    if not query.device == key.device == value.device:
        raise ValueError(
            f"'query', 'key' and 'value' must lie on one device (got {query.device}, "
            f"{key.device} and {value.device})"
        )


def is_onnx() -> bool:
    """Whether ``torch.onnx.export`` is at work, which knows no ops but torch's own."""
    if torch.compiler.is_exporting() or is_traced():
        return torch.onnx.is_in_onnx_export()
    return False


def is_dense(tensor: Tensor) -> bool:
    """Whether it is neither sparse nor nested."""
    return tensor.layout is torch.strided and not tensor.is_nested


def kind_of(x: object) -> str:
    """What came, for an error."""
    if not isinstance(x, Tensor):
        return type(x).__name__
    if x.is_nested:
        return "a nested tensor; use its values, and its offsets as 'GraphLayout.from_ptr'"
    if not is_dense(x):
        return f"a tensor of layout {x.layout}; use '.to_dense()'"
    return f"{list(x.shape)}"


def checked_scale(scale: object, head_channels: int) -> float:
    """``scale`` as a number; for None, ``head_channels ** -0.5``.

    Raises:
        ValueError: if it is no finite number. A tensor is none: its gradient would be lost.
    """
    return head_channels**-0.5 if scale is None else _number("scale", scale)


def checked_dropout(dropout_p: object) -> float:
    """``dropout_p`` as a number.

    Raises:
        ValueError: if it is no number from 0 to 1.
    """
    p = _number("dropout_p", dropout_p)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"'dropout_p' must lie in [0, 1] (got {p})")
    return p


def _number(name: str, x: object) -> float:
    if type(x) is not float:
        x = _as_float(name, x)
    # The largest float32, in which scores are computed at least; a literal, since Dynamo makes an
    # input of a number that it finds in a module, and then traces twice.
    if not -3.4028234663852886e38 <= x <= 3.4028234663852886e38:
        raise ValueError(f"'{name}' must be a finite number (got {x})")
    return x


def _as_float(name: str, x: object) -> float:
    if isinstance(x, Tensor):
        cure = "pass 'float(...)' of it"
        if name == "scale":
            cure = "multiply the query by it and pass scale=1.0, or pass 'float(...)' of it"
        raise ValueError(
            f"'{name}' must be a number: no gradient flows to a tensor, and to read it waits for "
            f"its device (got a tensor of shape {list(x.shape)}); {cure}"
        )
    # traced code has numbers of types of its own
    if isinstance(x, bool) or not isinstance(x, (Real, torch.SymFloat, torch.SymInt)):
        raise ValueError(f"'{name}' must be a number (got {x!r} of type '{type(x).__name__}')")
    return x if isinstance(x, torch.SymFloat) else float(x)  # type: ignore[return-value]


def _checked_bias(
    bias: AttentionBias, query: Tensor, query_layout: Layout, layout: Layout
) -> AttentionBias:
    check_is_bias(bias)
    heads, head_channels = query.shape[1:]
    if isinstance(bias, PairBias):
        _check_floats("PairBias.values", bias.values, ("P", heads), None, query)
        _check_pairs("PairBias.values", bias.values, query_layout, layout)
        return bias
    if isinstance(bias, TableBias):
        _check_floats("TableBias.table", bias.table, ("K", heads), None, query)
        if isinstance(bias.index, Tensor) and not is_dense(bias.index):
            raise ValueError(f"'TableBias.index' must be dense (got {kind_of(bias.index)})")
        index = bias.index
        if not is_onnx():
            index = checked_table_index(index, bias.table.size(0))
        _check_device("TableBias.index", index, query)
        _check_pairs("TableBias.index", index, query_layout, layout)
        return TableBias(bias.table, index)
    if isinstance(bias, ScoreMod):
        _check_score_mod(bias, query, query_layout, layout)
        return bias
    edges = EdgeLayout.of(bias.edges, layout.num_nodes, query_layout.num_nodes)
    if (
        isinstance(edges, EdgeLayout)
        and isinstance(layout, GraphLayout)
        and isinstance(query_layout, GraphLayout)
    ):
        edges.check_within_graphs(query_layout, layout)
    name, num_edges = type(bias).__name__, edges.num_edges
    _check_device(f"{name}.edges", edges, query)
    if bias.values is not None or isinstance(bias, EdgeBias):
        _check_floats(f"{name}.values", bias.values, ("E", heads), num_edges, query)
    if isinstance(bias, EdgeBias):
        return EdgeBias(edges, bias.values)
    if bias.features is not None:
        shape = ("E", heads, head_channels)
        _check_floats("EdgeMask.features", bias.features, shape, num_edges, query)
    return EdgeMask(edges, bias.values, bias.features)


def _check_score_mod(mod: ScoreMod, query: Tensor, query_layout: Layout, layout: Layout) -> None:
    """Whether it takes what it will be given, and, by one pair, whether it gives back scores."""
    if torch.compiler.is_compiling():  # where it runs, 'apply' checks it
        return
    mod.check()
    code = getattr(mod.fn, "__code__", None)
    if isinstance(code, CodeType) and code in _TRIED:
        return
    if (
        isinstance(query_layout, DeferredLayout) or isinstance(layout, DeferredLayout)
        or torch._C._functorch.peek_interpreter_stack() is not None
    ):  # fmt: skip
        return
    both = zip(query_layout.sizes, layout.sizes, strict=True)
    graph = next((i for i, (n, m) in enumerate(both) if n and m), None)
    if graph is None:
        return
    nodes = []
    for lay in (query_layout, layout):
        first = sum(lay.sizes[:graph])
        nodes.append(torch.tensor([first], device=query.device))
        if lay.order is not None:
            nodes[-1] = lay.order[nodes[-1]].long()
    wide = query.dtype if query.dtype == torch.float64 else torch.float32
    scores = torch.zeros(1, max(1, query.size(1)), dtype=wide, device=query.device)
    try:
        with torch.no_grad():
            mod.apply(scores, torch.full_like(nodes[0], graph), *nodes)
    except RuntimeError:  # of 'vmap': the backend says it, or compiles what that cannot do
        return
    if isinstance(code, CodeType):
        _TRIED.add(code)


def _check_pairs(name: str, tensor: Tensor, query_layout: Layout, layout: Layout) -> None:
    if isinstance(query_layout, DeferredLayout) or isinstance(layout, DeferredLayout):
        return  # the op that reads the layout checks it
    pairs = num_pairs(query_layout, layout)
    if tensor.size(0) != pairs:
        raise ValueError(
            f"'{name}' describes {tensor.size(0)} pairs, but the layout has {pairs}: the sum over "
            f"graphs of queries times keys, in the order of the batch"
        )


def _check_floats(
    name: str, tensor: object, shape: tuple[str | int, ...], first: int | None, query: Tensor
) -> None:
    def said() -> str:  # only when it is needed: to print a size fixes it in traced code
        return ", ".join(str(s) for s in shape) + ("]" if first is None else f"] with E = {first}")

    if not isinstance(tensor, Tensor) or not is_dense(tensor):
        raise ValueError(f"'{name}' must be a tensor of shape [{said()} (got {kind_of(tensor)})")
    sizes = tensor.shape[1:] if first is None else tensor.shape
    want = shape[1:] if first is None else (first, *shape[1:])
    if not tensor.is_floating_point() or tensor.dim() != len(shape) or tuple(sizes) != want:
        raise ValueError(
            f"'{name}' must be floating-point of shape [{said()} (got {list(tensor.shape)}, "
            f"{tensor.dtype})"
        )
    _check_device(name, tensor, query)


def _check_device(name: str, tensor: Tensor | EdgeLayout | DeferredEdges, query: Tensor) -> None:
    if tensor.device != query.device:
        raise ValueError(
            f"'{name}' lies on '{tensor.device}', but 'query' on '{query.device}'; move it with "
            f"'.to()'"
        )


def check_like(
    name: str, x: Tensor, shape: tuple[int, ...], query: Tensor, *dtypes: torch.dtype
) -> None:
    """Compiled code takes a tensor to be what it is said to be, beside ``query``.

    Raises:
        ValueError: for another shape, type or device.
    """
    if x.shape != shape or x.dtype not in dtypes or x.device != query.device:
        raise ValueError(
            f"'{name}' must have shape {list(shape)} and type {dtypes[0]} on '{query.device}' "
            f"(got {list(x.shape)}, {x.dtype} on '{x.device}')"
        )


def check_pairs(bias: Tensor, query_layout: GraphLayout, layout: GraphLayout) -> None:
    """Raises ``ValueError`` unless there is a row a pair."""
    pairs = num_pairs(query_layout, layout)
    if bias.size(0) != pairs:
        raise ValueError(f"a bias describes {bias.size(0)} pairs, but the layout has {pairs}")
