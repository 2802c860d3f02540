"""Chooses a backend. The only file that knows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..layout.graph_layout import GraphLayout
from ._backends import cpu, flex, onnx, reference, sdpa, sparse, triton
from .bias import AttentionBias
from .checks import (
    check_tensors,
    checked,
    checked_dropout,
    checked_scale,
    is_dense,
    is_onnx,
    kind_of,
)
from .dropout import draw_seed
from .edited_edges import watch_edges
from .flops import count_flops_of_ops
from .inputs import Backend, Inputs, Layout

# 'auto' takes the first without an objection; the reference, last, has none. On CUDA, 'triton' was
# the fastest wherever they were compared (benchmarks/results/cuda_*.json, "order").
_ORDER = cast(tuple[Backend, ...], (cpu, triton, sparse, sdpa, flex, reference))
BACKENDS = {backend.NAME: backend for backend in _ORDER}

Biases = AttentionBias | Sequence[AttentionBias]

count_flops_of_ops()


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout | Tensor,
    biases: Biases = (),
    *,
    query_layout: Layout | Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    r"""Softmax attention inside each graph of a batch (eqs. 1-8 of Vaswani et al. 2017).

    .. math::
        o_i = \sum_j \mathrm{softmax}_j(\mathrm{scale} \cdot q_i^\top k_j + b_{ij}) \, v_j

    over the keys :math:`j` in the graph of query :math:`i`. A query with nothing to attend to
    gets zeros. Dropout acts on the weights after the softmax.

    Args:
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        layout: how the keys are split into graphs: a ``GraphLayout``, or ``batch [Nk]``, which
            stands for ``GraphLayout.of(batch, Nk)``.
        biases: what is added to scores, one or a tuple; additive ones apply first, then
            ``ScoreMod``s in their order, then the mask.
        query_layout: how the queries are split, with as many graphs; None: as the keys.
        scale: factor of the scores, any finite number; None: ``C ** -0.5``. Not a tensor: one
            that is learned is multiplied with the query.
        dropout_p: probability with which a weight is dropped. At 0 nothing random is drawn.
        backend: ``"auto"`` or the name of one backend, which then never falls back.

    Returns:
        ``[Nq, H, C]`` of the type of ``query``.

    Raises:
        ValueError: for wrong shapes, types or values, or an unknown backend.
        IndexError: for an edge or table index out of range.
        NotImplementedError: if the named backend cannot run these inputs, with its reason.
    """
    if key is None or value is None:  # which would make 'query' all three, as in 'qkv_attention'
        check_tensors(query, key, value)
    return _run(query, key, value, layout, biases, query_layout, scale, dropout_p, backend)


def qkv_attention(
    qkv: Tensor,
    layout: Layout | Tensor,
    biases: Biases = (),
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """``attention(*qkv.unbind(1), layout, ...)``, where one linear map makes all three.

    The gradient of ``qkv`` comes in one piece from backends that can write it so (``cpu`` and
    ``triton``), and need not be put together from three. Other arguments and errors are those of
    :func:`attention`.

    Args:
        qkv: ``[N, 3, H, C]``: query, key and value of each node, side by side.
        layout: how the nodes are split into graphs: a ``GraphLayout`` or ``batch [N]``.
        biases: what is added to scores, one or a tuple.
        scale: factor of the scores; None: ``C ** -0.5``.
        dropout_p: probability with which a weight is dropped.
        backend: ``"auto"`` or the name of one backend.

    Returns:
        ``[N, H, C]``.

    Raises:
        ValueError: also if ``qkv`` is not ``[N, 3, H, C]``.
    """
    return _run(qkv, None, None, layout, biases, None, scale, dropout_p, backend)


def check_backend(backend: object) -> None:
    """Raises ``ValueError`` unless it is the name of a backend, or ``"auto"``."""
    if isinstance(backend, str) and (backend == "auto" or backend in BACKENDS):
        return
    if backend == "varlen":
        raise ValueError(
            "Backend 'varlen' was removed: 'triton' was faster wherever both ran. Pass "
            "backend='auto' or 'triton'; to compare with FlashAttention on packed graphs, call "
            "'torch.nn.attention.varlen'"
        )
    raise ValueError(
        f"Unknown backend {backend!r}; expected 'auto' or one of {', '.join(BACKENDS)}"
    )


def _run(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    layout: Layout | Tensor,
    biases: Biases,
    query_layout: Layout | Tensor | None,
    scale: float | None,
    dropout_p: float,
    backend: str,
) -> Tensor:
    check_backend(backend)
    inputs = _inputs(query, key, value, layout, biases, query_layout, scale, dropout_p)
    if is_onnx():
        reason = onnx.unsupported(inputs)
        if backend != "auto":
            reason = f"ONNX has no operator of backend '{backend}'; export with backend='auto'"
        if reason is not None:
            raise NotImplementedError(f"This attention cannot be exported to ONNX: {reason}")
        return onnx.forward(inputs)
    if backend == "auto":
        reasons = {}
        for chosen in _ORDER:
            if (reason := chosen.unsupported(inputs)) is None:
                return _forward(chosen, inputs)
            reasons[chosen.NAME] = reason
        lines = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NotImplementedError(f"No backend can run this attention ({lines})")
    if (reason := BACKENDS[backend].unsupported(inputs)) is not None:
        raise NotImplementedError(
            f"Backend '{backend}' cannot run this attention: {reason}. Pass backend='auto', or "
            f"ask 'pyg_gt.explain_choice' which backends can"
        )
    return _forward(BACKENDS[backend], inputs)


def _forward(backend: Backend, inputs: Inputs) -> Tensor:
    out = backend.forward(inputs)
    if inputs.biases:
        watch_edges(out, inputs.biases)
    return out


def explain_choice(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout | Tensor,
    biases: Biases = (),
    *,
    query_layout: Layout | Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> dict[str, str]:
    """What ``attention(..., backend="auto")`` would run, and why not the others.

    Takes the arguments of :func:`attention`.

    Returns:
        One line per backend, in the order in which ``"auto"`` asks them: its objection, or its
        place among those that could run.
    """
    inputs = _inputs(query, key, value, layout, biases, query_layout, scale, dropout_p, draw=False)
    lines: dict[str, str] = {}
    place = 0
    for backend in _ORDER:
        reason = backend.unsupported(inputs)
        if reason is None:
            place += 1
            reason = "chosen" if place == 1 else f"could run, choice {place}"
        lines[backend.NAME] = reason
    return lines


def _inputs(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    layout: Layout | Tensor,
    biases: Biases,
    query_layout: Layout | Tensor | None,
    scale: float | None,
    dropout_p: float,
    draw: bool = True,
) -> Inputs:
    qkv = None
    if key is None or value is None:
        fits = isinstance(query, Tensor) and is_dense(query) and query.dim() == 4
        if not fits or query.size(1) != 3:
            raise ValueError(
                f"'qkv' must be a tensor of shape [num_nodes, 3, heads, head_channels] (got "
                f"{kind_of(query)})"
            )
        qkv = query
        query, key, value = qkv.unbind(1)
    if isinstance(layout, Tensor) or isinstance(query_layout, Tensor):
        check_tensors(query, key, value)
        layout, query_layout = _layouts(key.size(0), query.size(0), layout, query_layout)
    query_layout = layout if query_layout is None else query_layout
    checked_biases = checked(query, key, value, query_layout, layout, _tuple(biases))
    scale, dropout_p = checked_scale(scale, query.size(-1)), checked_dropout(dropout_p)
    seed = None
    if dropout_p > 0:
        seed = draw_seed(query.device) if draw else torch.zeros(1, dtype=torch.int64)
    return Inputs(
        query, key, value, query_layout, layout, checked_biases, scale, dropout_p, seed, qkv
    )


def _tuple(biases: Biases) -> tuple[AttentionBias, ...]:
    if type(biases) is tuple:  # an instance of a union is found slowly
        return biases
    if isinstance(biases, AttentionBias):
        return (biases,)
    if isinstance(biases, Sequence) and not isinstance(biases, (str, bytes)):
        return tuple(biases)
    raise ValueError(f"'biases' must be a bias or a tuple of them (got '{type(biases).__name__}')")


def _layouts(
    keys: int, queries: int, layout: Layout | Tensor, query_layout: Layout | Tensor | None
) -> tuple[Layout, Layout | None]:
    """Those of ``batch`` tensors, which do not show how many empty graphs come last."""
    of_keys = GraphLayout.of(layout, keys) if isinstance(layout, Tensor) else layout
    if query_layout is None or query_layout is layout:
        return of_keys, None
    of_queries = (
        GraphLayout.of(query_layout, queries) if isinstance(query_layout, Tensor) else query_layout
    )
    if isinstance(of_keys, GraphLayout) and isinstance(of_queries, GraphLayout):
        graphs = of_keys.num_graphs, of_queries.num_graphs
        if isinstance(layout, Tensor) and graphs[0] < graphs[1]:
            of_keys = GraphLayout.of(layout, keys, graphs[1])
        if isinstance(query_layout, Tensor) and graphs[1] < graphs[0]:
            of_queries = GraphLayout.of(query_layout, queries, graphs[0])
    return of_keys, of_queries
