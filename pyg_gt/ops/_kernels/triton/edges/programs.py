"""Edges sorted by one of their ends, and which program of a kernel goes through which of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .....layout.edge_layout import EdgeLayout

# A node's own number of edges decides how it is computed, so that what it gets does not depend on
# its companions. Both are powers of two.
FEW = 16
PART = 512  # of a node with more edges, which is computed in parts
# kernels count nodes and edges in 32 bits, and look some edges ahead
MAX_COUNT = 2**31 - 2**10


@dataclass(frozen=True, eq=False)
class EdgePrograms:
    """Edges node by node, and tables with a row a node (or part of one): ``[T, 3]`` int32.

    A row is: a node, the place of its first edge, the place after its last one. Nodes with about
    as many edges stand side by side, those with most first.

    Attributes:
        neighbors: ``[E]`` int32, the nodes at the other ends.
        edge_ids: ``[E]`` int32, the caller's numbers of the edges.
        light: nodes with at most ``PART`` edges.
        few: those of them with at most ``FEW``.
        many: the rest of them.
        parts: the parts of the other nodes.
        heavy: the other nodes, with places in ``parts`` in place of edges.
    """

    neighbors: Tensor
    edge_ids: Tensor
    light: Tensor
    few: Tensor
    many: Tensor
    parts: Tensor
    heavy: Tensor

    @cached_property
    def csr(self) -> dict[str, Tensor]:
        """The edges of all nodes, by the names of kernels' arguments."""
        return {"neighbors": self.neighbors, "edge_ids": self.edge_ids}


def programs_by_target(edges: EdgeLayout) -> EdgePrograms:
    """Query nodes, with key nodes as neighbours; made once."""

    def make() -> EdgePrograms:
        _check_size(edges)
        source, target = edges.ends.int()
        ends, order = target.sort(stable=True)
        return _programs(ends, source[order], order.int(), edges.num_dst)

    return edges.cached("triton_by_target", make)


def programs_by_source(edges: EdgeLayout) -> EdgePrograms:
    """Key nodes, with query nodes as neighbours; made once."""

    def make() -> EdgePrograms:
        by_target = programs_by_target(edges)
        # sorted from the other order: query nodes of a key node ascend, and rows are found nearby
        ends, order = by_target.neighbors.sort(stable=True)
        edge_ids = by_target.edge_ids[order]
        return _programs(ends, edges.ends[1][edge_ids.long()].int(), edge_ids, edges.num_src)

    return edges.cached("triton_by_source", make)


def _check_size(edges: EdgeLayout) -> None:
    if max(edges.num_edges, edges.num_src, edges.num_dst) >= MAX_COUNT:
        raise NotImplementedError(
            f"the kernels count edges and nodes in 32 bits (got {edges.num_edges} edges, "
            f"{edges.num_src} key and {edges.num_dst} query nodes); pass backend='sparse'"
        )


def _programs(ends: Tensor, neighbors: Tensor, edge_ids: Tensor, nodes: int) -> EdgePrograms:
    """The programs of nodes ``ends [E]``, which are sorted."""
    starts = torch.arange(nodes + 1, dtype=torch.int32, device=ends.device)
    ptr = torch.searchsorted(ends, starts, out_int32=True)
    degrees = ptr.diff()
    # of the next power of two; exact up to 2^23, beyond which it stays above that of PART
    level = torch.frexp(degrees - 0.5).exponent
    order = level.argsort(descending=True, stable=True)
    table = torch.stack([order.int(), ptr[:-1][order], ptr[1:][order]], 1)  # [N, 3]
    # where there is no heavy node, the one wait for the device
    heavy, not_few = torch.stack([(degrees > n).sum() for n in (PART, FEW)]).tolist()
    parts, heavy_table = _parts_of_heavy(table[:heavy])
    return EdgePrograms(
        neighbors, edge_ids, table[heavy:], table[not_few:], table[heavy:not_few], parts,
        heavy_table,
    )  # fmt: skip


def _parts_of_heavy(table: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of heavy nodes, and each of these nodes with the places of its parts."""
    if table.size(0) == 0:
        return table, table
    node, begin, end = table.unbind(1)
    counts = (end - begin + PART - 1) // PART
    after = counts.cumsum(0, dtype=torch.int32)
    before = after - counts
    which = torch.repeat_interleave(counts)
    place = torch.arange(which.size(0), dtype=torch.int32, device=table.device)
    first = begin[which] + (place - before[which]) * PART
    last = torch.minimum(first + PART, end[which])
    return torch.stack([node[which], first, last], 1), torch.stack([node, before, after], 1)
