"""Heads: from the states of nodes to what is predicted."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, ModuleList
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool, global_mean_pool
from torch_geometric.nn.resolver import activation_resolver

from ..nn.arguments import check_counts, check_probabilities, check_resolvable
from .preset import choose

POOLS = {"mean": global_mean_pool, "add": global_add_pool}


class GraphHead(torch.nn.Module):
    r"""A pool over the nodes of each graph and an MLP.

    ``kind`` says which MLP, by what it is called in `GraphGPS
    <https://github.com/rampasek/GraphGPS>`_ and `GNN+ <https://github.com/LUOyk1999/GNNPlus>`_:

    - ``"san"``: ``F -> F / 2 -> F / 4 -> out``, with activations between;
    - ``"mlp"`` (their ``default``): ``num_layers - 1`` times a linear map, the activation and a
      scaling of each row to length one, then a linear map;
    - ``"mlp_graph"``: ``num_layers - 1`` times dropout, a linear map and the activation, then
      dropout and a linear map.

    A graph without nodes pools to zeros.

    Args:
        channels (int): ``F``.
        out_channels (int): Number of outputs.
        pool (str): ``"mean"`` or ``"add"``. (default: :obj:`"mean"`)
        kind (str): ``"san"``, ``"mlp"`` or ``"mlp_graph"``. (default: :obj:`"mlp"`)
        num_layers (int): Linear maps of ``"mlp"`` and ``"mlp_graph"``. (default: :obj:`1`)
        dropout (float): Of ``"mlp_graph"``. (default: :obj:`0.0`)
        act (str or Callable): The activation. (default: :obj:`"relu"`)

    Raises:
        ValueError: If there is no such pool or kind, or a number is out of range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from pyg_gt.models import GraphHead
        >>> batch = Batch.from_data_list([Data(num_nodes=3), Data(num_nodes=2)])
        >>> GraphHead(16, 1, kind="san")(torch.randn(5, 16), batch).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        pool: Literal["mean", "add"] = "mean",
        kind: Literal["san", "mlp", "mlp_graph"] = "mlp",
        num_layers: int = 1,
        dropout: float = 0.0,
        act: Any = "relu",
    ) -> None:
        super().__init__()
        check_counts(channels=channels, out_channels=out_channels, num_layers=num_layers)
        check_probabilities(dropout=dropout)
        check_resolvable("act", act)
        self.pool = choose("pool", pool, POOLS)
        self.kind = choose("kind", kind, ("san", "mlp", "mlp_graph"))
        self.dropout = dropout
        self.act = activation_resolver(act) if isinstance(act, str) else act
        hidden = [channels] * (num_layers - 1)
        if kind == "san":
            if channels < 4:
                raise ValueError(f"a 'san' head needs at least 4 channels (got {channels})")
            hidden = [channels // 2, channels // 4]
        widths = [channels, *hidden, out_channels]
        self.lins = ModuleList(Linear(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for lin in self.lins:
            lin.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, data: Data) -> Tensor:
        """``[B, out_channels]`` from ``x [N, F]`` and the batch they belong to."""
        h = pool_nodes(x, data, self.pool)
        for lin in self.lins[:-1]:
            h = self.act(lin(self._drop(h)))
            if self.kind == "mlp":
                h = F.normalize(h, dim=-1)
        out: Tensor = self.lins[-1](self._drop(h))
        return out

    def _drop(self, h: Tensor) -> Tensor:
        if self.kind != "mlp_graph":
            return h
        return F.dropout(h, p=self.dropout, training=self.training)


class CodeHead(torch.nn.Module):
    """The mean over nodes and a linear map for each of five sub-tokens: of ogbg-code2.

    Args:
        channels (int): ``F``.
        num_classes (int): Words of the vocabulary. (default: :obj:`5002`)
        length (int): Number of sub-tokens. (default: :obj:`5`)

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import CodeHead
        >>> CodeHead(16)(torch.randn(3, 16), Data(num_nodes=3)).shape
        torch.Size([1, 5, 5002])
    """

    def __init__(self, channels: int, num_classes: int = 5002, length: int = 5) -> None:
        super().__init__()
        check_counts(channels=channels, num_classes=num_classes, length=length)
        self.lins = ModuleList(Linear(channels, num_classes) for _ in range(length))

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for lin in self.lins:
            lin.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, data: Data) -> Tensor:
        """``[B, length, num_classes]`` from ``x [N, F]`` and the batch they belong to."""
        h = pool_nodes(x, data, "mean")
        return torch.stack([lin(h) for lin in self.lins], dim=1)


class NodeHead(torch.nn.Module):
    """A linear map of every node's state, or an MLP: that of ``GraphHead(kind="mlp")``.

    Args:
        channels (int): ``F``.
        out_channels (int): Number of outputs.
        num_layers (int): Linear maps; after all but the last ReLU, and rows are scaled to length
            one. (default: :obj:`1`)

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import NodeHead
        >>> NodeHead(16, 7)(torch.randn(3, 16), Data(num_nodes=3)).shape
        torch.Size([3, 7])
    """

    def __init__(self, channels: int, out_channels: int, num_layers: int = 1) -> None:
        super().__init__()
        check_counts(channels=channels, out_channels=out_channels, num_layers=num_layers)
        self.hidden = ModuleList(Linear(channels, channels) for _ in range(num_layers - 1))
        self.lin = Linear(channels, out_channels)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for lin in (*self.hidden, self.lin):
            lin.reset_parameters()

    def forward(self, x: Tensor, data: Data) -> Tensor:
        """``[N, out_channels]`` from ``x [N, F]``."""
        for lin in self.hidden:
            x = F.normalize(lin(x).relu(), dim=-1)
        out: Tensor = self.lin(x)
        return out


def pool_nodes(x: Tensor, data: Data, pool: str) -> Tensor:
    """``[B, F]``: the sum or the mean over the nodes of each graph."""
    if data.batch is None:
        out: Tensor = POOLS[pool](x, x.new_zeros(x.size(0), dtype=torch.long), 1)
        return out
    out = POOLS[pool](x, data.batch, data.num_graphs)
    return out
