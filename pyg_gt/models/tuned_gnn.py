"""Classic networks with tuned settings: the baseline of node classification."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import BatchNorm1d, LayerNorm, Linear, ModuleList
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, SAGEConv
from torch_geometric.nn.inits import reset
from torch_geometric.transforms import AddSelfLoops, RemoveSelfLoops, ToUndirected

from ..nn.arguments import (
    check_counts,
    check_edge_index,
    check_features,
    check_flags,
    check_heads,
    check_probabilities,
)
from .encoders import read
from .preset import choose
from .recipe import Recipe

_SOURCE = "https://github.com/LUOyk1999/tunedGNN, arXiv 2406.08993"
_NORMS = {"batch_norm": BatchNorm1d, "layer_norm": LayerNorm}


class TunedGNN(torch.nn.Module):
    r"""GCN, GraphSAGE or GAT with residuals, norms and jumping knowledge, for nodes.

    `"Classic GNNs are Strong Baselines" <https://arxiv.org/abs/2406.08993>`_ (Luo et al. 2024):

    .. math::
        x_{l + 1} = \mathrm{Dropout}(\mathrm{ReLU}(\mathrm{Norm}(
        \mathrm{Conv}_l(x_l, A) + W_l x_l)))

    then a linear map of the last state, or with ``jk`` of the sum of all. What a Graph Transformer
    for nodes has to beat.

    Args:
        in_channels (int): Width of ``data.x``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        conv (str): ``"gcn"``, ``"sage"`` or ``"gat"``. (default: :obj:`"gcn"`)
        heads (int): ``H`` of a GAT. (default: :obj:`1`)
        dropout (float): (default: :obj:`0.5`)
        in_dropout (float): Of the features. (default: :obj:`0.0`)
        norm (str, optional): ``"batch_norm"``, ``"layer_norm"`` or None. (default: :obj:`None`)
        residual (bool): Add a linear map of each layer's input. (default: :obj:`False`)
        jk (bool): Sum the states of all layers. (default: :obj:`False`)
        in_linear (bool): A linear map and dropout before the layers. (default: :obj:`False`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if ``data.x``
            is missing or of another width.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import TunedGNN
        >>> data = Data(torch.randn(3, 7), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> TunedGNN(7, 16, num_layers=2, out_channels=4, residual=True)(data).shape
        torch.Size([3, 4])
    """

    recipe: Recipe | None = None

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        conv: Literal["gcn", "sage", "gat"] = "gcn",
        heads: int = 1,
        dropout: float = 0.5,
        in_dropout: float = 0.0,
        norm: Literal["batch_norm", "layer_norm"] | None = None,
        residual: bool = False,
        jk: bool = False,
        in_linear: bool = False,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, num_layers=num_layers, out_channels=out_channels)
        check_heads(hidden_channels, heads)
        check_probabilities(dropout=dropout, in_dropout=in_dropout)
        check_flags(residual=residual, jk=jk, in_linear=in_linear)
        choose("conv", conv, ("gcn", "sage", "gat"))
        if norm is not None:
            choose("norm", norm, _NORMS)
        self.in_channels = in_channels
        self.dropout = dropout
        self.in_dropout = in_dropout
        self.jk = jk
        self.in_lin: Any = Linear(in_channels, hidden_channels) if in_linear else None
        first = hidden_channels if in_linear else in_channels
        widths = [first] + [hidden_channels] * (num_layers - 1)
        self.convs = ModuleList(_conv(conv, width, hidden_channels, heads) for width in widths)
        self.lins: Any = None
        if residual:
            self.lins = ModuleList(Linear(width, hidden_channels) for width in widths)
        self.norms: Any = None
        if norm is not None:
            self.norms = ModuleList(_NORMS[norm](hidden_channels) for _ in widths)
        self.head = Linear(hidden_channels, out_channels)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for module in self.children():
            reset(module)

    def forward(self, data: Data) -> Tensor:
        """``[N, out_channels]``: the prediction of each node.

        Args:
            data (Data): Has ``x [N, in_channels]`` and ``edge_index [2, E]``.
        """
        x = read(self, data, "x")
        check_features("data.x", x, self.in_channels)
        check_edge_index(data.edge_index, read_here=True)
        x = F.dropout(x, p=self.in_dropout, training=self.training)
        if self.in_lin is not None:
            x = F.dropout(self.in_lin(x), p=self.dropout, training=self.training)
        states = []
        for i, conv in enumerate(self.convs):
            h = conv(x, data.edge_index)
            h = h if self.lins is None else h + self.lins[i](x)
            h = h if self.norms is None else self.norms[i](h)
            x = F.dropout(h.relu(), p=self.dropout, training=self.training)
            states.append(x)
        out: Tensor = self.head(sum(states[1:], states[0]) if self.jk else x)
        return out

    @classmethod
    def minesweeper(cls, num_features: int = 7, num_classes: int = 2, **changes: Any) -> TunedGNN:
        """minesweeper: GCN 97.86 ROC-AUC.

        Args:
            num_features (int): Width of ``data.x``. (default: :obj:`7`)
            num_classes (int): Number of classes. (default: :obj:`2`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = dict(
            hidden_channels=64, num_layers=12, dropout=0.2, norm="batch_norm", residual=True
        )
        recipe = _recipe("minesweeper", 2000, 1e-2, "rocauc", "test 97.86 +- 0.24, 3 runs")
        return _built(cls, recipe, num_features, num_classes, settings, changes)

    @classmethod
    def amazon_ratings(
        cls, num_features: int = 300, num_classes: int = 5, **changes: Any
    ) -> TunedGNN:
        """amazon-ratings: GCN 53.80 accuracy.

        Args:
            num_features (int): Width of ``data.x``. (default: :obj:`300`)
            num_classes (int): Number of classes. (default: :obj:`5`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = dict(
            hidden_channels=512, num_layers=4, dropout=0.5, norm="batch_norm", residual=True
        )
        recipe = _recipe("amazon-ratings", 2500, 1e-3, "acc", "test 53.80 +- 0.60, 3 runs")
        return _built(cls, recipe, num_features, num_classes, settings, changes)

    @classmethod
    def roman_empire(
        cls, num_features: int = 300, num_classes: int = 18, **changes: Any
    ) -> TunedGNN:
        """roman-empire: GCN 91.27 accuracy.

        Args:
            num_features (int): Width of ``data.x``. (default: :obj:`300`)
            num_classes (int): Number of classes. (default: :obj:`18`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = dict(
            hidden_channels=512, num_layers=9, dropout=0.5, norm="batch_norm", residual=True,
            in_linear=True,
        )  # fmt: skip
        recipe = _recipe("roman-empire", 2500, 1e-3, "acc", "test 91.27 +- 0.20, 3 runs")
        return _built(cls, recipe, num_features, num_classes, settings, changes)

    @classmethod
    def questions(cls, num_features: int = 301, num_classes: int = 2, **changes: Any) -> TunedGNN:
        """questions: GCN 79.02 ROC-AUC.

        Args:
            num_features (int): Width of ``data.x``. (default: :obj:`301`)
            num_classes (int): Number of classes. (default: :obj:`2`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = dict(hidden_channels=512, num_layers=10, dropout=0.3, residual=True)
        recipe = _recipe("questions", 1500, 3e-5, "rocauc", "test 79.02 +- 0.60, 3 runs")
        return _built(cls, recipe, num_features, num_classes, settings, changes)

    @classmethod
    def cora(cls, num_features: int = 1433, num_classes: int = 7, **changes: Any) -> TunedGNN:
        """Cora, 20 random nodes a class: GCN 85.10 accuracy.

        Args:
            num_features (int): Width of ``data.x``. (default: :obj:`1433`)
            num_classes (int): Number of classes. (default: :obj:`7`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = dict(hidden_channels=512, num_layers=3, dropout=0.7)
        recipe = _recipe("Cora", 500, 1e-3, "acc", "test 85.10 +- 0.67, 5 runs", 5e-4)
        return _built(cls, recipe, num_features, num_classes, settings, changes)

    @classmethod
    def ogbn_arxiv(
        cls, num_features: int = 128, num_classes: int = 40, **changes: Any
    ) -> TunedGNN:
        """ogbn-arxiv: GCN, five layers of 512.

        Args:
            num_features (int): Width of ``data.x``. (default: :obj:`128`)
            num_classes (int): Number of classes. (default: :obj:`40`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = dict(
            hidden_channels=512, num_layers=5, dropout=0.5, in_dropout=0.15, norm="batch_norm",
            residual=True,
        )  # fmt: skip
        recipe = _recipe("ogbn-arxiv", 2000, 5e-4, "acc", "", 5e-4)
        return _built(cls, recipe, num_features, num_classes, settings, changes)


def _conv(conv: str, in_channels: int, out_channels: int, heads: int) -> torch.nn.Module:
    made: torch.nn.Module
    if conv == "sage":
        made = SAGEConv(in_channels, out_channels)
    elif conv == "gat":
        made = GATConv(in_channels, out_channels // heads, heads, add_self_loops=False)
    else:
        made = GCNConv(in_channels, out_channels)  # adds no self-loop where there is one
    return made


def _recipe(
    dataset: str,
    epochs: int,
    lr: float,
    metric: Literal["rocauc", "acc"],
    published: str,
    weight_decay: float = 0.0,
) -> Recipe:
    return Recipe(
        dataset=dataset, source=_SOURCE, loss="cross_entropy", metric=metric,
        transforms=(ToUndirected(), RemoveSelfLoops(), AddSelfLoops()), batch_size=None,
        epochs=epochs, lr=lr, weight_decay=weight_decay, optimizer="adam", schedule="constant",
        clip_norm=None, published=published,
    )  # fmt: skip


def _built(
    cls: type[TunedGNN],
    recipe: Recipe,
    num_features: int,
    num_classes: int,
    settings: dict[str, Any],
    changes: dict[str, Any],
) -> TunedGNN:
    given = dict(in_channels=num_features, out_channels=num_classes, **settings)
    model = cls(**{**given, **changes})
    model.recipe = recipe
    return model
