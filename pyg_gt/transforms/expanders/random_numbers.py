"""Counter-based random numbers: they depend on a key and a counter only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..graphs.graphs import Graphs, Ints

Keys = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def split_mix(key: Keys, counter: Keys | Ints | int) -> Keys:
    """Number ``counter`` (from zero on) of the stream of ``key``, in ``[0, 2^64)``.

    It is SplitMix64 of `Steele, Lea and Flood 2014 <https://doi.org/10.1145/2660193.2660195>`_.
    """
    x: Keys = key + (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)) * _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return x


def graph_keys(graphs: Graphs, seed: int) -> Keys:
    """``[B]``: a key of each graph, from ``seed``, its number of nodes and its set of edges."""
    size = graphs.sizes
    graph = np.repeat(np.arange(size.size), size)[graphs.row]
    source, target = graphs.row - graphs.ptr[graph], graphs.col - graphs.ptr[graph]
    total = np.zeros(size.size, dtype=np.uint64)
    np.add.at(total, graph, split_mix(split_mix(np.zeros_like(total[:1]), source), target))
    key = np.full(size.size, seed % 2**64, dtype=np.uint64)
    return split_mix(split_mix(key, size) + total, 0)
