"""Self-attention run as a module on a padded batch, as in PyG."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import MultiheadAttention
from torch_geometric.utils import to_dense_batch

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...layout.values import is_traced
from ...ops import AttentionBias


def padded_attention(
    attn: Any,
    x: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    reason: str,
) -> Tensor:
    """``[N, F]``: ``attn``, a multi-head or Performer attention, run on ``[B, M, F]``.

    Args:
        attn: The module.
        x: ``[N, F]``.
        layout: How ``x`` is split into graphs.
        biases: Must be empty.
        reason: Why it is run so.
    """
    if biases:
        raise ValueError(
            f"'biases' cannot reach this layer's attention, which runs as a module on a "
            f"padded batch: {reason}"
        )
    if is_traced():
        raise RuntimeError(
            f"'torch.jit.trace' would keep the sizes of the padded batch as constants, on which "
            f"this layer's attention runs ({reason}); use 'torch.export.export'"
        )
    multihead = isinstance(attn, MultiheadAttention)
    if multihead and not torch.compiler.is_compiling():
        warnings.warn(
            f"global attention runs on a padded batch, as in PyG, which costs time and "
            f"memory: {reason}",
            stacklevel=2,
        )
    order = layout.order if isinstance(layout, GraphLayout) else None
    batch = layout.batch
    if order is not None and batch is not None:  # 'to_dense_batch' wants it sorted
        x, batch = x[order], batch[order]
    dense, mask = to_dense_batch(x, batch)
    if multihead:
        padding = ~mask
        # a softmax over no key would be NaN, and so would gradients be, for a graph without nodes
        padding[:, 0] = False
        dense, _ = attn(dense, dense, dense, key_padding_mask=padding, need_weights=False)
    else:
        dense = attn(dense, mask=mask)
    out: Tensor = dense[mask]
    return out if order is None else torch.empty_like(out).index_copy(0, order, out)
