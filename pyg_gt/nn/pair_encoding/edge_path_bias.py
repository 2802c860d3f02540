"""Features of the edges along a shortest path as a bias."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from ...layout.graph_layout import GraphLayout
from ...ops import PairBias
from ..arguments import check_counts, check_tensor
from ..stored_encoding import StoredEncoder, stored, stored_edges, transform_adds
from .path_rows import path_rows

_INTEGERS = (torch.int16, torch.int32, torch.int64)


class EdgePathBias(StoredEncoder):
    r"""The mean over the edges of a shortest path from query to key: edge encoding.

    Eq. 7 of `"Do Transformers Really Perform Bad for Graph Representation?"
    <https://arxiv.org/abs/2106.05234>`_ (Ying et al. 2021), for each head:

    .. math::
        c_{ij} = \frac{1}{L} \sum_{n=1}^{L} x_{e_n}^\top w_n

    over the first ``L`` edges of the path, at most ``path_length``; as the authors' code does, a
    longer path is divided by ``path_length``, not by its own length. A pair without a path, and a
    node with itself, gets zero. The features may be anything with a width: embed categories first
    (``edge_attr = embedding(data.edge_attr)``; the authors' width is ``H``). One module serves all
    layers (as in the paper), or each layer has its own. Its result goes into the ``biases`` of an
    attention layer.

    Args:
        edge_channels (int): Width of ``edge_attr``.
        heads (int): ``H``.
        path_length (int): Most edges of a path that count.

    Attributes:
        weight: ``[path_length, edge_channels, H]``.

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.nn import EdgePathBias, TransformerBlock
        >>> from pyg_gt.transforms import AddShortestPathDistance
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = Data(x=torch.randn(3, 16), edge_index=edge_index, edge_attr=torch.randn(4, 5))
        >>> data = AddShortestPathDistance(max_distance=8, path_length=5)(data)
        >>> bias = EdgePathBias(edge_channels=5, heads=4, path_length=5)
        >>> block = TransformerBlock(16, heads=4)
        >>> paths = data.pair_distance_edges
        >>> block(data.x, data.batch, bias(paths, data.edge_attr, edge_index, data.batch)).shape
        torch.Size([3, 16])
        >>> block(data.x, data.batch, bias.from_data(data)).shape
        torch.Size([3, 16])
    """

    def __init__(self, edge_channels: int, heads: int, path_length: int) -> None:
        super().__init__()
        check_counts(edge_channels=edge_channels, heads=heads, path_length=path_length)
        self.edge_channels = edge_channels
        self.heads = heads
        self.path_length = path_length
        self.weight = torch.nn.Parameter(torch.empty(path_length, edge_channels, heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew, as the authors do: attention begins almost without bias."""
        torch.nn.init.normal_(self.weight, std=0.02)

    def forward(
        self,
        pair_distance_edges: Tensor,
        edge_attr: Tensor,
        edge_index: Any,
        batch: Tensor | GraphLayout | None = None,
    ) -> PairBias:
        """Runs the encoder.

        Args:
            pair_distance_edges (Tensor): ``[P, path_length]`` (int16, int32 or int64), the edges
                of each path in their order, from ``AddShortestPathDistance``: each by its place
                among the edges of its own graph, and -1 where the path has ended.
            edge_attr (Tensor): ``[E, edge_channels]``.
            edge_index (Tensor or EdgeLayout): ``[2, E]``, with the edges of each graph in the
                order that the transform saw.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)

        Returns:
            A bias ``[P, H]`` for :func:`pyg_gt.attention` and the layers.

        Raises:
            ValueError: For a wrong shape or type, if an edge joins two graphs, or if a path does
                not begin at its query, so that it was made of other edges.
            IndexError: If a path names an edge that its graph does not have.
        """
        columns = ("path_length", self.path_length)
        cure = "'AddShortestPathDistance' makes it"
        check_tensor("pair_distance_edges", pair_distance_edges, columns, _INTEGERS, cure)
        columns = ("edge_channels", self.edge_channels)
        cure = "embed categories first, as with 'torch.nn.Embedding'"
        check_tensor("edge_attr", edge_attr, columns, None, cure)
        rows = path_rows(pair_distance_edges, edge_index, edge_attr.size(0), batch)
        return PairBias(mean_along_paths(rows, edge_attr, self.weight))

    def from_data(
        self, data: Data, attr_name: str | None = None, *, edge_attr: Tensor | None = None
    ) -> PairBias:
        """The bias of a batch that ``AddShortestPathDistance`` has been applied to.

        Args:
            data (Data): A ``Data`` or a ``Batch``.
            attr_name (str, optional): The transform's ``attr_name``; paths are read under
                ``{attr_name}_edges``. None: its default. (default: :obj:`None`)
            edge_attr (Tensor, optional): ``[E, edge_channels]``, such as embedded categories;
                None: ``data.edge_attr``. (default: :obj:`None`)

        Raises:
            ValueError: If an attribute is missing; also as the call with tensors.
            IndexError: If a path names an edge that its graph does not have.
        """
        paths, edge_index = self._read(data, attr_name)
        if edge_attr is None:
            (edge_attr,) = stored(self, data, {"edge_attr": "pass 'edge_attr='"})
        bias: PairBias = self(paths, edge_attr, edge_index, data.batch)
        return bias

    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        name = attr_name or "pair_distance"
        arguments = f"max_distance, path_length={self.path_length}"
        cure = transform_adds("AddShortestPathDistance", arguments, name)
        return stored(self, data, {f"{name}_edges": cure}) + stored_edges(self, data)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.edge_channels}, heads={self.heads}, "
            f"path_length={self.path_length})"
        )


def mean_along_paths(rows: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
    """Eq. 7.

    Features are weighted before they are gathered: there are far more pairs than edges.

    Args:
        rows: ``[L, P]``, one more than the edge at each place of a path; 0 where it has ended.
        edge_attr: ``[E, D]``.
        weight: ``[L, D, H]``.

    Returns:
        ``[P, H]``.
    """
    edge_attr = edge_attr.to(weight.dtype)
    total = weight.new_zeros(rows.size(1), weight.size(2))
    for place in range(weight.size(0)):
        table = F.pad(edge_attr @ weight[place], (0, 0, 1, 0))  # [E + 1, H]
        total = total + F.embedding(rows[place], table, padding_idx=0)
    edges = (rows > 0).sum(0).clamp(min=1)
    return total / edges.to(total.dtype).unsqueeze(1)
