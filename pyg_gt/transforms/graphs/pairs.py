"""Ordered pairs of nodes: where those of a graph lie among all, and how many are too many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .components import Components
from .graphs import Graphs, Ints


def check_pairs(owner: object, graphs: Graphs, max_nodes: int, bytes_per_pair: int) -> None:
    """Raises ``ValueError`` if a graph has more than ``max_nodes``."""
    n = graphs.max_nodes
    if n > max_nodes:
        raise ValueError(
            f"{type(owner).__name__} makes {bytes_per_pair} bytes for each ordered pair of nodes, "
            f"which is {n**2 * bytes_per_pair / 1e9:.1f} GB for a graph of {n} nodes; set "
            f"MAX_NODES (now {max_nodes}) to {n} on the transform if you have that memory, or use "
            "AddKHopEdges, which makes only the pairs that are near"
        )


def pair_starts(graphs: Graphs) -> tuple[Ints, Ints]:
    """``[N]`` twice: where the pairs ``(i, .)`` of each node begin, and how many there are."""
    sizes = graphs.sizes
    width = np.repeat(sizes, sizes)
    local = np.arange(graphs.num_nodes) - np.repeat(graphs.ptr[:-1], sizes)
    return np.repeat(graphs.pair_ptr[:-1], sizes) + local * width, width


def write_pairs(
    out: NDArray[Any], graphs: Graphs, block: Components, first: int, values: NDArray[Any]
) -> None:
    """Writes ``values [R, m, ...]`` to the flat pairs ``out [P, ...]``.

    Entry ``(r, c)`` belongs to node ``r`` of the block and node ``first + c`` of its component;
    where the component has fewer nodes it is left out.
    """
    graph = np.searchsorted(graphs.ptr, block.nodes[block.ptr[:-1]], side="right") - 1
    places = zip(
        block.ptr[:-1].tolist(),
        block.ptr[1:].tolist(),
        graphs.ptr[graph].tolist(),
        graphs.sizes[graph].tolist(),
        graphs.pair_ptr[graph].tolist(),
        strict=True,
    )
    for start, stop, node, n, pair in places:
        last = min(first + values.shape[1], stop - start)
        if last <= first:
            continue
        pairs = out[pair : pair + n * n].reshape(n, n, *out.shape[1:])
        written = values[start:stop, : last - first]
        if stop - start == n:
            pairs[:, first:last] = written
        else:
            local = block.nodes[start:stop] - node
            pairs[np.ix_(local, local[first:last])] = written
