"""Random calls of attention: layouts, tensors and their strides, biases, scales, dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyg_gt import EdgeBias, EdgeLayout, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias

from .definition import Biases
from .draws import Random

View = Callable[[Tensor], Tensor]

_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 8, 12, 16, 16, 17, 24, 31, 32, 33, 40, 64, 65, 80, 128, 130)
_SCALES = (None, None, None, 0.0, -0.3, -1.0, 1e-30, 1e-3, 1.0, 3.0, 30.0, 1e4, -1e3, -0.0)
_DTYPES = (
    (torch.float32,) * 9 + (torch.float64,) * 3 + (torch.bfloat16,) * 4 + (torch.float16,) * 2
)
_TENSORS = ("query", "key", "value", "qkv")
_INDEX = (torch.uint8, torch.int16, torch.int32, torch.int64)


def pick(rng: Random, things: Any) -> Any:
    """One of some things."""
    return things[int(rng.integers(len(things)))]


@dataclass
class Problem:
    """A call of attention, and how to call the definition for it.

    Attributes:
        queries: ``[Nq]``, the graph of each query.
        keys: ``[Nk]``, the graph of each key.
        num_graphs: empty ones at the end count.
        leaves: what may require gradients, by name.
        views: what a leaf becomes before it is handed over.
        biases: of the library, of leaves by name.
        plain: of the definition, of leaves in float64.
    """

    dtype: torch.dtype
    heads: int
    channels: int
    queries: NDArray[np.int64]
    keys: NDArray[np.int64]
    num_graphs: int
    scale: float | None
    dropout_p: float
    leaves: dict[str, Tensor] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    biases: list[Callable[[dict[str, Tensor]], Any]] = field(default_factory=list)
    plain: list[Callable[[dict[str, Tensor], Biases], None]] = field(default_factory=list)
    joined: bool = False

    def parts(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leaves as they are handed over."""
        return {name: self.views.get(name, _same)(leaf) for name, leaf in leaves.items()}

    def describe(self) -> str:
        """In a few words."""
        sizes = np.bincount(self.keys, minlength=self.num_graphs).tolist()
        other = np.bincount(self.queries, minlength=self.num_graphs).tolist()
        shapes = {k: [*v.shape] for k, v in self.leaves.items() if v.requires_grad}
        return (
            f"{self.dtype}, keys {sizes}, queries {'the same' if sizes == other else other}, "
            f"heads {self.heads}, channels {self.channels}, scale {self.scale}, dropout "
            f"{self.dropout_p}, biases {self._said()}, gradients of {shapes}"
        )

    def _said(self) -> list[str]:
        parts, lines = self.parts(self.leaves), []
        for bias in (make(parts) for make in self.biases):
            tensors = {k: v for k, v in vars(bias).items() if isinstance(v, Tensor)}
            said = [
                f"{k} {v.dtype} {[*v.shape]} by {v.stride()}{' negated' * v.is_neg()}"
                for k, v in tensors.items()
            ]
            lines.append(f"{type(bias).__name__}({', '.join(said)})")
        return [*lines, *(f"{k} by {v.stride()}" for k, v in parts.items() if k in _TENSORS)]


def random_problem(rng: Random) -> Problem:
    """Anything that the door of attention lets pass."""
    keys, queries, num_graphs = random_graphs(rng)
    dtype = pick(rng, _DTYPES)
    heads, channels = pick(rng, (1, 1, 2, 2, 3, 4, 5, 8, 9)), pick(rng, _CHANNELS)
    if len(keys) > 40:
        heads, channels = min(heads, 3), min(channels, 33)
    scale = pick(rng, _SCALES)
    if dtype == torch.float16 and scale is not None and abs(scale) > 3:
        scale = -1.0
    p = pick(rng, (0.0,) * 7 + (0.1, 0.5, 0.9, 1.0))
    problem = Problem(dtype, heads, channels, queries, keys, num_graphs, scale, p)
    _add_tensors(problem, rng)
    _add_biases(problem, rng)
    _add_gradients(problem, rng)
    return problem


def random_graphs(rng: Random) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The graph of each key and of each query, and how many graphs there are."""
    kind = rng.random()
    if kind < 0.02:
        sizes = np.array([int(rng.integers(60, 150))])
    elif kind < 0.1:
        sizes = rng.integers(0, 40, int(rng.integers(1, 4)))
    elif kind < 0.15:
        sizes = np.zeros(int(rng.integers(0, 3)), np.int64)
    else:
        sizes = rng.integers(0, 9, int(rng.integers(1, 7)))
    keys = np.repeat(np.arange(len(sizes)), sizes)
    queries = keys
    if rng.random() < 0.2:
        other = rng.integers(0, 9, len(sizes))
        queries = np.repeat(np.arange(len(sizes)), other)
    if rng.random() < 0.25:
        same = queries is keys
        keys = rng.permutation(keys)
        queries = keys if same else rng.permutation(queries)
    return keys, queries, len(sizes) + int(rng.random() < 0.1)


def random_layout(rng: Random, batch: NDArray[np.int64], num_graphs: int) -> GraphLayout:
    """By any of the ways that there are to make one."""
    tensor = torch.from_numpy(batch.copy())
    how = int(rng.integers(5))
    if num_graphs == 1 and how == 0:
        found = GraphLayout.of(None, len(batch))
    elif how == 1 and bool((np.diff(batch) >= 0).all()):
        sizes = np.bincount(batch, minlength=num_graphs)
        ptr = torch.from_numpy(np.concatenate([[0], sizes.cumsum()]))
        found = GraphLayout.from_ptr(ptr.to(pick(rng, (torch.int64, torch.int32))))
    elif how == 2:
        narrow = tensor.to(pick(rng, (torch.int32, torch.int16, torch.uint8)))
        found = GraphLayout.of(narrow, len(batch), num_graphs)
    elif how == 3:
        found = GraphLayout.of(tensor.repeat_interleave(2)[::2], len(batch), num_graphs)
    else:
        found = GraphLayout.from_batch(tensor, num_graphs)
    assert isinstance(found, GraphLayout)
    return found


def _same(x: Tensor) -> Tensor:
    return x


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def _negated(x: Tensor) -> Tensor:
    return torch._neg_view(x)


def _half_of(x: Tensor) -> Tensor:
    return x[..., ::2]


def _add_tensors(problem: Problem, rng: Random) -> None:
    h, c = problem.heads, problem.channels
    nq, nk = len(problem.queries), len(problem.keys)
    size = pick(rng, (0.3, 1.0, 1.0, 3.0))

    def leaf(*shape: int) -> Tensor:
        made: Tensor = (size * torch.randn(shape)).to(problem.dtype)
        return made

    if problem.queries is problem.keys and rng.random() < 0.2:
        problem.joined = True
        problem.leaves["qkv"] = leaf(nk, 3, h, c)
        if rng.random() < 0.3:
            problem.leaves["qkv"] = leaf(h, 3, nk, c)
            problem.views["qkv"] = lambda x: x.transpose(0, 2)
        return
    for name, n in (("query", nq), ("key", nk), ("value", nk)):
        how = rng.random()
        problem.leaves[name] = leaf(n, h, c)
        if how < 0.1:
            problem.leaves[name] = leaf(h, n, c)
            problem.views[name] = _transposed
        elif how < 0.15:
            problem.leaves[name] = leaf(n, h, 2 * c)
            problem.views[name] = _half_of
        elif how < 0.2:
            problem.views[name] = _negated
        elif how < 0.25:
            problem.leaves[name] = leaf(1, h, c)
            problem.views[name] = lambda x, n=n: x.expand(n, -1, -1)  # type: ignore[misc]
        elif how < 0.28:
            problem.leaves[name] = leaf(n, 1, c)
            problem.views[name] = lambda x: x.expand(-1, h, -1)
        elif how < 0.31:
            problem.leaves[name] = leaf(n * h * c + 1)
            problem.views[name] = lambda x, n=n: x[1:].view(n, h, c)  # type: ignore[misc]
        elif how < 0.34:
            problem.leaves[name] = leaf(n, c, h)
            problem.views[name] = lambda x: x.transpose(1, 2)
    if problem.queries is problem.keys and rng.random() < 0.05:  # one tensor for all three
        for name in ("key", "value"):
            del problem.leaves[name]
            problem.views.pop(name, None)


def _add_biases(problem: Problem, rng: Random) -> None:
    sizes = np.bincount(problem.queries, minlength=problem.num_graphs)
    other = np.bincount(problem.keys, minlength=problem.num_graphs)
    pairs, h = int((sizes * other).sum()), problem.heads
    names = ["pair", "table", "edge", "mask", "mod"]
    kind = rng.random()
    if kind < 0.25:
        return
    if kind < 0.6:
        chosen = ["mask"]
    else:
        chosen = [name for name in names if rng.random() < 0.4]
        rng.shuffle(chosen)
    if kind > 0.97:
        chosen.append(pick(rng, ("pair", "table", "edge", "mod")))
    masked = "mask" in chosen
    # a function of an infinite score may be anything
    finite = "mod" in chosen
    edges: Tensor | None = None
    for number, name in enumerate(chosen):
        key = f"{name}{number}"
        if name == "pair":
            _values(problem, rng, key, (pairs, h), finite)
            problem.biases.append(lambda x, k=key: PairBias(x[k]))  # type: ignore[misc]
            problem.plain.append(lambda x, b, k=key: b.pairs.append(x[k]))  # type: ignore[misc]
        elif name == "table":
            rows = int(rng.integers(1, 12))
            index = torch.from_numpy(rng.integers(0, rows, pairs)).to(pick(rng, _INDEX))
            if rng.random() < 0.2:
                index = index.repeat_interleave(2)[::2]
            _values(problem, rng, key, (rows, h), finite)
            problem.biases.append(lambda x, k=key, i=index: TableBias(x[k], i))  # type: ignore[misc]
            problem.plain.append(lambda x, b, k=key, i=index: b.tables.append((x[k], i)))  # type: ignore[misc]
        elif name == "edge":
            if edges is None or rng.random() < 0.5:
                edges = random_edges(rng, problem)
            given = _given(rng, edges, problem)
            _values(problem, rng, key, (edges.size(1), h), finite)
            problem.biases.append(lambda x, k=key, e=given: EdgeBias(e, x[k]))  # type: ignore[misc]
            problem.plain.append(lambda x, b, k=key, e=edges: b.edges.append((e, x[k])))  # type: ignore[misc]
        elif name == "mod":
            _add_function(problem, rng, key)
        elif masked:
            if edges is None or rng.random() < 0.5:
                edges = random_edges(rng, problem)
            _add_mask(problem, rng, key, edges)
            masked = False


def _add_mask(problem: Problem, rng: Random, key: str, edges: Tensor) -> None:
    given, h, c = _given(rng, edges, problem), problem.heads, problem.channels
    values, features = f"{key}.values", f"{key}.features"
    if rng.random() < 0.5:
        _values(problem, rng, values, (edges.size(1), h))
    if rng.random() < 0.3:
        problem.leaves[features] = torch.randn(edges.size(1), h, c).to(problem.dtype)

    def plain(x: dict[str, Tensor], biases: Biases) -> None:
        biases.mask, biases.values, biases.features = edges, x.get(values), x.get(features)

    problem.biases.append(lambda x: EdgeMask(given, x.get(values), x.get(features)))
    problem.plain.append(plain)


def _add_function(problem: Problem, rng: Random, key: str) -> None:
    n, which = max(len(problem.keys), 1), int(rng.integers(3))
    # float32 at least: a function rounds by itself what it makes of half numbers
    problem.leaves[key] = torch.rand(problem.heads if which < 2 else n)

    def function(x: dict[str, Tensor]) -> Any:
        w = x[key]
        if which == 0:
            return lambda score, graph, head, q, k: score * w[head]
        if which == 1:
            return lambda score, graph, head, q, k: torch.where(q >= k, score, score - w[head])
        return lambda score, graph, head, q, k: score + w[k] * (graph + 1)

    problem.biases.append(lambda x: ScoreMod(function(x)))
    problem.plain.append(lambda x, biases: biases.functions.append(function(x)))


def random_edges(rng: Random, problem: Problem) -> Tensor:
    """``[2, E]`` inside graphs, as often as not with repeated ones."""
    queries, keys = problem.queries, problem.keys
    both = np.argwhere(queries[:, None] == keys[None, :])[:, ::-1]  # source, target
    if len(both) == 0 or rng.random() < 0.05:
        return torch.empty(2, 0, dtype=torch.int64)
    count = int(rng.integers(1, 2 + min(3 * len(queries), len(both))))
    chosen = both[rng.integers(0, len(both), count)]
    if rng.random() < 0.5:
        chosen = rng.permutation(np.unique(chosen, axis=0))
    return torch.from_numpy(np.ascontiguousarray(chosen.T))


def _given(rng: Random, edges: Tensor, problem: Problem) -> Any:
    how = rng.random()
    if how < 0.2:
        return EdgeLayout.of(edges.clone(), len(problem.keys), len(problem.queries))
    if how < 0.4:
        narrow = pick(rng, (torch.int32, torch.int16, torch.uint8))
        return edges.to(narrow)
    if how < 0.5:
        return edges.T.contiguous().T
    if how < 0.6:
        return edges.repeat_interleave(2, 1)[:, ::2]
    return edges.clone()


def _values(
    problem: Problem, rng: Random, key: str, shape: tuple[int, ...], finite: bool = False
) -> None:
    dtype = torch.float32 if rng.random() < 0.15 else problem.dtype
    leaf = (pick(rng, (0.1, 1.0, 5.0)) * torch.randn(shape)).to(dtype)
    if rng.random() < 0.15 and not finite:
        leaf[torch.rand(shape) < pick(rng, (0.1, 0.5, 1.0))] = -torch.inf
    how = rng.random()
    if 0.15 < how < 0.2:
        leaf = -leaf
    if how < 0.1:
        leaf = leaf.T.contiguous()
        problem.views[key] = lambda x: x.T
    elif how <= 0.15 and len(leaf):
        leaf = leaf[:1]
        problem.views[key] = lambda x: x.expand(shape)
    elif how < 0.2:
        problem.views[key] = _negated
    problem.leaves[key] = leaf


def _add_gradients(problem: Problem, rng: Random) -> None:
    which = rng.random()
    for leaf in problem.leaves.values():
        leaf.requires_grad_(which < 0.6 or (which < 0.85 and rng.random() < 0.5))
