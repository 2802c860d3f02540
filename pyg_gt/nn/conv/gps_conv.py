"""Local message passing and global attention side by side."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.nn.attention import PerformerAttention

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias
from ...ops.dispatch import check_backend
from ..arguments import (
    as_biases,
    check_edge_index,
    check_features,
    check_flags,
    check_heads,
    check_kwargs,
    check_module,
    check_probabilities,
    check_resolvable,
)
from ..attention.multihead import project, project_output, reset_output
from ..attention.route import AttentionRoute
from ..attention.self_attention import self_attention, self_attention_route
from ..message_passing.edge_sets import as_separate_tensor
from ..message_passing.message_reasons import (
    PairMessagePassing,
    check_explained,
    propagate_reason,
    require_concrete_layout,
)
from ..message_passing.pair_messages import PairMessages, pair_messages, weighted_values
from ..norm.graph_norm import normalize


class GPSConv(PyGGPSConv, PairMessagePassing):
    r"""PyG's ``GPSConv`` without padding.

    `"Recipe for a General, Powerful, Scalable Graph Transformer"
    <https://arxiv.org/abs/2205.12454>`_ (Rampasek et al. 2022):

    .. math::
        x' = \mathrm{MLP}(\mathrm{Local}(x, A) + \mathrm{Attention}(x))

    with a residual and a norm around each part. Arguments, parameter names, outputs and printed
    form are PyG's.

    ``x`` is added to what the local part gives, so a local part that adds its input itself adds it
    twice: the published layer has ``GatedGCNConv(C, C, residual=False, edge_residual=True)`` here.

    Args:
        channels (int): ``F``.
        conv (torch.nn.Module, optional): The local part, or None. It may return
            ``(x, edge_attr)``; then so does this layer.
        heads (int): ``H``. (default: :obj:`1`)
        dropout (float): Of the outputs of each part. (default: :obj:`0.0`)
        act (str or Callable): Activation of the MLP. (default: :obj:`"relu"`)
        act_kwargs (dict, optional): Its arguments. (default: :obj:`None`)
        norm (str or Callable, optional): Normalisation, or None. (default: :obj:`"batch_norm"`)
        norm_kwargs (dict, optional): Its arguments. (default: :obj:`None`)
        attn_type (str): ``"multihead"``, or ``"performer"``, which runs PyG's on a padded batch.
            (default: :obj:`"multihead"`)
        attn_kwargs (dict, optional): Arguments of ``torch.nn.MultiheadAttention``; beyond
            ``dropout``, ``bias``, ``device`` and ``dtype``, PyG's padded attention runs.
            (default: :obj:`None`)
        attn_dropout (float, optional): Dropout of the attention weights; the same as
            ``attn_kwargs["dropout"]``. (default: :obj:`None`)
        norm_first (bool): Normalise before each part instead of after it
            (`Xiong et al. 2020 <https://arxiv.org/abs/2002.04745>`_). (default: :obj:`False`)
        attn (torch.nn.Module, optional): Another global part, called as ``attn(x, batch=layout)``,
            with ``biases=`` if given. (default: :obj:`None`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range, dropout of the attention
            is given twice, or ``attn`` and ``attn_kwargs``.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GINEConv
        >>> from pyg_gt.nn import GPSConv
        >>> conv = GPSConv(16, GINEConv(torch.nn.Linear(16, 16)), heads=4)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> edge_index = torch.tensor([[0, 1, 3, 4], [1, 0, 4, 3]])
        >>> conv(x, edge_index, batch, edge_attr=torch.randn(4, 16)).shape
        torch.Size([5, 16])
    """

    attn: Any  # a MultiheadAttention, a PerformerAttention, or the caller's object

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
        attn = self.attn
        if not self._is_own_module():
            super().reset_parameters()
            if isinstance(attn, torch.nn.MultiheadAttention):
                reset_output(attn)
            return
        self.attn = torch.nn.MultiheadAttention(self.channels, self.heads)  # PyG resets only such
        super().reset_parameters()
        self.attn = attn
        attn.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        batch: Tensor | GraphLayout | None = None,
        *,
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
        **kwargs: Any,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor): What the local part takes.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)
            biases (AttentionBias or tuple): What is added to the scores of the global part: a
                bias, or a tuple of them. (default: :obj:`()`)
            **kwargs (optional): Arguments of the local part; left aside without one, as in PyG.

        Returns:
            ``[N, F]``; with a local part that returns edge features, ``(x, edge_attr)``.

        Raises:
            ValueError: For a wrong shape or type, or if ``return_attention_weights`` is asked of
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
            h = self.conv(h, as_separate_tensor(edge_index), **kwargs)
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
        """``[N, F]``: the global part."""
        if self._is_own_module():
            given = {"biases": biases} if biases else {}
            result: Tensor = self.attn(x, batch=layout, **given)
            return result
        messages = None
        if self._message_reason() is not None:
            messages = partial(self._attend_by_messages, layout, biases)
        return self_attention(self.attn, x, layout, biases, self.backend, messages)

    def _attention_route(
        self,
        x: Tensor,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
    ) -> AttentionRoute:
        """How :meth:`_attend` computes, with the same arguments."""
        if self._is_own_module():
            reason = f"its 'attn' is a '{type(self.attn).__name__}' of its own"
            return AttentionRoute("module", reason, self.backend)
        reasons = self._message_reason()
        return self_attention_route(self.attn, x, layout, biases, self.backend, reasons)

    def _is_own_module(self) -> bool:
        """Whether the global part is the caller's object, and no attention of torch or PyG."""
        return not isinstance(self.attn, (torch.nn.MultiheadAttention, PerformerAttention))

    def _message_reason(self) -> str | None:
        return propagate_reason(self, GPSConv, aggregates=False)  # PyG's has no 'aggr_module'

    def _attend_by_messages(
        self,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
        query: Tensor,
        key: Tensor,
        value: Tensor,
    ) -> Tensor:
        query, key, value = project(self.attn, query, key, value)
        pairs = pair_messages(query, key, value, require_concrete_layout(layout), biases)
        check_explained(self, pairs.edge_index.size(1))
        alpha = self.edge_updater(pairs.edge_index, query=query, key=key, pairs=pairs)
        size = (query.size(0), query.size(0))
        out = self.propagate(pairs.edge_index, size=size, value=value, alpha=alpha, pairs=pairs)
        return project_output(self.attn, out)

    def message(self, value_j: Tensor, alpha: Tensor, pairs: PairMessages) -> Tensor:
        """``[L, H, C]``: what each pair sends."""
        return weighted_values(value_j, alpha, pairs, self.attn.dropout, self.attn.training)
