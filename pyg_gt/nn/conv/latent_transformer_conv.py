"""Attention by way of a few latents in each graph."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, LayerNorm, Linear, ModuleList, MultiheadAttention, Sequential
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.utils import softmax

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import attention
from ...ops.dispatch import check_backend
from ..arguments import (
    check_counts,
    check_features,
    check_flags,
    check_heads,
    check_probabilities,
    check_resolvable,
)
from ..attention.multihead import project, project_output, reset_output
from ..attention.route import AttentionRoute, fused_route
from ..block import TransformerBlock

Layout = GraphLayout | DeferredLayout


class LatentTransformerConv(torch.nn.Module):
    r"""Latents of each graph attend to its nodes, and nodes to the latents: cost ``O(N L)``.

    The induced set attention of `"Set Transformer" <https://arxiv.org/abs/1810.00825>`_ (Lee et
    al. 2019), and the cross-attention of `"Perceiver" <https://arxiv.org/abs/2103.03206>`_ (Jaegle
    et al. 2021) and its layers among latents. With ``L`` learned vectors :math:`Z`, the same in
    every graph, and norms before each part as in the latter:

    .. math::
        z &= Z + \mathrm{Attention}(\mathrm{LN}(Z), \mathrm{LN}(x)), \quad
        z' = z + \mathrm{MLP}(\mathrm{LN}(z))

        y &= x + \mathrm{Attention}(\mathrm{LN}(x), \mathrm{LN}(z')), \quad
        x' = y + \mathrm{MLP}(\mathrm{LN}(y))

    where the first argument asks and the second answers, and nodes have one norm for both.
    Layers among latents stand after :math:`z'`. With ``residual=False`` the result is
    :math:`\mathrm{Attention}(\mathrm{LN}(x), \mathrm{LN}(z'))`: for ``GPSConv(..., attn=)``, which
    adds ``x``, a norm and an MLP itself.

    Args:
        channels (int): ``F``.
        num_latents (int): ``L``, of each graph.
        heads (int): ``H``. (default: :obj:`1`)
        ffn_channels (int, optional): Width of the MLPs; None: ``4 * channels``.
            (default: :obj:`None`)
        num_latent_layers (int): :class:`TransformerBlock` among the latents of each graph, at a
            cost of ``O(B L^2)``. (default: :obj:`0`)
        dropout (float): Of attention weights and of the MLPs. (default: :obj:`0.0`)
        act (str or Callable): Activation of the MLPs. (default: :obj:`"gelu"`)
        residual (bool): Add ``x``, and the MLP of nodes behind it. (default: :obj:`True`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range, or ``heads`` does not
            divide ``channels``.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import GPSConv, LatentTransformerConv
        >>> conv = LatentTransformerConv(16, num_latents=8, heads=4)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> conv(x, batch).shape
        torch.Size([5, 16])
        >>> attn = LatentTransformerConv(16, num_latents=8, heads=4, residual=False)
        >>> edge_index = torch.tensor([[0, 1, 3, 4], [1, 0, 4, 3]])
        >>> GPSConv(16, None, attn=attn)(x, edge_index, batch).shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        channels: int,
        num_latents: int,
        heads: int = 1,
        ffn_channels: int | None = None,
        num_latent_layers: int = 0,
        dropout: float = 0.0,
        act: Any = "gelu",
        residual: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        check_counts(num_latents=num_latents)
        check_counts(0, num_latent_layers=num_latent_layers)
        hidden = 4 * channels if ffn_channels is None else ffn_channels
        check_counts(ffn_channels=hidden)
        check_probabilities(dropout=dropout)
        check_flags(residual=residual)
        check_resolvable("act", act)
        check_backend(backend)
        self.channels = channels
        self.num_latents = num_latents
        self.heads = heads
        self.residual = residual
        self.backend = backend
        self.latents = torch.nn.Parameter(torch.empty(num_latents, channels))
        self.read = MultiheadAttention(channels, heads, dropout)
        self.write = MultiheadAttention(channels, heads, dropout)
        self.norm_nodes = LayerNorm(channels)
        self.norm_latents = LayerNorm(channels)
        self.norm_answers = LayerNorm(channels)
        self.latent_mlp = _mlp(channels, hidden, dropout, act)
        self.latent_layers = ModuleList(
            TransformerBlock(
                channels, heads, hidden, dropout, act, norm_first=True, backend=backend
            )
            for _ in range(num_latent_layers)
        )
        self.mlp = _mlp(channels, hidden, dropout, act) if residual else None
        torch.nn.init.normal_(self.latents, std=0.02)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        torch.nn.init.normal_(self.latents, std=0.02)
        for attn in (self.read, self.write):
            attn._reset_parameters()
            reset_output(attn)
        norms = self.norm_nodes, self.norm_latents, self.norm_answers
        for module in (*norms, *self.latent_mlp, *self.latent_layers, *(self.mlp or ())):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        batch: Tensor | GraphLayout | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x (Tensor): ``[N, F]``.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. Compiled code has to be given a layout, which
                tells how many graphs there are. (default: :obj:`None`)
            return_attention_weights (bool, optional): With any value but None also returns those
                of the latents and those of the nodes, ``(pairs [2, N L], alpha [N L, H])`` each,
                source above target, before dropout; latent ``l`` of graph ``g`` has the number
                ``g L + l``. (default: :obj:`None`)

        Returns:
            ``[N, F]``.

        Raises:
            ValueError: For a wrong shape or type.
            NotImplementedError: If traced code does not know the number of graphs.
        """
        check_features("x", x, self.channels)
        layout = GraphLayout.of(batch, x.size(0), device=x.device)
        latents = self._latent_layout(layout, x.device)
        nodes = self.norm_nodes(x)
        z = self.latents.repeat(layout.num_graphs, 1)  # [B * L, F]
        asked = self.norm_latents(z)
        z = z + self._attend(self.read, asked, nodes, latents, layout)
        z = z + self.latent_mlp(z)
        for layer in self.latent_layers:
            z = layer(z, latents)
        answers = self.norm_answers(z)
        out = self._attend(self.write, nodes, answers, layout, latents)
        if self.mlp is not None:
            out = x + out
            out = out + self.mlp(out)
        if return_attention_weights is None:
            return out
        pairs = self._pairs(layout, x.device)
        return out, (
            (pairs, _weights(self.read, asked, nodes, pairs)),
            (pairs.flip(0), _weights(self.write, nodes, answers, pairs.flip(0))),
        )

    def _latent_layout(self, layout: Layout, device: torch.device) -> Layout:
        """``L`` latents in each graph."""
        num_graphs, count = layout.num_graphs, self.num_latents
        if isinstance(layout, GraphLayout):
            return layout.cached(
                ("latents", count), lambda: GraphLayout.from_sizes([count] * num_graphs, device)
            )
        if num_graphs < 0:
            raise NotImplementedError(
                "latents need the number of graphs, which traced code cannot find in a 'batch' "
                "tensor: pass 'GraphLayout.from_batch(batch)', made before"
            )
        graph = torch.arange(num_graphs, device=device).repeat_interleave(count)
        return DeferredLayout(graph, num_graphs * count, num_graphs)

    def _attend(
        self, attn: Any, query: Tensor, key: Tensor, query_layout: Layout, layout: Layout
    ) -> Tensor:
        """``[Nq, F]``: the queries' attention to the keys of their graph."""
        parts = project(attn, query, key, key)
        dropout_p = attn.dropout if self.training else 0.0
        out = attention(
            *parts, layout, query_layout=query_layout, dropout_p=dropout_p, backend=self.backend
        )
        return project_output(attn, out)

    def _attention_route(
        self, attn: Any, query: Tensor, key: Tensor, query_layout: Layout, layout: Layout
    ) -> AttentionRoute:
        """How :meth:`_attend` computes, with the same arguments."""
        parts = project(attn, query, key, key)
        dropout_p = attn.dropout if self.training else 0.0
        return fused_route(*parts, layout, (), self.backend, dropout_p, query_layout=query_layout)

    def _pairs(self, layout: Layout, device: torch.device) -> Tensor:
        """``[2, N * L]``: every node above every latent of its graph."""
        count = self.num_latents
        node = torch.arange(layout.num_nodes, device=device)
        graph = torch.zeros_like(node) if layout.batch is None else layout.batch
        latent = count * graph.unsqueeze(1) + torch.arange(count, device=device)
        return torch.stack([node.repeat_interleave(count), latent.flatten()])

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, num_latents={self.num_latents}, "
            f"heads={self.heads})"
        )


def _weights(attn: MultiheadAttention, query: Tensor, key: Tensor, pairs: Tensor) -> Tensor:
    """``[P, H]``: the attention weight of each pair, source above target."""
    q, k, _ = project(attn, query, key, key)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q[pairs[1]].to(wide) * k[pairs[0]].to(wide)).sum(-1) / math.sqrt(attn.head_dim)
    weights: Tensor = softmax(scores, pairs[1], num_nodes=query.size(0))
    return weights.to(q.dtype)


def _mlp(channels: int, hidden: int, dropout: float, act: Any) -> Sequential:
    return Sequential(
        LayerNorm(channels), Linear(channels, hidden),
        activation_resolver(act) if isinstance(act, str) else act, Dropout(dropout),
        Linear(hidden, channels), Dropout(dropout),
    )  # fmt: skip
