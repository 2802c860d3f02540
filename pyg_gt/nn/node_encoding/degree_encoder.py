"""Encoder of degrees by learned vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import Data

from ...layout.values import is_readable
from ..arguments import check_counts, check_flags, describe
from ..stored_encoding import StoredEncoder, stored, transform_adds


class DegreeEncoder(StoredEncoder):
    r"""One learned vector for each in-degree, one for each out-degree.

    The centrality encoding of `"Do Transformers Really Perform Bad for Graph Representation?"
    <https://arxiv.org/abs/2106.05234>`_ (Ying et al. 2021):

    .. math::
        z_i = u_{\min(\deg^-(i), D)} + w_{\min(\deg^+(i), D)}

    Args:
        max_degree (int): ``D``; this and all higher degrees share a vector.
        channels (int): ``F``.
        directed (bool): Whether there are two degrees a node; without, there is one table.
            (default: :obj:`True`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import DegreeEncoder
        >>> from pyg_gt.transforms import AddDegree
        >>> data = AddDegree()(Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3))
        >>> encoder = DegreeEncoder(max_degree=4, channels=16)
        >>> encoder(data.degree).shape, encoder.from_data(data).shape
        (torch.Size([3, 16]), torch.Size([3, 16]))
    """

    def __init__(self, max_degree: int, channels: int, directed: bool = True) -> None:
        super().__init__()
        check_counts(0, max_degree=max_degree)
        check_counts(channels=channels)
        check_flags(directed=directed)
        self.max_degree = max_degree
        self.channels = channels
        self.directed = directed
        self.in_degree = Embedding(max_degree + 1, channels)
        self.out_degree = Embedding(max_degree + 1, channels) if directed else None

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.in_degree.reset_parameters()
        if self.out_degree is not None:
            self.out_degree.reset_parameters()

    def forward(self, degree: Tensor) -> Tensor:
        """Encodes the nodes.

        Args:
            degree (Tensor): ``[N, 2]`` integers, in-degree and out-degree; ``[N]`` with
                ``directed=False``.

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: If ``degree`` has another shape, or holds no integers.
            IndexError: If a degree is negative.
        """
        if (
            not isinstance(degree, Tensor)
            or degree.is_nested
            or degree.layout is not torch.strided
        ):
            raise ValueError(
                f"'degree' must be a dense tensor of integers (got {describe(degree)}); "
                f"'AddDegree' makes it"
            )
        if degree.dtype == torch.bool or degree.is_floating_point() or degree.is_complex():
            raise ValueError(
                f"'degree' must hold integers (got {degree.dtype}); convert it with '.long()'"
            )
        shape, cure = ("[N, 2]", "directed=False") if self.directed else ("[N]", "degree[:, 0]")
        if degree.dim() == 0 or degree.shape[1:] != ((2,) if self.directed else ()):
            raise ValueError(
                f"'degree' must have shape {shape} with directed={self.directed} (got "
                f"{list(degree.shape)}); for undirected graphs use '{cure}'"
            )
        degree = degree.long().clamp(max=self.max_degree)
        if is_readable(degree) and degree.is_cpu and degree.numel():  # else the device says so
            least = int(degree.min())
            if least < 0:
                raise IndexError(f"a degree cannot be negative (got {least} in 'degree')")
        if self.out_degree is None:
            out: Tensor = self.in_degree(degree)
        else:
            out = self.in_degree(degree[:, 0]) + self.out_degree(degree[:, 1])
        return out

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        name = attr_name or "degree"
        (degree,) = stored(self, data, {name: transform_adds("AddDegree", "", name)})
        return [degree if self.directed or degree.dim() != 2 else degree[:, 0]]

    def __repr__(self) -> str:
        directed = "" if self.directed else ", directed=False"
        return f"{self.__class__.__name__}({self.max_degree}, {self.channels}{directed})"
