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
from ..graphs.attributes import Attribute, checked_attributes
from ..graphs.graphs import Graphs
from ..graphs.read import read_graphs
from .columns import Column, column_of


def encodings_of(transform: Any) -> tuple[GraphEncoding, ...]:
    """The encodings in ``transform``: one, a list or tuple of them, or a `Compose`.

    Raises:
        ValueError: if there is something else in it, or nothing.
    """
    if isinstance(transform, Compose):
        transform = transform.transforms
    if isinstance(transform, (list, tuple)):
        encodings = tuple(part for each in transform for part in encodings_of(each))
    elif isinstance(transform, GraphEncoding):
        encodings = (transform,)
    else:
        raise ValueError(
            "expected transforms of pyg_gt.transforms that add encodings, one or several, got "
            f"{transform!r}; apply other transforms to the graphs before, for instance as the "
            "dataset's pre_transform"
        )
    if not encodings:
        raise ValueError("expected at least one transform of pyg_gt.transforms, got none")
    return encodings


def encode(
    datas: Sequence[Any], encodings: Sequence[GraphEncoding], first: int = 0
) -> tuple[Graphs, list[Column]]:
    """``datas`` as they were read, and their attributes in the order of ``encodings``.

    Raises:
        ValueError: if two encodings write to one name.
        ValueError, IndexError, RuntimeError: what reading a graph or an encoding raises, with the
            number of the graph, from ``first`` on.
    """
    graphs = read(datas, encodings, first)
    with _errors_name_the_graph(
        datas, first, lambda data: _attributes(read([data], encodings), encodings)
    ):
        attributes = _attributes(graphs, encodings)
    columns = [column_of(attribute, graphs.ptr) for attribute in attributes]
    names = Counter(each.name for each in columns if each.name is not None)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"{len(encodings)} transforms write to {', '.join(map(repr, twice))} more than once; "
            "give them different attr_names"
        )
    return graphs, columns


def read(datas: Sequence[Any], encodings: Sequence[GraphEncoding], first: int = 0) -> Graphs:
    """``datas``, one graph each, as ``encodings`` need them.

    Raises:
        ValueError: if one is a `Batch`, or unusable, with its number, from ``first`` on.
        IndexError: if an ``edge_index`` holds a node that is not there, likewise.
    """
    shared = shared_spectra(encodings)
    reads_weights = any(encoding.reads_weights for encoding in encodings)
    with _errors_name_the_graph(
        datas, first, lambda data: _read_single([data], shared, reads_weights)
    ):
        return _read_single(datas, shared, reads_weights)


def shared_spectra(encodings: Sequence[GraphEncoding]) -> frozenset[Normalization]:
    """The Laplacians whose spectra one encoding computes and another one reads."""
    uses: dict[Normalization, list[str]] = {}
    for encoding in encodings:
        for normalization, use in encoding.spectra.items():
            uses.setdefault(normalization, []).append(use)
    return frozenset(
        normalization
        for normalization, each in uses.items()
        if len(each) > 1 and set(each) != {"reuse"}
    )


def _attributes(graphs: Graphs, encodings: Sequence[GraphEncoding]) -> list[Attribute]:
    # What computes spectra comes before what only reads them.
    rank = {"whole": 0, "small": 1, "reuse": 2}
    order = sorted(
        range(len(encodings)),
        key=lambda i: min((rank[use] for use in encodings[i].spectra.values()), default=3),
    )
    with threads_for(graphs.max_nodes):
        computed = {i: encodings[i].encode(graphs) for i in order}
    names = [type(encoding).__name__ for encoding in encodings]
    checked = [checked_attributes(name, computed[i], graphs) for i, name in enumerate(names)]
    return [attribute for each in checked for attribute in each]


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
def _errors_name_the_graph(
    datas: Sequence[Any], first: int, encode_one: Callable[[Any], object]
) -> Iterator[None]:
    """Adds to an error the number of the graph for which ``encode_one`` raises one too."""
    try:
        yield
    except _ERRORS as error:
        for i, data in enumerate(datas):
            try:
                encode_one(data)
            except _ERRORS as own:
                kind = next(kind for kind in _ERRORS if isinstance(own, kind))
                raise kind(f"graph {first + i}: {own}") from error
        raise
