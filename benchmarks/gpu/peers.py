"""How attention on a batch of graphs is computed without this package."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter, softmax, to_dense_batch

from pyg_gt import GraphLayout, PairBias, TableBias

# the dense mask of a whole batch: 64 MiB, and scores of as many numbers a head
MAX_DENSE_NODES = 8192


class Padded:
    """As PyG's ``GPSConv``: pads to the largest graph, masks keys, picks the nodes again.

    ``nn.MultiheadAttention`` turns the padding into a float mask of minus infinities; a bias is
    added to that mask, in a dense form made of it in every call.
    """

    def __init__(self, layout: GraphLayout, dtype: torch.dtype, bias: object = None) -> None:
        self.batch, self.bias = layout.batch, bias
        self.shape = (layout.num_graphs, layout.max_nodes, layout.max_nodes)
        size = torch.tensor(layout.sizes, device=layout.device)
        if bias is None:
            return
        there = torch.arange(layout.max_nodes, device=layout.device) < size[:, None]  # [B, M]
        self.pairs = (there[:, :, None] & there[:, None, :]).flatten().nonzero().squeeze(1)
        if isinstance(bias, TableBias):
            index = torch.zeros(self.shape, dtype=torch.int64, device=layout.device)
            index.view(-1)[self.pairs] = bias.index.long()
            self.index = index

    def __call__(self, joined: Tensor, p: float) -> Tensor:
        """``[N, 3, H, C] -> [N, H, C]``."""
        n, _, heads, channels = joined.shape
        x, there = to_dense_batch(joined.view(n, -1), self.batch)
        x = x.view(*there.shape, 3, heads, channels).permute(2, 0, 3, 1, 4)  # [3, B, H, M, C]
        mask = torch.zeros_like(there, dtype=x.dtype).masked_fill_(~there, float("-inf"))
        mask = mask[:, None, None, :].expand(-1, heads, -1, -1)
        if isinstance(self.bias, TableBias):
            mask = mask + self.bias.table[self.index].permute(0, 3, 1, 2).to(x.dtype)
        elif isinstance(self.bias, PairBias):
            values = self.bias.values
            dense = values.new_zeros(self.shape[0] * self.shape[1] ** 2, heads)
            dense = dense.index_copy(0, self.pairs, values).view(*self.shape, heads)
            mask = mask + dense.permute(0, 3, 1, 2).to(x.dtype)
        out = F.scaled_dot_product_attention(x[0], x[1], x[2], mask, dropout_p=p)
        return out.transpose(1, 2)[there]


class DenseMask:
    """The batch as one sequence, with a mask of all pairs of its nodes."""

    def __init__(self, layout: GraphLayout) -> None:
        self.mask = layout.batch[:, None] == layout.batch

    def __call__(self, joined: Tensor, p: float) -> Tensor:
        """``[N, 3, H, C] -> [N, H, C]``."""
        query, key, value = joined.permute(1, 2, 0, 3).unsqueeze(1)  # [1, H, N, C] each
        out = F.scaled_dot_product_attention(query, key, value, self.mask, dropout_p=p)
        return out.squeeze(0).transpose(0, 1)


class Efficient:
    """Torch's private memory-efficient operator on packed graphs; as nested tensors call it.

    ``torch/nested/_internal/sdpa.py``; its autograd is torch's own.
    """

    def __init__(self, layout: GraphLayout) -> None:
        self.ptr, self.most = layout.ptr.int(), layout.max_nodes

    def __call__(self, joined: Tensor, p: float) -> Tensor:
        """``[N, 3, H, C] -> [N, H, C]``."""
        query, key, value = joined.unsqueeze(0).unbind(2)  # [1, N, H, C] each
        out, *_ = torch.ops.aten._efficient_attention_forward(
            query, key, value, None, self.ptr, self.ptr, self.most, self.most, p, 0,
            joined.requires_grad and torch.is_grad_enabled(), scale=joined.size(-1) ** -0.5,
        )  # fmt: skip
        result: Tensor = out.squeeze(0)
        return result


class AlongEdges:
    """The core of PyG's ``TransformerConv``: gather, softmax, scatter."""

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self.edge_index, self.num_nodes = edge_index, num_nodes

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, p: float) -> Tensor:
        """``[N, H, C]``."""
        source, target = self.edge_index
        scores = (query[target] * key[source]).sum(-1) * query.size(-1) ** -0.5
        weights = F.dropout(softmax(scores, target, num_nodes=self.num_nodes), p, p > 0)
        messages = value[source] * weights.unsqueeze(-1)
        result: Tensor = scatter(messages, target, 0, self.num_nodes, reduce="sum")
        return result
