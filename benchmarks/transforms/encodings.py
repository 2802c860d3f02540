"""Encodings in bulk against PyG's transforms: ``python benchmarks/transforms.py --ogb ROOT``.

One thread, from a list of `Data` to a list of `Data`. No figure is written unless what was
computed is right: residuals and eigenvalues of all components, walks against PyG's, pairs. Ratios
are medians over rounds in which PyG and ours encode the same graphs one after the other.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_geometric.transforms as T
from timing import environment, write
from torch_geometric.data import Data
from transform_checks import check_encodings, check_pairs, check_same, residual, second_step_error
from transform_graphs import citation_graph, grid_graph, molhiv, peptides, superpixels
from transform_rates import interleaved_rates, rates, ratio_of, seconds_of

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
    both = T.Compose(OURS)
    return [both(graph) for graph in graphs]


def against_pyg(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Laplacian eigenvectors and return probabilities together."""
    large = [graph for graph in graphs if graph.num_nodes > K]
    errors = check_encodings(precompute(large, OURS, progress=False), pyg(large), K)
    row = interleaved_rates(
        {
            "pyg": lambda: pyg(large),
            "ours": lambda: precompute(large, OURS, progress=False),
            "ours, one by one": lambda: one_by_one(large),
        },
        len(large),
        rounds,
    )
    row["left out, fewer than 9 nodes"] = len(graphs) - len(large)
    return row | errors


def with_workers(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Two processes against one, and against what two can do on this machine that share nothing.

    ``limit`` is the work of two independent processes over that of one in the same time, and
    ``share`` what two workers reach of it.
    """
    alone = precompute(graphs, OURS, progress=False)
    check_same(alone, precompute(graphs, OURS, num_workers=2, progress=False))
    del alone
    calls: dict[str, Callable[[], Any]] = {
        f"{number} workers": lambda number=number: precompute(
            graphs, OURS, num_workers=number, progress=False
        )
        for number in (0, 1, 2)
    }
    for number in (1, 2):
        calls[f"{number} apart"] = lambda number=number: apart(graphs, number)
    times = seconds_of(calls, rounds)
    row = rates({name: times[name] for name in list(times)[:3]}, len(graphs))
    gain = ratio_of(times["1 workers"], times["2 workers"])
    limit = 2 * ratio_of(times["1 apart"], times["2 apart"])
    return row | {
        "2 workers: times 1 workers": round(gain, 2),
        "limit": round(limit, 2),
        "share": round(gain / limit, 2),
    }


def apart(graphs: Sequence[Data], number: int) -> None:
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
    start = time.perf_counter()
    encoded = precompute(graphs, OURS, progress=False)
    seconds = time.perf_counter() - start
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
    return interleaved_rates(
        {
            name: lambda transform=transform: precompute(graphs, transform, progress=False)
            for name, transform in candidates.items()
        },
        len(graphs),
        rounds,
    )


def streamed(graphs: Sequence[Data]) -> dict[str, Any]:
    """Relative walks and distances of every graph, made batch by batch, then forgotten."""
    transforms = [AddShortestPathDistance(20), AddRelativeRandomWalkPE(17)]
    loader = torch.utils.data.DataLoader(
        graphs, batch_size=64, collate_fn=EncodeAndCollate(transforms)
    )
    start, pairs_seen, bytes_seen, worst = time.perf_counter(), 0, 0, 0.0
    for batch in loader:
        pairs_seen += batch.pair_distance.numel()
        bytes_seen += batch.pair_walk.nbytes + batch.pair_distance.nbytes
        total = batch.pair_walk.sum(0)  # each of N rows of each power sums to one or zero
        assert bool((total <= batch.num_nodes * (1 + 1e-4)).all())
        assert int((batch.pair_distance == 0).sum()) == batch.num_nodes
        worst = max(worst, float(batch.pair_walk.max()) - 1)
    return {
        "graphs": len(graphs),
        "pairs": pairs_seen,
        "GB made": round(bytes_seen / 1e9, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "largest walk above one": worst,
        "peak MiB of the process": peak_rss(),
    }


def peak_rss() -> int:
    """The most memory this process has had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def large(data: Data, num_samples: int | None) -> dict[str, Any]:
    """16 vectors and 16 steps of one graph of about 170,000 nodes."""
    start = time.perf_counter()
    encoded = AddLaplacianEigenvectorPE(16)(data)
    vectors_seconds = time.perf_counter() - start
    start = time.perf_counter()
    walk = AddRandomWalkPE(STEPS, num_samples=num_samples)
    encoded = walk(encoded)
    worst = residual([encoded])
    assert worst < 1e-6
    row = {
        "nodes": data.num_nodes,
        "edges": data.num_edges,
        "16 vectors, seconds": round(vectors_seconds, 1),
        "16 steps, seconds": round(time.perf_counter() - start, 1),
        "largest residual": worst,
        "eigenvalues": [round(x, 8) for x in encoded.laplacian_eigenvector_pe_values[0].tolist()],
        "walks": repr(walk),
        "peak MiB of the process": peak_rss(),
    }
    if num_samples is not None:
        row["largest standard error"] = float(encoded.random_walk_pe_std.max())
        row["mean standard error"] = float(encoded.random_walk_pe_std.mean())
        row["largest deviation of step 2, exact"] = second_step_error(encoded)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ogb", type=Path, required=True, help="root of a copy of ogbg-molhiv")
    parser.add_argument("--peptides", type=Path, help="folder with Peptides-func as csv.gz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=10, help="PyG runs on every so many graphs")
    parser.add_argument("--only", nargs="*", help="names of parts; all without")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"environment": environment()}
    hiv = molhiv(args.ogb)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "molhiv, Laplacian 8 + walks 16": lambda: against_pyg(hiv[:: args.every], args.rounds),
        "molhiv, whole": lambda: whole(hiv),
        "molhiv, workers": lambda: with_workers(hiv, args.rounds),
        "molhiv, pairs": lambda: pairs(hiv[:: args.every], args.rounds),
        "480 nodes, Laplacian 8 + walks 16": lambda: against_pyg(superpixels(16), args.rounds),
    }
    if args.peptides is not None:
        chains = peptides(args.peptides)
        parts |= {
            "peptides, Laplacian 8 + walks 16": lambda: against_pyg(chains[::60], args.rounds),
            "peptides, workers": lambda: with_workers(chains[::2], args.rounds),
            "peptides, whole": lambda: whole(chains),
            "peptides, pairs": lambda: pairs(chains[::60], args.rounds),
            "peptides, pairs of all, streamed": lambda: streamed(chains),
        }
    parts |= {
        "170,000 nodes, mesh, exact": lambda: large(grid_graph(), None),
        "170,000 nodes, citations, estimated": lambda: large(citation_graph(), 256),
    }
    for name, part in parts.items():
        if args.only and name not in args.only:
            continue
        results[name] = part()
        print(name, results[name], flush=True)
        if args.out is not None:
            write(args.out, results)


if __name__ == "__main__":
    main()
