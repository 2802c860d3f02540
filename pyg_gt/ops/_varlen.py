"""FlashAttention on packed graphs: half precision on CUDA, no padding, no bias.

Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning"
(https://arxiv.org/abs/2307.08691), as torch ships it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._varlen_op import PackedAttention
from ._varlen_packed import MAX_CHANNELS, MAX_GRAPHS, TYPES, is_as_known
from .inputs import Inputs
from .op_arguments import distinct, layout_arguments

NAME = "varlen"

# where torch has the kernels
_DEVICE = "cuda"


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query = inputs.query
    if query.device.type != _DEVICE:
        return f"it needs a CUDA device (got '{query.device}')"
    if not _is_as_known():
        return "the FlashAttention of this torch takes other arguments than it gives"
    if query.dtype not in TYPES:
        return f"it needs float16 or bfloat16 (got {query.dtype})"
    if inputs.biases:
        return f"it takes no bias (got {[type(b).__name__ for b in inputs.biases]})"
    if inputs.dropout_p > 0:
        return f"it has no dropout (got {inputs.dropout_p})"
    if query.size(-1) > MAX_CHANNELS:
        return f"it takes at most {MAX_CHANNELS} channels per head (got {query.size(-1)})"
    if inputs.layout.num_graphs > MAX_GRAPHS:
        return f"it takes at most {MAX_GRAPHS:,} graphs (got {inputs.layout.num_graphs:,})"
    if query.is_cuda and _capability(query.device) < (8, 0):
        found = ".".join(map(str, _capability(query.device)))
        return f"it needs a device of compute capability 8.0 (got {found})"
    if inputs.is_transformed:
        return "its op has no forward-mode derivative and no rule for 'torch.func'"
    if torch.are_deterministic_algorithms_enabled() and inputs.requires_grad:
        return "its backward is not deterministic"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_as_known() -> bool:
    return is_as_known()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    query_batch, query_graphs, batch, graphs = layout_arguments(inputs.query_layout, inputs.layout)
    query, key, value, query_batch, batch = distinct(
        inputs.query, inputs.key, inputs.value, query_batch, batch
    )
    out: Tensor = PackedAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, query_batch, query_graphs, batch, graphs, inputs.scale
    )
    return out
