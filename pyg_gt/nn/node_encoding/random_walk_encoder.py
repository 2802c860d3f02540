"""Return probabilities and other numbers that need no symmetry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MLP, BatchNorm

from ..arguments import check_counts, describe


class RandomWalkEncoder(torch.nn.Module):
    r"""Normalises the columns of an encoding over the nodes, and maps them to channels.

    .. math::
        z_i = \mathrm{MLP}(\mathrm{BN}(e_i))

    for return probabilities of random walks, as in "Graph Neural Networks with Learnable
    Structural and Positional Representations" (Dwivedi et al. 2022,
    https://arxiv.org/abs/2110.07875), normalised as in GraphGPS (Rampasek et al. 2022,
    https://arxiv.org/abs/2205.12454). Heat kernel and electrostatic encodings are read by the
    same encoder.

    The norm mixes the graphs of a batch while training. A batch of one node has no variance: it is
    normalised as in evaluation.

    Args:
        walk_length: ``K``, number of columns.
        channels: ``F``.
        num_layers: of the MLP, with hidden layers ``2 F`` wide; 1 for a linear map.

    Raises:
        ValueError: if an argument is no whole number of at least 1.
    """

    def __init__(self, walk_length: int, channels: int, num_layers: int = 1) -> None:
        super().__init__()
        check_counts(walk_length=walk_length, channels=channels, num_layers=num_layers)
        self.walk_length = walk_length
        self.channels = channels
        self.num_layers = num_layers
        self.norm = BatchNorm(walk_length, allow_single_element=True)
        widths = [walk_length, *[2 * channels] * (num_layers - 1), channels]
        self.mlp: Any = MLP(widths, norm=None)

    def reset_parameters(self) -> None:
        """Draws all weights anew and forgets the statistics."""
        self.norm.reset_parameters()
        self.mlp.reset_parameters()

    def forward(self, encoding: Tensor) -> Tensor:
        """Encodes the nodes.

        Args:
            encoding: ``[N, K]``.

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: if ``encoding`` has another shape, or is not floating-point.
        """
        dense = isinstance(encoding, Tensor) and encoding.layout is torch.strided
        if not dense or encoding.is_nested or not encoding.is_floating_point():
            raise ValueError(
                f"expected a dense floating-point encoding of shape [N, {self.walk_length}] (got "
                f"{describe(encoding)}); 'AddRandomWalkPE({self.walk_length})' makes one"
            )
        if encoding.dim() != 2 or encoding.size(1) != self.walk_length:
            raise ValueError(
                f"expected an encoding of shape [N, {self.walk_length}] (got "
                f"{list(encoding.shape)}); 'walk_length' is the transform's number of columns"
            )
        out: Tensor = self.mlp(self.norm(encoding))
        return out

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.walk_length}, {self.channels}, "
            f"num_layers={self.num_layers})"
        )
