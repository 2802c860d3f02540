"""Return probabilities of random walks as a positional encoding."""

from __future__ import annotations

from collections.abc import Mapping

from torch_geometric.data.datapipes import functional_transform

from .graph_encoding import GraphEncoding
from .graphs.arguments import (
    Normalization,
    check_attr_name,
    check_columns,
    check_count,
    check_memory,
)
from .graphs.attributes import Attribute
from .graphs.graphs import Graphs
from .spectra.spectrum import SpectrumUse
from .walks.estimates import estimated_return_probabilities
from .walks.return_probabilities import return_probabilities


@functional_transform("pyg_gt_add_random_walk_pe")
class AddRandomWalkPE(GraphEncoding):
    r"""Adds the probabilities that a random walk is back at its start after 1, 2, ... steps.

    From `"Graph Neural Networks with Learnable Structural and Positional Representations"
    <https://arxiv.org/abs/2110.07875>`_: column ``t - 1`` of ``{attr_name} [N, walk_length]``,
    float32, is the diagonal of ``P^t``. In place of `torch_geometric.transforms.AddRandomWalkPE`,
    whose arguments and meaning it has; the two agree on simple unweighted graphs, also directed
    ones. The functional name is ``pyg_gt_add_random_walk_pe``, since PyG's own is taken.

    **The walk** ``P = D^{-1} W`` leaves a node along its outgoing edges (``edge_index[0]`` to
    ``edge_index[1]``), each with its share of their ``edge_weight``; a repeated edge counts as
    often as it stands, a self-loop is a step, an edge of weight zero is none. So each row of ``P``
    sums to one, or to zero at a node without outgoing edges, where the walk ends.

    **Large components.** Walks from a component of more than :attr:`DENSE_LIMIT` nodes are
    followed some rows of ``P^t`` at a time: exact, in little memory, and in a time that grows with
    ``N E`` where walks reach the whole graph (hours for a social network of 170,000 nodes). With
    ``num_samples``, such components get an unbiased estimate from that many random vectors
    instead (`Hutchinson 1990 <https://doi.org/10.1080/03610919008812866>`_), in a time that grows
    with ``E``, and ``{attr_name}_std [N, walk_length]`` holds its standard error, which is zero
    where a value is exact. The standard error is estimated from the same vectors.

    Args:
        walk_length (int): Number of columns, at most 2^20.
        attr_name (str, optional): Name of the attribute; :obj:`None` appends the encoding to
            ``data.x``. (default: :obj:`"random_walk_pe"`)
        num_samples (int, optional): Number of random vectors of the estimate, at least 2;
            :obj:`None` for exact values. (default: :obj:`None`)
        seed (int, optional): Seed of the random vectors. (default: :obj:`0`)

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddRandomWalkPE
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> AddRandomWalkPE(walk_length=4)(path).random_walk_pe.tolist()
        [[0.0, 0.5, 0.0, 0.5], [0.0, 1.0, 0.0, 1.0], [0.0, 0.5, 0.0, 0.5]]
    """

    #: Number of nodes of a component above which ``P`` is never made dense.
    DENSE_LIMIT: int = 2048

    def __init__(
        self,
        walk_length: int,
        attr_name: str | None = "random_walk_pe",
        *,
        num_samples: int | None = None,
        seed: int = 0,
    ) -> None:
        self.walk_length = check_columns(self, "walk_length", walk_length)
        self.attr_name = check_attr_name(self, attr_name)
        self.num_samples = num_samples
        if num_samples is not None:
            self.num_samples = check_count(self, "num_samples", num_samples, least=2)
            if attr_name is None:
                raise ValueError(
                    f"num_samples={num_samples} estimates, and attr_name=None leaves no name to "
                    "store the standard error under: give an attr_name"
                )
        self.seed = check_count(self, "seed", seed, least=0)

    @property
    def spectra(self) -> Mapping[Normalization, SpectrumUse]:
        """See :class:`GraphEncoding`."""
        return {"sym": "reuse"}

    def encode(self, graphs: Graphs) -> list[Attribute]:
        """See :class:`AddRandomWalkPE`."""
        check_memory(
            self, "walk_length", self.walk_length, 8 * graphs.num_nodes * self.walk_length
        )
        if self.num_samples is None:
            exact = return_probabilities(graphs, self.walk_length, dense_limit=self.DENSE_LIMIT)
            return [Attribute(self.attr_name, exact, graphs.ptr)]
        mean, error = estimated_return_probabilities(
            graphs,
            self.walk_length,
            self.num_samples,
            self.seed,
            exact_up_to=self.DENSE_LIMIT,
        )
        return [
            Attribute(self.attr_name, mean, graphs.ptr),
            Attribute(f"{self.attr_name}_std", error, graphs.ptr),
        ]
