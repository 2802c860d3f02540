"""Batches of molecules inside CUDA graphs: the time without the host's launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.compare import call_of, side_by_side
from benchmarks.gpu.operators import FLEX, Case, configs
from benchmarks.gpu.section import Row, Section, one_line


def run(section: Section) -> None:
    """Rows without biases and dropout; what cannot be captured is noted with its reason."""
    # goals are about narrow heads
    for config in sorted(configs(section.tiny), key=lambda c: c.channels):
        if not config.shape.startswith("molecules") or config.variant != "plain":
            continue
        if not section.has_time(config.label):
            continue
        with section.guarded(config.label):
            case = Case(config, section.device, section.tiny)
            runs, objections = case.candidates(FLEX)
            # PyG's path reads sizes on the host, which a graph cannot: it runs as it is
            padded = runs.pop("pyg padded")
            problem = case.problem()
            found: dict[str, Row] = {
                name: {"objection": text} for name, text in objections.items()
            }
            found |= {name: {} for name in ("pyg padded", *runs)}
            ratios: dict[str, dict[str, float]] = {}
            try:
                for mode in ("forward", "train"):
                    calls = {"pyg padded": call_of(problem, padded, mode)}
                    calls["pyg padded"]()
                    for name, candidate in runs.items():
                        try:
                            found[name]["difference"] = problem.difference(name, candidate)
                            calls[name] = captured(call_of(problem, candidate, mode))
                        except AssertionError as error:
                            found[name]["wrong"] = one_line(error)
                        except Exception as error:
                            found[name][f"{mode}_not_captured"] = one_line(error)
                            # where the device answers no more, the part ends
                            torch.zeros(1, device=section.device).add_(1).item()
                    ratios[mode] = side_by_side(calls, found, mode, "pyg padded", 0.3)
            finally:
                row = case.row() | {"cuda_graph": True, "peer": "pyg padded"}
                section.add(row | {"candidates": found, "peer_over": ratios})


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph, warmed up on a stream of its own as torch's notes say.

    Its result is checked against that of a plain call with the same random numbers.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = call()
    torch.manual_seed(0)
    graph.replay()
    torch.cuda.synchronize()
    torch.manual_seed(0)
    for got, want in zip(_tensors(held), _tensors(call()), strict=True):
        if not torch.allclose(got, want, rtol=1e-2, atol=1e-2):
            raise AssertionError("the replayed graph gives another result than the call")
    return graph.replay


def _tensors(result: Any) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)
