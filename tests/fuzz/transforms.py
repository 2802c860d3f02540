"""Transforms on random graphs: against oracles, and alone, in a batch and by ``precompute``."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Batch, Data

from pyg_gt.transforms import (
    AddDegree,
    AddElectrostaticSE,
    AddExpanderEdges,
    AddHeatKernelSE,
    AddKHopEdges,
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    AddRelativeRandomWalkPE,
    AddShortestPathDistance,
    ReorderNodes,
    precompute,
)

from . import oracles
from .draws import Fault, Random, random_of
from .graphs import edges_of, random_graphs
from .problems import pick

Array = NDArray[Any]


def draw(seed: int, number: int) -> Counter[str]:
    """One transform on one to four graphs."""
    rng = random_of(seed, "transforms", number)
    kind = pick(rng, tuple(_CHECKS))
    make, check = _CHECKS[kind]
    transform = make(rng)
    limits = [name for name in ("DENSE_LIMIT", "SPARSE_THRESHOLD") if hasattr(transform, name)]
    for name in limits if rng.random() < 0.3 else ():  # small components as if they were large
        # ARPACK finds fewer than half of a component's eigenvectors
        setattr(transform, name, int(rng.integers(2, 30)) + 2 * getattr(transform, "k", 0))
    # weights of either sign mean something only where an edge is an edge
    signed = kind in ("degree", "distance", "k hops", "expander", "reorder") and rng.random() < 0.2
    graphs = random_graphs(rng, signed)
    alone = [transform(graph.clone()) for graph in graphs]
    try:
        for graph, found in zip(graphs, alone, strict=True):
            check(transform, graph, found)
        if kind != "reorder":
            _same_in_company(kind, transform, graphs, alone)
    except Fault as fault:
        raise Fault(
            f"{kind}: {fault}\n{transform}, {vars(transform)}, {[_said(g) for g in graphs]}"
        ) from fault
    return Counter([kind])


def _said(graph: Data) -> str:
    weight = graph.edge_weight.reshape(-1).tolist() if "edge_weight" in graph else None
    return f"{graph.num_nodes} nodes, {graph.edge_index.tolist()}, weights {weight}"[:500]


def _close(what: str, found: Any, want: Array, bound: float = 0.0, ratio: float = 3e-6) -> None:
    got = np.asarray(found)
    if got.shape != want.shape:
        raise Fault(f"{what} has shape {got.shape}, expected {want.shape}")
    size = np.abs(want).max(initial=0.0)
    off = np.abs(got.astype(np.float64) - want).max(initial=0.0)
    if not off <= ratio * size + bound:
        raise Fault(f"{what} is off by {off:.3g} (size {size:.3g})")


def _same(what: str, found: torch.Tensor, want: torch.Tensor, exact: bool) -> None:
    if found.dtype != want.dtype or found.shape != want.shape:
        raise Fault(
            f"{what} is {found.dtype} {[*found.shape]}, alone {want.dtype} {[*want.shape]}"
        )
    if exact:
        if not torch.equal(found, want):
            raise Fault(f"{what} differs from the graph's own")
    else:
        _close(f"{what}, against the graph's own,", found, want.double().numpy(), 1e-6)


def _same_in_company(kind: str, transform: Any, graphs: list[Data], alone: list[Data]) -> None:
    """What a graph gets among others."""
    new = sorted(set(alone[0].keys()) - set(graphs[0].keys()))
    exact = kind in ("degree", "distance", "k hops", "expander")
    together = transform(Batch.from_data_list([g.clone() for g in graphs]))
    for key in new:
        if kind == "laplacian" and key == "a":
            continue  # a basis is the solver's choice
        joined = Batch.from_data_list(
            [Data(**{key: a[key]}, num_nodes=a.num_nodes) for a in alone]
        )
        _same(f"{key} of a batch", together[key], joined[key], exact)
    for graph, own in zip(precompute(graphs, transform, progress=False), alone, strict=True):
        for key in new:
            if kind == "laplacian" and key == "a":
                continue
            _same(f"{key} by precompute", graph[key], own[key], exact)


def _random_walk(transform: Any, graph: Data, found: Data) -> None:
    powers = oracles.walk_powers(graph, transform.walk_length)[1:]
    _close("return probabilities", found.a, np.stack([p.diagonal() for p in powers], 1), 3e-7)


def _relative(transform: Any, graph: Data, found: Data) -> None:
    powers = oracles.walk_powers(graph, transform.walk_length - 1)
    want = np.stack([p.reshape(-1) for p in powers], 1)
    _close("walk probabilities", found.pair_a, want, 3e-7)
    total = (
        found.pair_a.view(graph.num_nodes, graph.num_nodes, transform.walk_length).sum(1).numpy()
    )
    if (total > 1 + 1e-5).any():
        raise Fault("probabilities add up to more than one")


def _heat(transform: Any, graph: Data, found: Data) -> None:
    want = oracles.heat(graph, transform.times, transform.normalization)
    # an eigenvalue is known to some roundings of the largest
    top = 2 * oracles.symmetric(graph).sum(1).max(initial=0.0)
    top = 2.0 if transform.normalization else top
    bound = 1e-13 * max(transform.times) * top
    _close("heat kernels", found.a, want, 2e-6 + min(bound, 1.0))


def _electrostatic(transform: Any, graph: Data, found: Data) -> None:
    want = oracles.electrostatic(graph)
    weights = oracles.symmetric(graph)
    for nodes in oracles.components(weights):
        part = weights[np.ix_(nodes, nodes)]
        if len(nodes) < 2 or np.linalg.cond(oracles.laplacian(part, None) + 1) > 1e8:
            continue  # the oracle itself is not exact
        _close("potentials", found.a[nodes], want[nodes], 0.0, 1e-5)


def _laplacian(transform: Any, graph: Data, found: Data) -> None:
    weights, k = oracles.symmetric(graph), transform.k
    vectors, values = found.a.double().numpy(), found.a_values.double().numpy()
    mask = found.a_mask.numpy()
    if not (vectors.shape == values.shape == mask.shape == (graph.num_nodes, k)):
        raise Fault(f"vectors {vectors.shape}, values {values.shape}, mask {mask.shape}")
    for nodes in oracles.components(weights):
        count = min(k, len(nodes) - 1)
        v, part = vectors[nodes], weights[np.ix_(nodes, nodes)]
        if (mask[nodes] != (np.arange(k) < count)).any():
            raise Fault(f"the mask of a component of {len(nodes)} nodes is wrong")
        if np.abs(v[:, count:]).max(initial=0) or np.abs(values[nodes][:, count:]).max(initial=0):
            raise Fault("there is something where there is no eigenpair")
        if count == 0:
            continue
        matrix = oracles.laplacian(part, transform.normalization)
        like = oracles.laplacian(part, "sym" if transform.normalization else None)
        want = np.linalg.eigvalsh(like)[1 : count + 1]
        size = max(np.abs(like).max(), 1e-30)
        lam = values[nodes]
        if np.ptp(lam, axis=0).max() > 0:
            raise Fault("the eigenvalues of a component differ from node to node")
        _close("eigenvalues", lam[0, :count], want, 3e-7 * size * len(nodes))
        v, lam = v[:, :count], lam[0, :count]
        _close("residuals", matrix @ v - v * lam, np.zeros_like(v), 2e-5 * np.abs(matrix).max())
        _close("lengths", np.linalg.norm(v, axis=0), np.ones(count), 1e-5)
        weight = part.sum(1) if transform.normalization == "rw" else np.ones(len(nodes))
        scaled = v * np.sqrt(weight)[:, None]
        scaled /= np.linalg.norm(scaled, axis=0)
        spread = weight.max() / weight.min()
        if spread < 1e4:
            _close("angles", scaled.T @ scaled, np.eye(count), 2e-5 * np.sqrt(spread))
        largest = np.abs(v).argmax(0)
        signs = v[largest, range(count)]
        near = np.abs(v) > np.abs(v).max(0) * (1 - 1e-5)
        if ((signs < 0) & (near.sum(0) == 1)).any():
            raise Fault("the largest entry of a vector is negative")


def _distance(transform: Any, graph: Data, found: Data) -> None:
    n, most = graph.num_nodes, transform.max_distance
    want = oracles.distances(graph, most)
    _close("distances", found.pair_a, want.reshape(-1), 0.0, 0.0)
    if transform.path_length is None:
        return
    row, col = graph.edge_index.numpy()
    real = np.zeros(len(row), bool)
    weight = graph.edge_weight.reshape(-1).numpy() if "edge_weight" in graph else np.ones(len(row))
    real[weight != 0] = True
    paths = found.pair_a_edges.numpy().reshape(n, n, transform.path_length)
    for i in range(n):
        for j in range(n):
            length = 0 if want[i, j] > most else min(int(want[i, j]), transform.path_length)
            path = paths[i, j]
            if (path[length:] != -1).any() or (path[:length] < 0).any():
                raise Fault(f"the path from {i} to {j} has another length: {path.tolist()}")
            at = i
            for edge in path[:length]:
                if row[edge] != at or not real[edge]:
                    raise Fault(f"the path from {i} to {j} does not hang together")
                at = col[edge]
            if length and want[at, j] != want[i, j] - length:
                raise Fault(f"the path from {i} to {j} is not a shortest one")


def _k_hops(transform: Any, graph: Data, found: Data) -> None:
    want = oracles.distances(graph, transform.k)
    np.fill_diagonal(want, transform.k + 1)
    pairs = np.argwhere(want <= transform.k)
    _close("edges", found.a_edge_index.T, pairs, 0.0, 0.0)
    _close("distances", found.a_distance, want[tuple(pairs.T)], 0.0, 0.0)


def _degree(transform: Any, graph: Data, found: Data) -> None:
    _close("degrees", found.a, oracles.degrees(graph), 0.0, 0.0)


def _expander(transform: Any, graph: Data, found: Data) -> None:
    n, d = graph.num_nodes, transform.degree
    source, target = found.a_edge_index.numpy()
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    if len(pairs) != len(source) or pairs != {(b, a) for a, b in pairs}:
        raise Fault("edges are repeated, or go one way only")
    degree = np.bincount(source, minlength=n)
    want = np.full(n, min(d, max(n - 1, 0)))
    extra = int(degree.sum() - want.sum())
    if extra != (n > d and n % 2 == 1 and d % 2 == 1) or (degree < want).any():
        raise Fault(f"degrees {degree.tolist()}, expected {want.tolist()}")


def _reorder(transform: Any, graph: Data, found: Data) -> None:
    old, new = graph.clone(), found
    if sorted(oracles.degrees(old).tolist()) != sorted(oracles.degrees(new).tolist()):
        raise Fault("degrees are not the same after nodes were renumbered")
    _close("weights", np.sort(edges_of(new)[2]), np.sort(edges_of(old)[2]), 0.0, 0.0)
    if "x" in old:
        a, b = (oracles.degrees(g).tolist() for g in (old, new))
        rows = [sorted(zip(g.x.tolist(), d, strict=True)) for g, d in ((old, a), (new, b))]
        if rows[0] != rows[1]:
            raise Fault("features have left their nodes")


def _walk_of(rng: Random) -> Any:
    return AddRandomWalkPE(int(rng.integers(1, 9)), "a")


def _heat_of(rng: Random) -> Any:
    times = tuple(float(t) for t in np.exp(rng.normal(0, 2, int(rng.integers(1, 4)))))
    return AddHeatKernelSE(times, "a", normalization=pick(rng, (None, "sym", "rw")))


def _laplacian_of(rng: Random) -> Any:
    kind = pick(rng, (None, "sym", "rw"))
    return AddLaplacianEigenvectorPE(int(rng.integers(1, 12)), "a", normalization=kind)


def _distance_of(rng: Random) -> Any:
    length = None if rng.random() < 0.5 else int(rng.integers(1, 6))
    return AddShortestPathDistance(int(rng.integers(1, 8)), "pair_a", path_length=length)


def _expander_of(rng: Random) -> Any:
    # small graphs that reach the bound are found in some tries; none is needed here
    return AddExpanderEdges(int(rng.integers(3, 6)), "a_edge_index", seed=int(rng.integers(9)))


_CHECKS: dict[str, tuple[Any, Any]] = {
    "random walk": (_walk_of, _random_walk),
    "relative walk": (
        lambda rng: AddRelativeRandomWalkPE(int(rng.integers(1, 7)), "pair_a"), _relative
    ),
    "heat": (_heat_of, _heat),
    "electrostatic": (lambda rng: AddElectrostaticSE("a"), _electrostatic),
    "laplacian": (_laplacian_of, _laplacian),
    "distance": (_distance_of, _distance),
    "k hops": (lambda rng: AddKHopEdges(int(rng.integers(1, 6)), "a_edge_index"), _k_hops),
    "degree": (lambda rng: AddDegree("a"), _degree),
    "expander": (_expander_of, _expander),
    "reorder": (
        lambda rng: ReorderNodes("rcm", pick(rng, (1, 2, 8))), _reorder
    ),
}  # fmt: skip
