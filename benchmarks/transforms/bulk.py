"""Encodings of many graphs: PyG's transforms, ours, our workers."""

from __future__ import annotations

import copy
import multiprocessing
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch_geometric.transforms as T
from torch_geometric.data import Data

from benchmarks.timing import interleaved, peak_rss_mib, ratio, timed_call
from benchmarks.transforms.checks import check_encodings, check_pairs, check_same, residual
from pyg_gt.transforms import (
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddRelativeRandomWalkPE,
    AddShortestPathDistance,
    EncodeAndCollate,
    precompute,
)

K, STEPS = 8, 16
OURS = [AddLaplacianEigenvectorPE(K), AddRandomWalkPE(STEPS)]
PYG = [T.AddLaplacianEigenvectorPE(K, "pyg_laplacian"), T.AddRandomWalkPE(STEPS, "pyg_walk")]


def pyg(graphs: Sequence[Data]) -> list[Data]:
    """What PyG's users run; it fails on graphs of fewer than ``K + 1`` nodes."""
    both = T.Compose(PYG)
    return [both(copy.copy(graph)) for graph in graphs]


def one_by_one(graphs: Sequence[Data]) -> list[Data]:
    """Ours as a ``pre_transform``."""
    both = T.Compose(OURS)
    return [both(graph) for graph in graphs]


def against_pyg(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Laplacian eigenvectors and return probabilities together."""
    large = [graph for graph in graphs if graph.num_nodes > K]
    errors = check_encodings(precompute(large, OURS, progress=False), pyg(large), K)
    calls = {
        "pyg": lambda: pyg(large),
        "ours": lambda: precompute(large, OURS, progress=False),
        "ours, one by one": lambda: one_by_one(large),
    }
    row = rates(interleaved(calls, rounds, warmup=1), len(large))
    row["left out, fewer than 9 nodes"] = len(graphs) - len(large)
    return row | errors


def rates(times: Mapping[str, list[float]], num_graphs: int) -> dict[str, Any]:
    """Graphs per second of each, and the ratios of the first one's time to the others'."""
    first, *others = times
    row: dict[str, Any] = {
        "graphs": num_graphs,
        "graphs_per_second": {
            name: round(num_graphs / statistics.median(each)) for name, each in times.items()
        },
    }
    for name in others:
        row[f"{name}: times {first}"] = round(ratio(times, first, name), 2)
    return row


def with_workers(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Two processes against one, and against what two can do on this machine that share nothing.

    ``limit`` is the work of two independent processes over that of one in the same time, and
    ``share`` what two workers reach of it.
    """
    alone = precompute(graphs, OURS, progress=False)
    check_same(alone, precompute(graphs, OURS, num_workers=2, progress=False))
    del alone
    calls: dict[str, Callable[[], Any]] = {
        f"{number} workers": partial(precompute, graphs, OURS, num_workers=number, progress=False)
        for number in (0, 1, 2)
    }
    for number in (1, 2):
        calls[f"{number} apart"] = partial(encode_in_processes, graphs, number)
    times = interleaved(calls, rounds, warmup=1)
    row = rates({name: times[name] for name in list(times)[:3]}, len(graphs))
    gain = ratio(times, "1 workers", "2 workers")
    limit = 2 * ratio(times, "1 apart", "2 apart")
    return row | {
        "2 workers: times 1 workers": round(gain, 2),
        "limit": round(limit, 2),
        "share": round(gain / limit, 2),
    }


def encode_in_processes(graphs: Sequence[Data], number: int) -> None:
    """Encodes all graphs in each of so many processes, and keeps nothing."""
    fork = multiprocessing.get_context("fork")
    arguments = (graphs, OURS)
    processes = [
        fork.Process(target=precompute, args=arguments, kwargs={"progress": False})
        for _ in range(number)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def whole(graphs: Sequence[Data]) -> dict[str, Any]:
    """All graphs, small and disconnected ones too: nothing may fail."""
    encoded, seconds = timed_call(partial(precompute, graphs, OURS, progress=False))
    walks = torch.cat([graph.random_walk_pe for graph in encoded])
    assert len(encoded) == len(graphs) and bool(((walks >= 0) & (walks <= 1)).all())
    worst = residual(encoded)
    assert worst < 1e-6
    return {
        "graphs": len(graphs),
        "seconds": round(seconds, 2),
        "graphs_per_second": round(len(graphs) / seconds),
        "largest residual": worst,
    }


def pairs(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Encodings of pairs."""
    candidates = {
        "shortest paths": AddShortestPathDistance(20),
        "shortest paths, 5 edges of each": AddShortestPathDistance(20, path_length=5),
        "relative walks": AddRelativeRandomWalkPE(17),
    }
    for transform in candidates.values():
        check_pairs(precompute(graphs[:500], transform, progress=False))
    calls = {
        name: partial(precompute, graphs, transform, progress=False)
        for name, transform in candidates.items()
    }
    return rates(interleaved(calls, rounds, warmup=1), len(graphs))


def streamed(graphs: Sequence[Data]) -> dict[str, Any]:
    """Relative walks and distances of every graph, made batch by batch, then forgotten."""
    transforms = [AddShortestPathDistance(20), AddRelativeRandomWalkPE(17)]
    loader = torch.utils.data.DataLoader(
        graphs, batch_size=64, collate_fn=EncodeAndCollate(transforms)
    )
    checked, seconds = timed_call(lambda: sums_of_pairs(loader))
    return {
        "graphs": len(graphs),
        **checked,
        "seconds": round(seconds, 1),
        "peak MiB of the process": peak_rss_mib(),
    }


def sums_of_pairs(loader: Iterable[Data]) -> dict[str, Any]:
    """How many pairs there are, and their bytes; raises unless walks and distances are right."""
    pairs_seen, bytes_seen, worst = 0, 0, 0.0
    for batch in loader:
        pairs_seen += batch.pair_distance.numel()
        bytes_seen += batch.pair_walk.nbytes + batch.pair_distance.nbytes
        total = batch.pair_walk.sum(0)  # each of N rows of each power sums to one or zero
        assert bool((total <= batch.num_nodes * (1 + 1e-4)).all())
        assert int((batch.pair_distance == 0).sum()) == batch.num_nodes
        worst = max(worst, float(batch.pair_walk.max()) - 1)
    return {
        "pairs": pairs_seen,
        "GB made": round(bytes_seen / 1e9, 1),
        "largest walk above one": worst,
    }
