"""Encoder of random-walk probabilities and other columns that need no symmetry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MLP, BatchNorm

from ..arguments import check_counts, describe
from ..stored_encoding import StoredEncoder, stored, transform_adds


class RandomWalkEncoder(StoredEncoder):
    r"""Normalises the columns of an encoding over the nodes, and maps them to channels.

    .. math::
        z_i = \mathrm{MLP}(\mathrm{BN}(e_i))

    for return probabilities of random walks, as in `"Graph Neural Networks with Learnable
    Structural and Positional Representations" <https://arxiv.org/abs/2110.07875>`_ (Dwivedi et al.
    2022), normalised as in `GraphGPS <https://arxiv.org/abs/2205.12454>`_ (Rampasek et al. 2022).
    Heat kernel and electrostatic encodings are read by the same encoder, for instance by
    ``encoder.from_data(data, "heat_kernel_se")``.

    The norm mixes the graphs of a batch while training. A batch of one node has no variance: it is
    normalised as in evaluation.

    Args:
        walk_length (int): ``K``, number of columns.
        channels (int): ``F``.
        num_layers (int): Layers of the MLP, with hidden ones ``2 F`` wide; 1 for a linear map.
            (default: :obj:`1`)

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import RandomWalkEncoder
        >>> from pyg_gt.transforms import AddRandomWalkPE
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = AddRandomWalkPE(walk_length=6)(Data(edge_index=edge_index, num_nodes=3))
        >>> encoder = RandomWalkEncoder(walk_length=6, channels=16)
        >>> encoder(data.random_walk_pe).shape, encoder.from_data(data).shape
        (torch.Size([3, 16]), torch.Size([3, 16]))
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
            encoding (Tensor): ``[N, K]``.

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: If ``encoding`` has another shape, or is not floating-point.
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

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        name = attr_name or "random_walk_pe"  # or what another transform has stored
        cure = transform_adds("AddRandomWalkPE", str(self.walk_length), name)
        return stored(self, data, {name: cure})

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.walk_length}, {self.channels}, "
            f"num_layers={self.num_layers})"
        )
