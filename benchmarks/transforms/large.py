"""Encodings of one large graph, of about 170,000 nodes."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import Data

from benchmarks.timing import peak_rss_mib, timed_call
from benchmarks.transforms.checks import residual, second_step_error
from pyg_gt.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE


def large(data: Data, num_samples: int | None) -> dict[str, Any]:
    """16 vectors and 16 steps of one graph of about 170,000 nodes."""
    walk = AddRandomWalkPE(16, num_samples=num_samples)
    encoded, vectors_seconds = timed_call(lambda: AddLaplacianEigenvectorPE(16)(data))
    encoded, walk_seconds = timed_call(lambda: walk(encoded))
    worst = residual([encoded])
    assert worst < 1e-6
    row = {
        "nodes": data.num_nodes,
        "edges": data.num_edges,
        "16 vectors, seconds": round(vectors_seconds, 1),
        "16 steps, seconds": round(walk_seconds, 1),
        "largest residual": worst,
        "eigenvalues": [round(x, 8) for x in encoded.laplacian_eigenvector_pe_values[0].tolist()],
        "walks": repr(walk),
        "peak MiB of the process": peak_rss_mib(),
    }
    if num_samples is not None:
        row["largest standard error"] = float(encoded.random_walk_pe_std.max())
        row["mean standard error"] = float(encoded.random_walk_pe_std.mean())
        row["largest deviation of step 2, exact"] = second_step_error(encoded)
    return row
