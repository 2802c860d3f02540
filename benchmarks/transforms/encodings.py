"""Encodings in bulk against PyG's: ``python -m benchmarks.transforms.encodings --ogb ROOT``.

One thread, from a list of `Data` to a list of `Data`. No figure is written unless what was
computed is right: residuals and eigenvalues of all components, walks against PyG's, pairs. Ratios
are medians over rounds in which PyG and ours encode the same graphs one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import environment, parser, write
from benchmarks.transforms.bulk import against_pyg, pairs, streamed, whole, with_workers
from benchmarks.transforms.graphs import (
    citation_graph,
    grid_graph,
    molhiv,
    peptides,
    superpixels,
)
from benchmarks.transforms.large import large


def main() -> None:
    """Runs the parts, prints them, writes JSON."""
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--ogb", type=Path, required=True, help="root of a copy of ogbg-molhiv")
    arguments.add_argument("--peptides", type=Path, help="folder with Peptides-func as csv.gz")
    arguments.add_argument(
        "--every", type=int, default=10, help="PyG runs on every so many graphs"
    )
    arguments.add_argument("--only", nargs="*", help="names of parts; all without")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
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
