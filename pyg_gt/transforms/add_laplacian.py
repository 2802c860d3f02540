"""Laplacian eigenvectors as a positional encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import (
    Normalization,
    check_attr_name,
    check_columns,
    check_count,
    check_flag,
    check_memory,
    check_normalization,
    check_real,
)
from .graphs.attributes import Attribute
from .graphs.components import is_symmetric
from .graphs.graphs import Graphs
from .spectra.eigenvectors import laplacian_eigenpairs
from .spectra.spectrum import SpectrumUse, laplacian_kind


@functional_transform("pyg_gt_add_laplacian_eigenvector_pe")
class AddLaplacianEigenvectorPE(GraphEncoding):
    r"""Adds the eigenvectors of the graph Laplacian with the smallest eigenvalues.

    From `"Benchmarking Graph Neural Networks" <https://arxiv.org/abs/2003.00982>`_. In place of
    `torch_geometric.transforms.AddLaplacianEigenvectorPE`, whose arguments and meaning it has; on
    an undirected, connected graph of more than ``k`` nodes the two agree up to the sign of a
    vector and the basis of an eigenspace. The functional name is
    ``pyg_gt_add_laplacian_eigenvector_pe``, since PyG's own is taken.

    Stored on the graph, all ``[N, k]``, so that graphs of any size batch:

    - ``{attr_name}``, float32: column ``j`` of node ``i``'s row is the ``j``-th non-trivial
      eigenvector of *i's own component*, of length one over the component, at ``i``;
    - ``{attr_name}_values``, float32: its eigenvalue, ascending along the row;
    - ``{attr_name}_mask``, bool: whether there is one. A component of ``n`` nodes has ``n - 1``;
      the rest is zeros.

    Components share the columns, so a graph in a `Batch` gets what it gets alone.

    **The Laplacian** is ``I - D^{-1/2} W D^{-1/2}`` by default. Self-loops are left out, as in
    `torch_geometric.utils.get_laplacian`; ``edge_weight`` counts; repeated edges add up; an edge
    of weight zero is none. A directed graph is treated as ``(W + W^T) / 2``.

    **Signs** are fixed: the largest entry is positive, of equally large ones the first. Random
    signs belong to training, so to the encoder. The basis of an eigenspace of more than one
    dimension stays the solver's choice; the same graph gets the same one on the same machine.
    Components of up to 96 nodes have a solver of their own, compiled on first use; without a
    compiler, or with ``PYG_GT_NATIVE=0`` in the environment, LAPACK solves them, which is slower,
    rounds otherwise and may choose another basis.

    Args:
        k (int): Number of columns, at most 2^20.
        attr_name (str, optional): Name of the attribute; :obj:`None` appends the encoding to
            ``data.x`` (without eigenvalues and mask, which have no name then).
            (default: :obj:`"laplacian_eigenvector_pe"`)
        is_undirected (bool, optional): Whether all graphs are undirected; then a directed one is
            an error. (default: :obj:`False`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"rw"` for ``I - D^{-1} W``, or
            :obj:`None` for ``D - W``. (default: :obj:`"sym"`)
        **kwargs (optional): ``tol``, ``maxiter`` and ``ncv`` of `scipy.sparse.linalg.eigsh`, for
            components of at least :attr:`SPARSE_THRESHOLD` nodes.

    Raises:
        RuntimeError: if the eigenvectors of a component of more than :attr:`DENSE_LIMIT` nodes
            are not found.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddLaplacianEigenvectorPE
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> data = AddLaplacianEigenvectorPE(4)(path)
        >>> data.laplacian_eigenvector_pe.shape
        torch.Size([3, 4])
        >>> data.laplacian_eigenvector_pe_mask[0].tolist()  # it has two
        [True, True, False, False]
    """

    #: Number of nodes of a component from which on its Laplacian stays sparse, unless ``k`` is
    #: more than an eighth of it.
    SPARSE_THRESHOLD: int = 384
    #: Number of nodes of a component above which its Laplacian is never made dense.
    DENSE_LIMIT: int = 4096

    def __init__(
        self,
        k: int,
        attr_name: str | None = "laplacian_eigenvector_pe",
        is_undirected: bool = False,
        *,
        normalization: Normalization = "sym",
        **kwargs: Any,
    ) -> None:
        self.k = check_columns(self, "k", k)
        self.attr_name = check_attr_name(self, attr_name)
        self.is_undirected = check_flag(self, "is_undirected", is_undirected)
        self.normalization = check_normalization(self, normalization)
        if unknown := sorted(set(kwargs) - {"tol", "maxiter", "ncv"}):
            raise ValueError(
                f"AddLaplacianEigenvectorPE got the option {', '.join(unknown)}; of eigsh's it "
                "takes tol, maxiter and ncv: the shift and the start vector are chosen here, the "
                "same on every run"
            )
        for name, value in kwargs.items():
            if name == "tol":
                check_real(self, name, value)
            elif value is not None:
                check_count(self, name, value)
        self.kwargs = kwargs

    @property
    def spectra(self) -> Mapping[Normalization, SpectrumUse]:
        """See :class:`GraphEncoding`."""
        return {laplacian_kind(self.normalization): "small"}

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddLaplacianEigenvectorPE`."""
        if self.is_undirected and not is_symmetric(graphs):
            raise ValueError(
                "is_undirected=True, but the graph is directed: an edge or its weight has no "
                "equal in the other direction; use is_undirected=False or ToUndirected() before"
            )
        check_memory(self, "k", self.k, 17 * graphs.num_nodes * self.k)
        pairs = laplacian_eigenpairs(
            graphs,
            self.k,
            self.normalization,
            sparse_threshold=self.SPARSE_THRESHOLD,
            dense_limit=self.DENSE_LIMIT,
            options=self.kwargs,
        )
        if self.attr_name is None:
            return [Attribute(None, pairs.vectors, graphs.ptr)]
        return [
            Attribute(self.attr_name, pairs.vectors, graphs.ptr),
            Attribute(f"{self.attr_name}_values", pairs.values, graphs.ptr),
            Attribute(f"{self.attr_name}_mask", pairs.mask, graphs.ptr),
        ]
