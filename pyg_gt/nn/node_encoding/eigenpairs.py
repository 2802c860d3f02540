"""The check of eigenvectors, eigenvalues and their mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import describe


def masked_eigenpairs(
    vectors: Any, values: Any, mask: Any, k: int | None = None
) -> tuple[Tensor, Tensor]:
    """``vectors`` and ``values [N, k]`` with zeros where ``mask`` says that there is no pair.

    Raises:
        ValueError: if the three are not of one shape ``[N, k]``, or of the wrong type.
    """
    width = "k" if k is None else k
    columns = {
        "vectors": (vectors, "laplacian_eigenvector_pe"),
        "values": (values, "laplacian_eigenvector_pe_values"),
        "mask": (mask, "laplacian_eigenvector_pe_mask"),
    }
    for name, (tensor, attribute) in columns.items():
        if not isinstance(tensor, Tensor) or tensor.is_nested or tensor.layout != torch.strided:
            raise ValueError(
                f"'{name}' must be a dense tensor of shape [N, {width}] (got {describe(tensor)}); "
                f"'AddLaplacianEigenvectorPE({width})' makes it as 'data.{attribute}'"
            )
    if vectors.dim() != 2 or not vectors.is_floating_point() or k not in (None, vectors.size(1)):
        raise ValueError(
            f"'vectors' must be floating-point of shape [N, {width}] (got {vectors.dtype} of "
            f"shape {list(vectors.shape)}); 'AddLaplacianEigenvectorPE(k)' makes [N, k]"
        )
    for name, tensor in (("values", values), ("mask", mask)):
        if tensor.shape != vectors.shape:
            raise ValueError(
                f"'{name}' must have the shape of 'vectors', {list(vectors.shape)} (got "
                f"{list(tensor.shape)}); eigenvalues of a graph are repeated for each of its nodes"
            )
    if mask.dtype != torch.bool:
        raise ValueError(
            f"'mask' must be of type torch.bool, True where there is an eigenpair (got "
            f"{mask.dtype}); convert it with '.bool()'"
        )
    # filled, not multiplied: padding may be NaN
    return vectors.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
