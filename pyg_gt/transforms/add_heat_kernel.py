"""Diagonals of heat kernels as a structural encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import Normalization, check_attr_name, check_normalization, is_real
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .spectra.heat_kernel import heat_kernel_diagonals
from .spectra.spectrum import SpectrumUse, laplacian_kind


@functional_transform("pyg_gt_add_heat_kernel_se")
class AddHeatKernelSE(GraphEncoding):
    r"""Adds how much of a unit of heat, set on a node, is still there after given times.

    The ``HKdiagSE`` of `"Recipe for a General, Powerful, Scalable Graph Transformer"
    <https://arxiv.org/abs/2205.12454>`_. Column ``m`` of ``{attr_name} [N, len(times)]``, float32,
    is the diagonal of the heat kernel at ``t = times[m]`` without the part that is left after
    infinite time:

    .. math::
        \exp(-t L)_{ii} - v_i^2 = \sum_{\lambda > 0} e^{-t \lambda} u_i^2

    over the non-trivial eigenpairs :math:`(\lambda, u)` of the Laplacian of *i's own component*,
    with :math:`v` its trivial eigenvector: :math:`v_i^2` is one over the number of the
    component's nodes, or with a normalisation i's share of their degrees. So all columns fall to
    zero with time, and a component of one node has zeros. GraphGPS leaves out all eigenvalues
    below 1e-8 instead; the two differ where parts of a graph are joined by weights of that size.

    **The Laplacian** is ``D - W`` by default. Self-loops are left out; ``edge_weight`` counts;
    repeated edges add up; an edge of weight zero is none. A directed graph is treated as
    ``(W + W^T) / 2``. ``"sym"`` and ``"rw"`` have the same diagonals, since one kernel is
    ``D^{1/2}`` times the other times ``D^{-1/2}``.

    **Large components.** Of a component of more than :attr:`DENSE_LIMIT` nodes the kernel is
    followed some columns at a time, with Chebyshev polynomials of ``L``: as exact, in little
    memory, and in a time that grows with ``N E sqrt(t d)``, where ``d`` is the largest degree, or
    one with a normalisation.

    Args:
        times (iterable of float): One positive number a column.
        attr_name (str, optional): Name of the attribute; :obj:`None` appends the encoding to
            ``data.x``. (default: :obj:`"heat_kernel_se"`)
        normalization (str, optional): :obj:`"sym"` for ``I - D^{-1/2} W D^{-1/2}``, :obj:`"rw"`
            for ``I - D^{-1} W``, :obj:`None` for ``D - W``. (default: :obj:`None`)

    Raises:
        ValueError: if ``t d`` of a large component is beyond some hundred million.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddHeatKernelSE
        >>> edge = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
        >>> data = AddHeatKernelSE([0.5, 1.0])(edge)  # exp(-2 t) / 2
        >>> [round(value, 4) for value in data.heat_kernel_se[0].tolist()]
        [0.1839, 0.0677]
    """

    #: Number of nodes of a component above which its Laplacian is never made dense.
    DENSE_LIMIT: int = 2048

    def __init__(
        self,
        times: Iterable[float],
        attr_name: str | None = "heat_kernel_se",
        *,
        normalization: Normalization = None,
    ) -> None:
        self.times = _check_times(times)
        self.attr_name = check_attr_name(self, attr_name)
        self.normalization = check_normalization(self, normalization)

    @property
    def spectra(self) -> Mapping[Normalization, SpectrumUse]:
        """See :class:`GraphEncoding`."""
        return {laplacian_kind(self.normalization): "whole"}

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddHeatKernelSE`."""
        diagonals = heat_kernel_diagonals(
            graphs, self.times, self.normalization, dense_limit=self.DENSE_LIMIT
        )
        return [Attribute(self.attr_name, diagonals, graphs.ptr)]


def _check_times(times: Any) -> tuple[float, ...]:
    # Products with eigenvalues, which are at most of this size too, have to be finite.
    largest = float(np.finfo(np.float32).max)
    found: tuple[Any, ...] = ()
    if isinstance(times, Iterable) and not isinstance(times, (str, bytes, Mapping, Set)):
        listed = times.tolist() if isinstance(times, (np.ndarray, Tensor)) else times
        found = tuple(listed) if isinstance(listed, Iterable) else ()
    if not found or not all(is_real(t) and 0 < t <= largest for t in found):
        raise ValueError(
            f"AddHeatKernelSE got times={times!r}; expected a sequence of positive finite "
            "numbers, one a column"
        )
    return tuple(map(float, found))
