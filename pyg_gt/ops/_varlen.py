"""FlashAttention on packed graphs: half precision on CUDA, no padding, no bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._identity import is_readable
from ._checked import resolved
from ._inputs import Inputs

NAME = "varlen"


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query = inputs.query
    if query.device.type != "cuda":
        return f"it needs a CUDA device (got '{query.device}')"
    if query.dtype not in (torch.float16, torch.bfloat16):
        return f"it needs float16 or bfloat16 (got {query.dtype})"
    if inputs.biases:
        return f"it takes no bias (got {[type(b).__name__ for b in inputs.biases]})"
    if inputs.dropout_p > 0:
        return f"it has no dropout (got {inputs.dropout_p})"
    if query.size(-1) > 256:
        return f"it takes at most 256 channels per head (got {query.size(-1)})"
    if inputs.is_transformed:
        return "its op has no forward-mode derivative and no rule for 'torch.func'"
    if not is_readable(query):
        return "it needs the size of the largest graph, which traced code cannot read"
    if torch.are_deterministic_algorithms_enabled() and inputs.requires_grad:
        return "its backward is not deterministic"
    return None


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    from torch.nn.attention.varlen import varlen_attn

    query_layout, layout = resolved(inputs.query_layout, inputs.layout, inputs.query.device)
    q, k, v = inputs.query, inputs.key, inputs.value
    if query_layout.order is not None:
        q = q[query_layout.order]
    if layout.order is not None:
        k, v = k[layout.order], v[layout.order]
    channels = q.size(-1)
    extra = -channels % 8  # the kernel reads eight channels at a time
    q, k, v = (F.pad(x, (0, extra)) for x in (q, k, v))
    packed = varlen_attn(
        q, k, v, query_layout.once("ptr32", query_layout.ptr.int),
        layout.once("ptr32", layout.ptr.int), query_layout.max_nodes, layout.max_nodes,
        scale=inputs.scale,
    )  # fmt: skip
    assert isinstance(packed, Tensor)
    out = packed[..., :channels]
    if query_layout.order is not None:
        out = torch.empty_like(out).index_copy(0, query_layout.order, out)
    return out
