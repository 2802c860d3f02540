"""Peak memory of full attention on one graph, forward and backward, against its nodes."""

from __future__ import annotations

import time
from functools import partial

import torch
from cuda_compare import Problem, Run, call_of
from cuda_peers import Padded
from cuda_section import Row, Section, said
from timing import peak_mib
from torch import Tensor

from pyg_gt import GraphLayout, attention, explain_choice
from pyg_gt.ops._dispatch import BACKENDS

HEADS, CHANNELS = 4, 16
NODES = (10_000, 50_000, 100_000, 200_000)


def run(section: Section) -> None:
    """A row for each size and candidate; checked at the smallest size.

    A candidate is not run where its time, growing with the square of the nodes, or its memory,
    growing as from the size before, would not fit.
    """
    dtype = torch.bfloat16
    sizes = (40, 80) if section.tiny else NODES
    last: dict[str, Row] = {}
    for n in sizes:
        if not section.has_time(f"{n} nodes"):
            continue
        torch.manual_seed(0)
        layout = GraphLayout.from_sizes([n], section.device)
        joined = torch.randn(n, 3, HEADS, CHANNELS, device=section.device).to(dtype)
        joined.requires_grad_()
        runs, objections = candidates(joined, layout)
        want = partial(ours, "reference", joined.float(), layout)
        problem = Problem({"joined": joined}, lambda p, want=want: want())
        for name, text in objections.items():
            section.add({"nodes": n, "candidate": name, "objection": text})
        for name, candidate in runs.items():
            row: Row = {"nodes": n, "candidate": name, "heads": HEADS, "channels": CHANNELS}
            row |= {"dtype": "bfloat16", "scores": n * n * HEADS}
            before = last.get(name)
            if n > sizes[0] and before is None:
                section.add(row | {"error": "not run: it failed on a smaller graph"})
                continue
            growth = 0.0 if before is None else (n / before["nodes"]) ** 2
            seconds = growth * 2.5 * (before or {}).get("train_ms", 0.0) / 1e3
            if not section.has_time(f"{name}, {n} nodes", seconds):
                continue
            try:
                if n == sizes[0]:
                    row["difference"] = problem.difference(name, candidate)
                call = call_of(problem, candidate, "train")
                row["peak_mib"] = peak_mib(call, section.device)
                start = time.perf_counter()
                call()
                if section.device == "cuda":
                    torch.cuda.synchronize()
                row["train_ms"] = round(1e3 * (time.perf_counter() - start), 3)
                last[name] = row
            except AssertionError as error:
                row["wrong"] = said(error)
            except Exception as error:
                row["error"] = said(error)
            section.add(row)
            if section.device == "cuda":
                torch.cuda.empty_cache()


def ours(name: str, joined: Tensor, layout: GraphLayout, p: float = 0.0) -> Tensor:
    """A backend of the package."""
    return attention(*joined.unbind(1), layout, backend=name)


def candidates(joined: Tensor, layout: GraphLayout) -> tuple[dict[str, Run], dict[str, str]]:
    """Every backend that can, and PyG's padded path."""
    lines = explain_choice(*joined.unbind(1), layout)
    runs: dict[str, Run] = {}
    objections = {}
    for name in BACKENDS:
        if name == "reference":
            continue
        if lines[name] == "chosen" or lines[name].startswith("could run"):
            runs[name] = partial(ours, name, joined, layout)
        else:
            objections[name] = lines[name]
    return runs | {"pyg padded": partial(Padded(layout, joined.dtype), joined)}, objections
