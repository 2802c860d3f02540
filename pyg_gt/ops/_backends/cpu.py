"""Fused attention on a CPU: C++ that the system's compiler makes on first use."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layout.values import is_traced
from .._fused.biases import unsupported_biases
from .._fused.edges import edge_attention
from .._fused.full import full_attention
from .._kernels.cpu import edges, full
from ..inputs import Inputs
from ..traced_layouts import NOT_IN_A_TRACE

NAME = "cpu"


def unsupported(inputs: Inputs) -> str | None:
    """Why not: other devices and types, functions of scores, ``torch.func``, no compiler."""
    query, mask = inputs.query, inputs.mask
    if query.device.type != "cpu":
        return f"it runs on CPU tensors (got '{query.device}')"
    if query.dtype not in full.TYPES:
        return f"it computes in float32 from float32 or bfloat16 (got {query.dtype})"
    if inputs.is_transformed:
        return "its ops have no forward-mode derivative and no rule for 'torch.func'"
    if mask is not None:
        if inputs.heads == 0:
            return "it needs heads to attend along edges (got none)"
        if mask.features is not None and mask.features.dtype != query.dtype:
            return (
                f"'features' must be of the type of 'query' (got {mask.features.dtype} and "
                f"{query.dtype})"
            )
        if is_traced() and inputs.layout.num_graphs != 1:
            return NOT_IN_A_TRACE
    return unsupported_biases(inputs) or _why_not_compiled(mask is not None)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _why_not_compiled(along_edges: bool) -> str | None:
    reason: str | None = _ask(along_edges)
    return reason


# in traced code too the first call compiles C++, of which Dynamo must see nothing
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _ask(along_edges: bool) -> str | None:
    return edges.why_not() if along_edges else full.why_not()


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    if inputs.mask is None:
        return full_attention(inputs, NAME, full)
    return edge_attention(inputs, NAME, edges)
