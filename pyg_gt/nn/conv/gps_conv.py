"""Local message passing and global attention side by side."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.attention import PerformerAttention

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias
from .._arguments import (
    as_biases,
    check_backend,
    check_edge_index,
    check_features,
    check_flags,
    check_heads,
    check_kwargs,
    check_module,
    check_probabilities,
    check_resolvable,
)
from .._multihead import (
    multihead_attention,
    project,
    project_output,
    reset_output,
    why_not_ragged,
)
from .._padded import padded_attention
from .._watched import is_watched, watched_attention
from ._edge_forms import own_object
from ._graph_norms import normalize
from ._routes import (
    ExplainedOnRequest,
    Pairs,
    check_explained,
    needs_propagate,
    now,
    pairs_of,
)
from .full_transformer_conv import pair_weights, weighted_values


class GPSConv(PyGGPSConv, ExplainedOnRequest):
    r"""PyG's ``GPSConv`` without padding.

    "Recipe for a General, Powerful, Scalable Graph Transformer" (Rampasek et al. 2022,
    https://arxiv.org/abs/2205.12454):

    .. math::
        x' = \mathrm{MLP}(\mathrm{Local}(x, A) + \mathrm{Attention}(x))

    with a residual and a norm around each part. Arguments, parameter names, outputs and printed
    form are PyG's.

    Args:
        channels: ``F``.
        conv: the local part, or None. It may return ``(x, edge_attr)``; then so does this layer.
        heads: ``H``.
        dropout: of the outputs of each part.
        act: activation of the MLP.
        act_kwargs: its arguments.
        norm: normalisation, or None.
        norm_kwargs: its arguments.
        attn_type: ``"multihead"``, or ``"performer"``, which runs PyG's on a padded batch.
        attn_kwargs: of ``torch.nn.MultiheadAttention``; beyond ``dropout``, ``bias``, ``device``
            and ``dtype``, PyG's padded attention runs.
        attn_dropout: dropout of the attention weights; the same as ``attn_kwargs["dropout"]``.
        norm_first: normalise before each part instead of after it (Xiong et al. 2020).
        attn: another global part, called as ``attn(x, batch=layout)``, with ``biases=`` if given.
        backend: which attention backend runs; see :func:`pyg_gt.attention`.

    Raises:
        ValueError: if an argument is of the wrong type or out of range, dropout of the attention
            is given twice, or ``attn`` and ``attn_kwargs``.
    """

    attn: Any  # a MultiheadAttention, a PerformerAttention, or the caller's object

    # not the ones that PyG generates for the parent class, which name the parent's arguments
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

    def __init__(
        self,
        channels: int,
        conv: torch.nn.Module | None,
        heads: int = 1,
        dropout: float = 0.0,
        act: str = "relu",
        act_kwargs: dict[str, Any] | None = None,
        norm: str | None = "batch_norm",
        norm_kwargs: dict[str, Any] | None = None,
        attn_type: str = "multihead",
        attn_kwargs: dict[str, Any] | None = None,
        *,
        attn_dropout: float | None = None,
        norm_first: bool = False,
        attn: torch.nn.Module | None = None,
        backend: str = "auto",
    ) -> None:
        check_heads(channels, heads)
        check_probabilities(dropout=dropout)
        check_flags(norm_first=norm_first)
        check_backend(backend)
        check_module("conv", conv)
        check_module("attn", attn)
        check_resolvable("act", act)
        if norm is not None:
            check_resolvable("norm", norm)
        check_kwargs(act_kwargs=act_kwargs, norm_kwargs=norm_kwargs, attn_kwargs=attn_kwargs)
        attn_kwargs = dict(attn_kwargs or {})
        if attn_dropout is not None:
            if "dropout" in attn_kwargs:
                raise ValueError(
                    f"attention dropout is given twice: attn_dropout={attn_dropout} and "
                    f"attn_kwargs['dropout']={attn_kwargs['dropout']}; leave one out"
                )
            attn_kwargs["dropout"] = attn_dropout
        if "dropout" in attn_kwargs:
            check_probabilities(attn_dropout=attn_kwargs["dropout"])
        if attn is not None and attn_kwargs:
            raise ValueError(f"'attn' is an object already: {sorted(attn_kwargs)} cannot reach it")
        super().__init__(
            channels, conv, heads, dropout, act, act_kwargs, norm, norm_kwargs, attn_type,
            attn_kwargs,
        )  # fmt: skip
        self.node_dim = 0
        self.norm_first = norm_first
        self.backend = backend
        # explainers mask the edges of the local part, as with PyG's layer
        self.explain = False
        if attn is not None:
            self.attn = attn

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        own = self.attn
        if isinstance(own, (torch.nn.MultiheadAttention, PerformerAttention)):
            super().reset_parameters()
            if isinstance(own, torch.nn.MultiheadAttention):
                reset_output(own)
            return
        self.attn = torch.nn.MultiheadAttention(self.channels, self.heads)  # PyG resets only such
        super().reset_parameters()
        self.attn = own
        own.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        batch: Any = None,
        *,
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
        **kwargs: Any,
    ) -> Any:
        """Runs the layer.

        Args:
            x: ``[N, F]``.
            edge_index: what the local part takes.
            batch: ``[N]``, a ``GraphLayout``, or None for one graph.
            biases: what is added to the scores of the global part: a bias, or a tuple of them.
            **kwargs: for the local part; left aside without one, as in PyG.

        Returns:
            ``[N, F]``; with a local part that returns edge features, ``(x, edge_attr)``.

        Raises:
            ValueError: for a wrong shape or type, or if ``return_attention_weights`` is asked of
                a layer without a local part.
        """
        check_features("x", x, self.channels)
        check_edge_index(edge_index, read_here=self.conv is None)
        if self.conv is None and kwargs.get("return_attention_weights") is not None:
            raise ValueError(
                "'return_attention_weights' is for the local part, and this layer has none "
                "(conv=None); weights of global attention are seen by a hook on its messages "
                "('register_message_forward_pre_hook'), or returned by 'FullTransformerConv'"
            )
        biases = as_biases(biases)
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        index = batch if isinstance(batch, Tensor) or batch is None else layout.batch
        parts = []
        edge_attr: Tensor | None = None
        returns_edges = False
        if self.conv is not None:
            h = self._norm(self.norm1, x, index) if self.norm_first else x
            h = self.conv(h, own_object(edge_index), **kwargs)
            if returns_edges := isinstance(h, tuple):
                h, edge_attr = h
            parts.append(self._residual(h, x, self.norm1, index))

        h = self._norm(self.norm2, x, index) if self.norm_first else x
        parts.append(self._residual(self._attend(h, layout, biases), x, self.norm2, index))

        out = parts[0] + parts[1] if len(parts) == 2 else parts[0]
        if self.norm_first:
            out = out + self.mlp(self._norm(self.norm3, out, index))
        else:
            out = self._norm(self.norm3, out + self.mlp(out), index)
        return (out, edge_attr) if returns_edges else out

    def _residual(self, h: Tensor, x: Tensor, norm: Any, index: Tensor | None) -> Tensor:
        h = F.dropout(h, p=self.dropout, training=self.training) + x
        return h if self.norm_first else self._norm(norm, h, index)

    def _norm(self, norm: Any, h: Tensor, index: Tensor | None) -> Tensor:
        if norm is None:
            return h
        if self.norm_with_batch:
            return normalize(norm, h, index)
        result: Tensor = norm(h)
        return result

    def _attend(
        self,
        x: Tensor,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
    ) -> Tensor:
        attn = self.attn
        reason = why_not_ragged(attn)
        if reason is not None:
            if isinstance(attn, (torch.nn.MultiheadAttention, PerformerAttention)):
                return padded_attention(attn, x, layout, biases, reason)
            given = {"biases": biases} if biases else {}
            result: Tensor = attn(x, batch=layout, **given)
            return result
        # PyG's layer has no 'aggr_module'
        sends = needs_propagate(self, GPSConv, aggregates=False)
        if is_watched(attn):
            compute = partial(self._attend_by_messages, layout, biases) if sends else None
            watched: Tensor = watched_attention(attn, x, layout, biases, self.backend, compute)
            return watched
        if sends:
            return self._attend_by_messages(layout, biases, x, x, x)
        return multihead_attention(attn, x, x, x, layout, biases, self.backend)

    def _attend_by_messages(
        self,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
        query: Tensor,
        key: Tensor,
        value: Tensor,
    ) -> Tensor:
        query, key, value = project(self.attn, query, key, value)
        pairs = pairs_of(query, key, value, now(layout), biases)
        check_explained(self, pairs.edge_index.size(1))
        alpha = self.edge_updater(pairs.edge_index, query=query, key=key, pairs=pairs)
        size = (query.size(0), query.size(0))
        out = self.propagate(pairs.edge_index, size=size, value=value, alpha=alpha, pairs=pairs)
        return project_output(self.attn, out)

    def edge_update(
        self, query_i: Tensor, key_j: Tensor, pairs: Pairs, index: Tensor, size_i: int | None
    ) -> Tensor:
        """``[L, H]``: the attention weight of each message."""
        return pair_weights(query_i, key_j, pairs, index, size_i)

    def message(self, value_j: Tensor, alpha: Tensor, pairs: Pairs) -> Tensor:
        """``[L, H, C]``: what each pair sends."""
        return weighted_values(value_j, alpha, pairs, self.attn.dropout, self.attn.training)
