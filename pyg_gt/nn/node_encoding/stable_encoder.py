"""Basis-invariant encoder of Laplacian eigenvectors."""

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
from .component_pairs import ComponentPairs, component_pairs
from .eigenpairs import masked_eigenpairs
from .graph_network import graph_network


class StableEncoder(StoredEncoder):
    r"""Reads Laplacian eigenvectors through functions of the Laplacian, which have no basis.

    SPE of `"On the Stability of Expressive Positional Encodings for Graphs"
    <https://arxiv.org/abs/2310.02579>`_ (Huang et al. 2023):

    .. math::
        W^{(l)} = V \mathrm{diag}(\phi_l(\lambda)) V^\top, \quad
        z_i = \sum_j \mathrm{GNN}(W_{\cdot j})_i - \mathrm{GNN}(0)_i

    The GNN runs on the graph once for each node :math:`j`, whose column of all :math:`m` matrices
    is its input. What it makes of a column of zeros is taken off, or else the sum would grow with
    the number of nodes and hide the rest; so it does not matter that nodes of other components,
    where :math:`W` is zero, are left out. Unlike :math:`V`, the result changes little when the
    graph's weights do.

    **Limits.** The columns of ``vectors`` have to be orthonormal (``normalization="sym"`` or
    None). If ``k`` cuts through an eigenspace, the part of it that is there depends on the basis,
    and so does the result. ``edge_index`` has to have the components that the eigenvectors were
    made for (no edges of weight zero).

    **Cost.** The GNN sees ``P`` nodes and ``Q`` edges: all pairs of nodes of one component, and
    for each component its edges times its nodes. Before it there are ``N M k`` numbers, where
    ``M`` is the size of the largest component. All that depends on the edges alone is made once
    for an edge set, at the cost of a copy of it to the host.

    Args:
        channels (int): ``F``.
        num_filters (int): ``m``. (default: :obj:`16`)
        hidden_channels (int): Width of the default ``phi`` and ``rho``. (default: :obj:`32`)
        num_layers (int): Layers of the default ``rho``. (default: :obj:`3`)
        phi (torch.nn.Module, optional): A module from eigenvalues ``[N, k, 1]`` to ``[N, k, m]``,
            one by one. None: an MLP. (default: :obj:`None`)
        rho (torch.nn.Module, optional): The GNN, a module from ``(x [P, m], edge_index [2, Q])``
            to ``[P, F]``, such as a model of `torch_geometric.nn`. None: a GIN with layer norm.
            (default: :obj:`None`)

    Raises:
        ValueError: If a number is out of range, or ``phi`` or ``rho`` is no module.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import StableEncoder
        >>> from pyg_gt.transforms import AddLaplacianEigenvectorPE
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = AddLaplacianEigenvectorPE(k=4)(Data(edge_index=edge_index, num_nodes=3))
        >>> StableEncoder(channels=16).from_data(data).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        channels: int,
        num_filters: int = 16,
        hidden_channels: int = 32,
        num_layers: int = 3,
        phi: torch.nn.Module | None = None,
        rho: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_counts(
            channels=channels,
            num_filters=num_filters,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        check_module("phi", phi)
        check_module("rho", rho)
        self.channels = channels
        self.num_filters = num_filters
        self.phi: Any = phi
        if phi is None:
            self.phi = MLP([1, hidden_channels, hidden_channels, num_filters], norm=None)
        self.rho: Any = rho
        if rho is None:
            self.rho = graph_network(num_filters, hidden_channels, num_layers, channels)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        reset(self.phi)
        reset(self.rho)

    def forward(self, vectors: Tensor, values: Tensor, mask: Tensor, edge_index: Any) -> Tensor:
        """Encodes the nodes.

        Args:
            vectors (Tensor): ``[N, k]``, eigenvectors as columns.
            values (Tensor): ``[N, k]``, their eigenvalues, repeated for each node.
            mask (Tensor): ``[N, k]`` bool, where there is an eigenpair; nothing else is read.
            edge_index (Tensor): ``[2, E]``.

        Returns:
            ``[N, F]``, also under autocast in the type of the weights.

        Raises:
            ValueError: For a wrong shape or type.
            IndexError: If ``edge_index`` holds a node that does not exist.
        """
        vectors, values = masked_eigenpairs(vectors, values, mask)
        edges = EdgeLayout.of(edge_index, vectors.size(0))
        # half precision would lose in the difference below what W adds to zero
        with torch.autocast(vectors.device.type, enabled=False):
            return self._encode(vectors, values, edges.edge_index, component_pairs(edges))

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        return stored_eigenpairs(self, data, attr_name) + stored_edges(self, data)

    def _encode(
        self, vectors: Tensor, values: Tensor, edge_index: Tensor, pairs: ComponentPairs
    ) -> Tensor:
        filters = self.phi(values.unsqueeze(-1))  # [N, k, m]
        _check_shape("phi", filters, (*values.shape, self.num_filters))
        W = spectral_pairs(vectors, filters, pairs)  # [P, m]
        h = self.rho(W, pairs.edge_index)  # [P, F]
        _check_shape("rho", h, (W.size(0), self.channels))
        h = h - self.rho(W.new_zeros(vectors.size(0), W.size(1)), edge_index)[pairs.query]
        # a sum over a whole component, so in float32 at least
        sum_dtype = torch.promote_types(h.dtype, torch.float32)
        out = torch.zeros(vectors.size(0), self.channels, dtype=sum_dtype, device=h.device)
        return out.index_add(0, pairs.query, h.to(sum_dtype)).to(h.dtype)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, num_filters={self.num_filters}, "
            f"rho={self.rho})"
        )


def spectral_pairs(vectors: Tensor, filters: Tensor, pairs: ComponentPairs) -> Tensor:
    """``[P, m]``: entries ``(i, j)`` of ``V diag(filters) V^T`` with both in one component."""
    keys = vectors[pairs.columns]  # [N, M, k]
    table = keys @ (vectors.unsqueeze(-1) * filters)  # [N, M, m]
    return table.flatten(0, 1)[pairs.slots]


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"'{name}' must give shape {list(shape)} (got {list(tensor.shape)})")
