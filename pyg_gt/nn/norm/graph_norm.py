"""Calls of norms over the nodes of each graph, also in compiled code."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ...ops.local.sizes import graph_sizes


def normalize(norm: Any, x: Tensor, batch: Tensor | None) -> Tensor:
    """``norm(x, batch=batch)``, as PyG's ``GPSConv`` calls it.

    PyG's norms read the number of graphs off ``batch`` on the host, from which a compiler cannot
    derive a backward pass. Traced code gives it to them: the length of a tensor made by an op.
    """
    if batch is not None and torch.compiler.is_compiling():
        names = inspect.signature(norm.forward).parameters
        for name in ("batch_size", "dim_size"):
            if name in names:
                counted: Tensor = norm(x, batch=batch, **{name: graph_sizes(batch).size(0)})
                return counted
    out: Tensor = norm(x, batch=batch)
    return out
