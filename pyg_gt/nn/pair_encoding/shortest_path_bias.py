"""Lengths of shortest paths as a bias: a learned number for each distance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from ...ops import TableBias
from ..arguments import check_counts, check_tensor
from ..stored_encoding import StoredEncoder, stored, transform_adds

_INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class ShortestPathBias(StoredEncoder):
    r"""A score for each length of the shortest path from query to key: spatial encoding.

    Eq. 6 of `"Do Transformers Really Perform Bad for Graph Representation?"
    <https://arxiv.org/abs/2106.05234>`_ (Ying et al. 2021):

    .. math::
        A_{ij} = \frac{(h_i W_Q)(h_j W_K)^\top}{\sqrt{C}} + b_{\phi(i, j)}

    One module serves all layers (as in the paper), or each layer has its own. Its result goes into
    the ``biases`` of an attention layer.

    Args:
        max_distance (int): Longest path that has a score of its own.
        heads (int): ``H``.

    Attributes:
        table: ``[max_distance + 2, H]``, a row for each distance from 0; the last for pairs that
            are farther apart or have no path.

    Raises:
        ValueError: If ``max_distance`` is no whole number of at least 0, or ``heads`` of at least
            1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import FullTransformerConv, ShortestPathBias
        >>> from pyg_gt.transforms import AddShortestPathDistance
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = Data(x=torch.randn(3, 16), edge_index=edge_index)
        >>> data = AddShortestPathDistance(max_distance=8)(data)
        >>> bias, conv = ShortestPathBias(max_distance=8, heads=4), FullTransformerConv(16, 4, 4)
        >>> conv(data.x, batch=data.batch, biases=bias(data.pair_distance)).shape
        torch.Size([3, 16])
        >>> conv(data.x, batch=data.batch, biases=bias.from_data(data)).shape
        torch.Size([3, 16])
    """

    def __init__(self, max_distance: int, heads: int) -> None:
        super().__init__()
        check_counts(0, max_distance=max_distance)
        check_counts(heads=heads)
        self.max_distance = max_distance
        self.heads = heads
        self.table = torch.nn.Parameter(torch.empty(max_distance + 2, heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the table anew, as the authors do: attention begins almost without bias."""
        torch.nn.init.normal_(self.table, std=0.02)

    def forward(self, pair_distance: Tensor) -> TableBias:
        """Runs the encoder.

        Args:
            pair_distance (Tensor): ``[P]`` (uint8, int16, int32 or int64), from
                ``AddShortestPathDistance`` with the same ``max_distance``. Attention checks its
                range, with an ``IndexError``.

        Returns:
            A bias for :func:`pyg_gt.attention` and the layers.

        Raises:
            ValueError: If ``pair_distance`` is no vector of such integers.
        """
        cure = f"'AddShortestPathDistance({self.max_distance})' makes it"
        check_tensor("pair_distance", pair_distance, None, _INTEGERS, cure)
        return TableBias(self.table, pair_distance)

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        name = attr_name or "pair_distance"
        cure = transform_adds("AddShortestPathDistance", str(self.max_distance), name)
        return stored(self, data, {name: cure})

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.max_distance}, heads={self.heads})"
