"""Encoders of what transforms have stored in a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data


class StoredEncoder(torch.nn.Module, ABC):
    """Base class of encoders that take tensors, or the batch in which a transform stored them."""

    def from_data(self, data: Data, attr_name: str | None = None) -> Any:
        """The encoding of a batch that the transform has been applied to.

        Args:
            data (Data): A ``Data`` or a ``Batch``.
            attr_name (str, optional): The transform's ``attr_name``; None: its default.
                (default: :obj:`None`)

        Returns:
            What the call with tensors returns.

        Raises:
            ValueError: If an attribute is missing; also as the call with tensors.
            IndexError: As the call with tensors.
        """
        return self(*self._read(data, attr_name))

    @abstractmethod
    def _read(self, data: Data, attr_name: str | None) -> list[Any]:
        """The arguments of a call, found in ``data``."""


def stored(encoder: object, data: Any, cures: dict[str, str]) -> list[Any]:
    """The tensors that ``data`` has under these names.

    Args:
        encoder: Who reads them.
        data: A ``Data`` or a ``Batch``.
        cures: The name of each attribute, and what to do where it is missing.

    Raises:
        ValueError: If ``data`` is no graph or lacks one of them.
    """
    reader = type(encoder).__name__
    if not isinstance(data, Data):
        raise ValueError(
            f"'{reader}.from_data' reads a 'torch_geometric.data.Data' or 'Batch' (got "
            f"'{type(data).__name__}')"
        )
    for name, cure in cures.items():
        if data.get(name) is None:
            raise ValueError(
                f"'{reader}' reads 'data.{name}', which this '{type(data).__name__}' does not "
                f"have; {cure}"
            )
    return [data[name] for name in cures]


def transform_adds(transform: str, arguments: str, attr_name: str) -> str:
    """What to do where an attribute is missing: the call of a transform that adds it."""
    arguments = f'{arguments}, attr_name="{attr_name}"'.removeprefix(", ")
    return f"'pyg_gt.transforms.{transform}({arguments})' adds it"


def stored_eigenpairs(encoder: object, data: Any, attr_name: str | None) -> list[Tensor]:
    """Vectors, values and mask ``[N, k]`` under the names of ``AddLaplacianEigenvectorPE``."""
    name = attr_name or "laplacian_eigenvector_pe"
    cure = transform_adds("AddLaplacianEigenvectorPE", "k", name)
    return stored(encoder, data, dict.fromkeys([name, f"{name}_values", f"{name}_mask"], cure))


def stored_edges(encoder: object, data: Any) -> list[Tensor]:
    """``edge_index [2, E]``."""
    cure = "a graph without edges has an empty one, 'torch.empty(2, 0, dtype=torch.long)'"
    return stored(encoder, data, {"edge_index": cure})
