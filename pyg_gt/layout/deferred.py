"""Layouts of tensors without values: what traced code passes to an op, which finds the layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DeferredLayout:
    """Stands in for a :class:`GraphLayout` in traced code; an op finds the layout by ``batch``.

    Attributes:
        batch: ``[N]``, or None for one graph.
        num_nodes: ``N``.
        num_graphs: ``B``, or -1 where only the values of ``batch`` tell.
    """

    batch: Tensor | None
    num_nodes: int
    num_graphs: int


@dataclass(frozen=True, eq=False)
class DeferredEdges:
    """Stands in for an :class:`EdgeLayout` in traced code; an op finds it by ``edge_index``.

    Attributes:
        edge_index: ``[2, E]``, key nodes and query nodes, not yet checked.
        num_src: number of key nodes.
        num_dst: number of query nodes.
    """

    edge_index: Tensor
    num_src: int
    num_dst: int

    @property
    def num_edges(self) -> int:
        """``E``."""
        return self.edge_index.size(1)

    @property
    def device(self) -> torch.device:
        """The device of :attr:`edge_index`."""
        return self.edge_index.device
