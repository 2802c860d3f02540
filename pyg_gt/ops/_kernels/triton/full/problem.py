"""What an attention is to the Triton kernels, but for query, key and value; what they take."""

from __future__ import annotations

import os
import weakref
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from .....layout.graph_layout import GraphLayout
from ..again import Known
from .tiles import Tiles, tiles_of

TYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_CHANNELS = 256
# A kernel sums the gradient of a table by going through its rows, tile by tile. For a larger one
# it writes the slopes of all pairs, and torch sorts them.
MAX_TABLE_ROWS = 128


def interprets() -> bool:
    """Whether triton runs kernels on the CPU, in numpy; it decides so when it is imported."""
    switch = os.environ.get("TRITON_INTERPRET", "").lower()
    return switch in ("1", "true", "on", "yes", "y")


def is_installed() -> bool:
    """Whether triton can be imported."""
    return find_spec("triton") is not None


class Problem(NamedTuple):
    """One attention, but for query, key and value.

    Attributes:
        query_layout: how the queries are split into graphs.
        layout: how the keys are.
        pairs: ``[P, H]``, or None.
        table: ``[K, H]``, or None.
        table_index: ``[P]``, rows of ``table``.
        seed: ``[1]``, or None without dropout.
        scale: factor of the scores. Kernels are given none below zero, and the queries negated:
            they look for the largest score before they multiply.
        dropout_p: probability of dropping a weight.
        edges_repeat: whether two edges may join one pair, where something is added on edges.
    """

    query_layout: GraphLayout
    layout: GraphLayout
    pairs: Tensor | None
    table: Tensor | None
    table_index: Tensor | None
    seed: Tensor | None
    scale: float
    dropout_p: float
    edges_repeat: bool = True

    def without_biases(self) -> Problem:
        """The same, to be kept beside tensors that autograd keeps."""
        return self._replace(pairs=None, table=None, table_index=None)

    def tiles(self, query: Tensor) -> Tiles:
        """Tiles that suit this problem."""
        biases = (self.pairs is not None) + (self.table is not None)
        return tiles_of(query.size(2), query.dtype, biases, self.seed is not None)

    def known(self) -> Known:
        """Calls on these layouts, to be made once more."""
        other = None if self.query_layout is self.layout else weakref.ref(self.layout)
        made: Known = self.query_layout.cached(("triton calls", other), Known)
        return made
