"""The description of one attention without its query, key and value, as kernels are given it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...layout import EdgeLayout, GraphLayout

# which gradients are wanted
Needs = tuple[bool, ...]


class FullProblem(NamedTuple):
    """Attention of all queries to all keys of their graph.

    Attributes:
        query_layout: how the queries are split into graphs.
        layout: how the keys are; the same object in self-attention.
        pairs: ``[P, H]`` added to scores, or None.
        table: ``[K, H]``, or None; row ``table_index[p]`` is added to the scores of pair ``p``.
        table_index: ``[P]``, rows of ``table``.
        edges: where ``edge_values`` are added, or None.
        edge_values: ``[E, H]``; repeated edges add up.
        seed: ``[1]`` int64, or None without dropout.
        scale: factor of the products of queries and keys.
        dropout_p: probability with which a weight is dropped.
    """

    query_layout: GraphLayout
    layout: GraphLayout
    pairs: Tensor | None
    table: Tensor | None
    table_index: Tensor | None
    edges: EdgeLayout | None
    edge_values: Tensor | None
    seed: Tensor | None
    scale: float
    dropout_p: float


class FullGradients(NamedTuple):
    """One for each tensor of a full attention; None where it was not asked for."""

    query: Tensor
    key: Tensor
    value: Tensor
    pairs: Tensor | None
    table: Tensor | None
    edge_values: Tensor | None


class Saved(NamedTuple):
    """What the forward pass of an attention leaves to the backward pass.

    Attributes:
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        out: ``[Nq, H, C]``, the output; None for kernels that read none.
        stats: ``[Nq, H, 2]``, softmax statistics in the kernels' own terms, or None.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor | None
    stats: Tensor | None


class EdgeProblem(NamedTuple):
    """Attention along edges.

    Attributes:
        edges: along which attention runs.
        values: ``[E, H]`` added to scores, or None.
        features: ``[E, H, C]`` added to keys and values, or None.
        seed: ``[1]`` int64, or None without dropout.
        scale: factor of the products of queries and keys.
        dropout_p: probability with which a weight is dropped.
    """

    edges: EdgeLayout
    values: Tensor | None
    features: Tensor | None
    seed: Tensor | None
    scale: float
    dropout_p: float


class EdgeGradients(NamedTuple):
    """One for each tensor of an attention along edges; None where it was not asked for."""

    query: Tensor | None
    key: Tensor | None
    value: Tensor | None
    values: Tensor | None
    features: Tensor | None
