"""Attention biased and gated by states of pairs, which it updates: EGT."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from ...layout.graph_layout import GraphLayout
from ..arguments import (
    check_counts,
    check_features,
    check_flags,
    check_heads,
    check_probabilities,
    check_resolvable,
    describe,
    is_dense,
)
from ..message_passing.pair_index import pair_index, pair_softmax, pair_sum

_CLAMP = 5.0


class EGTConv(torch.nn.Module):
    r"""The layer of the Edge-augmented Graph Transformer, with states of all pairs of nodes.

    `"Global Self-Attention as a Replacement for Graph Convolution"
    <https://arxiv.org/abs/2108.03348>`_ (Hussain et al. 2022), pre-norm. With :math:`\bar x` and
    :math:`\bar e` after their layer norms, for each head:

    .. math::
        s_{ij} &= \mathrm{clamp}\left( \frac{(W_Q \bar x_i)^\top W_K \bar x_j}{\sqrt{C}}, -5, 5
        \right) + W_E \bar e_{ij}, \quad g_{ij} = \sigma(W_G \bar e_{ij}) \\
        o_i &= d_i \sum_j \mathrm{softmax}_j(s_{ij}) \, g_{ij} \, W_V \bar x_j, \quad
        d_i = \log\left(1 + \sum_j g_{ij}\right)

    with constant terms in all maps, and over all heads:

    .. math::
        h_i &= x_i + W_O o_i, & x_i' &= h_i + \mathrm{MLP}(\mathrm{LN}(h_i)) \\
        f_{ij} &= e_{ij} + W_{Oe} s_{ij}, & e_{ij}' &= f_{ij} + \mathrm{MLP}(\mathrm{LN}(f_{ij}))

    :math:`d_i`, a degree that is learned, is 1 without ``scale_degree``. In place of DGL's
    ``EGTLayer``. Parameters have the names and shapes of the `official code
    <https://github.com/shamim-hussain/egt_pytorch>`_, in which heads vary fastest among the
    channels of queries, keys and values; its random masking of scores is not here.

    **Memory** grows with the pairs: a step keeps some :math:`8 F_e + 4 F + 8 H` numbers of each
    of the :math:`P` pairs for the backward pass.

    Args:
        channels (int): ``F``, of nodes.
        pair_channels (int): Of pairs.
        heads (int): ``H``. (default: :obj:`8`)
        dropout (float): Of the outputs of attention and of the MLP of nodes.
            (default: :obj:`0.0`)
        pair_dropout (float): The same of pairs. (default: :obj:`0.0`)
        attn_dropout (float): Of attention weights. (default: :obj:`0.0`)
        act (str or Callable): Activation of both MLPs. (default: :obj:`"elu"`)
        ffn_channels (int, optional): Width of the MLP of nodes; None: ``2 F``.
            (default: :obj:`None`)
        pair_ffn_channels (int, optional): Width of the MLP of pairs; None: twice their channels.
            (default: :obj:`None`)
        scale_degree (bool): Multiply by :math:`d_i`. (default: :obj:`False`)
        pair_output (bool): Compute and return the states of pairs; without, their parameters are
            left out, as the official code does in a last layer. (default: :obj:`True`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import EGTConv
        >>> conv = EGTConv(16, pair_channels=8, heads=4)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> pair_attr = torch.randn(13, 8)  # 3 * 3 + 2 * 2 pairs
        >>> x, pair_attr = conv(x, pair_attr, batch)
        >>> x.shape, pair_attr.shape
        (torch.Size([5, 16]), torch.Size([13, 8]))
    """

    def __init__(
        self,
        channels: int,
        pair_channels: int,
        heads: int = 8,
        dropout: float = 0.0,
        pair_dropout: float = 0.0,
        attn_dropout: float = 0.0,
        act: Any = "elu",
        ffn_channels: int | None = None,
        pair_ffn_channels: int | None = None,
        scale_degree: bool = False,
        pair_output: bool = True,
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        check_counts(pair_channels=pair_channels)
        check_probabilities(dropout=dropout, pair_dropout=pair_dropout, attn_dropout=attn_dropout)
        check_resolvable("act", act)
        check_flags(scale_degree=scale_degree, pair_output=pair_output)
        ffn_channels = 2 * channels if ffn_channels is None else ffn_channels
        pair_ffn = 2 * pair_channels if pair_ffn_channels is None else pair_ffn_channels
        check_counts(ffn_channels=ffn_channels, pair_ffn_channels=pair_ffn)
        self.channels = channels
        self.pair_channels = pair_channels
        self.heads = heads
        self.dropout = dropout
        self.pair_dropout = pair_dropout
        self.attn_dropout = attn_dropout
        self.scale_degree = scale_degree
        self.pair_output = pair_output
        self.act = activation_resolver(act) if isinstance(act, str) else act
        self.mha_ln_h = LayerNorm(channels)
        self.mha_ln_e = LayerNorm(pair_channels)
        self.lin_E = Linear(pair_channels, heads)
        self.lin_QKV = Linear(channels, 3 * channels)
        self.lin_G = Linear(pair_channels, heads)
        self.lin_O_h = Linear(channels, channels)
        self.ffn_ln_h = LayerNorm(channels)
        self.lin_W_h_1 = Linear(channels, ffn_channels)
        self.lin_W_h_2 = Linear(ffn_channels, channels)
        if pair_output:
            self.lin_O_e = Linear(heads, pair_channels)
            self.ffn_ln_e = LayerNorm(pair_channels)
            self.lin_W_e_1 = Linear(pair_channels, pair_ffn)
            self.lin_W_e_2 = Linear(pair_ffn, pair_channels)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        x: Tensor,
        pair_attr: Tensor,
        batch: Tensor | GraphLayout | None = None,
        is_virtual: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            pair_attr (Tensor): ``[P, pair_channels]``, the state of each pair of nodes of one
                graph, graph by graph, in a graph row by row by (query, key) in the order of its
                nodes.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)
            is_virtual (Tensor, optional): ``[N]`` bool, virtual nodes, whose sums
                ``scale_degree`` leaves as they are. (default: :obj:`None`)
            return_attention_weights (bool, optional): With any value but None also returns
                ``(pairs [2, P], alpha [P, H])``, key above query, gated, before dropout.
                (default: :obj:`None`)

        Returns:
            ``x [N, F]`` and ``pair_attr [P, pair_channels]``, None with ``pair_output=False``.

        Raises:
            ValueError: For a wrong shape or type.
        """
        check_features("x", x, self.channels)
        check_features("pair_attr", pair_attr, self.pair_channels, rows="P")
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        if is_virtual is not None and (
            not is_dense(is_virtual)
            or is_virtual.dtype != torch.bool
            or is_virtual.shape != (x.size(0),)
        ):
            raise ValueError(
                f"'is_virtual' must be a bool for each node, of shape [{x.size(0)}] (got "
                f"{describe(is_virtual)})"
            )
        index = pair_index(layout, pair_attr.size(0), "pair_attr", x.device)
        C = self.channels // self.heads
        query, key, value = self.lin_QKV(self.mha_ln_h(x)).view(-1, 3, C, self.heads).unbind(1)
        e = self.mha_ln_e(pair_attr)
        products = query.index_select(0, index.query) * key.index_select(0, index.key)
        scores = (products.sum(1) / math.sqrt(C)).clamp(-_CLAMP, _CLAMP) + self.lin_E(e)
        gates = self.lin_G(e).sigmoid()
        alpha = pair_softmax(scores, index) * gates
        dropped = F.dropout(alpha, p=self.attn_dropout, training=self.training).unsqueeze(1)
        out = pair_sum(dropped * value.index_select(0, index.key), index)
        if self.scale_degree:
            scale = pair_sum(gates.to(alpha.dtype), index).log1p()
            if is_virtual is not None:
                scale = scale.masked_fill(is_virtual.unsqueeze(1), 1.0)
            out = out * scale.unsqueeze(1)
        h = x + self._drop(self.lin_O_h(out.flatten(1).to(value.dtype)))
        hidden = self.act(self.lin_W_h_1(self.ffn_ln_h(h)))
        h = h + self._drop(self.lin_W_h_2(hidden))
        pairs = self._updated(pair_attr, scores) if self.pair_output else None
        if return_attention_weights is None:
            return h, pairs
        return h, pairs, (torch.stack([index.key, index.query]), alpha)

    def _updated(self, pair_attr: Tensor, scores: Tensor) -> Tensor:
        """``[P, pair_channels]``: the second line for pairs."""
        p, training = self.pair_dropout, self.training
        f = pair_attr + F.dropout(self.lin_O_e(scores), p=p, training=training)
        hidden = self.act(self.lin_W_e_1(self.ffn_ln_e(f)))
        updated: Tensor = f + F.dropout(self.lin_W_e_2(hidden), p=p, training=training)
        return updated

    def _drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, p=self.dropout, training=self.training)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, pair_channels={self.pair_channels}, "
            f"heads={self.heads})"
        )
