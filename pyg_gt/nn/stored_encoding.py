"""What encoders read of a batch: the attributes that transforms have stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.data import Data

EDGES = "a graph without edges has an empty one, 'torch.empty(2, 0, dtype=torch.long)'"


def stored(encoder: object, data: Any, names: dict[str, str]) -> list[Tensor]:
    """The tensors that ``data`` has under these names.

    Args:
        encoder: Who reads them.
        data: A ``Data`` or a ``Batch``.
        names: The name of each attribute, and what to do where it is missing.

    Raises:
        ValueError: If ``data`` is no graph or lacks one of them.
    """
    reader = type(encoder).__name__
    if not isinstance(data, Data):
        raise ValueError(
            f"'{reader}.from_data' reads a 'torch_geometric.data.Data' or 'Batch' (got "
            f"'{type(data).__name__}')"
        )
    tensors = []
    for name, cure in names.items():
        tensor = data.get(name)
        if tensor is None:
            raise ValueError(
                f"'{reader}' reads 'data.{name}', which this '{type(data).__name__}' does not "
                f"have; {cure}"
            )
        tensors.append(tensor)
    return tensors


def stored_eigenpairs(encoder: object, data: Any, attr_name: str) -> list[Tensor]:
    """Vectors, values and mask ``[N, k]`` under the names of ``AddLaplacianEigenvectorPE``."""
    maker = f"'pyg_gt.transforms.AddLaplacianEigenvectorPE(k, attr_name=\"{attr_name}\")'"
    names = [attr_name, f"{attr_name}_values", f"{attr_name}_mask"]
    return stored(encoder, data, dict.fromkeys(names, f"{maker} adds it"))
