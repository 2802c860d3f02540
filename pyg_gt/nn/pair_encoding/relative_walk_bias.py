"""Probabilities of random walks from node to node as a bias."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data
from torch_geometric.nn.dense.linear import Linear

from ...ops import PairBias
from ..arguments import check_counts, check_tensor
from ..stored_encoding import StoredEncoder, stored, transform_adds

_HIDDEN_AT_ONCE = 2**22  # numbers of the hidden layer


class RelativeWalkBias(StoredEncoder):
    r"""A learned function of the random-walk probabilities from query to key.

    Of `"Graph Inductive Biases in Transformers without Message Passing"
    <https://arxiv.org/abs/2305.17589>`_ (Ma et al. 2023), the relative random walk probabilities
    as a bias:

    .. math::
        b_{ij} = W_2\, \mathrm{ReLU}(W_1 P_{ij} + c), \quad
        P_{ij} = (I, M, M^2, \dots)_{ij}, \quad M = D^{-1} A

    or :math:`b_{ij} = W P_{ij}` without a hidden layer. There is no constant term: the softmax
    would not see it. One module serves all layers, or each layer has its own.

    The hidden layer is never kept for all pairs: where there are many, the backward computes it
    again, some pairs at a time. Compiled code takes all pairs at once.

    Args:
        walk_length (int): Probabilities of each pair.
        heads (int): ``H``.
        hidden_channels (int, optional): Width of the hidden layer; None: a linear function.
            (default: :obj:`None`)

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import GPSConv, RelativeWalkBias
        >>> from pyg_gt.transforms import AddRelativeRandomWalkPE
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = Data(x=torch.randn(3, 16), edge_index=edge_index)
        >>> data = AddRelativeRandomWalkPE(walk_length=8)(data)
        >>> bias, conv = RelativeWalkBias(walk_length=8, heads=4), GPSConv(16, None, heads=4)
        >>> conv(data.x, edge_index, data.batch, biases=bias(data.pair_walk)).shape
        torch.Size([3, 16])
        >>> conv(data.x, edge_index, data.batch, biases=bias.from_data(data)).shape
        torch.Size([3, 16])
    """

    def __init__(self, walk_length: int, heads: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        check_counts(walk_length=walk_length, heads=heads)
        if hidden_channels is not None:
            check_counts(hidden_channels=hidden_channels)
        self.walk_length = walk_length
        self.heads = heads
        self.hidden_channels = hidden_channels
        width = walk_length
        self.lin_hidden: Linear | None = None
        if hidden_channels is not None:
            self.lin_hidden = Linear(walk_length, hidden_channels, weight_initializer="glorot")
            width = hidden_channels
        self.lin = Linear(width, heads, bias=False, weight_initializer="glorot")

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        if self.lin_hidden is not None:
            self.lin_hidden.reset_parameters()
        self.lin.reset_parameters()

    def forward(self, pair_walk: Tensor) -> PairBias:
        """Runs the encoder.

        Args:
            pair_walk (Tensor): ``[P, walk_length]``, from ``AddRelativeRandomWalkPE``; it may be
                stored in a narrower floating-point type than that of the weights.

        Returns:
            A bias ``[P, H]`` for :func:`pyg_gt.attention` and the layers.

        Raises:
            ValueError: If ``pair_walk`` is not floating-point or has another shape.
        """
        cure = f"'AddRelativeRandomWalkPE({self.walk_length})' makes it"
        check_tensor("pair_walk", pair_walk, ("walk_length", self.walk_length), None, cure)
        if self.hidden_channels is None or torch.compiler.is_compiling():
            return PairBias(self._values(pair_walk))
        parts = pair_walk.split(max(_HIDDEN_AT_ONCE // self.hidden_channels, 1))
        if len(parts) == 1:
            return PairBias(self._values(pair_walk))
        values = [
            checkpoint(self._values, part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        return PairBias(torch.cat(values))

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        name = attr_name or "pair_walk"
        cure = transform_adds("AddRelativeRandomWalkPE", str(self.walk_length), name)
        return stored(self, data, {name: cure})

    def _values(self, walk: Tensor) -> Tensor:
        """``[P, H]``."""
        walk = walk.to(self.lin.weight.dtype)
        if self.lin_hidden is not None:
            walk = self.lin_hidden(walk).relu()
        values: Tensor = self.lin(walk)
        return values

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.walk_length}, heads={self.heads}, "
            f"hidden_channels={self.hidden_channels})"
        )
