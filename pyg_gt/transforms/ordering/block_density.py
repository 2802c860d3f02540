"""The blocks of pairs that attention along edges visits, and their density."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..graphs.arguments import is_whole
from ..graphs.data import check_has_values, holds_integers


class BlockDensity(NamedTuple):
    """The blocks of pairs that attention along an edge set visits.

    A block is visited if an edge lies in it, and then all of its pairs are computed.

    Attributes:
        visited (int): Number of blocks that an edge lies in.
        blocks (int): Number of all blocks.
        edges_per_block (float): Mean number of edges in a visited block; 0 if there is no edge.
        density (float): Share of the pairs in visited blocks that are edges; 0 if there is no
            edge.
    """

    visited: int
    blocks: int
    edges_per_block: float
    density: float


def block_density(edge_index: Tensor, num_nodes: int, block_size: int = 128) -> BlockDensity:
    """The blocks of ``block_size`` queries and as many keys that ``edge_index`` reaches.

    Nodes are taken in their order, as FlexAttention does. A repeated edge counts once. The last
    blocks may hold fewer nodes; only the pairs that are there count. Time and memory grow with E.

    Args:
        edge_index (torch.Tensor): ``[2, E]``, sources (keys) and targets (queries), of any integer
            type.
        num_nodes (int): N.
        block_size (int, optional): Number of nodes in a block. (default: :obj:`128`)

    Raises:
        ValueError: if an argument is not as said.
        IndexError: if ``edge_index`` holds a node that is not in ``[0, N)``.

    Example:
        >>> import torch
        >>> from pyg_gt.transforms import block_density
        >>> path = torch.stack([torch.arange(255), torch.arange(1, 256)])
        >>> block_density(path, num_nodes=256).visited  # two on the diagonal, one beside
        3
    """
    is_dense = isinstance(edge_index, Tensor) and edge_index.layout == torch.strided
    if not is_dense or edge_index.dim() != 2 or edge_index.size(0) != 2:
        shape = [*edge_index.shape] if isinstance(edge_index, Tensor) else type(edge_index)
        raise ValueError(f"block_density expected edge_index as a tensor [2, E], got {shape}")
    check_has_values("edge_index", edge_index)
    if not holds_integers(edge_index):
        raise ValueError(
            f"block_density expected edge_index of whole numbers, got {edge_index.dtype}; convert "
            "it with .long()"
        )
    for name, value, least in (("num_nodes", num_nodes, 0), ("block_size", block_size, 1)):
        if not is_whole(value):
            raise ValueError(f"block_density got {name}={value!r}; expected a whole number")
        if value < least:
            raise ValueError(f"block_density got {name}={value}; expected at least {least}")
    N, size = int(num_nodes), int(block_size)
    edges = edge_index.detach().as_subclass(Tensor).long()
    if edges.numel() and not (0 <= int(edges.min()) and int(edges.max()) < N):
        raise IndexError(
            f"block_density got nodes {int(edges.min())} to {int(edges.max())} in edge_index, but "
            f"num_nodes={N}"
        )
    rows = -(-N // size)
    if not edges.numel():
        return BlockDensity(0, rows * rows, 0.0, 0.0)
    source, target = edges
    pairs = (target * N + source).unique()
    visited = (pairs // N // size * rows + pairs % N // size).unique()
    height = (N - visited // rows * size).clamp(max=size)
    width = (N - visited % rows * size).clamp(max=size)
    inside = int((height * width).sum())
    count = visited.numel()
    return BlockDensity(count, rows * rows, pairs.numel() / count, pairs.numel() / inside)
