"""A Transformer layer on a ragged batch of graphs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, LayerNorm, Linear, MultiheadAttention
from torch_geometric.nn.resolver import activation_resolver

from ..layout.deferred import DeferredLayout
from ..layout.graph_layout import GraphLayout
from ..ops import AttentionBias
from ..ops.dispatch import check_backend
from .arguments import (
    as_biases,
    check_counts,
    check_features,
    check_flags,
    check_heads,
    check_probabilities,
    check_resolvable,
)
from .attention.multihead import padding_reason, reset_output
from .attention.route import AttentionRoute
from .attention.self_attention import self_attention, self_attention_route


class TransformerBlock(torch.nn.Module):
    r"""Attention and a token-wise MLP, each with a residual and a norm.

    Eq. 9 of `"Transformers are Graph Neural Networks" <https://arxiv.org/abs/2506.22084>`_ (Joshi
    2025); norms stand after or before each part
    (`Xiong et al. 2020 <https://arxiv.org/abs/2002.04745>`_); the MLP is plain or gated
    (`Shazeer 2020 <https://arxiv.org/abs/2002.05202>`_). The parameters have the names of
    ``torch.nn.TransformerEncoderLayer``, whose ``state_dict`` loads, and its outputs.

    Args:
        channels (int): ``F``.
        heads (int): ``H``.
        ffn_channels (int, optional): Width of the MLP; None: ``4 * channels``.
            (default: :obj:`None`)
        dropout (float): Of attention weights, of the MLP and of each part, as in torch's layer.
            (default: :obj:`0.0`)
        act (str or Callable): Activation of the MLP. (default: :obj:`"relu"`)
        norm_first (bool): Normalise before each part instead of after it.
            (default: :obj:`False`)
        gated (bool): Multiply the activation by a second projection (``linear1`` is twice as
            wide). (default: :obj:`False`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)
        attn_dropout (float, optional): Of attention weights; None: ``dropout``.
            (default: :obj:`None`)
        act_dropout (float, optional): Inside the MLP, after the activation; None: ``dropout``.
            (default: :obj:`None`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range, or ``heads`` does not
            divide ``channels``.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import TransformerBlock
        >>> block = TransformerBlock(16, heads=4, norm_first=True)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> block(x, batch).shape
        torch.Size([5, 16])
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
        *,
        attn_dropout: float | None = None,
        act_dropout: float | None = None,
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        if ffn_channels is not None:
            check_counts(ffn_channels=ffn_channels)
        attn_dropout = dropout if attn_dropout is None else attn_dropout
        act_dropout = dropout if act_dropout is None else act_dropout
        check_probabilities(dropout=dropout, attn_dropout=attn_dropout, act_dropout=act_dropout)
        check_flags(norm_first=norm_first, gated=gated)
        check_backend(backend)
        check_resolvable("act", act)
        self.channels = channels
        self.heads = heads
        self.norm_first = norm_first
        self.gated = gated
        self.backend = backend
        hidden = 4 * channels if ffn_channels is None else ffn_channels
        self.self_attn = MultiheadAttention(channels, heads, attn_dropout, batch_first=True)
        self.linear1 = Linear(channels, 2 * hidden if gated else hidden)
        self.linear2 = Linear(hidden, channels)
        self.norm1 = LayerNorm(channels)
        self.norm2 = LayerNorm(channels)
        self.dropout = Dropout(act_dropout)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = activation_resolver(act) if isinstance(act, str) else act

    @classmethod
    def from_torch(
        cls, layer: torch.nn.TransformerEncoderLayer, backend: str = "auto"
    ) -> TransformerBlock:
        """A block with copies of the weights of torch's layer, and its outputs.

        Args:
            layer (torch.nn.TransformerEncoderLayer): The layer.
            backend (str): Which attention backend runs. (default: :obj:`"auto"`)

        Raises:
            ValueError: If ``layer`` is no ``torch.nn.TransformerEncoderLayer``.
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
        batch: Tensor | GraphLayout | None = None,
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
    ) -> Tensor:
        """Runs the block.

        Args:
            x (Tensor): ``[N, F]``.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)
            biases (AttentionBias or tuple): What is added to scores, a bias or a tuple of them;
                see :func:`pyg_gt.attention`. (default: :obj:`()`)

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: For a wrong shape or type.
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

    def _attend(
        self,
        x: Tensor,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
    ) -> Tensor:
        """``[N, F]``: attention, after dropout."""
        attn: Any = self.self_attn
        if not isinstance(attn, MultiheadAttention):
            raise ValueError(f"this block cannot run its attention: {padding_reason(attn)}")
        dropped: Tensor = self.dropout1(self_attention(attn, x, layout, biases, self.backend))
        return dropped

    def _attention_route(
        self,
        x: Tensor,
        layout: GraphLayout | DeferredLayout,
        biases: tuple[AttentionBias, ...],
    ) -> AttentionRoute:
        """How :meth:`_attend` computes, with the same arguments."""
        return self_attention_route(self.self_attn, x, layout, biases, self.backend)

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
