"""Full attention on batches of graphs: every backend and the peers, checked and side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.batches import SHAPES, batch_of
from benchmarks.gpu.compare import Problem, Run, backends, compared
from benchmarks.gpu.peers import peers_of
from benchmarks.gpu.section import ONE_THREAD, Row, Section
from pyg_gt import (
    GraphLayout,
    PairBias,
    TableBias,
    attention,
    explain_choice,
    qkv_attention,
)
from pyg_gt.ops import AttentionBias

HEADS = 4
# these drop the weights that the reference drops, bit for bit
EXACT = ("triton", "cpu")
TABLE_ROWS = 20
FLEX = {"flex": "flex"}
VARIANTS = {"plain": (0.0, None), "dropout 0.5": (0.5, None), "table": (0.0, "TableBias"),
            "pair": (0.0, "PairBias")}  # fmt: skip


class Config(NamedTuple):
    """One row."""

    shape: str
    channels: int
    dtype: torch.dtype
    variant: str

    @property
    def label(self) -> str:
        """One line."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.shape}, C={self.channels}, {dtype}, {self.variant}"


def shapes(tiny: bool) -> dict[str, tuple[int, tuple[float, ...], tuple[int, ...]]]:
    """Graphs of a batch, and their sizes at quantiles."""
    if tiny:
        return {"molecules x 4": (4, (0, 1), (2, 9)), "voc": (2, (0, 1), (12, 20))}
    molecules = SHAPES["molecules"][1:]
    return {
        "molecules x 128": (128, *molecules), "molecules x 1024": (1024, *molecules),
        "peptides": SHAPES["peptides"], "voc": SHAPES["voc"],
    }  # fmt: skip


def configs(tiny: bool) -> Iterator[Config]:
    """All rows; first those that goals are set for."""
    for variant in VARIANTS:
        for shape in shapes(tiny):
            for channels in (16, 64):
                for dtype in (torch.bfloat16, torch.float32):
                    if not tiny or (channels == 16) != (shape == "voc"):
                        yield Config(shape, channels, dtype, variant)


class Case:
    """The tensors of a row, and all that can compute it."""

    def __init__(self, config: Config, device: str, tiny: bool) -> None:
        torch.manual_seed(0)
        batch, _ = batch_of(*shapes(tiny)[config.shape])
        self.config, self.device = config, device
        self.layout = GraphLayout.from_batch(batch.to(device))
        self.dropout_p, kind = VARIANTS[config.variant]
        n, pairs = self.layout.num_nodes, self.layout.num_pairs
        shape = (n, 3, HEADS, config.channels)
        joined = torch.randn(shape, device=device).to(config.dtype).requires_grad_()
        self.leaves = {"joined": joined}
        self.biases: tuple[AttentionBias, ...] = ()
        if kind == "TableBias":
            self.leaves["table"] = torch.randn(TABLE_ROWS, HEADS, device=device).requires_grad_()
            index = torch.randint(TABLE_ROWS, (pairs,), device=device, dtype=torch.uint8)
            self.biases = (TableBias(self.leaves["table"], index),)
        elif kind == "PairBias":
            self.leaves["values"] = torch.randn(pairs, HEADS, device=device).requires_grad_()
            self.biases = (PairBias(self.leaves["values"]),)

    def ours(self, name: str, p: float) -> Tensor:
        """A backend of the package."""
        joined = self.leaves["joined"]
        return qkv_attention(joined, self.layout, self.biases, dropout_p=p, backend=name)

    def reference(self, p: float) -> Tensor:
        """In float32 from the same numbers."""
        parts = self.leaves["joined"].float().unbind(1)
        return attention(*parts, self.layout, self.biases, dropout_p=p, backend="reference")

    def candidates(
        self, elsewhere: Mapping[str, str] = {}
    ) -> tuple[dict[str, Run], dict[str, str]]:
        """The backends and peers that can run, and what the others object."""
        joined, (bias,) = self.leaves["joined"], self.biases or (None,)
        lines = explain_choice(
            *joined.unbind(1), self.layout, self.biases, dropout_p=self.dropout_p
        )
        runs, objections = backends(lines, lambda name: partial(self.ours, name), elsewhere)
        peers, peer_objections = peers_of(joined, self.layout, bias, self.dropout_p)
        return runs | peers, objections | peer_objections

    def problem(self) -> Problem:
        """For the comparison."""
        # drawing dropped weights takes the reference some hundred operations a graph
        exact = EXACT if self.layout.num_graphs <= 128 else ()
        return Problem(self.leaves, self.reference, None, self.dropout_p, exact)

    def row(self) -> Row:
        """What was computed."""
        pairs, n = self.layout.num_pairs, self.layout.num_nodes
        return {
            "shape": self.config.shape, "graphs": self.layout.num_graphs, "nodes": n,
            "pairs": pairs, "scores": pairs * HEADS, "heads": HEADS,
            "channels": self.config.channels,
            "dtype": str(self.config.dtype).removeprefix("torch."), "dropout": self.dropout_p,
            "bias": VARIANTS[self.config.variant][1], "density": 1.0,
        }  # fmt: skip


def run(section: Section) -> None:
    """All rows; without flex on a GPU, whose compilation takes long: it has its own part."""
    run_configs(section, configs(section.tiny), FLEX if section.device == "cuda" else {})


def run_flex(section: Section) -> None:
    """The rows that flex can compute, with all other candidates."""
    chosen = [c for c in configs(section.tiny) if c.variant in ("plain", "table")]
    run_configs(section, sorted(chosen, key=lambda c: (c.variant, c.dtype != torch.bfloat16)))


def run_configs(
    section: Section, chosen: Iterable[Config], elsewhere: Mapping[str, str] = {}
) -> None:
    """A row for each of the chosen."""
    seconds = 0.02 if section.tiny else 0.3
    for config in chosen:
        # what has to be compiled cannot be broken off
        if not section.has_time(config.label, section.longest):
            continue
        with section.guarded(config.label):
            case = Case(config, section.device, section.tiny)
            runs, objections = case.candidates(elsewhere)
            modes: tuple[str, ...] = ("forward", "train")
            # small batches are bound by host time, which depends on the thread of the backward
            if (config.shape[:9], config.channels, config.variant) == ("molecules", 16, "plain"):
                modes += (ONE_THREAD,)
            compared(
                section, case.row(), case.problem(), runs, objections, "pyg padded", modes,
                seconds=seconds, peak=section.device == "cuda",
            )  # fmt: skip


def warm(part: int, parts: int, device: str, tiny: bool) -> None:
    """Compiles the kernels of the rows ahead; one of several processes."""
    chosen = list(configs(tiny))[part::parts]
    for name in ("triton", "flex"):
        for config in chosen:
            case = Case(config, device, tiny)
            runs, _ = case.candidates()
            if name in runs:
                try:
                    case.problem().results(runs[name], case.dropout_p, None)
                except Exception:  # the row itself will say so
                    continue
