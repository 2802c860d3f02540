"""In-degree and out-degree of each node."""

from __future__ import annotations

import numpy as np
from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import check_attr_name
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs


@functional_transform("pyg_gt_add_degree")
class AddDegree(GraphEncoding):
    r"""Adds how many edges end and how many begin at each node.

    What the centrality encoding of `"Do Transformers Really Perform Bad for Graph Representation?"
    <https://arxiv.org/abs/2106.05234>`_ looks up.

    Stored as ``{attr_name} [N, 2]``, int64: column 0 is the in-degree, the number of edges whose
    target (``edge_index[1]``) is the node; column 1 is the out-degree, the number of edges whose
    source (``edge_index[0]``) it is. On an undirected graph, each edge of which stands in
    ``edge_index`` both ways, the two are equal.

    Edges are counted, not their weights, which may have any sign: a repeated edge counts as often
    as it stands, a self-loop once in each column. An edge of weight zero is none.

    Args:
        attr_name (str, optional): Name of the attribute; :obj:`None` appends the degrees to
            ``data.x``. (default: :obj:`"degree"`)

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddDegree
        >>> data = Data(edge_index=torch.tensor([[0, 0], [1, 2]]), num_nodes=3)
        >>> AddDegree()(data).degree.tolist()
        [[0, 2], [1, 0], [1, 0]]
    """

    reads_weights = False

    def __init__(self, attr_name: str | None = "degree") -> None:
        self.attr_name = check_attr_name(self, attr_name)

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddDegree`."""
        N = graphs.num_nodes
        degree = np.empty((N, 2), dtype=np.int64)
        degree[:, 0] = np.bincount(graphs.col, minlength=N)
        degree[:, 1] = np.bincount(graphs.row, minlength=N)
        return [Attribute(self.attr_name, degree, graphs.ptr)]
