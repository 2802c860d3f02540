"""A dataset in chunks of graphs that are encoded at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..graph_encoding import GraphEncoding
from ..graphs.data import num_nodes_of
from ..graphs.graphs import Graphs
from .encode import read

# What one chunk has at most (or one graph): some ten megabytes of node encodings, or a few hundred
# of pair encodings.
_CHUNK_NODES, _CHUNK_PAIRS = 2**16, 2**21


def chunks(datas: Sequence[Any]) -> list[range]:
    """The numbers of the graphs of each chunk."""
    return [chunk for chunk, _ in _chunks(datas)]


def read_chunks(
    datas: Sequence[Any], encodings: Sequence[GraphEncoding]
) -> Iterator[tuple[range, Graphs]]:
    """The chunks of ``datas``, each graph read once: their numbers and the graphs."""
    for chunk, graphs in _chunks(datas):
        yield chunk, read(graphs, encodings, chunk.start)


def _chunks(datas: Sequence[Any]) -> Iterator[tuple[range, list[Any]]]:
    first, nodes, pairs = 0, 0, 0
    chunk: list[Any] = []
    for i in range(len(datas)):
        data = datas[i]
        try:
            n = num_nodes_of(data)
        except ValueError as error:
            raise ValueError(f"graph {i}: {error}") from error
        nodes, pairs = nodes + n, pairs + n * n
        if chunk and (nodes > _CHUNK_NODES or pairs > _CHUNK_PAIRS):
            yield range(first, i), chunk
            first, nodes, pairs, chunk = i, n, n * n, []
        chunk.append(data)
    if chunk:
        yield range(first, len(datas)), chunk
