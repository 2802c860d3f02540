"""Batches of graphs in the sizes of known datasets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Graphs of a batch, and nodes of a graph at these quantiles: those of ogbg-molhiv (PyG pads to the
# largest graph of a batch), of peptides-func from 80 nodes on, of PascalVOC-SP.
SHAPES = {
    "molecules": (
        128,
        (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1),
        (2, 9, 13, 18, 23, 29, 46, 70, 123, 222),
    ),
    "peptides": (64, (0, 1), (80, 444)),
    "voc": (32, (0, 1), (395, 500)),
}


def batch_of(
    graphs: int, quantiles: Sequence[float], nodes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """``batch [N]`` and an ``edge_index`` of molecule-like degree (each graph a ring)."""
    drawn = np.interp(torch.rand(graphs).numpy(), quantiles, nodes).round()
    sizes = torch.from_numpy(drawn).long()
    batch = torch.repeat_interleave(sizes)
    start = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    node = torch.arange(batch.numel())
    following = start + (node - start + 1) % sizes[batch]
    forth = torch.stack([node, following])
    return batch, torch.cat([forth, forth.flip(0)], dim=1)
