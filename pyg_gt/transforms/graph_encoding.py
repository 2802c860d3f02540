"""What every transform here is: attributes computed of graphs, one or many at a time."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from .compiled.blas import threads_for
from .graphs.arguments import Normalization
from .graphs.attributes import Attribute, write
from .graphs.graphs import Graphs, read_graphs
from .spectra.eigenvectors import SpectrumUse


class GraphEncoding(BaseTransform):
    """A transform that adds attributes and changes none, the same alone and among others.

    A subclass has an ``__init__`` that stores each argument under its own name, and ``encode``.
    """

    #: Whether it reads weights as numbers, or only whether there is an edge.
    reads_weights: ClassVar[bool] = True

    @property
    def spectra(self) -> Mapping[Normalization, SpectrumUse]:
        """The Laplacians whose spectra this encoding reads, so that several share them."""
        return {}

    @abstractmethod
    def encode(self, graphs: Graphs) -> list[Attribute]:
        """The attributes of ``graphs``, each graph's as if it were alone."""

    def forward(self, data: Data) -> Data:
        """Adds the attributes to ``data``, a `Data` or a `Batch`."""
        graphs = read_graphs([data], reads_weights=self.reads_weights)
        with threads_for(graphs):
            attributes = self.encode(graphs)
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
