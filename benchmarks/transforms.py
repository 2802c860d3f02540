"""Encodings in bulk against PyG's transforms: ``python benchmarks/transforms.py --ogb ROOT``.

One thread, from a list of `Data` to a list of `Data`. Every figure comes with what makes it worth
anything: the largest residual of the eigenvectors and how far the walks are from PyG's. Ratios are
medians over rounds in which PyG and ours encode the same graphs one after the other.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric.transforms as T
from scipy.sparse import csr_array, diags_array
from timing import environment, write
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from pyg_gt.datasets import load_ogb
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


def laplacian_of(data: Data) -> csr_array:
    """``I - D^{-1/2} A D^{-1/2}`` by scipy; an isolated node gets a row of zeros."""
    N = data.num_nodes
    adjacency = csr_array((np.ones(data.num_edges), data.edge_index.numpy()), shape=(N, N))
    degree = adjacency.sum(axis=1)
    root = diags_array(1 / np.sqrt(np.maximum(degree, 1)))
    return csr_array(root @ (diags_array(degree) - adjacency) @ root)


def residual(graphs: Sequence[Data]) -> float:
    """The largest ``|| L u - lambda u ||`` over all eigenpairs of all graphs."""
    worst = 0.0
    for data in graphs:
        vectors = data.laplacian_eigenvector_pe.double().numpy()
        values = data.laplacian_eigenvector_pe_values.double().numpy()
        mask = data.laplacian_eigenvector_pe_mask.numpy()
        assert not vectors[~mask].any()
        if vectors.size:
            error = laplacian_of(data) @ vectors - values * vectors
            worst = max(worst, float(np.linalg.norm(error, axis=0).max()))
    return worst


def difference(graphs: Sequence[Data], theirs: Sequence[Data]) -> float:
    """The largest difference between our walks and PyG's."""
    pairs = zip(graphs, theirs, strict=True)
    return max(float((a.random_walk_pe - b.pyg_walk).abs().max()) for a, b in pairs)


def interleaved_rates(
    candidates: dict[str, Callable[[], Any]], num_graphs: int, rounds: int
) -> dict[str, Any]:
    """Graphs per second of each, and the ratios of the first one's time to the others'."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    first, *others = candidates
    result: dict[str, Any] = {
        "graphs": num_graphs,
        "graphs_per_second": {
            name: round(num_graphs / statistics.median(each)) for name, each in times.items()
        },
    }
    for name in others:
        pairs = zip(times[first], times[name], strict=True)
        result[f"{name}: times {first}"] = round(statistics.median(a / b for a, b in pairs), 2)
    return result


def against_pyg(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Laplacian eigenvectors and return probabilities together."""
    large = [graph for graph in graphs if graph.num_nodes > K]
    encoded = precompute(large, OURS, progress=False)
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
    row["largest residual"] = residual(encoded)
    row["largest difference of walks"] = difference(encoded, pyg(large))
    return row


def with_workers(graphs: Sequence[Data], rounds: int) -> dict[str, Any]:
    """Two processes against one."""
    return interleaved_rates(
        {
            f"{number} workers": lambda number=number: precompute(
                graphs, OURS, num_workers=number, progress=False
            )
            for number in (0, 1, 2)
        },
        len(graphs),
        rounds,
    )


def whole(graphs: Sequence[Data]) -> dict[str, Any]:
    """All graphs, small and disconnected ones too: nothing may fail."""
    start = time.perf_counter()
    encoded = precompute(graphs, OURS, progress=False)
    seconds = time.perf_counter() - start
    walks = torch.cat([graph.random_walk_pe for graph in encoded])
    assert len(encoded) == len(graphs) and bool(((walks >= 0) & (walks <= 1)).all())
    return {
        "graphs": len(graphs),
        "seconds": round(seconds, 2),
        "graphs_per_second": round(len(graphs) / seconds),
        "largest residual": residual(encoded),
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


def check_pairs(graphs: Sequence[Data]) -> None:
    """Raises unless distances are scipy's, and rows of walks sum to one or zero."""
    from scipy.sparse.csgraph import shortest_path

    for data in graphs:
        N = data.num_nodes
        if "pair_distance" in data:
            adjacency = csr_array((np.ones(data.num_edges), data.edge_index.numpy()), shape=(N, N))
            want = shortest_path(adjacency, unweighted=True)
            want[want > 20] = 21
            assert np.array_equal(data.pair_distance.view(N, N).numpy(), want)
        else:
            check_walks(data.pair_walk, N)


def check_walks(pair_walk: torch.Tensor, num_nodes: int) -> None:
    """Raises unless each row of each power sums to one, or to zero."""
    rows = pair_walk.view(num_nodes, num_nodes, -1).sum(1)
    assert bool((torch.minimum(rows.abs(), (rows - 1).abs()) < 1e-4).all())


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


def superpixels(num_graphs: int, num_nodes: int = 480) -> list[Data]:
    """Graphs as of image regions: random points, each joined to its 6 nearest."""
    random, graphs = np.random.default_rng(0), []
    for _ in range(num_graphs):
        points = torch.from_numpy(random.random((num_nodes, 2)))
        near = torch.cdist(points, points).topk(6, largest=False).indices[:, 1:]
        edge_index = torch.stack([torch.arange(num_nodes).repeat_interleave(5), near.flatten()])
        graphs.append(Data(edge_index=to_undirected(edge_index), num_nodes=num_nodes))
    return graphs


def citation_graph(num_nodes: int = 169_343, num_edges: int = 1_166_243) -> Data:
    """A connected graph of ogbn-arxiv's size: most edges within a field, popular papers."""
    random = np.random.default_rng(0)
    field = random.integers(0, 40, num_nodes)
    by_field = np.argsort(field, kind="stable")
    first = np.searchsorted(field[by_field], np.arange(41))
    paper = np.arange(1, num_nodes)
    tree = np.stack([paper, (random.random(paper.size) ** 2 * paper).astype(np.int64)])
    source = random.integers(0, num_nodes, num_edges - num_nodes + 1)
    popular = random.random(source.size) ** 3
    start, stop = first[field[source]], first[field[source] + 1]
    inside = by_field[start + (popular * (stop - start)).astype(np.int64)]
    target = np.where(random.random(source.size) < 0.8, inside, (popular * num_nodes).astype(int))
    edges = np.concatenate([tree, np.stack([source, target])], axis=1)
    edges = edges[:, edges[0] != edges[1]]
    return Data(edge_index=to_undirected(torch.from_numpy(edges)), num_nodes=num_nodes)


def grid_graph(side: int = 412) -> Data:
    """A mesh of 169,744 nodes."""
    place = torch.arange(side * side).view(side, side)
    right = torch.stack([place[:, :-1].flatten(), place[:, 1:].flatten()])
    down = torch.stack([place[:-1].flatten(), place[1:].flatten()])
    return Data(edge_index=to_undirected(torch.cat([right, down], 1)), num_nodes=side * side)


def large(data: Data, num_samples: int | None) -> dict[str, Any]:
    """16 vectors and 16 steps of one graph of about 170,000 nodes."""
    start = time.perf_counter()
    encoded = AddLaplacianEigenvectorPE(16)(data)
    vectors_seconds = time.perf_counter() - start
    start = time.perf_counter()
    walk = AddRandomWalkPE(STEPS, num_samples=num_samples)
    encoded = walk(encoded)
    row = {
        "nodes": data.num_nodes,
        "edges": data.num_edges,
        "16 vectors, seconds": round(vectors_seconds, 1),
        "16 steps, seconds": round(time.perf_counter() - start, 1),
        "largest residual": residual([encoded]),
        "eigenvalues": [round(x, 8) for x in encoded.laplacian_eigenvector_pe_values[0].tolist()],
        "walks": repr(walk),
        "peak MiB of the process": peak_rss(),
    }
    if num_samples is not None:
        row["largest standard error"] = float(encoded.random_walk_pe_std.max())
        row["mean standard error"] = float(encoded.random_walk_pe_std.mean())
        row["largest deviation of step 2, exact"] = second_step_error(encoded)
    return row


def second_step_error(data: Data) -> float:
    """``diag(P^2)_i`` is the mean of ``1 / degree`` over the neighbours of ``i``."""
    source, target = data.edge_index
    degree = torch.zeros(data.num_nodes).index_add_(0, source, torch.ones(source.numel()))
    exact = torch.zeros(data.num_nodes).index_add_(0, source, 1 / degree[target]) / degree
    return float((data.random_walk_pe[:, 1] - exact).abs().max())


def molhiv(root: Path) -> list[Data]:
    dataset, _, _ = load_ogb("ogbg-molhiv", root)
    return [dataset[i] for i in range(len(dataset))]


def peptides(folder: Path) -> list[Data]:
    """The graphs of Peptides-func, from their SMILES."""
    # After load_ogb, which imports ogb without its check for updates.
    from ogb.utils import smiles2graph
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")
    graphs = []
    for path in sorted(folder.glob("*.csv.gz")):
        with gzip.open(path, "rt", newline="") as file:
            for line in csv.DictReader(file):
                graph = smiles2graph(line["smiles"])
                edge_index = torch.from_numpy(graph["edge_index"]).long()
                graphs.append(Data(edge_index=edge_index, num_nodes=int(graph["num_nodes"])))
    return graphs


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
        "molhiv, workers": lambda: with_workers(hiv, 3),
        "molhiv, pairs": lambda: pairs(hiv[:: args.every], args.rounds),
        "480 nodes, Laplacian 8 + walks 16": lambda: against_pyg(superpixels(16), args.rounds),
    }
    if args.peptides is not None:
        chains = peptides(args.peptides)
        parts |= {
            "peptides, Laplacian 8 + walks 16": lambda: against_pyg(chains[::60], args.rounds),
            "peptides, workers": lambda: with_workers(chains[::10], 3),
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
