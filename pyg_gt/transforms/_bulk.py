"""Several encodings of many graphs at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from ._arguments import Normalization
from ._attributes import Column, column
from ._encoding import GraphEncoding
from ._graphs import Graphs, held_by, read_graphs
from ._threads import threads_for

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


def encode(graphs: Graphs, encodings: Sequence[GraphEncoding]) -> list[Column]:
    """All attributes of ``graphs``, in the order of ``encodings``.

    Raises:
        ValueError: if two encodings write to one name.
    """
    # What computes spectra comes before what only reads them.
    use = {"whole": 0, "small": 1, "reuse": 2}
    order = sorted(
        range(len(encodings)),
        key=lambda i: min((use[each] for each in encodings[i].spectra.values()), default=3),
    )
    with threads_for(graphs):
        attributes = {i: encodings[i].encode(graphs) for i in order}
    columns = [
        column(attribute, graphs.ptr) for i in range(len(encodings)) for attribute in attributes[i]
    ]
    names = Counter(each.name for each in columns if each.name is not None)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"{len(encodings)} transforms write to {', '.join(map(repr, twice))} more than once; "
            "give them different attr_names"
        )
    return columns


def read(datas: Sequence[Any], encodings: Sequence[GraphEncoding]) -> Graphs:
    """``datas`` as ``encodings`` need them.

    Raises:
        ValueError: if one is a `Batch`, or unusable.
    """
    for data in datas:
        if isinstance(data, Batch):
            raise ValueError(
                "expected single graphs, got a Batch; give batch.to_data_list(), or apply the "
                "transform to the batch itself"
            )
    return read_graphs(datas, shared_spectra(encodings))


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
        yield piece, read(chunk, encodings)


def chunks(datas: Sequence[Any]) -> list[range]:
    """The numbers of the graphs in those pieces."""
    return [piece for piece, _ in _pieces(datas)]


def _pieces(datas: Sequence[Any]) -> Iterator[tuple[range, list[Any]]]:
    first, nodes, pairs = 0, 0, 0
    chunk: list[Any] = []
    for i in range(len(datas)):
        data = datas[i]
        n = _size(data)
        nodes, pairs = nodes + n, pairs + n * n
        if chunk and (nodes > _CHUNK_NODES or pairs > _CHUNK_PAIRS):
            yield range(first, i), chunk
            first, nodes, pairs, chunk = i, n, n * n, []
        chunk.append(data)
    if chunk:
        yield range(first, len(datas)), chunk


def _size(data: Any) -> int:
    num_nodes: int | None = None
    if isinstance(data, Data):
        num_nodes = held_by(data).get("num_nodes")
        if num_nodes is None:
            num_nodes = data.num_nodes
    return read_graphs([data]).num_nodes if num_nodes is None else num_nodes  # says what is wrong
