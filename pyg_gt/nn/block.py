"""A Transformer layer on a ragged batch of graphs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, LayerNorm, Linear, MultiheadAttention
from torch_geometric.nn.resolver import activation_resolver

from ..layout.graph_layout import GraphLayout
from ..ops import AttentionBias
from ._arguments import (
    as_biases,
    check_backend,
    check_counts,
    check_features,
    check_flags,
    check_heads,
    check_probabilities,
    check_resolvable,
)
from ._multihead import multihead_attention, reset_output, why_not_ragged
from ._padded import padded_attention
from ._watched import is_watched, watched_attention


class TransformerBlock(torch.nn.Module):
    r"""Attention and a token-wise MLP, each with a residual and a norm.

    Eq. 9 of "Transformers are Graph Neural Networks" (Joshi 2025); after or before each part
    (Xiong et al. 2020, https://arxiv.org/abs/2002.04745); plain or gated
    (Shazeer 2020, https://arxiv.org/abs/2002.05202). The parameters have the names of
    ``torch.nn.TransformerEncoderLayer``, whose ``state_dict`` loads, and its outputs.

    Args:
        channels: ``F``.
        heads: ``H``.
        ffn_channels: width of the MLP; None: ``4 * channels``.
        dropout: of attention weights, of the MLP and of each part, as in torch's layer.
        act: activation of the MLP.
        norm_first: normalise before each part instead of after it.
        gated: multiply the activation by a second projection (``linear1`` is twice as wide).
        backend: which attention backend runs; see :func:`pyg_gt.attention`.

    Raises:
        ValueError: if an argument is of the wrong type or out of range, or ``heads`` does not
            divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        ffn_channels: int | None = None,
        dropout: float = 0.0,
        act: Any = "relu",
        norm_first: bool = False,
        gated: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        if ffn_channels is not None:
            check_counts(ffn_channels=ffn_channels)
        check_probabilities(dropout=dropout)
        check_flags(norm_first=norm_first, gated=gated)
        check_backend(backend)
        check_resolvable("act", act)
        self.channels = channels
        self.heads = heads
        self.norm_first = norm_first
        self.gated = gated
        self.backend = backend
        hidden = 4 * channels if ffn_channels is None else ffn_channels
        self.self_attn = MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.linear1 = Linear(channels, 2 * hidden if gated else hidden)
        self.linear2 = Linear(hidden, channels)
        self.norm1 = LayerNorm(channels)
        self.norm2 = LayerNorm(channels)
        self.dropout = Dropout(dropout)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = activation_resolver(act) if isinstance(act, str) else act

    @classmethod
    def from_torch(
        cls, layer: torch.nn.TransformerEncoderLayer, backend: str = "auto"
    ) -> TransformerBlock:
        """A block with copies of the weights of torch's layer, and its outputs.

        Raises:
            ValueError: if ``layer`` is no ``torch.nn.TransformerEncoderLayer``.
        """
        if type(layer) is not torch.nn.TransformerEncoderLayer:
            raise ValueError(
                f"expected a 'torch.nn.TransformerEncoderLayer' (got '{type(layer).__name__}')"
            )
        attn = layer.self_attn
        block = cls(
            attn.embed_dim,
            attn.num_heads,
            layer.linear1.out_features,
            act=copy.deepcopy(layer.activation),
            norm_first=layer.norm_first,
            backend=backend,
        )
        weight = layer.linear1.weight
        block.to(weight.device, weight.dtype)
        if attn.in_proj_bias is None:  # torch's 'bias=False' leaves every bias out
            block.self_attn = MultiheadAttention(
                attn.embed_dim, attn.num_heads, bias=False, batch_first=True,
                device=weight.device, dtype=weight.dtype,
            )  # fmt: skip
            for module in (block.linear1, block.linear2, block.norm1, block.norm2):
                module.register_parameter("bias", None)
        block.load_state_dict(layer.state_dict())
        block.self_attn.dropout = attn.dropout
        for name in ("dropout", "dropout1", "dropout2"):
            getattr(block, name).p = getattr(layer, name).p
        for name in ("norm1", "norm2"):
            getattr(block, name).eps = getattr(layer, name).eps
        return block.train(layer.training)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.self_attn._reset_parameters()
        reset_output(self.self_attn)
        for module in (self.linear1, self.linear2, self.norm1, self.norm2):
            module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        batch: Any = None,
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
    ) -> Tensor:
        """Runs the block.

        Args:
            x: ``[N, F]``.
            batch: ``[N]``, a ``GraphLayout``, or None for one graph.
            biases: what is added to scores, a bias or a tuple of them; see
                :func:`pyg_gt.attention`.

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: for a wrong shape or type.
        """
        check_features("x", x, self.channels)
        biases = as_biases(biases)
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        if self.norm_first:
            x = x + self._attend(self.norm1(x), layout, biases)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(x + self._attend(x, layout, biases))
        out: Tensor = self.norm2(x + self._feed_forward(x))
        return out

    def _attend(self, x: Tensor, layout: Any, biases: tuple[AttentionBias, ...]) -> Tensor:
        attn: Any = self.self_attn
        if (reason := why_not_ragged(attn)) is not None:
            if not isinstance(attn, MultiheadAttention):
                raise ValueError(f"this block cannot run its attention: {reason}")
            out = padded_attention(attn, x, layout, biases, reason)
        elif is_watched(attn):
            out = watched_attention(attn, x, layout, biases, self.backend)
        else:
            out = multihead_attention(attn, x, x, x, layout, biases, self.backend)
        dropped: Tensor = self.dropout1(out)
        return dropped

    def _feed_forward(self, x: Tensor) -> Tensor:
        h = self.linear1(x)
        if self.gated:
            h, gate = h.chunk(2, dim=-1)
            h = self.activation(h) * gate
        else:
            h = self.activation(h)
        out: Tensor = self.dropout2(self.linear2(self.dropout(h)))
        return out

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels}, heads={self.heads})"
