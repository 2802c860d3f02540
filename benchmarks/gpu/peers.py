"""Peers: attention on a batch of graphs or along edges as it is computed without this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter, softmax, to_dense_batch

from benchmarks.gpu.compare import Run
from pyg_gt import GraphLayout, PairBias, TableBias

# the dense mask of a whole batch: 64 MiB, and scores of as many numbers a head
MAX_DENSE_NODES = 8192
# of full attention
PEERS_OF_GRAPHS = ("pyg padded", "sdpa dense mask", "efficient ragged", "varlen")
PEERS = (*PEERS_OF_GRAPHS, "pyg core")


def peers_of(
    joined: Tensor,
    layout: GraphLayout,
    bias: object = None,
    dropout_p: float = 0.0,
    names: Sequence[str] = PEERS_OF_GRAPHS,
) -> tuple[dict[str, Run], dict[str, str]]:
    """What computes full attention on ``joined [N, 3, H, C]``, and why some are not tried."""
    objections: dict[str, str] = {}
    if bias is not None:
        objections = dict.fromkeys(PEERS_OF_GRAPHS[1:], "not tried with a bias")
    else:
        n = layout.num_nodes
        if n > MAX_DENSE_NODES:
            objections["sdpa dense mask"] = f"not tried: {n:,} nodes fill {n * n:,} pairs"
        if not joined.is_cuda:
            objections["efficient ragged"] = "it needs a CUDA device"
        if reason := Varlen.unsupported(joined, dropout_p):
            objections["varlen"] = reason
    peers: dict[str, Callable[[], Callable[[Tensor, float], Tensor]]] = {
        "pyg padded": lambda: Padded(layout, joined.dtype, bias),
        "sdpa dense mask": lambda: DenseMask(layout),
        "efficient ragged": lambda: Efficient(layout),
        "varlen": lambda: Varlen(layout),
    }
    runs = {n: partial(peers[n](), joined) for n in names if n not in objections}
    return runs, {n: text for n, text in objections.items() if n in names}


class Padded:
    """As PyG's ``GPSConv``: pads to the largest graph, masks keys, drops the padding.

    ``nn.MultiheadAttention`` turns the padding into a float mask of minus infinities; a bias is
    added to that mask, in a dense form made of it in every call.
    """

    def __init__(self, layout: GraphLayout, dtype: torch.dtype, bias: object = None) -> None:
        self.batch, self.bias = layout.batch, bias
        self.shape = (layout.num_graphs, layout.max_nodes, layout.max_nodes)
        size = torch.tensor(layout.sizes, device=layout.device)
        if bias is None:
            return
        valid = torch.arange(layout.max_nodes, device=layout.device) < size[:, None]  # [B, M]
        self.pairs = (valid[:, :, None] & valid[:, None, :]).flatten().nonzero().squeeze(1)
        if isinstance(bias, TableBias):
            index = torch.zeros(self.shape, dtype=torch.int64, device=layout.device)
            index.view(-1)[self.pairs] = bias.index.long()
            self.index = index

    def __call__(self, joined: Tensor, p: float) -> Tensor:
        """``[N, 3, H, C] -> [N, H, C]``."""
        n, _, heads, channels = joined.shape
        x, valid = to_dense_batch(joined.view(n, -1), self.batch)
        x = x.view(*valid.shape, 3, heads, channels).permute(2, 0, 3, 1, 4)  # [3, B, H, M, C]
        mask = torch.zeros_like(valid, dtype=x.dtype).masked_fill_(~valid, float("-inf"))
        mask = mask[:, None, None, :].expand(-1, heads, -1, -1)
        if isinstance(self.bias, TableBias):
            mask = mask + self.bias.table[self.index].permute(0, 3, 1, 2).to(x.dtype)
        elif isinstance(self.bias, PairBias):
            values = self.bias.values
            dense = values.new_zeros(self.shape[0] * self.shape[1] ** 2, heads)
            dense = dense.index_copy(0, self.pairs, values).view(*self.shape, heads)
            mask = mask + dense.permute(0, 3, 1, 2).to(x.dtype)
        out = F.scaled_dot_product_attention(x[0], x[1], x[2], mask, dropout_p=p)
        return out.transpose(1, 2)[valid]


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


class Varlen:
    """Torch's public FlashAttention on packed graphs, ``torch.nn.attention.varlen``.

    Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning"
    (https://arxiv.org/abs/2307.08691).
    """

    def __init__(self, layout: GraphLayout) -> None:
        self.ptr, self.most = layout.ptr.int(), layout.max_nodes

    @staticmethod
    def unsupported(joined: Tensor, dropout_p: float) -> str | None:
        """Why it cannot run; None if it can."""
        if find_spec("torch.nn.attention.varlen") is None:
            return f"torch has it from 2.10 on (this is {torch.__version__})"
        if not joined.is_cuda:
            return "it needs a CUDA device"
        if joined.dtype not in (torch.float16, torch.bfloat16):
            return f"it needs float16 or bfloat16 (got {joined.dtype})"
        if dropout_p > 0:
            return f"it has no dropout (got {dropout_p})"
        return None

    def __call__(self, joined: Tensor, p: float) -> Tensor:
        """``[N, 3, H, C] -> [N, H, C]``; C a multiple of 8."""
        from torch.nn.attention.varlen import varlen_attn

        result: Tensor = varlen_attn(*joined.unbind(1), self.ptr, self.ptr, self.most, self.most)
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
