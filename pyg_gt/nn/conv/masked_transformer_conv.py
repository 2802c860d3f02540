"""Attention along edges, without a tensor for each edge where a backend can do without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import TransformerConv
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from ...edge_layout import EdgeLayout
from ...layout import GraphLayout
from ...ops import EdgeMask, attention
from ._routes import needs_propagate


class MaskedTransformerConv(TransformerConv):
    r"""PyG's ``TransformerConv`` on this library's attention.

    "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification"
    (Shi et al. 2021, https://arxiv.org/abs/2009.03509); eqs. 14-16 of "Transformers are Graph
    Neural Networks" (Joshi 2025):

    .. math::
        x_i' = W_1 x_i + \sum_{j \in N(i)} \alpha_{ij} (W_2 x_j + W_6 e_{ij}), \quad
        \alpha_{ij} = \mathrm{softmax}_j \left(
        \frac{(W_3 x_i)^\top (W_4 x_j + W_6 e_{ij})}{\sqrt{C}} \right)

    Arguments, parameter names, outputs and printed form are PyG's. With hooks on messages, an
    explainer, another ``aggr``, ``return_attention_weights``, an overridden ``message`` or raw
    ``edge_attr`` without ``edge_dim``, PyG's own route runs.

    Args:
        *args: as ``torch_geometric.nn.TransformerConv``.
        backend: which attention backend runs; see :func:`pyg_gt.attention`.
        **kwargs: as ``torch_geometric.nn.TransformerConv``.
    """

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = backend

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Runs the layer.

        Args:
            x: ``[N, F]``, or a pair for sources and targets.
            edge_index: ``[2, E]``, an ``EdgeIndex``, a ``SparseTensor`` or a ``torch.sparse``
                tensor (transposed, as in PyG; its values act as ``edge_attr``).
            edge_attr: ``[E, edge_dim]``.
            return_attention_weights: with any value but None, PyG's route also returns
                ``(edge_index, alpha [E, H])``.

        Returns:
            ``[N, H * C]``, or ``[N, C]`` with ``concat=False``.

        Raises:
            ValueError: if ``edge_attr`` is missing or of the wrong length.
            IndexError: if an index is out of range.
        """
        edge_attr = _edge_attr(edge_index, edge_attr)
        raw_features = edge_attr is not None and self.lin_edge is None
        weights_wanted = return_attention_weights is not None
        if weights_wanted or raw_features or needs_propagate(self, MaskedTransformerConv):
            return super().forward(x, edge_index, edge_attr, return_attention_weights)

        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        heads, channels = self.heads, self.out_channels
        query = self.lin_query(x_dst).view(-1, heads, channels)
        key = self.lin_key(x_src).view(-1, heads, channels)
        value = self.lin_value(x_src).view(-1, heads, channels)
        num_src, num_dst = key.size(0), query.size(0)
        edges = EdgeLayout.of(edge_index, num_src, num_dst, self.flow)
        features = None
        if self.lin_edge is not None:
            num_edges = edges.edge_index.size(1)
            if edge_attr is None or edge_attr.size(0) != num_edges:
                got = None if edge_attr is None else list(edge_attr.shape)
                raise ValueError(
                    f"this layer has edge_dim={self.edge_dim} and needs 'edge_attr' of shape "
                    f"[{num_edges}, {self.edge_dim}] (got {got})"
                )
            features = self.lin_edge(edge_attr).view(-1, heads, channels)
        # one graph a side: edges go wherever they go
        layout = GraphLayout.of(None, num_src, device=key.device)
        query_layout = layout
        if num_dst != num_src:
            query_layout = GraphLayout.of(None, num_dst, device=query.device)
        out = attention(
            query,
            key,
            value,
            layout,
            (EdgeMask(edges, features=features),),
            query_layout=query_layout,
            dropout_p=self.dropout if self.training else 0.0,
            backend=self.backend,
        )
        if out.is_cuda and torch.is_autocast_enabled("cuda"):
            out = out.float()  # PyG's sums over edges are in float32 there
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if not self.root_weight:
            return out
        root = self.lin_skip(x_dst)
        if self.lin_beta is None:
            return out + root
        beta = self.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()
        return beta * root + (1 - beta) * out

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        edge_attr: Tensor | None,
        index: Tensor,
        ptr: Tensor | None,
        size_i: int | None,
    ) -> Tensor:
        """``[E, H, C]``: PyG's, but that half precision is multiplied in float32."""
        dtype, half = value_j.dtype, value_j.dtype in (torch.float16, torch.bfloat16)
        if half:  # in which 300 x 300 may be infinite
            query_i, key_j = query_i.float(), key_j.float()
        out: Tensor = super().message(query_i, key_j, value_j, edge_attr, index, ptr, size_i)
        if not half or (out.is_cuda and torch.is_autocast_enabled("cuda")):
            return out  # as PyG's there
        self._alpha = vars(self)["_alpha"].to(dtype)
        return out.to(dtype)


def _edge_attr(edge_index: Any, edge_attr: Tensor | None) -> Tensor | None:
    """A sparse adjacency's values stand in for missing edge features, as in PyG."""
    if edge_attr is not None:
        return edge_attr
    if isinstance(edge_index, SparseTensor):
        values: Tensor | None = edge_index.storage.value()
        return values
    if isinstance(edge_index, Tensor) and is_torch_sparse_tensor(edge_index):
        coo = edge_index.layout == torch.sparse_coo
        values = edge_index._values() if coo else edge_index.values()
        return None if values.dim() == 1 else values
    return None
