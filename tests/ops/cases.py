"""Ragged inputs with every kind of bias, and attention written out pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
)
from pyg_gt.ops import AttentionBias
from pyg_gt.ops.pairs import num_pairs

CPU = pytest.param("cpu", marks=pytest.mark.compiled)

SIZES = [1, 5, 3, 0, 7]
# graph 1 has keys but no queries, graph 3 queries but no keys
QUERY_SIZES = [2, 0, 4, 3, 6]
HEADS, CHANNELS = 2, 3
INF = float("inf")


def dtype_of(backend: str) -> torch.dtype:
    """The widest type that a backend takes."""
    return torch.float32 if backend in ("cpu", "flex") else torch.float64


def tolerance_of(backend: str) -> float:
    """How far a sum of some hundred numbers of size 1 may lie from another order of summation."""
    return {torch.float64: 1e-12, torch.float32: 1e-5}[dtype_of(backend)]


def layout_of(sizes: Sequence[int], order: str = "sorted", device: str = "cpu") -> GraphLayout:
    """Graphs of these sizes; with 'unsorted' their nodes stand in any order."""
    if order == "sorted":
        return GraphLayout.from_sizes(list(sizes), device)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes).long())
    shuffled = batch[torch.randperm(batch.numel(), generator=torch.Generator().manual_seed(7))]
    return GraphLayout.from_batch(shuffled.to(device), num_graphs=len(sizes))


def random_edges(query_layout: GraphLayout, layout: GraphLayout, repeats: bool = False) -> Tensor:
    """About half of all pairs, in any order; the first query of the last graph gets no edge."""
    edges = [
        (source, target)
        for target, graph in enumerate(query_layout.batch.tolist())
        for source, other in enumerate(layout.batch.tolist())
        if graph == other and torch.rand(()) < 0.5
    ]
    last = int((query_layout.batch == query_layout.num_graphs - 1).nonzero()[0])
    index = torch.tensor([e for e in edges if e[1] != last], dtype=torch.int64).view(-1, 2).t()
    if repeats:
        index = torch.cat([index, index[:, ::2], index[:, ::3]], 1)
    return index[:, torch.randperm(index.size(1))].to(layout.device)


@dataclass
class Case:
    """One call of attention, and the tensors whose gradients are compared."""

    query_layout: GraphLayout
    layout: GraphLayout
    dtype: torch.dtype = torch.float64
    grad: bool = True
    heads: int = HEADS
    channels: int = CHANNELS
    query: Tensor = field(init=False)
    key: Tensor = field(init=False)
    value: Tensor = field(init=False)
    biases: tuple[AttentionBias, ...] = ()
    captured: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        h, c = self.heads, self.channels
        self.query = self.leaf(self.query_layout.num_nodes, h, c)
        self.key = self.leaf(self.layout.num_nodes, h, c)
        self.value = self.leaf(self.layout.num_nodes, h, c)

    def leaf(self, *shape: int) -> Tensor:
        """A random tensor, the same on every device."""
        tensor = torch.randn(*shape, dtype=torch.float64).to(self.layout.device, self.dtype)
        return tensor.requires_grad_(self.grad)

    def pairs(self) -> int:
        """Number of pairs."""
        return num_pairs(self.query_layout, self.layout)

    def edges(self, repeats: bool = False) -> Tensor:
        """A random ``edge_index`` inside graphs."""
        return random_edges(self.query_layout, self.layout, repeats)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Everything that has a gradient, by name."""
        named = {"query": self.query, "key": self.key, "value": self.value}
        for i, bias in enumerate(self.biases):
            for name, x in vars(bias).items():
                if isinstance(x, Tensor) and x.is_floating_point():
                    named[f"{i}.{type(bias).__name__}.{name}"] = x
        named |= {f"captured {i}": x for i, x in enumerate(self.captured)}
        return named

    def attention(self, backend: str, **kwargs: float) -> Tensor:
        """The output of a backend."""
        return attention(
            self.query, self.key, self.value, self.layout, self.biases,
            query_layout=self.query_layout, backend=backend, **kwargs,
        )  # fmt: skip


def pair(case: Case) -> None:
    case.biases = (PairBias(case.leaf(case.pairs(), case.heads)),)


def pair_with_inf(case: Case) -> None:
    """Some pairs are forbidden, and every pair of the first query that has any."""
    values = case.leaf(case.pairs(), case.heads).detach()
    values[::3] = -INF
    sizes = zip(case.query_layout.sizes, case.layout.sizes, strict=True)
    first = next(m for n, m in sizes if n and m)
    values[:first] = -INF
    case.biases = (PairBias(values.requires_grad_(case.grad)),)


def table(dtype: torch.dtype) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        index = torch.randint(4, (case.pairs(),)).to(case.layout.device, dtype)
        case.biases = (TableBias(case.leaf(4, case.heads), index),)

    return make


def edge_bias(repeats: bool) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        edges = case.edges(repeats)
        case.biases = (EdgeBias(edges, case.leaf(edges.size(1), case.heads)),)

    return make


def mask(
    repeats: bool = False, values: bool = False, features: bool = False
) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        edges = case.edges(repeats)
        e, h, c = edges.size(1), case.heads, case.channels
        case.biases += (
            EdgeMask(
                edges,
                case.leaf(e, h) if values else None,
                case.leaf(e, h, c) if features else None,
            ),
        )

    return make


def mask_with_inf(case: Case) -> None:
    """Half of the edges are forbidden after all; all of them at one query."""
    edges = case.edges(repeats=True)
    values = case.leaf(edges.size(1), case.heads).detach()
    values[::2] = -INF
    values[edges[1] == edges[1, 0]] = -INF
    case.biases = (EdgeMask(edges, values.requires_grad_(case.grad)),)


def mask_without_edges(case: Case) -> None:
    case.biases = (EdgeMask(torch.empty(2, 0, dtype=torch.int64, device=case.layout.device)),)


def edge_bias_on_the_mask(repeats: bool) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        edges = EdgeLayout.of(
            case.edges(repeats), case.layout.num_nodes, case.query_layout.num_nodes
        )
        values = [case.leaf(edges.num_edges, case.heads) for _ in range(2)]
        case.biases = (EdgeBias(edges, values[0]), EdgeMask(edges, values[1]))

    return make


def all_additive(case: Case) -> None:
    pair(case)
    first = case.biases
    table(torch.uint8)(case)
    second = case.biases
    edge_bias(True)(case)
    case.biases = first + second + case.biases


def additive_and_mask(values: bool) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        all_additive(case)
        mask(repeats=True, values=values)(case)

    return make


def mod(case: Case) -> None:
    """Every argument matters, and the captured tensors have gradients."""
    slope = case.leaf(case.heads)
    of_query, of_key = case.leaf(case.query_layout.num_nodes), case.leaf(case.layout.num_nodes)
    of_graph = case.leaf(case.layout.num_graphs)

    def fn(score: Tensor, graph: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score * slope[head] + of_query[q] * of_key[k] + (q - 2 * k) * of_graph[graph]

    case.captured = (slope, of_query, of_key, of_graph)
    case.biases += (ScoreMod(fn),)


def mods(case: Case) -> None:
    """Two functions whose order matters."""
    mod(case)
    bend = case.leaf(1)

    def fn(score: Tensor, graph: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return torch.tanh(score) + bend[0] * score

    case.captured += (bend,)
    case.biases += (ScoreMod(fn),)


def everything_in_order(case: Case) -> None:
    """Additive, then functions, then the mask; given in another order."""
    mask(repeats=True, values=True)(case)
    mods(case)
    given = case.biases
    case.biases = ()
    all_additive(case)
    case.biases = (given[0], case.biases[0], given[1], *case.biases[1:], given[2])


def functions_and_features(case: Case) -> None:
    mods(case)
    mask(repeats=True, values=True, features=True)(case)


BIASES: dict[str, Callable[[Case], None]] = {
    "none": lambda case: None,
    "pair": pair,
    "pair-inf": pair_with_inf,
    "table-uint8": table(torch.uint8),
    "table-int16": table(torch.int16),
    "table-int32": table(torch.int32),
    "table-int64": table(torch.int64),
    "edge": edge_bias(False),
    "edge-repeats": edge_bias(True),
    "mask": mask(),
    "mask-repeats": mask(repeats=True),
    "mask-values": mask(values=True),
    "mask-values-repeats": mask(repeats=True, values=True),
    "mask-values-inf": mask_with_inf,
    "mask-no-edges": mask_without_edges,
    "mask-features": mask(features=True),
    "mask-values-features-repeats": mask(repeats=True, values=True, features=True),
    "edge-on-mask": edge_bias_on_the_mask(False),
    "edge-on-mask-repeats": edge_bias_on_the_mask(True),
    "additive": all_additive,
    "additive-mask": additive_and_mask(False),
    "additive-mask-values": additive_and_mask(True),
    "mod": mod,
    "mods": mods,
    "everything": everything_in_order,
    "mods-features": functions_and_features,
}


def make_case(
    bias: str,
    order: str = "sorted",
    kind: str = "self",
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    grad: bool = True,
) -> Case:
    """A case by the names of its parts."""
    layout = layout_of(SIZES, order, device)
    query_layout = layout if kind == "self" else layout_of(QUERY_SIZES, order, device)
    case = Case(query_layout, layout, dtype, grad)
    BIASES[bias](case)
    return case


def by_hand(case: Case, scale: float) -> Tensor:
    """Attention as its definition reads: one query, one head, one key at a time."""
    query_batch, batch = case.query_layout.batch.tolist(), case.layout.batch.tolist()
    number = {
        pair: p
        for p, pair in enumerate(
            (i, j)
            for graph in range(case.layout.num_graphs)
            for i, a in enumerate(query_batch)
            if a == graph
            for j, b in enumerate(batch)
            if b == graph
        )
    }
    lists = {id(b): _edge_list(b) for b in case.biases if isinstance(b, (EdgeBias, EdgeMask))}
    the_mask = next((b for b in case.biases if isinstance(b, EdgeMask)), None)
    rows = []
    for i, graph in enumerate(query_batch):
        if the_mask is None:
            messages = [(j, -1) for j, other in enumerate(batch) if other == graph]
        else:
            messages = [(j, e) for e, (j, t) in enumerate(lists[id(the_mask)]) if t == i]
        for h in range(case.heads):
            scores, values = [], []
            for j, e in messages:
                k, v = case.key[j, h], case.value[j, h]
                if the_mask is not None and the_mask.features is not None:
                    k, v = k + the_mask.features[e, h], v + the_mask.features[e, h]
                score = scale * (case.query[i, h] * k).sum()
                for b in case.biases:
                    if isinstance(b, PairBias):
                        score = score + b.values[number[i, j], h]
                    elif isinstance(b, TableBias):
                        score = score + b.table[int(b.index[number[i, j]]), h]
                    elif isinstance(b, EdgeBias):
                        for n, edge in enumerate(lists[id(b)]):
                            if edge == (j, i):
                                score = score + b.values[n, h]
                for b in case.biases:
                    if isinstance(b, ScoreMod):
                        score = b.fn(score, *map(torch.tensor, (graph, h, i, j)))
                if the_mask is not None and the_mask.values is not None:
                    score = score + the_mask.values[e, h]
                scores.append(score)
                values.append(v)
            if all(s.item() == -INF for s in scores):
                rows.append(torch.zeros_like(case.query[i, h]))
            else:
                rows.append(torch.stack(scores).softmax(0) @ torch.stack(values))
    return torch.stack(rows).view(case.query.shape)


def _edge_list(bias: EdgeBias | EdgeMask) -> list[tuple[int, int]]:
    edges = bias.edges
    index = edges.edge_index if isinstance(edges, EdgeLayout) else edges
    return [(int(s), int(t)) for s, t in index.t()]


def unsupported(case: Case, backend: str, dropout_p: float = 0.0) -> str | None:
    """What the backend itself says against this case."""
    from pyg_gt.ops.dispatch import BACKENDS, _inputs

    inputs = _inputs(
        case.query, case.key, case.value, case.layout, case.biases, case.query_layout, None,
        dropout_p, draw=False,
    )  # fmt: skip
    return BACKENDS[backend].unsupported(inputs)
