"""The weights of ``torch.nn.MultiheadAttention`` run on a ragged batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import MultiheadAttention
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias, attention, qkv_attention


def padding_reason(attn: object) -> str | None:
    """Why the weights of ``attn`` cannot be used outside of its own forward; None if they can."""
    if type(attn) is not MultiheadAttention:
        return f"'attn' is a '{type(attn).__name__}', not a 'torch.nn.MultiheadAttention'"
    if type(attn.out_proj) is not NonDynamicallyQuantizableLinear:
        return f"'attn.out_proj' is a '{type(attn.out_proj).__name__}'"
    if "forward" in vars(attn):
        return "'attn.forward' was replaced"
    if attn.in_proj_weight is None:
        return "'attn' has keys or values of another width ('kdim', 'vdim')"
    if attn.bias_k is not None or attn.add_zero_attn:
        return "'attn' adds keys of its own ('add_bias_kv', 'add_zero_attn')"
    return None


def reset_output(attn: MultiheadAttention) -> None:
    """Draws the weight of ``out_proj`` anew, as made; torch's own reset leaves it as it is."""
    torch.nn.init.kaiming_uniform_(attn.out_proj.weight, a=5**0.5)


def project(
    attn: MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value ``[N, H, C]`` of their inputs ``[N, F]``."""
    if query is key and key is value:
        query, key, value = _project_jointly(attn, query).unbind(1)
        return query, key, value
    biases = [None] * 3 if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
    weights = zip((query, key, value), attn.in_proj_weight.chunk(3), biases, strict=True)
    query, key, value = (
        F.linear(x, weight, bias).view(-1, attn.num_heads, attn.head_dim)
        for x, weight, bias in weights
    )
    return query, key, value


def project_output(attn: MultiheadAttention, out: Tensor) -> Tensor:
    """``[N, F]`` of ``out [N, H, C]``; like torch, not by a call of the module ``out_proj``."""
    return F.linear(out.flatten(1), attn.out_proj.weight, attn.out_proj.bias)


def multihead_attention(
    attn: MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    backend: str,
) -> Tensor:
    """``[N, F]``, what ``attn(query, key, value)`` gives for each graph by itself."""
    dropout_p = attn.dropout if attn.training else 0.0
    if query is key and key is value:
        qkv = _project_jointly(attn, query)
        out = qkv_attention(qkv, layout, biases, dropout_p=dropout_p, backend=backend)
    else:
        parts = project(attn, query, key, value)
        out = attention(*parts, layout, biases, dropout_p=dropout_p, backend=backend)
    return project_output(attn, out)


def _project_jointly(attn: MultiheadAttention, x: Tensor) -> Tensor:
    """``[N, 3, H, C]``."""
    joined = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
    return joined.view(x.size(0), 3, attn.num_heads, attn.head_dim)
