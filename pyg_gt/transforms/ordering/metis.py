"""METIS, by `torch_sparse` or `pyg_lib`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ..graphs.graphs import Ints


def metis(adjacency: csr_array, num_parts: int) -> Ints:
    """``[n]``, the part of each node, in ``[0, num_parts)``; a part may be empty.

    From `"A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs"
    <https://doi.org/10.1137/S1064827595287997>`_. ``adjacency`` is symmetric and has no loops.

    Raises:
        ImportError: if no installed package has METIS, with what to install.
    """
    indptr = torch.from_numpy(adjacency.indptr.astype(np.int64))
    indices = torch.from_numpy(adjacency.indices.astype(np.int64))
    missing = []
    for name, partition in (("torch_sparse", _torch_sparse), ("pyg_lib", _pyg_lib)):
        try:
            part: Ints = partition(indptr, indices, num_parts).numpy()
            return part
        except (ImportError, OSError) as error:  # OSError: its library is of another torch
            missing.append(f"{name} cannot be imported ({error})")
        except RuntimeError as error:
            if "METIS support" not in str(error):
                raise
            missing.append(f"{name} was compiled without METIS")
    raise ImportError(
        f"method='metis' found no METIS: {' and '.join(missing)}; install pyg_lib for your torch "
        "(PyG's installation guide says how), or use method='rcm', which needs nothing more"
    )


def _torch_sparse(indptr: Tensor, indices: Tensor, num_parts: int) -> Any:
    import_module("torch_sparse")  # it registers the op
    return torch.ops.torch_sparse.partition(indptr, indices, None, num_parts, False)


def _pyg_lib(indptr: Tensor, indices: Tensor, num_parts: int) -> Any:
    return import_module("pyg_lib").partition.metis(indptr, indices, num_parts)
