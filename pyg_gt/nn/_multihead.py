"""The weights of ``torch.nn.MultiheadAttention`` run on a ragged batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import MultiheadAttention
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..layout import DeferredLayout, GraphLayout
from ..ops import AttentionBias, qkv_attention


def why_not_ragged(attn: object) -> str | None:
    """Why the weights of ``attn`` cannot be used outside of its own forward; None if they can."""
    if type(attn) is not MultiheadAttention:
        return f"'attn' is a '{type(attn).__name__}', not a 'torch.nn.MultiheadAttention'"
    if type(attn.out_proj) is not NonDynamicallyQuantizableLinear:
        return f"'attn.out_proj' is a '{type(attn.out_proj).__name__}'"
    for name, module in (("attn", attn), ("attn.out_proj", attn.out_proj)):
        if (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
        ):
            return f"'{name}' has hooks"
        if "forward" in vars(module):
            return f"'{name}.forward' was replaced"
    if attn.in_proj_weight is None:
        return "'attn' has keys or values of another width ('kdim', 'vdim')"
    if attn.bias_k is not None or attn.add_zero_attn:
        return "'attn' adds keys of its own ('add_bias_kv', 'add_zero_attn')"
    return None


def reset_output(attn: MultiheadAttention) -> None:
    """Draws the weight of ``out_proj`` anew, as made; torch's own reset leaves it as it is."""
    torch.nn.init.kaiming_uniform_(attn.out_proj.weight, a=5**0.5)


def project(attn: MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value ``[N, H, C]`` of ``x [N, F]``."""
    query, key, value = _project(attn, x).unbind(1)
    return query, key, value


def _project(attn: MultiheadAttention, x: Tensor) -> Tensor:
    joined = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
    return joined.view(x.size(0), 3, attn.num_heads, attn.head_dim)


def multihead_attention(
    attn: MultiheadAttention,
    x: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    backend: str,
) -> Tensor:
    """``[N, F]``, what ``attn(x, x, x)`` gives for each graph by itself."""
    dropout_p = attn.dropout if attn.training else 0.0
    qkv = _project(attn, x)
    out = qkv_attention(qkv, layout, biases, dropout_p=dropout_p, backend=backend)
    projected: Tensor = attn.out_proj(out.flatten(1))
    return projected
