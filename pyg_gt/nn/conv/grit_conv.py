"""Attention whose scores come from states of pairs, which it updates: GRIT."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear, Parameter
from torch.nn.init import xavier_normal_
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from ...layout.graph_layout import GraphLayout
from ..arguments import (
    check_features,
    check_flags,
    check_heads,
    check_probabilities,
    check_resolvable,
    describe,
    is_dense,
)
from ..message_passing.pair_index import PairIndex, pair_index, pair_sum
from ..norm.batch_norm import BatchNorm

_CLAMP = 5.0


class GRITConv(torch.nn.Module):
    r"""The layer of GRIT: attention among all nodes of a graph that updates states of pairs.

    `"Graph Inductive Biases in Transformers without Message Passing"
    <https://arxiv.org/abs/2305.17589>`_ (Ma et al. 2023). For each head, with
    :math:`\rho(t) = \sqrt{\max(t, 0)} - \sqrt{\max(-t, 0)}`:

    .. math::
        \hat e_{ij} &= \mathrm{ReLU}\left( \rho\left( (W_Q x_i + W_K x_j) \odot W_{Ew} e_{ij}
        \right) + W_{Eb} e_{ij} \right) \\
        \alpha_{ij} &= \mathrm{softmax}_j \, \mathrm{clamp}(a^\top \hat e_{ij}, -5, 5), \quad
        o_i = \sum_j \alpha_{ij} (W_V x_j + W_{Ev} \hat e_{ij})

    and over all heads, with the degree :math:`d_i` of each node:

    .. math::
        h_i &= \mathrm{norm}(x_i + W_O (\theta_1 \odot o_i + \theta_2 \odot \log(1 + d_i) \, o_i))
        \\
        x_i' &= \mathrm{norm}(h_i + W_2 \, \mathrm{act}(W_1 h_i)), \quad
        e_{ij}' = \mathrm{norm}(e_{ij} + W_{Oe} \hat e_{ij})

    Parameters have the names of the `official code <https://github.com/LiamMa/GRIT>`_. The
    derivative of :math:`\rho` at zero is taken as zero.

    **Memory** grows with the pairs: a step keeps some :math:`10 F` numbers of each of the
    :math:`P` pairs for the backward pass, 44 MB a layer for 32 molecules of 23 nodes in float32
    with ``F = 64``, and 4.4 GB for one graph of 1,300 nodes.

    Args:
        channels (int): ``F``, of nodes and of pairs.
        heads (int): ``H``. (default: :obj:`8`)
        dropout (float): Of the outputs of attention and inside the MLP. (default: :obj:`0.0`)
        attn_dropout (float): Of attention weights. (default: :obj:`0.0`)
        act (str or Callable): Activation of the MLP. (default: :obj:`"relu"`)
        norm (str, optional): ``"batch_norm"``, over nodes and over pairs; ``"layer_norm"``; or
            None. (default: :obj:`"batch_norm"`)
        pair_output (bool): Compute and return the states of pairs; without, their parameters are
            left out (of a last layer, nobody reads them). (default: :obj:`True`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import GRITConv
        >>> conv = GRITConv(16, heads=4)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> pair_attr = torch.randn(13, 16)  # 3 * 3 + 2 * 2 pairs
        >>> degree = torch.tensor([1, 2, 1, 1, 1])
        >>> x, pair_attr = conv(x, pair_attr, batch, degree)
        >>> x.shape, pair_attr.shape
        (torch.Size([5, 16]), torch.Size([13, 16]))
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        act: Any = "relu",
        norm: str | None = "batch_norm",
        pair_output: bool = True,
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        check_probabilities(dropout=dropout, attn_dropout=attn_dropout)
        check_resolvable("act", act)
        check_flags(pair_output=pair_output)
        if not (norm is None or isinstance(norm, str)) or norm not in _NORMS:
            raise ValueError(f"'norm' must be 'batch_norm', 'layer_norm' or None (got {norm!r})")
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.pair_output = pair_output
        self.act = activation_resolver(act) if isinstance(act, str) else act
        self.attention = _PairAttention(channels, heads, attn_dropout)
        make_norm = _NORMS[norm]
        self.O_h = Linear(channels, channels)
        self.deg_coef = Parameter(torch.empty(1, channels, 2))
        self.batch_norm1_h = make_norm(channels)
        if pair_output:
            self.O_e = Linear(channels, channels)
            self.batch_norm1_e = make_norm(channels)
        self.FFN_h_layer1 = Linear(channels, 2 * channels)
        self.FFN_h_layer2 = Linear(2 * channels, channels)
        self.batch_norm2_h = make_norm(channels)
        xavier_normal_(self.deg_coef)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for module in self.children():
            reset(module)
        xavier_normal_(self.deg_coef)

    def forward(
        self,
        x: Tensor,
        pair_attr: Tensor,
        batch: Tensor | GraphLayout | None = None,
        degree: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            pair_attr (Tensor): ``[P, F]``, the state of each pair of nodes of one graph, graph by
                graph, in a graph row by row by (query, key) in the order of its nodes.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)
            degree (Tensor): ``[N]``, the degree of each node in the graph, not among the pairs.
            return_attention_weights (bool, optional): With any value but None also returns
                ``(pairs [2, P], alpha [P, H])``, key above query, before dropout.
                (default: :obj:`None`)

        Returns:
            ``x [N, F]`` and ``pair_attr [P, F]``, None with ``pair_output=False``.

        Raises:
            ValueError: For a wrong shape or type, or if ``degree`` is missing.
        """
        check_features("x", x, self.channels)
        check_features("pair_attr", pair_attr, self.channels, rows="P")
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        if (
            not is_dense(degree)
            or degree.shape != (x.size(0),)
            or degree.dtype == torch.bool
            or degree.is_complex()
        ):
            raise ValueError(
                f"'degree' must have shape [{x.size(0)}], the degree of each node (got "
                f"{describe(degree)}); 'torch_geometric.utils.degree(edge_index[0], num_nodes)' "
                f"counts them"
            )
        index = pair_index(layout, pair_attr.size(0), "pair_attr", x.device)
        out, pair_hidden, alpha = self.attention(x, pair_attr, index)
        log_degree = torch.log1p(degree.to(out.dtype)).unsqueeze(1)
        out = self._drop(out) * (self.deg_coef[..., 0] + self.deg_coef[..., 1] * log_degree)
        h = self.batch_norm1_h(x + self.O_h(out))
        hidden = self._drop(self.act(self.FFN_h_layer1(h)))
        h = self.batch_norm2_h(h + self.FFN_h_layer2(hidden))
        pairs = None
        if self.pair_output:
            pairs = self.batch_norm1_e(pair_attr + self.O_e(self._drop(pair_hidden)))
        if return_attention_weights is None:
            return h, pairs
        return h, pairs, (torch.stack([index.key, index.query]), alpha)

    def _drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, p=self.dropout, training=self.training)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, heads={self.heads})"


class _PairAttention(torch.nn.Module):
    """The first two lines of the formula; a module of its own as in the official code."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        width = channels // heads
        self.Q = Linear(channels, channels)
        self.K = Linear(channels, channels, bias=False)
        self.E = Linear(channels, 2 * channels)
        self.V = Linear(channels, channels, bias=False)
        self.Aw = Parameter(torch.empty(width, heads, 1))
        self.VeRow = Parameter(torch.empty(width, heads, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for lin in (self.Q, self.K, self.E, self.V):
            lin.reset_parameters()  # of the constant terms
            xavier_normal_(lin.weight)
        xavier_normal_(self.Aw)
        xavier_normal_(self.VeRow)

    def forward(
        self, x: Tensor, pair_attr: Tensor, index: PairIndex
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``[N, F]``, ``[P, F]`` and the weights ``[P, H]``."""
        H, C = self.heads, x.size(1) // self.heads
        # rows of E are (head, scale or shift, channel)
        weight = self.E.weight.view(H, 2, C, -1).transpose(0, 1).reshape(2, H * C, -1)
        bias = self.E.bias.view(H, 2, C).transpose(0, 1).reshape(2, H * C)
        sums = self.Q(x).index_select(0, index.query) + self.K(x).index_select(0, index.key)
        scaled = sums * F.linear(pair_attr, weight[0], bias[0])
        root: Tensor = _SignedRoot.apply(scaled)  # type: ignore[no-untyped-call]
        hidden = (root + F.linear(pair_attr, weight[1], bias[1])).relu()
        # a vector for each head as a block-diagonal map is one product of matrices
        vectors = self.Aw.squeeze(-1).t()  # [H, C]
        blocks = (torch.eye(H, device=x.device, dtype=x.dtype).unsqueeze(-1) * vectors).flatten(1)
        scores = F.linear(hidden, blocks)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        # no maximum is subtracted: exp of what is clamped cannot overflow
        weights = scores.clamp(-_CLAMP, _CLAMP).exp()
        alpha = weights / pair_sum(weights, index).index_select(0, index.query)
        dropped = F.dropout(alpha, p=self.dropout, training=self.training).unsqueeze(-1)
        value = self.V(x).index_select(0, index.key).view(-1, H, C)
        out = pair_sum(dropped * value, index)
        rows = pair_sum(dropped * hidden.view(-1, H, C), index)
        out = out + torch.einsum("nhd,dhc->nhc", rows, self.VeRow.to(rows.dtype))
        return out.flatten(1).to(x.dtype), hidden, alpha


class _SignedRoot(torch.autograd.Function):
    """The root of the absolute value with the sign, whose derivative at zero is zero.

    Of torch's own operations, a root of zero makes the gradient infinite.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        return t.abs().sqrt().copysign(t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        size = root.abs()
        zero = size == 0
        slope: Tensor = (0.5 * grad / size.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)
        return slope


def _no_norm(channels: int) -> torch.nn.Module:
    return torch.nn.Identity()


_NORMS: dict[str | None, Any] = {
    "batch_norm": BatchNorm,
    "layer_norm": LayerNorm,
    None: _no_norm,
}
