"""Positional and structural encodings, drop-ins for those of `torch_geometric.transforms`.

Everything public is imported here. The folders hold the mathematics, and import one another in the
order graphs, compiled, spectra, walks, paths, expanders, ordering; then come ``graph_encoding``,
the transforms, and precomputing.
"""

from .add_degree import AddDegree
from .add_electrostatic import AddElectrostaticSE
from .add_expander_edges import AddExpanderEdges
from .add_heat_kernel import AddHeatKernelSE
from .add_k_hop_edges import AddKHopEdges
from .add_laplacian import AddLaplacianEigenvectorPE
from .add_random_walk import AddRandomWalkPE
from .add_relative_random_walk import AddRelativeRandomWalkPE
from .add_shortest_path import AddShortestPathDistance
from .graph_encoding import GraphEncoding
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .ordering.block_density import BlockDensity, block_density
from .precomputing.collate import EncodeAndCollate
from .precomputing.dataset import PrecomputedDataset
from .precomputing.precompute import precompute
from .reorder_nodes import ReorderNodes, ReorderReport

__all__ = [
    "AddDegree",
    "AddElectrostaticSE",
    "AddExpanderEdges",
    "AddHeatKernelSE",
    "AddKHopEdges",
    "AddLaplacianEigenvectorPE",
    "AddRandomWalkPE",
    "AddRelativeRandomWalkPE",
    "AddShortestPathDistance",
    "Attribute",
    "BlockDensity",
    "EncodeAndCollate",
    "GraphEncoding",
    "Graphs",
    "PrecomputedDataset",
    "ReorderNodes",
    "ReorderReport",
    "block_density",
    "precompute",
]
