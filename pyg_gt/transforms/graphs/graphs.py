"""Many graphs side by side, as arrays on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Graphs:
    """One graph or many side by side, as arrays on the host: what an encoding reads.

    Attributes:
        row (numpy.ndarray): ``[E]``, the source of each edge, in ``[0, N)``.
        col (numpy.ndarray): ``[E]``, its target, in the same graph.
        weight (numpy.ndarray): ``[E]``, positive and finite; a repeated edge counts with the sum
            of its weights. Ones where the encodings do not read weights.
        num_nodes (int): ``N``.
        ptr (numpy.ndarray): ``[B + 1]``, where the nodes of each graph begin.
        edge (numpy.ndarray): ``[E]``, the number of each edge among those of its graph, as they
            stand in ``edge_index``, where edges of weight zero count too.
        shared (frozenset): normalizations (:obj:`"sym"`, :obj:`None`) of the Laplacians whose
            spectra are kept, since several encodings read them.
        order (numpy.ndarray, optional): ``[N]``, the caller's number of each node, where the
            caller's nodes do not stand graph by graph; else :obj:`None`.
    """

    row: Ints
    col: Ints
    weight: Floats
    num_nodes: int
    ptr: Ints
    edge: Ints
    shared: frozenset[str | None] = frozenset()
    order: Ints | None = None
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """``make()``, computed once for ``key`` and shared by all encodings."""
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def is_cached(self, key: Any) -> bool:
        """Whether :meth:`cached` has computed something for ``key``."""
        return key in self._cache

    @property
    def num_graphs(self) -> int:
        """``B``."""
        return len(self.ptr) - 1

    @property
    def sizes(self) -> Ints:
        """``[B]``, the number of nodes of each graph."""
        return np.diff(self.ptr)

    @property
    def max_nodes(self) -> int:
        """``M``, the number of nodes of the largest graph; 0 where there is none."""
        return int(self.sizes.max(initial=0))

    @property
    def pair_ptr(self) -> Ints:
        """``[B + 1]``, where the ordered pairs of nodes of each graph begin."""
        return offsets(self.sizes**2)


def offsets(sizes: Ints) -> Ints:
    """``[B + 1]``: zero and the sums of the first 1, 2, ... of ``sizes [B]``."""
    ptr = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=ptr[1:])
    return ptr
