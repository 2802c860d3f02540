"""What attention is, once more and as plainly as can be: dense, in float64, all pairs at once.

Written from ``docs/design.md`` alone, and shared with nothing that it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]
Function = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass
class Biases:
    """What is added to scores, in float64.

    Attributes:
        pairs: each ``[P, H]``.
        tables: each ``([K, H], [P])``.
        edges: each ``([2, E], [E, H])``.
        functions: of ``ScoreMod``.
        mask: ``[2, E]`` or None, with its values ``[E, H]`` and features ``[E, H, C]``.
    """

    pairs: list[Tensor] = field(default_factory=list)
    tables: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    edges: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    mask: Tensor | None = None
    values: Tensor | None = None
    features: Tensor | None = None


@dataclass
class Sizes:
    """What the error of a result may grow with; all of it measured on the definition.

    Attributes:
        score: the largest sum of sizes of what is added up to a score.
        added: the part of it that biases are.
        column: the largest sum of weights that one key gets, over its queries.
        row: the largest number of weights of a query.
    """

    score: float = 0.0
    added: float = 0.0
    column: float = 1.0
    row: int = 1


def pair_numbers(queries: NDArray[np.int64], keys: NDArray[np.int64]) -> Tensor:
    """``[Nq, Nk]``: the number of each pair, graph by graph, and -1 across graphs."""
    found = np.full((len(queries), len(keys)), -1)
    start = 0
    for graph in np.unique(np.concatenate([queries, keys])):
        rows, columns = np.flatnonzero(queries == graph), np.flatnonzero(keys == graph)
        size = len(rows) * len(columns)
        numbers = np.arange(start, start + size).reshape(len(rows), len(columns))
        found[np.ix_(rows, columns)] = numbers
        start += size
    return torch.from_numpy(found)


def define(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: NDArray[np.int64],
    keys: NDArray[np.int64],
    biases: Biases,
    scale: float,
    keep: Callable[[], Tensor] | None,
    sizes: Sizes,
) -> Tensor:
    """``[Nq, H, C]``, and what tolerances need.

    Args:
        query: ``[Nq, H, C]`` float64.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        queries: ``[Nq]``, the graph of each.
        keys: ``[Nk]``.
        biases: what is added.
        scale: of the scores.
        keep: the factors of dropout, ``[Nq, Nk, H]``, along edges ``[E, H]``; None without.
        sizes: filled in.
    """
    heads = query.size(1)
    if len(queries) == 0 or len(keys) == 0:
        return query * 0
    pair = pair_numbers(queries, keys)
    inside = pair >= 0
    flat = pair.clamp(min=0)
    added = query.new_zeros(len(queries), len(keys), heads)
    for values in biases.pairs:
        if len(values):
            added = added + values[flat]
    for table, index in biases.tables:
        if len(index):
            added = added + table[index.long()[flat]]
    for edges, values in biases.edges:
        source, target = edges.long()
        added = added.index_put((target, source), values, accumulate=True)
    graph = torch.from_numpy(queries)[:, None, None]
    row = torch.arange(len(queries))[:, None, None]
    column = torch.arange(len(keys))[None, :, None]
    head = torch.arange(heads)
    largest = abs(scale) * float((query.abs().amax(0) * key.abs().amax(0)).sum(-1).max())
    if biases.mask is None:
        scores = scale * torch.einsum("ihc,jhc->ijh", query, key) + added
        for function in biases.functions:
            scores = function(scores, graph, head, row, column)
        weights = _softmax(scores, inside[:, :, None])
        kept = weights if keep is None else weights * keep()
        out = torch.einsum("ijh,jhc->ihc", kept, value)
        sizes.column, sizes.row = float(weights.sum(0).max()), int(inside.sum(1).max())
    else:
        source, target = biases.mask.long()
        if len(source) == 0:
            return query * 0
        near, far = value[source], key[source]
        if biases.features is not None:
            near, far = near + biases.features, far + biases.features
        along = scale * (query[target] * far).sum(-1) + added[target, source]  # [E, H]
        for function in biases.functions:
            along = function(along, graph[target, 0], head, target[:, None], source[:, None])
        if biases.values is not None:
            along = along + biases.values
            largest += _finite(biases.values)
        own = target == torch.arange(len(queries))[:, None]  # [Nq, E]
        weights = _softmax(along.expand(len(queries), *along.shape), own[:, :, None])
        kept = weights if keep is None else weights * keep()
        out = torch.einsum("neh,ehc->nhc", kept, near)
        each = torch.zeros(len(keys), heads, dtype=torch.float64)
        each.index_add_(0, source, weights.sum(0).detach())
        sizes.column, sizes.row = float(each.max()), int(own.sum(1).max())
        if biases.features is not None:
            largest += abs(scale) * float(query.abs().sum(-1).max()) * _finite(biases.features)
    sizes.added = _finite(added)
    sizes.score = largest + sizes.added
    return out


def _softmax(scores: Tensor, where: Tensor) -> Tensor:
    """Over dimension 1, zero where nothing is to attend to."""
    scores = torch.where(where, scores, -torch.inf)
    top = scores.detach().amax(1, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = (scores - top).exp()
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


def _finite(x: Tensor) -> float:
    x = x.detach()
    return float(torch.where(x.isfinite(), x.abs(), 0.0).max()) if x.numel() else 0.0


def kept_pairs(
    seed: int, p: float, queries: NDArray[np.int64], keys: NDArray[np.int64], heads: int
) -> Tensor:
    """``[Nq, Nk, H]``: factors of dropout of full attention, by the counters of the design."""
    order = np.argsort(queries, kind="stable")
    number = np.empty(len(queries), np.int64)
    number[order] = np.arange(len(queries))
    place = np.empty(len(keys), np.int64)
    for graph in np.unique(keys):
        place[keys == graph] = np.arange((keys == graph).sum())
    zero: Any = np.zeros((len(queries), len(keys), heads), np.uint64)
    j = zero + place.astype(np.uint64)[None, :, None]
    row = zero + number.astype(np.uint64)[:, None, None]
    head = zero + np.arange(heads, dtype=np.uint64)
    words = philox(seed, (j >> np.uint64(2), row, head, zero))
    return _factors(words, j & np.uint64(3), p)


def kept_edges(seed: int, p: float, num_edges: int, heads: int) -> Tensor:
    """``[E, H]``: factors of dropout along edges."""
    zero: Any = np.zeros((num_edges, heads), np.uint64)
    edge = zero + np.arange(num_edges, dtype=np.uint64)[:, None]
    head = zero + np.arange(heads, dtype=np.uint64)
    words = philox(seed, (edge, zero, head >> np.uint64(2), zero + np.uint64(1)))
    return _factors(words, head & np.uint64(3), p)


def _factors(words: Sequence[NDArray[np.uint64]], which: NDArray[np.uint64], p: float) -> Tensor:
    word = np.choose(which.astype(np.int64), list(words))
    kept = word >= min(int(p * 2**32), 2**32 - 1)
    return torch.from_numpy(kept * (0.0 if p >= 1 else 1 / (1 - p)))


def philox(seed: int, counter: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], ...]:
    """The four words of Philox-4x32-10 (Salmon et al. 2011)."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & low,
            (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & low,
        )  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3
