"""Self-attention whose module has hooks, which are called with PyG's padded batch.

A hook on ``torch.nn.MultiheadAttention`` expects a padded batch ``[B, M, F]``, as PyG's
``GPSConv`` hands it over. So that is what the module is called with; but where it would compute
attention of the padded batch, the ragged one is computed, as without hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import MultiheadAttention
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import TorchFunctionMode

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias, attention
from .multihead import multihead_attention, project, project_output

# from the inputs [N, F] of query, key and value to the output [N, F]
Compute = Callable[[Tensor, Tensor, Tensor], Tensor]


def has_hooks(attn: MultiheadAttention) -> bool:
    """Whether calling ``attn`` would call a hook."""
    if (
        attn._forward_hooks
        or attn._forward_pre_hooks
        or attn._backward_hooks
        or attn._backward_pre_hooks
    ):
        return True
    # a compiler does not see global hooks either
    return not torch.compiler.is_compiling() and bool(_has_any_global_hook())


@torch.compiler.disable(  # type: ignore[untyped-decorator]
    reason="hooks on attention see a padded batch, whose size is data"
)
def hooked_attention(
    attn: MultiheadAttention,
    x: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    backend: str,
    compute: Compute | None = None,
) -> Tensor:
    """``[N, F]``, as :func:`multihead_attention` gives it, with the hooks on ``attn`` called.

    Args:
        attn: The module; called as ``attn(h, h, h, key_padding_mask=..., need_weights=False)``,
            where ``h [B, M, F]`` is padded with zeros.
        x: ``[N, F]``.
        layout: How ``x`` is split into graphs.
        biases: What is added to scores.
        backend: Which attention backend runs.
        compute: Another way to compute attention; None: the fused one.
    """
    concrete = GraphLayout.of(layout, x.size(0), device=x.device)
    if not isinstance(concrete, GraphLayout):
        raise RuntimeError(
            "hooks on attention see a padded batch, whose size a trace or an export would keep as "
            "a constant: remove them before 'torch.jit.trace' or 'torch.export'"
        )

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return multihead_attention(attn, query, key, value, concrete, biases, backend)

    padded = _pad(x, concrete)
    with _OnRaggedBatch(attn, concrete, padded, biases, compute or fused):
        out, _ = attn(
            padded.x, padded.x, padded.x, key_padding_mask=padded.mask, need_weights=False
        )
    rows: Tensor = out.flatten(0, 1)[padded.slots]
    return rows


class _Padded(NamedTuple):
    """A padded batch.

    Attributes:
        x: ``[B, M, F]``.
        mask: ``[B, M]``, True where there is no node (but for the first place of a graph without
            nodes: a softmax over nothing would be NaN).
        slots: ``[N]``, where each node stands in ``[B * M]``.
    """

    x: Tensor
    mask: Tensor
    slots: Tensor


def _pad(x: Tensor, layout: GraphLayout) -> _Padded:
    B, M = max(layout.num_graphs, 1), max(layout.max_nodes, 1)
    slots = layout.batch * M + layout.pos
    dense = x.new_zeros(B * M, x.size(1)).index_copy(0, slots, x).view(B, M, -1)
    mask = torch.ones(B * M, dtype=torch.bool, device=x.device).index_fill_(0, slots, 0)
    mask = mask.view(B, M)
    mask[:, 0] = False
    return _Padded(dense, mask, slots)


class _OnRaggedBatch(TorchFunctionMode):
    """Computes the attention of one call of ``attn`` on the nodes alone.

    Where a pre-hook has asked for something else than PyG does (weights, another mask), torch's
    own attention of the padded batch runs.
    """

    def __init__(
        self,
        attn: MultiheadAttention,
        layout: GraphLayout,
        padded: _Padded,
        biases: tuple[AttentionBias, ...],
        compute: Compute,
    ) -> None:
        super().__init__()
        self.attn = attn
        self.layout = layout
        self.padded = padded
        self.biases = biases
        self.compute = compute

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.multi_head_attention_forward or args[5] is not self.attn.in_proj_weight:
            return func(*args, **kwargs)
        if not self._is_asked_as_pyg_asks(args, kwargs):
            if self.biases:
                raise NotImplementedError(
                    "a hook on this attention asks for its weights or changes its mask, which "
                    "torch's own attention would have to do, and that knows no 'biases'"
                )
            return func(*args, **kwargs)
        inputs: dict[int, Tensor] = {}  # the same tensor thrice must stay the same thrice
        for x in args[:3]:  # [M, B, F]
            if id(x) not in inputs:
                inputs[id(x)] = x.transpose(0, 1).flatten(0, 1)
        rows = {name: x[self.padded.slots] for name, x in inputs.items()}
        query, key, value = (rows[id(x)] for x in args[:3])
        out = self.compute(query, key, value)
        M, B = args[0].shape[:2]
        dense = out.new_zeros(B * M, out.size(1)).index_copy(0, self.padded.slots, out)
        if self.attn._forward_hooks:
            dense = self._with_rows_of_padding(dense, inputs[id(args[0])], key, value)
        return dense.view(B, M, -1).transpose(0, 1), None

    def _is_asked_as_pyg_asks(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        mask = kwargs["key_padding_mask"]
        return (
            not kwargs["need_weights"]
            and kwargs["attn_mask"] is None
            and not kwargs["is_causal"]
            and mask is not None
            and all(x.shape == args[0].shape for x in args[:3])
            and mask.shape == self.padded.mask.shape
            and bool(torch.equal(mask.bool(), self.padded.mask))
        )

    def _with_rows_of_padding(
        self, dense: Tensor, queries: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """What torch gives in rows that belong to no node: a hook may look at them."""
        sizes, M = self.layout.sizes, self.padded.mask.size(1)
        free = torch.ones_like(self.padded.mask).flatten().index_fill_(0, self.padded.slots, 0)
        slots = free.nonzero().flatten()
        if slots.numel() == 0 or not sizes:
            return dense
        query_layout = GraphLayout.from_sizes([M - n for n in sizes], dense.device)
        queries = queries[slots]
        q, _, _ = project(self.attn, queries, queries, queries)
        _, k, v = project(self.attn, key, key, value)
        out = attention(q, k, v, self.layout, query_layout=query_layout)
        return dense.index_copy(0, slots, project_output(self.attn, out).to(dense.dtype))
