"""Attention along edges: backends, and the core of PyG's ``TransformerConv``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.batches import SHAPES, batch_of
from benchmarks.gpu.compare import Problem, Run, backends, compared
from benchmarks.gpu.peers import AlongEdges
from benchmarks.gpu.section import ONE_THREAD, Row, Section
from pyg_gt import EdgeLayout, EdgeMask, GraphLayout, attention, explain_choice

HEADS = 4
# these drop the weights that the reference drops, bit for bit
EXACT = ("triton", "cpu", "sparse")
# dense backends fill all pairs of the nodes
MAX_PAIRS = 2**27
# others than the kernels make tensors of all edges times all channels, in several passes
MAX_EDGES = 10_000_000
# query nodes whose outputs and gradients are compared with the reference, which fills a table of
# their edges times themselves
SAMPLE = 128


class Shape(NamedTuple):
    """A set of edges and what is timed on it; without edges of its own, a batch of molecules."""

    name: str
    nodes: int
    edges: int
    channels: int = 16
    modes: tuple[str, ...] = ("forward", "train")
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    dropouts: tuple[float, ...] = (0.0, 0.5)


def shapes(tiny: bool) -> list[Shape]:
    """The largest as ogbn-products with its edges both ways: 2,449,029 nodes, 123,718,280 edges.

    It comes before what goals are not about.
    """
    if tiny:
        one = (torch.float32,)
        return [
            Shape("molecules", 0, 0, dtypes=one, dropouts=(0.0,)),
            Shape("E=400", 60, 400, dtypes=one),
            Shape("products", 100, 900, 32, ("forward",), (torch.bfloat16,), (0.0,)),
        ]
    return [
        Shape("E=1M", 20_000, 1_000_000),
        Shape("products", 2_449_029, 123_718_280, 32, ("forward",), (torch.bfloat16,), (0.0,)),
        Shape("E=280k", 20_000, 280_000),
        Shape("molecules x 128", 0, 0),
    ]


def edges_of(shape: Shape, device: str, tiny: bool) -> tuple[int, Tensor]:
    """Number of nodes and ``edge_index [2, E]``, at random or of rings."""
    if shape.edges == 0:
        graphs, *sizes = (4, (0, 1), (2, 9)) if tiny else SHAPES["molecules"]
        batch, edge_index = batch_of(graphs, *sizes)
        return batch.numel(), edge_index.to(device)
    return shape.nodes, torch.randint(shape.nodes, (2, shape.edges), device=device)


class Case:
    """One set of edges with features of one type, and all that can attend along it."""

    def __init__(
        self, shape: Shape, dtype: torch.dtype, num_nodes: int, edge_index: Tensor, p: float
    ) -> None:
        device = edge_index.device
        self.shape, self.dtype, self.dropout_p = shape, dtype, p
        self.layout = GraphLayout.from_sizes([num_nodes], device)
        edges = EdgeLayout.of(edge_index, num_nodes)
        assert isinstance(edges, EdgeLayout)
        self.edges = edges
        sizes = (num_nodes, HEADS, shape.channels)
        # three tensors, as the layer's three linear maps give
        names = ("query", "key", "value")
        self.parts = {name: torch.randn(sizes, device=device).to(dtype) for name in names}
        for part in self.parts.values():
            part.requires_grad_("train" in shape.modes)
        self.sample = torch.randperm(num_nodes, device=device)[:SAMPLE].sort().values

    def ours(self, name: str, p: float) -> Tensor:
        """A backend of the package."""
        mask = (EdgeMask(self.edges),)
        return attention(*self.parts.values(), self.layout, mask, dropout_p=p, backend=name)

    def reference(self, p: float) -> Tensor:
        """``[sample, H, C]`` in float32: the sampled queries alone, with all edges into them.

        With dropout by ``sparse`` on all edges, since dropped weights go by the numbers of edges,
        and the tests compare that with the reference weight by weight.
        """
        query, key, value = (x.float() for x in self.parts.values())
        if p > 0:
            mask = (EdgeMask(self.edges),)
            every = attention(query, key, value, self.layout, mask, dropout_p=p, backend="sparse")
            return every[self.sample]
        slot = torch.full((self.layout.num_nodes,), -1, device=query.device)
        slot[self.sample] = torch.arange(self.sample.numel(), device=query.device)
        source, target = self.edges.edge_index
        chosen = (slot[target] >= 0).nonzero().squeeze(1)
        edge_index = torch.stack([source[chosen], slot[target[chosen]]])
        queries = GraphLayout.from_sizes([self.sample.numel()], query.device)
        return attention(
            query[self.sample], key, value, self.layout, (EdgeMask(edge_index),),
            query_layout=queries, dropout_p=p, backend="reference",
        )  # fmt: skip

    def problem(self) -> Problem:
        """For the comparison."""
        leaves = self.parts if "train" in self.shape.modes else {}
        return Problem(leaves, self.reference, self.sample, self.dropout_p, EXACT)

    def candidates(
        self, elsewhere: Mapping[str, str] = {}
    ) -> tuple[dict[str, Run], dict[str, str]]:
        """The backends that can run, the peer, and what other backends object."""
        lines = explain_choice(
            *self.parts.values(), self.layout, (EdgeMask(self.edges),),
            dropout_p=self.dropout_p,
        )  # fmt: skip
        runs, objections = backends(lines, lambda name: partial(self.ours, name), elsewhere)
        if "sdpa" in runs and self.layout.num_pairs > MAX_PAIRS:
            del runs["sdpa"]
            objections["sdpa"] = f"not tried: it fills all {self.layout.num_pairs:,} pairs"
        if self.edges.num_edges > MAX_EDGES:
            text = f"not tried: it makes tensors for {self.edges.num_edges:,} edges"
            objections |= dict.fromkeys(["pyg core", *runs.keys() - {"triton"}], text)
            return {name: run for name, run in runs.items() if name == "triton"}, objections
        core = AlongEdges(self.edges.edge_index, self.layout.num_nodes)
        return runs | {"pyg core": partial(core, *self.parts.values())}, objections

    def row(self) -> Row:
        """What was computed, and the bytes that have to move at least.

        Forward: of each edge a key, a value and an index of 4 bytes, of each node a query and an
        output. Train adds what its gradients need: keys and values along edges again for those of
        queries, queries and gradients of outputs for those of keys and values.
        """
        n, e = self.layout.num_nodes, self.edges.num_edges
        row = HEADS * self.shape.channels * self.dtype.itemsize
        forward = e * (2 * row + 4) + 2 * n * row
        return {
            "shape": self.shape.name, "nodes": n, "edges": e, "heads": HEADS,
            "channels": self.shape.channels,
            "dtype": str(self.dtype).removeprefix("torch."), "dropout": self.dropout_p,
            "bias": "EdgeMask", "density": round(e / n**2, 8), "sample": self.sample.numel(),
            "bytes": {"forward": forward, "train": forward + e * (4 * row + 8) + 6 * n * row},
        }  # fmt: skip


def run(section: Section) -> None:
    """All shapes; without flex on a GPU, whose compilation takes long: it has its own part."""
    elsewhere = {"flex": "flex edges"} if section.device == "cuda" else {}
    run_shapes(section, shapes(section.tiny), elsewhere)


def run_flex(section: Section) -> None:
    """The shapes that flex can compute, with all other candidates."""
    chosen = [s._replace(dropouts=(0.0,)) for s in shapes(section.tiny) if s.name != "products"]
    run_shapes(section, chosen[::-1])


def run_shapes(section: Section, chosen: list[Shape], elsewhere: Mapping[str, str] = {}) -> None:
    """A row for each shape, type and dropout."""
    cuda = section.device == "cuda"
    for shape in chosen:
        torch.manual_seed(0)
        if not section.has_time(shape.name):
            continue
        with section.guarded(shape.name):
            num_nodes, edge_index = edges_of(shape, section.device, section.tiny)
            for dtype, p in product(shape.dtypes, shape.dropouts):
                label = f"{shape.name}, {str(dtype).removeprefix('torch.')}, dropout {p}"
                if not section.has_time(label):
                    continue
                with section.guarded(label):
                    case = Case(shape, dtype, num_nodes, edge_index, p)
                    one_thread = (ONE_THREAD,) if "train" in shape.modes and p == 0 else ()
                    compared(
                        section, case.row(), case.problem(), *case.candidates(elsewhere),
                        "pyg core", shape.modes + one_thread, seconds=0.3 if cuda else 0.02,
                        peak=cuda,
                    )  # fmt: skip
