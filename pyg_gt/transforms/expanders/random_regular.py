"""Random regular graphs, many at a time."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ..graphs.graphs import Ints, offsets
from .random_numbers import Keys, split_mix


def random_regular_edges(size: Ints, degree: int, key: Keys) -> tuple[Ints, Ints]:
    """Edges of random simple graphs whose nodes have ``degree`` neighbours.

    Where there are fewer other nodes, all are neighbours. Where ``size`` and ``degree`` are both
    odd, one random node has one neighbour more. Ends of edges are paired at random (Bollobas 1980)
    and loops and repeated edges switched away, which in the limit of many nodes is uniform over
    all simple graphs of these degrees (`Janson 2019 <https://arxiv.org/abs/1901.09744>`_).

    Args:
        size: ``[G]``, the numbers of nodes.
        degree: see above.
        key: ``[G]``, all that the draws depend on besides.

    Returns:
        Sources and targets ``[E]``, each edge both ways, ascending; nodes are numbered in a row.
    """
    ptr = offsets(size)
    degrees = np.minimum(degree, np.maximum(size - 1, 0))
    wanted = np.repeat(degrees, size)
    odd = np.flatnonzero(degrees * size % 2)
    wanted[ptr[odd] + _below(split_mix(key[odd], 0), size[odd])] += 1
    # Of a graph with more than half of all edges, those it has not are drawn.
    filled = 2 * degrees >= size
    wanted = np.where(np.repeat(filled, size), np.repeat(size - 1, size) - wanted, wanted)
    graph = np.repeat(np.arange(size.size), size)
    a, b = _random_pairs(wanted, graph, key)
    _make_simple(a, b, graph, key)
    a, b = np.concatenate([a, b]), np.concatenate([b, a])
    if filled.any():
        drawn = filled[graph[a]]
        rest = _other_pairs(a[drawn], b[drawn], graph, np.where(filled, size, 0), ptr)
        a, b = np.append(a[~drawn], rest[0]), np.append(b[~drawn], rest[1])
    code = a * len(graph) + b
    code.sort()
    return code // len(graph), code % len(graph)


def _below(number: Keys, bound: Ints) -> Ints:
    """Random numbers in ``[0, bound)``."""
    return (number % bound.astype(np.uint64)).astype(np.int64)


def _random_pairs(wanted: Ints, graph: Ints, key: Keys) -> tuple[Ints, Ints]:
    """Pairs node ``i`` ``wanted[i]`` times, with nodes of its graph."""
    end = np.repeat(np.arange(wanted.size), wanted)
    owner = graph[end]
    place = np.arange(end.size) - offsets(np.bincount(owner, minlength=key.size))[owner]
    number = split_mix(split_mix(key, 1)[owner], place)
    # Sorted by graph and, in a graph, at random: a sort of one key is faster than one of two.
    order = (owner.astype(np.uint64) << np.uint64(40)) | (number >> np.uint64(24))
    end = end[np.argsort(order, kind="stable")]
    return end[::2].copy(), end[1::2].copy()


def _make_simple(a: Ints, b: Ints, graph_of: Ints, key: Keys) -> None:
    """Switches loops and repeated edges ``(a, b) [E]`` with random other ones, in place."""
    graph = graph_of[a]
    count = np.bincount(graph, minlength=key.size)
    first = offsets(count)
    left = np.arange(a.size)
    taken = np.empty(a.size, dtype=np.int64)
    for turn in itertools.count(2):
        wrong = _loops_and_repetitions(a[left], b[left], graph_of.size)
        if not wrong.any():
            return
        bad = left[wrong]
        unfinished = np.zeros(key.size, dtype=np.bool_)
        unfinished[graph[bad]] = True
        left = left[unfinished[graph[left]]]
        g = graph[bad]
        place = bad - first[g]
        number = split_mix(split_mix(key, turn)[g], place)
        partner = first[g] + (place + 1 + _below(number, count[g] - 1)) % count[g]
        # Of switches that share an edge only the first is made, so that none undoes another.
        rank = np.arange(bad.size)
        taken[bad] = taken[partner] = bad.size
        np.minimum.at(taken, bad, rank)
        np.minimum.at(taken, partner, rank)
        made = (taken[bad] == rank) & (taken[partner] == rank)
        bad, partner = bad[made], partner[made]
        b[bad], b[partner] = b[partner], b[bad]


def _loops_and_repetitions(a: Ints, b: Ints, N: int) -> NDArray[np.bool_]:
    """Which edges are loops or not the first between their nodes."""
    code = np.minimum(a, b) * N + np.maximum(a, b)
    order = np.argsort(code, kind="stable")
    wrong: NDArray[np.bool_] = a == b
    wrong[order[1:]] |= code[order[1:]] == code[order[:-1]]
    return wrong


def _other_pairs(a: Ints, b: Ints, graph: Ints, size: Ints, ptr: Ints) -> tuple[Ints, Ints]:
    """All pairs of different nodes of a graph that ``(a, b)``, given both ways, are not.

    Args:
        a: ``[E]``, see above.
        b: ``[E]``, likewise.
        graph: ``[N]``, the graph of each node.
        size: ``[G]``, the number of nodes, or zero for a graph that is left out.
        ptr: ``[G + 1]``, where the nodes of each graph begin.
    """
    pair_ptr = offsets(size**2)
    free = np.ones(pair_ptr[-1], dtype=np.bool_)
    g = graph[a]
    free[pair_ptr[g] + (a - ptr[g]) * size[g] + b - ptr[g]] = False
    pair = np.flatnonzero(free)
    g = np.searchsorted(pair_ptr, pair, side="right") - 1
    i, j = np.divmod(pair - pair_ptr[g], size[g])
    different = i != j
    return (ptr[g] + i)[different], (ptr[g] + j)[different]
