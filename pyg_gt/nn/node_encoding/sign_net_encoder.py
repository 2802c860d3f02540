"""Sign-invariant encoder of Laplacian eigenvectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MLP
from torch_geometric.nn.inits import reset

from ...layout.edge_layout import EdgeLayout
from ..arguments import check_counts, check_module
from ..stored_encoding import StoredEncoder, stored_edges, stored_eigenpairs
from .eigenpairs import masked_eigenpairs
from .graph_network import graph_network


class SignNetEncoder(StoredEncoder):
    r"""Reads Laplacian eigenvectors and is the same for :math:`v` and :math:`-v`.

    SignNet of `"Sign and Basis Invariant Networks for Spectral Graph Representation Learning"
    <https://arxiv.org/abs/2202.13013>`_ (Lim et al. 2022), summed over the eigenpairs that there
    are, so that it takes any number of them in any order:

    .. math::
        Z = \rho\Big(\sum_j \phi(v_j, \lambda_j) + \phi(-v_j, \lambda_j)\Big)

    :math:`\phi` runs on the graph, for all columns at once: ``[2 k N, 2]`` rows, of which those of
    one column and sign form a copy of the graph. The basis of an eigenspace of several dimensions
    does matter here; see :class:`StableEncoder`.

    Args:
        channels (int): ``F``.
        hidden_channels (int): ``C``, of :math:`\phi` and :math:`\rho`. (default: :obj:`64`)
        num_layers (int): Layers of the default :math:`\phi`. (default: :obj:`3`)
        phi (torch.nn.Module, optional): A module from ``(x [*, 2], edge_index)`` to ``[*, C]``,
            such as a model of `torch_geometric.nn`; or from ``x`` alone, such as an MLP: then pass
            no ``edge_index``. None: a GIN with layer norm. A batch norm would take the columns
            that are masked into its statistics. (default: :obj:`None`)

    Raises:
        ValueError: If a number is out of range, or ``phi`` is no module.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import SignNetEncoder
        >>> from pyg_gt.transforms import AddLaplacianEigenvectorPE
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = AddLaplacianEigenvectorPE(k=4)(Data(edge_index=edge_index, num_nodes=3))
        >>> SignNetEncoder(channels=16).from_data(data).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int = 64,
        num_layers: int = 3,
        phi: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, hidden_channels=hidden_channels, num_layers=num_layers)
        check_module("phi", phi)
        self.channels = channels
        self.hidden_channels = hidden_channels
        self.needs_edges = phi is None
        self.phi: Any = phi
        if phi is None:
            self.phi = graph_network(2, hidden_channels, num_layers, hidden_channels)
        self.rho: Any = MLP([hidden_channels, hidden_channels, channels], norm=None)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        reset(self.phi)
        self.rho.reset_parameters()

    def forward(
        self, vectors: Tensor, values: Tensor, mask: Tensor, edge_index: Any = None
    ) -> Tensor:
        """Encodes the nodes.

        Args:
            vectors (Tensor): ``[N, k]``, eigenvectors as columns.
            values (Tensor): ``[N, k]``, their eigenvalues, repeated for each node.
            mask (Tensor): ``[N, k]`` bool, where there is an eigenpair; the same for nodes that an
                edge joins. Nothing else is read.
            edge_index (Tensor, optional): ``[2, E]``; None where ``phi`` takes no edges.
                (default: :obj:`None`)

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: For a wrong shape or type, or if ``edge_index`` is missing.
            IndexError: If ``edge_index`` holds a node that does not exist.
        """
        vectors, values = masked_eigenpairs(vectors, values, mask)
        if edge_index is None and self.needs_edges:
            raise ValueError(
                "the default 'phi' is a graph network and needs 'edge_index' (got None); pass it, "
                "or an MLP as 'phi'"
            )
        N, k = vectors.shape
        signed = torch.stack([vectors.t(), -vectors.t()])  # [2, k, N]
        x = torch.stack([signed, values.t().expand_as(signed)], dim=-1).view(2 * k * N, 2)
        if edge_index is None:
            h = self.phi(x)
        else:
            edges = EdgeLayout.of(edge_index, N).edge_index
            first = N * torch.arange(2 * k, device=x.device)
            h = self.phi(x, (edges.unsqueeze(1) + first.unsqueeze(-1)).flatten(1))
        if h.shape != (2 * k * N, self.hidden_channels):
            raise ValueError(
                f"'phi' must give hidden_channels={self.hidden_channels} channels, "
                f"{[2 * k * N, self.hidden_channels]} in all (got {list(h.shape)})"
            )
        h = h.view(2, k, N, self.hidden_channels).sum(0)  # [k, N, C]
        out: Tensor = self.rho(h.masked_fill(~mask.t().unsqueeze(-1), 0).sum(0))
        return out

    def from_data(
        self, data: Data, attr_name: str | None = None, *, with_edges: bool = True
    ) -> Tensor:
        """The encoding of a batch that ``AddLaplacianEigenvectorPE`` has been applied to.

        Args:
            data (Data): A ``Data`` or a ``Batch``.
            attr_name (str, optional): The transform's ``attr_name``; None: its default.
                (default: :obj:`None`)
            with_edges (bool): Whether ``phi`` takes ``data.edge_index``; not with an MLP.
                (default: :obj:`True`)

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: If an attribute is missing; also as the call with tensors.
        """
        pairs = self._read(data, attr_name)
        out: Tensor = self(*pairs, *(stored_edges(self, data) if with_edges else ()))
        return out

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        return stored_eigenpairs(self, data, attr_name)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels}, phi={self.phi})"
