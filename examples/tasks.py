"""What there is to learn: graphs in three parts, how to read them, and how to score answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_gt.datasets import LongRange, load_ogb
from pyg_gt.nn import LaplacianEncoder, RandomWalkEncoder
from pyg_gt.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE, precompute


@dataclass(frozen=True)
class Task:
    name: str
    parts: dict[str, Sequence[Data]]  # train, valid, test
    node_encoder: Callable[[int], nn.Module]  # channels -> module, called with x
    edge_encoder: Callable[[int], nn.Module] | None  # likewise for edge_attr
    position_encoder: Callable[[int], nn.Module]  # likewise, called with the batch
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: str
    score: Callable[[Tensor, Tensor], float | None]  # None: not defined on these labels
    higher_is_better: bool = True
    chance: float | None = None


class Eigenvectors(nn.Module):
    """Laplacian eigenvectors, under random signs while training: they have none of their own."""

    def __init__(self, k: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(k, affine=False)  # of length one: small in a large graph
        self.encoder = LaplacianEncoder(k, channels, kind="linear")

    def forward(self, batch: Batch) -> Tensor:
        vectors = self.norm(batch.laplacian_eigenvector_pe)
        values, mask = batch.laplacian_eigenvector_pe_values, batch.laplacian_eigenvector_pe_mask
        return self.encoder(vectors, values, mask, batch.batch)


class Walks(nn.Module):
    """Return probabilities of random walks."""

    def __init__(self, walk_length: int, channels: int) -> None:
        super().__init__()
        self.encoder = RandomWalkEncoder(walk_length, channels)

    def forward(self, batch: Batch) -> Tensor:
        return self.encoder(batch.random_walk_pe)


def long_range(limit: int | None, seed: int, sizes: tuple[int, int] = (16, 32)) -> Task:
    """Rings: read the colour of the node opposite the marked one, half the ring away."""
    encode = AddLaplacianEigenvectorPE(8, is_undirected=True)
    dataset = LongRange(5000, sizes=sizes, seed=seed)
    classes = dataset.num_classes

    def accuracy(logits: Tensor, y: Tensor) -> float:
        return (logits.argmax(1) == y).float().mean().item()

    return Task(
        name="long-range",
        parts=_parts(dataset, dataset.get_idx_split(), limit, encode),
        node_encoder=lambda channels: nn.Linear(classes + 1, channels),
        edge_encoder=None,
        position_encoder=lambda channels: Eigenvectors(8, channels),
        outputs=classes,
        loss=F.cross_entropy,
        metric="accuracy",
        score=accuracy,
        chance=1 / classes,
    )


def molecules(name: str, root: Path, limit: int | None, download: bool) -> Task:
    """An ogbg-mol* dataset with the official split and evaluator."""
    dataset, split, evaluator = load_ogb(name, root, download=download)
    # After load_ogb, which imports ogb without its check for updates.
    from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder

    metric = evaluator.eval_metric

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        known = y == y  # Datasets of several labels mark unknown ones with NaN.
        if metric == "rmse":
            return F.mse_loss(logits[known], y[known])
        return F.binary_cross_entropy_with_logits(logits[known], y[known].float())

    def score(logits: Tensor, y: Tensor) -> float | None:
        if metric != "rmse" and not bool(((y == 1).any(0) & (y == 0).any(0)).any()):
            return None  # Ranking needs both classes; a small --limit may leave one.
        return float(evaluator.eval({"y_true": y, "y_pred": logits})[metric])

    return Task(
        name=name,
        parts=_parts(dataset, split, limit, AddRandomWalkPE(16)),
        node_encoder=AtomEncoder,
        edge_encoder=BondEncoder,
        position_encoder=lambda channels: Walks(16, channels),
        outputs=dataset.num_tasks,
        loss=loss,
        metric={"rocauc": "ROC-AUC", "ap": "AP", "rmse": "RMSE"}[metric],
        score=score,
        higher_is_better=metric != "rmse",
        chance=0.5 if metric == "rocauc" else None,
    )


def _parts(
    dataset: torch.utils.data.Dataset[Data],
    split: dict[str, Tensor],
    limit: int | None,
    encode: Callable[[Data], Data],
) -> dict[str, Sequence[Data]]:
    return {
        part: precompute([dataset[i] for i in index[:limit].tolist()], encode)
        for part, index in split.items()
    }
