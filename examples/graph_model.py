"""One model shell, three kinds of layers: local, local and global, global."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tasks import Task
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import GINConv, GINEConv, global_mean_pool

from pyg_gt.nn import GatedGCNConv, GPSConv, TransformerBlock


@dataclass(frozen=True)
class Shape:
    layers: int
    channels: int
    heads: int
    dropout: float
    attn_dropout: float
    backend: str
    edges: bool  # whether the layers get edge features


class GIN(nn.Module):
    """Local only: after L layers a node knows its L-hop neighbourhood."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = _gin(shape)
        self.norm = nn.BatchNorm1d(shape.channels)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, edge_attr: Tensor | None, batch: Batch) -> tuple[Tensor, ...]:
        edges = {} if edge_attr is None else {"edge_attr": edge_attr}
        h = self.norm(self.conv(x, batch.edge_index, **edges))
        return x + self.dropout(h.relu()), edge_attr


class GPS(nn.Module):
    """Local and global side by side (Rampasek et al. 2022, https://arxiv.org/abs/2205.12454)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = GPSConv(
            shape.channels,
            GatedGCN(shape) if shape.edges else _gin(shape),
            heads=shape.heads,
            dropout=shape.dropout,
            attn_kwargs={"dropout": shape.attn_dropout},
            backend=shape.backend,
        )

    def forward(self, x: Tensor, edge_attr: Tensor | None, batch: Batch) -> tuple[Tensor, ...]:
        if edge_attr is None:
            return self.conv(x, batch.edge_index, batch.batch), None
        return self.conv(x, batch.edge_index, batch.batch, edge_attr=edge_attr)


class Transformer(nn.Module):
    """Global only: a graph is a set of nodes, and the encodings are all it knows of the edges."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.block = TransformerBlock(
            shape.channels,
            shape.heads,
            dropout=shape.dropout,
            norm_first=True,  # Post-norm needs a smaller step to train at this depth.
            backend=shape.backend,
        )

    def forward(self, x: Tensor, edge_attr: Tensor | None, batch: Batch) -> tuple[Tensor, ...]:
        return self.block(x, batch.batch), edge_attr


class GatedGCN(nn.Module):
    """The residual of the edges; that of the nodes is added, and dropped out, by GPSConv."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = GatedGCNConv(shape.channels, shape.channels, residual=False)
        self.dropout = nn.Dropout(shape.dropout)

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        x, update = self.conv(x, edge_index, edge_attr)
        return x, edge_attr + self.dropout(update)


def _gin(shape: Shape) -> nn.Module:
    channels = shape.channels
    mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))
    return GINEConv(mlp) if shape.edges else GINConv(mlp)


LAYERS = {"gin": GIN, "gps": GPS, "transformer": Transformer}


class GraphModel(nn.Module):
    """Encoders, layers, and a head on the marked node or the mean over nodes."""

    def __init__(self, kind: str, task: Task, shape: Shape) -> None:
        super().__init__()
        channels, width = shape.channels, shape.channels // 4
        self.encode_nodes = task.node_encoder(channels - width)
        self.encode_positions = task.position_encoder(width)
        # A Transformer has no place for edge features.
        local = task.edge_encoder is not None and kind != "transformer"
        self.encode_edges = task.edge_encoder(channels) if local else None
        self.layers = nn.ModuleList(LAYERS[kind](shape) for _ in range(shape.layers))
        self.head = nn.Sequential(
            *(nn.Linear(channels, channels // 2), nn.ReLU()),
            *(nn.Linear(channels // 2, channels // 4), nn.ReLU()),
            nn.Linear(channels // 4, task.outputs),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[B, outputs]``."""
        x = torch.cat([self.encode_nodes(batch.x), self.encode_positions(batch)], dim=1)
        edge_attr = None if self.encode_edges is None else self.encode_edges(batch.edge_attr)
        for layer in self.layers:
            x, edge_attr = layer(x, edge_attr, batch)
        if "target_mask" in batch:
            return self.head(x[batch.target_mask])
        return self.head(global_mean_pool(x, batch.batch, batch.num_graphs))
