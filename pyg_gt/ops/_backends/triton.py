"""Fused attention on CUDA devices: kernels in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from .._fused.biases import unsupported_biases
from .._fused.edges import edge_attention
from .._fused.full import full_attention
from .._kernels.triton import edges, full
from .._kernels.triton.availability import interprets, is_installed
from ..inputs import Inputs

NAME = "triton"


def unsupported(inputs: Inputs) -> str | None:
    """Why not: other devices and types, wide heads, functions of scores, ``torch.func``."""
    query = inputs.query
    if query.device.type != "cuda" and not (query.device.type == "cpu" and interprets()):
        return f"it needs a CUDA device (got '{query.device}')"
    if not _is_there():
        return "it needs the package 'triton' (pip install 'pyg_gt[triton]')"
    if query.is_cuda and _capability(query.device) < (8, 0):
        found = ".".join(map(str, _capability(query.device)))
        return f"it needs a device of compute capability 8.0 (got {found})"
    if query.dtype not in full.TYPES:
        return f"it computes in float32 from float32, float16 or bfloat16 (got {query.dtype})"
    if query.size(2) > full.MAX_CHANNELS:
        return f"it takes at most {full.MAX_CHANNELS} channels per head (got {query.size(2)})"
    if inputs.is_transformed:
        return "its ops have no forward-mode derivative and no rule for 'torch.func'"
    return unsupported_biases(inputs)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_there() -> bool:
    return is_installed()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    interpreted = not inputs.query.is_cuda
    if inputs.mask is None:
        return full_attention(inputs, NAME, full, eager_only=interpreted)
    return edge_attention(inputs, NAME, edges, eager_only=interpreted)
