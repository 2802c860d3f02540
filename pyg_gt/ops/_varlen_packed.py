"""What stands between a batch of graphs and torch's FlashAttention: order, width, empty graphs."""

from __future__ import annotations

import weakref
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout.graph_layout import GraphLayout
from .op_arguments import check_like, layouts_of
from .pairs import num_pairs

TYPES = (torch.float16, torch.bfloat16)
MAX_CHANNELS = 256
# a graph is a block of the launch grid's second dimension, which CUDA ends here
MAX_GRAPHS = 65_535


# the arguments of torch's two operators, as they are called here
_GIVEN = {
    "_flash_attention_forward": (
        "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p",
        "is_causal", "return_debug_mask",
    ),
    "_flash_attention_backward": (
        "grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k",
        "max_q", "max_k", "dropout_p", "is_causal", "rng_state", "unused",
    ),
}  # fmt: skip
_BY_NAME = "scale", "window_size_left", "window_size_right"


@cache
def is_as_known() -> bool:
    """Whether torch's operators, which are private, still take these arguments."""
    for name, first in _GIVEN.items():
        op = getattr(torch.ops.aten, name, None)
        if op is None or "default" not in op.overloads():
            return False
        arguments = op.default._schema.arguments
        if tuple(x.name for x in arguments[: len(first)]) != first:
            return False
        rest = {x.name: x.has_default_value() for x in arguments[len(first) :]}
        if not all(name in rest for name in _BY_NAME) or not all(rest.values()):
            return False
    return True


def flash(
    query: Tensor, key: Tensor, value: Tensor, ptrs: tuple[Tensor, Tensor],
    most: tuple[int, int], scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Torch's kernel, with the arguments that its versions share (2.11 to 2.14).

    Args:
        query: ``[Nq, H, C']`` graph by graph, C' a multiple of 8.
        key: ``[Nk, H, C']``.
        value: ``[Nk, H, C']``.
        ptrs: ``[B + 1]`` int32, of the queries and of the keys.
        most: nodes of the largest graph, among queries and keys.
        scale: factor of the scores.

    Returns:
        The output and ``lse [H, Nq]`` float32, the logarithm of the sum of exponentials.
    """
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, *ptrs, *most, 0.0, False, False, scale=scale, window_size_left=-1,
        window_size_right=-1,
    )  # fmt: skip
    return out, lse


def flash_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
    ptrs: tuple[Tensor, Tensor], most: tuple[int, int], scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of query, key and value; arguments as of ``flash``."""
    # of dropout, which there is none of
    state, unused = query.new_zeros(2, dtype=torch.uint64), query.new_empty(0)
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        grad, query, key, value, out, lse, *ptrs, *most, 0.0, False, state, unused, scale=scale,
        window_size_left=-1, window_size_right=-1,
    )  # fmt: skip
    return dq, dk, dv


def forward(
    query: Tensor, key: Tensor, value: Tensor, query_batch: Tensor | None, query_graphs: int,
    batch: Tensor | None, graphs: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``[Nq, H, C]``, and ``lse [H, Nq]`` in the order of the graphs."""
    query_layout, layout = _layouts(query, key, value, query_batch, query_graphs, batch, graphs)
    if num_pairs(query_layout, layout) == 0:
        lse = query.new_zeros((query.size(1), query.size(0)), dtype=torch.float32)
        return query.new_zeros(query.shape), lse
    q, k, v = (_packed(x, y) for x, y in ((query, query_layout), (key, layout), (value, layout)))
    out, lse = flash(q, k, v, *_extent(query_layout, layout), scale)
    return _unpacked(out, query, query_layout, layout), lse


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
    query_batch: Tensor | None, query_graphs: int, batch: Tensor | None, graphs: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of query, key and value."""
    query_layout, layout = _layouts(query, key, value, query_batch, query_graphs, batch, graphs)
    for name, x in (("grad", grad), ("out", out)):
        check_like(name, x, query.shape, query, query.dtype)
    check_like("lse", lse, (query.size(1), query.size(0)), query, torch.float32)
    if num_pairs(query_layout, layout) == 0:
        return query.new_zeros(query.shape), key.new_zeros(key.shape), value.new_zeros(value.shape)
    d, q, o = (_packed(x, query_layout) for x in (grad, query, out))
    k, v = (_packed(x, layout) for x in (key, value))
    dq, dk, dv = flash_backward(
        d, q, k, v, o, lse.contiguous(), *_extent(query_layout, layout), scale
    )
    return (
        _unpacked(dq, query, query_layout, layout),
        _unpacked(dk, key, layout, query_layout),
        _unpacked(dv, value, layout, query_layout),
    )


def _layouts(
    query: Tensor, key: Tensor, value: Tensor, query_batch: Tensor | None, query_graphs: int,
    batch: Tensor | None, graphs: int,
) -> tuple[GraphLayout, GraphLayout]:  # fmt: skip
    """Both layouts; everything is checked here, since compiled code stands behind it."""
    if query.dtype not in TYPES:
        raise NotImplementedError(f"'query' must be float16 or bfloat16 (got {query.dtype})")
    if query.dim() != 3 or not 0 < query.size(2) <= MAX_CHANNELS:
        raise ValueError(
            f"'query' must have shape [Nq, H, C] with C from 1 to {MAX_CHANNELS} (got "
            f"{list(query.shape)})"
        )
    for name, x in (("key", key), ("value", value)):
        check_like(name, x, (key.size(0), *query.shape[1:]), query, query.dtype)
    query_layout, layout = layouts_of(query, key, query_batch, query_graphs, batch, graphs)
    if layout.num_graphs > MAX_GRAPHS:
        raise NotImplementedError(
            f"'varlen' takes at most {MAX_GRAPHS:,} graphs (got {layout.num_graphs:,}); pass "
            f"another backend"
        )
    return query_layout, layout


def _extent(
    query_layout: GraphLayout, layout: GraphLayout
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """What the kernels are told of the graphs."""
    queries, keys = (x.cached("ptr32", x.ptr.int) for x in (query_layout, layout))
    return (queries, keys), (query_layout.max_nodes, layout.max_nodes)


def _packed(x: Tensor, layout: GraphLayout) -> Tensor:
    """``[N, H, C]`` graph by graph, with as many channels as the kernels read at a time."""
    if layout.order is not None:
        x = x.index_select(0, layout.order)
    if extra := -x.size(2) % 8:
        return F.pad(x, (0, extra))
    # rows are read 16 bytes at a time
    aligned = x.data_ptr() % 16 == 0 and all(s % 8 == 0 for s in x.stride()[:2])
    return x if aligned and x.stride(2) == 1 else x.clone(memory_format=torch.contiguous_format)


def _unpacked(x: Tensor, like: Tensor, own: GraphLayout, other: GraphLayout) -> Tensor:
    """``[N, H, C]`` in the caller's order; zeros at nodes whose graph is empty on the other side.

    Those rows are not left to the kernels, which need not write them.
    """
    x = x[..., : like.size(2)]
    alone = own.cached(("alone", weakref.ref(other)), lambda: _alone(own, other))
    if own.order is not None:
        placed = like.new_empty(like.shape)
        x = placed.index_copy_(0, own.order, x)
    if alone is not None:
        x = x.masked_fill(alone[:, None, None], 0.0)
    return x.contiguous()


def _alone(own: GraphLayout, other: GraphLayout) -> Tensor | None:
    """``[N]``: nodes with nothing on the other side, in the caller's order; None if all have."""
    if all(there or not here for here, there in zip(own.sizes, other.sizes, strict=True)):
        return None
    return (other.ptr.diff() == 0)[own.batch]
