"""Rings in which a node must read the one exactly opposite: a generated long-range task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset


class LongRange(InMemoryDataset):
    r"""Ring transfer with decoys: the target's label is the colour of the opposite node.

    After the RingTransfer task of `Bodnar et al. 2021, "Weisfeiler and Lehman Go Cellular: CW
    Networks" <https://arxiv.org/abs/2106.12575>`_ and `Di Giovanni et al. 2023, "On
    Over-Squashing in Message Passing Neural Networks" <https://arxiv.org/abs/2302.02941>`_. There,
    only the source is coloured, so a look at the whole ring finds the label without knowing where
    it is. Here every node is coloured, and only the position tells the source from the decoys:

    - the source, at distance :math:`n/2` from the target, has a uniformly drawn colour :math:`y`,
      independent of all other nodes. What a message passer of fewer than :math:`n/2` layers can
      see at the target is independent of the label;
    - the other nodes draw their colours from proportions that are themselves drawn uniformly from
      the simplex, anew for every ring. All colour counts are then equally likely, and given the
      counts each colour that occurs is (nearly) as likely the label as any other: pooling the
      ring tells no more than which colours are absent.

    A ring has no structural differences between nodes, so random-walk encodings are constant;
    Laplacian eigenvectors do hold the positions.

    Nodes are in random order. Each graph has ``x [N, K + 1]`` (colour one-hot over the K classes,
    then the target's flag), ``edge_index [2, 2 N]``, ``target_mask [N]`` (where the answer is to
    be read) and ``y [1]``.

    Args:
        num_graphs: Number of rings.
        sizes: Smallest and largest number of nodes; all even numbers between them occur.
        num_colors: Number of classes K; chance is 1 / K.
        seed: Of a generator of its own, so the rings depend on these arguments alone.
        transform: Applied to a graph at every access.
        pre_transform: Applied to every graph once, here.

    Raises:
        ValueError: If a size is odd or below 4, or a number is too small.
    """

    def __init__(
        self,
        num_graphs: int = 5000,
        sizes: tuple[int, int] = (12, 24),
        num_colors: int = 4,
        seed: int = 0,
        transform: Callable[[Any], Any] | None = None,
        pre_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        smallest, largest = sizes
        if smallest % 2 or largest % 2 or not 4 <= smallest <= largest:
            raise ValueError(
                f"sizes must be two even numbers, 4 <= smallest <= largest (an odd ring has no "
                f"opposite node), got {sizes}"
            )
        if num_graphs < 3 or num_colors < 2:
            raise ValueError(
                f"need num_graphs >= 3 (one for each part of the split) and num_colors >= 2, "
                f"got {num_graphs} and {num_colors}"
            )
        super().__init__(None, transform, pre_transform)
        self.sizes, self.num_colors, self.seed = (smallest, largest), num_colors, seed
        generator = torch.Generator().manual_seed(seed)
        rings = [_ring(smallest, largest, num_colors, generator) for _ in range(num_graphs)]
        if pre_transform is not None:
            rings = [pre_transform(ring) for ring in rings]
        self.data, self.slices = self.collate(rings)

    @property
    def num_classes(self) -> int:
        """Number of colours."""
        return self.num_colors

    def get_idx_split(self) -> dict[str, Tensor]:
        """Return 80 / 10 / 10 % of the graphs as ``"train"``, ``"valid"``, ``"test"``."""
        held_out = max(1, len(self) // 10)
        train = len(self) - 2 * held_out
        parts = torch.arange(len(self)).split([train, held_out, held_out])
        return dict(zip(("train", "valid", "test"), parts, strict=True))


def _ring(smallest: int, largest: int, num_colors: int, generator: torch.Generator) -> Data:
    half = torch.randint(smallest // 2, largest // 2 + 1, (), generator=generator)
    n = 2 * int(half)
    # Normalised exponential variates are uniform on the simplex.
    proportions = torch.empty(num_colors).exponential_(generator=generator)
    colors = torch.multinomial(proportions, n, replacement=True, generator=generator)
    y = torch.randint(num_colors, (1,), generator=generator)
    colors[n // 2] = y  # Place 0 on the ring is the target.

    node = torch.randperm(n, generator=generator)  # Node at each place of the ring.
    x = torch.zeros(n, num_colors + 1)
    x[node, colors] = 1.0
    x[node[0], num_colors] = 1.0
    target_mask = torch.zeros(n, dtype=torch.bool)
    target_mask[node[0]] = True
    one_way = torch.stack([node, node.roll(-1)])
    edge_index = torch.cat([one_way, one_way.flip(0)], dim=1)
    return Data(x=x, edge_index=edge_index, y=y, target_mask=target_mask)
