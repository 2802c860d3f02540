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
MOST = 2**31 - 2**10


@dataclass(frozen=True, eq=False)
class EdgePrograms:
    """Edges node by node, and tables with a row a node (or part of one): ``[T, 3]`` int32.

    A row is: a node, the place of its first edge, the place after its last one. Nodes with about
    as many edges stand side by side, those with most first.

    Attributes:
        others: ``[E]`` int32, the nodes at the other ends.
        numbers: ``[E]`` int32, the caller's numbers of the edges.
        light: nodes with at most ``PART`` edges.
        few: those of them with at most ``FEW``.
        many: the rest of them.
        parts: the parts of the other nodes.
        heavy: the other nodes, with places in ``parts`` in place of edges.
    """

    others: Tensor
    numbers: Tensor
    light: Tensor
    few: Tensor
    many: Tensor
    parts: Tensor
    heavy: Tensor

    @cached_property
    def lists(self) -> dict[str, Tensor]:
        """Arguments of a kernel."""
        return {"others": self.others, "numbers": self.numbers}


def programs_by_target(edges: EdgeLayout) -> EdgePrograms:
    """By query node, made once; others are key nodes."""

    def make() -> EdgePrograms:
        _check_size(edges)
        source, target = edges.ends.int()
        ends, order = target.sort(stable=True)
        return _made(ends, source[order], order.int(), edges.num_dst)

    return edges.cached("triton_by_target", make)


def programs_by_source(edges: EdgeLayout) -> EdgePrograms:
    """By key node, made once; others are query nodes."""

    def make() -> EdgePrograms:
        by_target = programs_by_target(edges)
        # sorted from the other order: query nodes of a key node ascend, and rows are found nearby
        ends, order = by_target.others.sort(stable=True)
        numbers = by_target.numbers[order]
        return _made(ends, edges.ends[1][numbers.long()].int(), numbers, edges.num_src)

    return edges.cached("triton_by_source", make)


def _check_size(edges: EdgeLayout) -> None:
    if max(edges.num_edges, edges.num_src, edges.num_dst) >= MOST:
        raise NotImplementedError(
            f"the kernels count edges and nodes in 32 bits (got {edges.num_edges} edges, "
            f"{edges.num_src} key and {edges.num_dst} query nodes); pass backend='sparse'"
        )


def _made(ends: Tensor, others: Tensor, numbers: Tensor, nodes: int) -> EdgePrograms:
    """``ends [E]`` are sorted."""
    starts = torch.arange(nodes + 1, dtype=torch.int32, device=ends.device)
    ptr = torch.searchsorted(ends, starts, out_int32=True)
    degrees = ptr.diff()
    # of the next power of two; exact up to 2^23, beyond which it stays above that of PART
    level = torch.frexp(degrees - 0.5).exponent
    order = level.argsort(descending=True, stable=True)
    table = torch.stack([order.int(), ptr[:-1][order], ptr[1:][order]], 1)  # [N, 3]
    # where there is no heavy node, the one wait for the device
    heavy, not_few = torch.stack([(degrees > n).sum() for n in (PART, FEW)]).tolist()
    parts, heavy_table = _split(table[:heavy])
    return EdgePrograms(
        others, numbers, table[heavy:], table[not_few:], table[heavy:not_few], parts, heavy_table
    )


def _split(table: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of each node, and each node with the places of its parts."""
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
