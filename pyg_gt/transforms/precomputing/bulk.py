"""Several encodings of many graphs at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch_geometric.data import Batch
from torch_geometric.transforms import Compose

from ..compiled.blas import threads_for
from ..graph_encoding import GraphEncoding
from ..graphs.arguments import Normalization
from ..graphs.attributes import Attribute, Column, column
from ..graphs.graphs import Graphs, read_graphs, size_of

# What one chunk has at most (or one graph): some ten megabytes of node encodings, or a few hundred
# of pair encodings.
_CHUNK_NODES, _CHUNK_PAIRS = 2**16, 2**21


def encodings_of(transform: Any) -> tuple[GraphEncoding, ...]:
    """The encodings in ``transform``: one, a list or tuple of them, or a `Compose`.

    Raises:
        ValueError: if there is something else in it, or nothing.
    """
    if isinstance(transform, Compose):
        transform = transform.transforms
    if isinstance(transform, (list, tuple)):
        found = tuple(part for each in transform for part in encodings_of(each))
    elif isinstance(transform, GraphEncoding):
        found = (transform,)
    else:
        raise ValueError(
            "expected transforms of pyg_gt.transforms that add encodings, one or several, got "
            f"{transform!r}; apply other transforms to the graphs before, for instance as the "
            "dataset's pre_transform"
        )
    if not found:
        raise ValueError("expected at least one transform of pyg_gt.transforms, got none")
    return found


def encode(
    datas: Sequence[Any], encodings: Sequence[GraphEncoding], first: int = 0
) -> tuple[Graphs, list[Column]]:
    """``datas`` as they were read, and all attributes of them, in the order of ``encodings``.

    Raises:
        ValueError: if two encodings write to one name.
        ValueError, IndexError, RuntimeError: what reading a graph or an encoding raises, with the
            number of the graph, from ``first`` on.
    """
    graphs = read(datas, encodings, first)
    with _named(datas, first, lambda data: _attributes(read([data], encodings), encodings)):
        attributes = _attributes(graphs, encodings)
    columns = [column(attribute, graphs.ptr) for attribute in attributes]
    names = Counter(each.name for each in columns if each.name is not None)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"{len(encodings)} transforms write to {', '.join(map(repr, twice))} more than once; "
            "give them different attr_names"
        )
    return graphs, columns


def _attributes(graphs: Graphs, encodings: Sequence[GraphEncoding]) -> list[Attribute]:
    # What computes spectra comes before what only reads them.
    use = {"whole": 0, "small": 1, "reuse": 2}
    order = sorted(
        range(len(encodings)),
        key=lambda i: min((use[each] for each in encodings[i].spectra.values()), default=3),
    )
    with threads_for(graphs):
        found = {i: encodings[i].encode(graphs) for i in order}
    return [attribute for i in range(len(encodings)) for attribute in found[i]]


def read(datas: Sequence[Any], encodings: Sequence[GraphEncoding], first: int = 0) -> Graphs:
    """``datas`` as ``encodings`` need them.

    Raises:
        ValueError: if one is a `Batch`, or unusable, with its number, from ``first`` on.
        IndexError: if an ``edge_index`` holds a node that is not there, likewise.
    """
    shared = shared_spectra(encodings)
    reads_weights = any(encoding.reads_weights for encoding in encodings)
    with _named(datas, first, lambda data: _read_single([data], shared, reads_weights)):
        return _read_single(datas, shared, reads_weights)


def _read_single(
    datas: Sequence[Any], shared: frozenset[Normalization], reads_weights: bool
) -> Graphs:
    if any(isinstance(data, Batch) for data in datas):
        raise ValueError(
            "expected single graphs, got a Batch; give batch.to_data_list(), or apply the "
            "transform to the batch itself"
        )
    graphs = read_graphs(datas, shared, reads_weights=reads_weights)
    if graphs.num_graphs != len(datas):
        raise ValueError(
            "expected single graphs, got one whose batch or ptr tells several apart; apply the "
            "transform to it itself, or delete data.batch and data.ptr if it is one"
        )
    return graphs


_ERRORS = IndexError, ValueError, RuntimeError


@contextmanager
def _named(datas: Sequence[Any], first: int, alone: Callable[[Any], object]) -> Iterator[None]:
    """Adds to an error the number of the graph that raises it ``alone``, if one does."""
    try:
        yield
    except _ERRORS as error:
        for i, data in enumerate(datas):
            try:
                alone(data)
            except _ERRORS as found:
                kind = next(kind for kind in _ERRORS if isinstance(found, kind))
                raise kind(f"graph {first + i}: {found}") from error
        raise


def shared_spectra(encodings: Sequence[GraphEncoding]) -> frozenset[Normalization]:
    """Those that one encoding computes and another one reads."""
    uses: dict[Normalization, list[str]] = {}
    for encoding in encodings:
        for kind, use in encoding.spectra.items():
            uses.setdefault(kind, []).append(use)
    return frozenset(
        kind for kind, each in uses.items() if len(each) > 1 and set(each) != {"reuse"}
    )


def chunks_of(
    datas: Sequence[Any], encodings: Sequence[GraphEncoding]
) -> Iterator[tuple[range, Graphs]]:
    """``datas``, each read once, in pieces small enough to compute at once."""
    for piece, chunk in _pieces(datas):
        yield piece, read(chunk, encodings, piece.start)


def chunks(datas: Sequence[Any]) -> list[range]:
    """The numbers of the graphs in those pieces."""
    return [piece for piece, _ in _pieces(datas)]


def _pieces(datas: Sequence[Any]) -> Iterator[tuple[range, list[Any]]]:
    first, nodes, pairs = 0, 0, 0
    chunk: list[Any] = []
    for i in range(len(datas)):
        data = datas[i]
        try:
            n = size_of(data)
        except ValueError as error:
            raise ValueError(f"graph {i}: {error}") from error
        nodes, pairs = nodes + n, pairs + n * n
        if chunk and (nodes > _CHUNK_NODES or pairs > _CHUNK_PAIRS):
            yield range(first, i), chunk
            first, nodes, pairs, chunk = i, n, n * n, []
        chunk.append(data)
    if chunk:
        yield range(first, len(datas)), chunk
