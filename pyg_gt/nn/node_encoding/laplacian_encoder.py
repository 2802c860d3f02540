"""Encoder of Laplacian eigenvectors with random signs in training."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.data import Data
from torch_geometric.nn import MLP

from ...layout.graph_layout import GraphLayout
from ..arguments import check_counts
from ..stored_encoding import StoredEncoder, stored_eigenpairs
from .eigenpairs import masked_eigenpairs

Kind = Literal["deepset", "linear"]


class LaplacianEncoder(StoredEncoder):
    r"""Reads Laplacian eigenvectors, and learns from random signs that their signs mean nothing.

    ``kind="deepset"``, as in `"Recipe for a General, Powerful, Scalable Graph Transformer"
    <https://arxiv.org/abs/2205.12454>`_ (Rampasek et al. 2022), on the (vector entry, eigenvalue)
    pairs of `Kreuzer et al. 2021 <https://arxiv.org/abs/2106.03893>`_:

    .. math::
        z_i = \mathrm{post}\Big(\sum_{j} \mathrm{MLP}(s_j v_{ij}, \lambda_j)\Big)

    over the eigenpairs that there are. ``kind="linear"``, as in `"A Generalization of Transformer
    Networks to Graphs" <https://arxiv.org/abs/2012.09699>`_ (Dwivedi & Bresson 2020), is
    :math:`z_i = W (s \odot v_i) + b`; it reads no eigenvalues.

    In training each graph draws a sign :math:`s_j` for each of its columns, at every call, from
    torch's generator; in evaluation all are 1.

    Args:
        k (int): Number of columns.
        channels (int): ``F``.
        kind (str): ``"deepset"`` or ``"linear"``. (default: :obj:`"deepset"`)
        num_layers (int): Layers of the MLP; hidden ones are ``2 F`` wide, each ends in a ReLU.
            (default: :obj:`2`)
        post_layers (int): Layers of the MLP after the sum; 0 for none. (default: :obj:`0`)

    Raises:
        ValueError: If there is no such kind, or a number is out of range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import LaplacianEncoder
        >>> from pyg_gt.transforms import AddLaplacianEigenvectorPE
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = AddLaplacianEigenvectorPE(k=4)(Data(edge_index=edge_index, num_nodes=3))
        >>> encoder = LaplacianEncoder(k=4, channels=16)
        >>> encoder.from_data(data).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        k: int,
        channels: int,
        kind: Kind = "deepset",
        num_layers: int = 2,
        post_layers: int = 0,
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"expected kind 'deepset' or 'linear' (got {kind!r})")
        check_counts(k=k, channels=channels, num_layers=num_layers)
        check_counts(0, post_layers=post_layers)
        self.k = k
        self.channels = channels
        self.kind = kind
        self.encoder: Any = Linear(k, channels)
        self.post: Any = None
        if kind == "deepset":
            self.encoder = _mlp(2, channels, num_layers)
            self.post = _mlp(channels, channels, post_layers) if post_layers > 0 else None

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.encoder.reset_parameters()
        if self.post is not None:
            self.post.reset_parameters()

    def forward(
        self,
        vectors: Tensor,
        values: Tensor,
        mask: Tensor,
        batch: Tensor | GraphLayout | None = None,
    ) -> Tensor:
        """Encodes the nodes.

        Args:
            vectors (Tensor): ``[N, k]``, eigenvectors as columns.
            values (Tensor): ``[N, k]``, their eigenvalues, repeated for each node.
            mask (Tensor): ``[N, k]`` bool, where there is an eigenpair; nothing else is read.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. Read in training only. (default: :obj:`None`)

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: For a wrong shape or type.
        """
        vectors, values = masked_eigenpairs(vectors, values, mask, self.k)
        if self.training:
            vectors = vectors * _random_signs(vectors, batch)
        if self.kind == "linear":
            out: Tensor = self.encoder(vectors)
            return out
        pairs = self.encoder(torch.stack([vectors, values], dim=-1))  # [N, k, F]
        out = pairs.masked_fill(~mask.unsqueeze(-1), 0).sum(1)  # [N, F]
        return out if self.post is None else self.post(out)

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        return [*stored_eigenpairs(self, data, attr_name), data.batch]

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.k}, {self.channels}, kind={self.kind!r})"


def _random_signs(vectors: Tensor, batch: Any) -> Tensor:
    """1 or -1 for each graph and column, ``[N, k]``."""
    graph = GraphLayout.of(batch, vectors.size(0), device=vectors.device).batch
    signs = torch.randint(2, vectors.shape, device=vectors.device).to(vectors.dtype) * 2 - 1
    if graph is None:
        return signs[:1]
    # Where a graph begins once sorted: a number below N, also where graphs without nodes make
    # the graph's own number larger, and traced code cannot know how large.
    first = torch.searchsorted(graph.sort().values, graph)  # [N]
    return signs[first]


def _mlp(in_channels: int, channels: int, num_layers: int) -> Any:
    widths = [in_channels, *[2 * channels] * (num_layers - 1), channels]
    return MLP(widths, norm=None, plain_last=False)
