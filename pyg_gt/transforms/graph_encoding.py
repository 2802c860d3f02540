"""The base class of all encodings: attributes computed of graphs, one or many at a time."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from .compiled.blas import threads_for
from .graphs.arguments import Normalization
from .graphs.attributes import Attribute, checked_attributes, write
from .graphs.graphs import Graphs
from .graphs.read import read_graphs
from .spectra.spectrum import SpectrumUse


class GraphEncoding(BaseTransform):
    """Base class of transforms that add attributes to graphs and change none.

    A subclass has an ``__init__`` that stores each argument under its own name, and
    :meth:`encode`, which computes the attributes of one graph or of many side by side, each as if
    it were alone. So it can be called with a `Data` or a `Batch`, and given to
    :func:`pyg_gt.transforms.precompute` and :class:`pyg_gt.transforms.EncodeAndCollate`; a graph
    gets the same from each, up to rounding. (A `Batch` gives back in ``to_data_list`` only what
    was on its graphs when it was made.)

    Raises:
        ValueError: for an argument, an ``edge_index`` or an ``edge_weight`` that is not as said;
            if an edge joins two graphs; for an ``x`` of whole numbers to which floats are to be
            appended.
        IndexError: if ``edge_index`` holds a node that is not there.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import Attribute, GraphEncoding
        >>> class AddGraphSize(GraphEncoding):
        ...     reads_weights = False
        ...
        ...     def __init__(self, attr_name="graph_size"):
        ...         self.attr_name = attr_name
        ...
        ...     def encode(self, graphs):
        ...         size = np.repeat(graphs.sizes, graphs.sizes)[:, None]  # [N, 1]
        ...         return [Attribute(self.attr_name, size, graphs.ptr)]
        >>> data = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> AddGraphSize()(data).graph_size.tolist()
        [[3], [3], [3]]
        >>> AddGraphSize()
        AddGraphSize(attr_name='graph_size')
    """

    #: Whether it reads weights as numbers, or only whether there is an edge.
    reads_weights: ClassVar[bool] = True

    @property
    def spectra(self) -> Mapping[Normalization, SpectrumUse]:
        """The Laplacians whose spectra this encoding reads, so that several share them."""
        return {}

    @abstractmethod
    def encode(self, graphs: Graphs) -> list[Attribute]:
        """The attributes of ``graphs``, each graph's as if it were alone.

        Args:
            graphs (Graphs): One graph or many side by side.
        """

    def forward(self, data: Data) -> Data:
        """Adds the attributes to ``data``, a `Data` or a `Batch`."""
        graphs = read_graphs([data], reads_weights=self.reads_weights)
        with threads_for(graphs.max_nodes):
            attributes = checked_attributes(type(self).__name__, self.encode(graphs), graphs)
        write(data, attributes, graphs)
        return data

    def __repr__(self) -> str:
        # PyG decides by it whether a pre_transform has changed, so no argument may be missing.
        arguments: dict[str, Any] = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(sorted(getattr(self, name).items()))
            else:
                arguments[name] = getattr(self, name)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
