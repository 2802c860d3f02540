"""Electrostatic potentials between nodes as a structural encoding."""

from __future__ import annotations

from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import check_attr_name
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .spectra.electrostatics import electrostatic_statistics


@functional_transform("pyg_gt_add_electrostatic_se")
class AddElectrostaticSE(GraphEncoding):
    r"""Adds statistics of the electric potentials between a node and all others.

    From `"Rethinking Graph Transformers with Spectral Attention"
    <https://arxiv.org/abs/2106.03893>`_; the ``ElstaticSE`` of `GraphGPS
    <https://arxiv.org/abs/2205.12454>`_. Let ``G`` be the pseudoinverse of the Laplacian
    ``D - W``. A charge on node ``j`` makes the potential ``V_ij = G_ij - G_jj`` at node ``i``,
    measured from the one at ``j`` itself, which is the highest. The row of node ``j`` in
    ``{attr_name} [N, 8]``, float32, has

    ====== ============================================================================
    column statistic
    ====== ============================================================================
    0      minimum over ``i`` of ``V_ij``: the potential its charge makes
    1      mean over ``i`` of ``V_ij``, which is ``-G_jj``
    2      standard deviation over ``i`` of ``V_ij``
    3      minimum over ``i`` of ``V_ji``: the potential that other charges make at it
    4      mean over ``i`` of ``V_ji``, the same at all nodes of a component
    5      standard deviation over ``i`` of ``V_ji``
    6      sum over ``i`` of ``(W_ij / d_i) V_ij``: what it makes at its neighbours, each of
           whom counts with the share it has in their degree ``d_i``
    7      sum over ``i`` of ``(W_ji / d_j) V_ji``: what its neighbours make at it, on average
    ====== ============================================================================

    where ``i`` runs over the nodes of *j's own component*, ``j`` included. Standard deviations
    have the divisor ``n - 1``. A component of one node has zeros.

    GraphGPS has these eight, in this order, and two columns for the maxima. Both of those are over
    ``i`` of ``V_ij`` there, where the second is said to be over ``i`` of ``V_ji``; but either
    maximum is ``V_jj = 0``, so they are left out. It also lets ``i`` run over all components.

    Self-loops are left out; ``edge_weight`` counts as conductance; repeated edges add up; an edge
    of weight zero is none. A directed graph is treated as ``(W + W^T) / 2``.

    **Large components.** Of a component of more than :attr:`DENSE_LIMIT` nodes ``G`` is made some
    columns at a time: as exact, in a time that grows with ``N^2`` at least. Sparse factors of the
    Laplacian are kept if it has small cuts, as trees and planar graphs do, else conjugate
    gradients run (minutes for 20,000 nodes).

    Args:
        attr_name (str, optional): Name of the attribute; :obj:`None` appends the encoding to
            ``data.x``. (default: :obj:`"electrostatic_se"`)

    Raises:
        ValueError: if weights are so small that potentials are beyond float32.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddElectrostaticSE
        >>> edge = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
        >>> AddElectrostaticSE()(edge).electrostatic_se[:, :2].tolist()  # minimum and mean
        [[-0.5, -0.25], [-0.5, -0.25]]
    """

    #: Number of nodes of a component above which ``G`` is never made dense.
    DENSE_LIMIT: int = 2048

    def __init__(self, attr_name: str | None = "electrostatic_se") -> None:
        self.attr_name = check_attr_name(self, attr_name)

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddElectrostaticSE`."""
        found = electrostatic_statistics(graphs, dense_limit=self.DENSE_LIMIT)
        return [Attribute(self.attr_name, found, graphs.ptr)]
