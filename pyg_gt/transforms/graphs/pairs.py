"""Where encodings of ordered pairs of nodes lie, and how much memory they may take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .components import Components
from .graphs import Graphs, Ints


def check_pairs(owner: object, graphs: Graphs, max_nodes: int, bytes_per_pair: int) -> None:
    """Raises ``ValueError`` if a graph has more than ``max_nodes``."""
    n = int(np.diff(graphs.ptr).max(initial=0))
    if n > max_nodes:
        raise ValueError(
            f"{type(owner).__name__} makes {bytes_per_pair} bytes for each ordered pair of nodes, "
            f"which is {n**2 * bytes_per_pair / 1e9:.1f} GB for a graph of {n} nodes; set "
            f"MAX_NODES (now {max_nodes}) to {n} on the transform if you have that memory, or use "
            "AddKHopEdges, which makes only the pairs that are near"
        )


def pair_starts(graphs: Graphs) -> tuple[Ints, Ints]:
    """``[N]`` twice: where the pairs ``(i, .)`` of each node begin, and how many there are."""
    sizes = np.diff(graphs.ptr)
    width = np.repeat(sizes, sizes)
    local = np.arange(graphs.num_nodes) - np.repeat(graphs.ptr[:-1], sizes)
    return np.repeat(graphs.pair_ptr[:-1], sizes) + local * width, width


def local_numbers(run: Components) -> Ints:
    """``[R]``, the number of each node in its component."""
    return np.arange(run.nodes.size) - np.repeat(run.ptr[:-1], np.diff(run.ptr))


def put(
    out: NDArray[Any], graphs: Graphs, run: Components, first: int, values: NDArray[Any]
) -> None:
    """Writes ``values [R, m, ...]`` to the flat pairs ``out [P, ...]``.

    Entry ``(r, c)`` belongs to node ``r`` of the run and node ``first + c`` of its component;
    where the component has fewer nodes it is left out.
    """
    graph = np.searchsorted(graphs.ptr, run.nodes[run.ptr[:-1]], side="right") - 1
    places = zip(
        run.ptr[:-1].tolist(),
        run.ptr[1:].tolist(),
        graphs.ptr[graph].tolist(),
        (graphs.ptr[graph + 1] - graphs.ptr[graph]).tolist(),
        graphs.pair_ptr[graph].tolist(),
        strict=True,
    )
    for start, stop, node, n, pair in places:
        last = min(first + values.shape[1], stop - start)
        if last <= first:
            continue
        pairs = out[pair : pair + n * n].reshape(n, n, *out.shape[1:])
        here = values[start:stop, : last - first]
        if stop - start == n:
            pairs[:, first:last] = here
        else:
            local = run.nodes[start:stop] - node
            pairs[np.ix_(local, local[first:last])] = here
