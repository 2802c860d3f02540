"""Rings in which a node must read the one exactly opposite: a generated long-range task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from ._arguments import check_transforms, is_whole

_SEEDS = range(-(2**63), 2**64)  # As `torch.Generator.manual_seed` takes them.
_MOST_COLORS = 2**24  # `torch.multinomial`


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
        num_graphs (int, optional): The number of rings. (default: :obj:`5000`)
        sizes (tuple[int, int], optional): The smallest and the largest number of nodes; all even
            numbers between them occur. (default: :obj:`(12, 24)`)
        num_colors (int, optional): The number of classes K; chance is 1 / K.
            (default: :obj:`4`)
        seed (int, optional): Of a generator of its own, so the rings depend on these arguments
            alone. (default: :obj:`0`)
        transform (callable, optional): Applied to a graph at every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): Applied to every graph once, here.
            (default: :obj:`None`)

    Example::

        >>> rings = LongRange(num_graphs=10)
        >>> len(rings), rings.num_classes
        (10, 4)

    Raises:
        ValueError: If a size is odd or below 4, a number is too small or no whole number, or a
            transform cannot be called.
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
        right = {
            "num_graphs": is_whole(num_graphs) and num_graphs >= 3,
            "num_colors": is_whole(num_colors) and 2 <= num_colors <= _MOST_COLORS,
            "seed": is_whole(seed) and int(seed) in _SEEDS,
        }
        if not all(right.values()):
            raise ValueError(
                f"LongRange got num_graphs={num_graphs!r}, num_colors={num_colors!r}, "
                f"seed={seed!r}; need whole numbers, num_graphs >= 3 (one for each part of the "
                f"split) and num_colors >= 2 (at most {_MOST_COLORS}), seed from -2**63 to "
                f"2**64 - 1"
            )
        pair = list(sizes) if isinstance(sizes, (tuple, list)) else []
        if (
            len(pair) != 2
            or not all(is_whole(size) and size % 2 == 0 for size in pair)
            or not 4 <= pair[0] <= pair[1]
        ):
            raise ValueError(
                f"sizes must be two even numbers, 4 <= smallest <= largest (an odd ring has no "
                f"opposite node), got {sizes!r}"
            )
        check_transforms("LongRange", transform=transform, pre_transform=pre_transform)
        super().__init__(None, transform, pre_transform)
        smallest, largest = int(pair[0]), int(pair[1])
        self.sizes, self.num_colors, self.seed = (smallest, largest), int(num_colors), int(seed)
        with torch.device("cpu"):  # Whatever the default device: the numbers depend on it.
            generator = torch.Generator().manual_seed(self.seed)
            rings = [
                _ring(smallest, largest, self.num_colors, generator) for _ in range(num_graphs)
            ]
            if pre_transform is not None:
                rings = [pre_transform(ring) for ring in rings]
            self.data, self.slices = self.collate(rings)

    @property
    def num_classes(self) -> int:
        """Number of colours."""
        return self.num_colors

    def __getstate__(self) -> dict[str, Any]:
        """Without the graphs that PyG keeps of those read: each would bring all numbers along."""
        state = dict(vars(self))
        if state.get("_data_list") is not None:
            state["_data_list"] = [None] * len(state["_data_list"])
        return state

    def get_idx_split(self) -> dict[str, Tensor]:
        """Return 80 / 10 / 10 % of the graphs as ``"train"``, ``"valid"``, ``"test"``.

        Raises:
            ValueError: If this is a part of a dataset that has less than three graphs.
        """
        if len(self) < 3:
            raise ValueError(
                f"{len(self)} graphs have no split in three parts; expected 3 or more"
            )
        held_out = max(1, len(self) // 10)
        train = len(self) - 2 * held_out
        parts = torch.arange(len(self), device="cpu").split([train, held_out, held_out])
        return dict(zip(("train", "valid", "test"), parts, strict=True))


def _ring(smallest: int, largest: int, num_colors: int, generator: torch.Generator) -> Data:
    half = torch.randint(smallest // 2, largest // 2 + 1, (), generator=generator)
    n = 2 * int(half)
    # Normalised exponential variates are uniform on the simplex.
    proportions = torch.empty(num_colors, dtype=torch.float32).exponential_(generator=generator)
    colors = torch.multinomial(proportions, n, replacement=True, generator=generator)
    y = torch.randint(num_colors, (1,), generator=generator)
    colors[n // 2] = y  # Place 0 on the ring is the target.

    node = torch.randperm(n, generator=generator)  # Node at each place of the ring.
    x = torch.zeros(n, num_colors + 1, dtype=torch.float32)
    x[node, colors] = 1.0
    x[node[0], num_colors] = 1.0
    target_mask = torch.zeros(n, dtype=torch.bool)
    target_mask[node[0]] = True
    one_way = torch.stack([node, node.roll(-1)])
    edge_index = torch.cat([one_way, one_way.flip(0)], dim=1)
    return Data(x=x, edge_index=edge_index, y=y, target_mask=target_mask)
