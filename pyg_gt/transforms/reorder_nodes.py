"""A transform that numbers nodes anew, so that attention along edges visits few blocks."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from .graphs.arguments import check_count, check_names
from .graphs.attributes import device_of
from .graphs.data import attributes_of
from .graphs.graphs import Graphs, Ints
from .graphs.read import read_graphs
from .ordering.block_density import BlockDensity, block_density
from .ordering.node_order import node_order
from .ordering.permutation import ORDER, in_caller_order, permute


class ReorderReport(NamedTuple):
    """The blocks attention along ``edge_index`` visits, in the given order and in the new one.

    Attributes:
        before (BlockDensity): Those of the given order.
        after (BlockDensity): Those of the new order.
    """

    before: BlockDensity
    after: BlockDensity


@functional_transform("pyg_gt_reorder_nodes")
class ReorderNodes(BaseTransform):
    r"""Numbers the nodes anew, so that edges lie in few blocks of pairs.

    Attention along edges in blocks of ``block_size`` queries and as many keys (FlexAttention)
    computes all pairs of each block that an edge lies in. If neighbours have numbers that differ
    little, these are fewer; :meth:`report` says by how much, without changing anything. Ask it
    first: a graph whose nodes come row by row, as those of an image do, can get worse, and one in
    which any two nodes are a few steps apart hardly gets better.

    - ``"rcm"``: reverse Cuthill-McKee (SciPy), which keeps all edges near the diagonal. For grids,
      meshes, superpixels and other graphs that are large across; takes well under a second for a
      million edges.
    - ``"metis"``: parts of about ``block_size`` nodes that few edges leave, in the order of
      ``"rcm"``, as are the nodes of each. For communities each with few others beside it. It needs
      a ``torch_sparse`` or ``pyg_lib`` that was compiled with METIS.

    Only ``edge_index`` decides; direction, weights and repeats of edges do not matter. In a
    `Batch`, or a `Data` with ``batch``, every graph stays in its places, and is ordered as if it
    were alone.

    **Back to the old order.** ``node_order_index [N]`` is the old number of each node, so
    ``out[data.node_order_index.argsort()]`` has the rows of ``out [N, ...]`` where they were. PyG
    adds N to it when it batches graphs, so this holds for a batch of reordered graphs too. If
    nodes are reordered twice, it is the first of the old numbers.

    **What follows the nodes.** The order of the edges, and so all they have, is kept. Changed are:

    - rows of attributes with one row a node: ``x``, ``pos`` and others of N rows, lists of N plain
      values too. (In a `Batch`, of as many rows as nodes in each graph.)
    - ``edge_index`` and all others to which PyG adds N when it batches graphs: names with
      ``index``, such as ``k_hop_edge_index`` and ``train_index``, and ``face``. Their entries
      are renumbered.
    - attributes named ``pair_*``, one row an ordered pair of nodes: rows and columns.

    All other numbers, strings, tensors and arrays are left. Where a graph has as many edges as
    nodes, names with ``edge`` and those that begin like an edge set (``k_hop_`` of
    ``k_hop_edge_index``) belong to edges. What is ambiguous is refused: another name of that
    length, N twice in a shape, a name with ``index`` and one entry a node, sparse matrices,
    dictionaries, objects, what a neighbour sampler made. ``node_attrs`` decides the first three.

    Args:
        method (str, optional): :obj:`"rcm"` or :obj:`"metis"`. (default: :obj:`"rcm"`)
        block_size (int, optional): Number of nodes in a block, for :meth:`report`, and in a part
            of :obj:`"metis"`. (default: :obj:`128`)
        node_attrs (iterable of str, optional): Names of all attributes with one row a node,
            besides ``x``, ``feat``, ``pos``, ``batch``, ``node_type`` and ``n_id``, which always
            have. If :obj:`None`, they are found by their length. (default: :obj:`None`)

    Raises:
        ValueError: for an argument, an ``edge_index`` or another attribute that is not as said; if
            an edge joins two graphs.
        IndexError: if an attribute holds a node that is not there.
        ImportError: if there is no METIS, with what to install.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import ReorderNodes
        >>> path = torch.tensor([[0, 3, 1, 4, 2], [3, 1, 4, 2, 5]])  # 0, 3, 1, 4, 2, 5
        >>> data = Data(x=torch.arange(6.0).view(6, 1), edge_index=path)
        >>> out = ReorderNodes()(data)
        >>> (out.edge_index[0] - out.edge_index[1]).abs().max().item()
        1
        >>> torch.equal(out.x[out.node_order_index.argsort()], data.x)
        True
    """

    def __init__(
        self,
        method: Literal["rcm", "metis"] = "rcm",
        block_size: int = 128,
        *,
        node_attrs: Iterable[str] | None = None,
    ) -> None:
        if method not in ("rcm", "metis"):
            raise ValueError(f"ReorderNodes got method={method!r}; expected 'rcm' or 'metis'")
        self.method = method
        self.block_size = check_count(self, "block_size", block_size)
        self.node_attrs = check_names(self, "node_attrs", node_attrs)

    def forward(self, data: Data) -> Data:
        """Puts the nodes of ``data``, a `Data` or a `Batch`, into the new order."""
        graphs, order = self._order(data)
        if graphs.max_nodes > 1:  # else nothing moves
            names = None if self.node_attrs is None else frozenset(self.node_attrs)
            permute(data, graphs, order, names)
        if ORDER not in attributes_of(data):
            old = in_caller_order(graphs, order)
            data[ORDER] = torch.from_numpy(old).to(device_of(data))
        return data

    def report(self, data: Data) -> ReorderReport:
        """The blocks visited for ``data`` as it is and after reordering; nothing is changed."""
        graphs, order = self._order(data)
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        edges = np.stack([graphs.row, graphs.col])
        before, after = (
            block_density(torch.from_numpy(each), graphs.num_nodes, self.block_size)
            for each in (edges, rank[edges])
        )
        return ReorderReport(before, after)

    def _order(self, data: Any) -> tuple[Graphs, Ints]:
        if isinstance(data, Data):
            data = copy.copy(data)
            # an edge of weight zero is attended along too
            attributes_of(data).pop("edge_weight", None)
        graphs = read_graphs([data])
        return graphs, node_order(graphs, self.method, self.block_size)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(method={self.method!r}, block_size={self.block_size}, "
            f"node_attrs={self.node_attrs!r})"
        )
