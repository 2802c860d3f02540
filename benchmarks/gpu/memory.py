"""Peak memory of full attention on one graph, forward and backward, against its nodes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.compare import Problem, Run, backends, call_of
from benchmarks.gpu.peers import peers_of
from benchmarks.gpu.section import Row, Section, one_line
from benchmarks.timing import peak_mib, timed_call
from pyg_gt import GraphLayout, explain_choice, qkv_attention

HEADS, CHANNELS = 4, 16
NODES = (2_000, 10_000, 50_000, 100_000, 200_000)


def run(section: Section) -> None:
    """A row for each candidate and size; checked at the smallest size.

    A candidate is not run where its time, growing with the square of the nodes, would not fit, nor
    after it has failed on a smaller graph.
    """
    sizes = (40, 80) if section.tiny else NODES
    smallest, layout = graph_of(sizes[0], section.device)
    runs, objections = candidates(smallest, layout)
    want = partial(ours, "reference", smallest.float(), layout)
    problem = Problem({"joined": smallest}, lambda p: want())
    for name, text in objections.items() if section.left() > 0 else ():
        section.add({"nodes": sizes[0], "candidate": name, "objection": text})
    for name, checked in runs.items():
        before: Row = {}
        failed = False
        for n in sizes:
            row: Row = {"nodes": n, "candidate": name, "heads": HEADS, "channels": CHANNELS}
            row |= {"dtype": "bfloat16", "scores": n * n * HEADS}
            if failed:
                section.add(row | {"error": "not run: it failed on a smaller graph"})
                continue
            growth = (n / before["nodes"]) ** 2 if before else 0.0
            seconds = growth * 2.5 * before.get("train_ms", 0.0) / 1e3
            if not section.has_time(f"{name}, {n} nodes", seconds):
                continue
            try:
                joined, candidate = smallest, checked
                if n == sizes[0]:
                    row["difference"] = problem.difference(name, candidate)
                else:
                    joined, layout = graph_of(n, section.device)
                    candidate = candidates(joined, layout)[0][name]
                call = call_of(Problem({"joined": joined}, problem.want), candidate, "train")
                row["peak_mib"] = peak_mib(call, section.device)
                row["train_ms"] = round(1e3 * timed_call(call)[1], 3)
                before = row
            except AssertionError as error:
                failed, row["wrong"] = True, one_line(error)
            except Exception as error:
                failed, row["error"] = True, one_line(error)
            section.add(row)
            if section.device == "cuda":
                torch.cuda.empty_cache()


def graph_of(n: int, device: str) -> tuple[Tensor, GraphLayout]:
    """``joined [n, 3, H, C]`` of one graph, and its layout."""
    torch.manual_seed(0)
    joined = torch.randn(n, 3, HEADS, CHANNELS, device=device).to(torch.bfloat16)
    return joined.requires_grad_(), GraphLayout.from_sizes([n], device)


def ours(name: str, joined: Tensor, layout: GraphLayout, p: float = 0.0) -> Tensor:
    """A backend of the package."""
    return qkv_attention(joined, layout, dropout_p=p, backend=name)


def candidates(joined: Tensor, layout: GraphLayout) -> tuple[dict[str, Run], dict[str, str]]:
    """Every backend that can, PyG's padded path, and torch's FlashAttention on packed graphs."""
    lines = explain_choice(*joined.unbind(1), layout)
    runs, objections = backends(lines, lambda name: partial(ours, name, joined, layout))
    peers, peer_objections = peers_of(joined, layout, names=("pyg padded", "varlen"))
    return runs | peers, objections | peer_objections
