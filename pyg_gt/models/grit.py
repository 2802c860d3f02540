"""GRIT: states of pairs from random walks, updated by every layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.data import Data
from torch_geometric.utils import degree

from ..layout import GraphLayout
from ..nn import GRITConv, RelativeWalkEncoder
from ..nn.arguments import check_flags
from ..nn.stored_encoding import stored, transform_adds
from ..transforms import AddRelativeRandomWalkPE
from .encoders import CategoryEncoder
from .graph_model import GraphModel
from .heads import GraphHead
from .ogb_encoders import AtomEncoder, BondEncoder
from .preset import pick
from .recipe import Recipe

_SOURCE = "https://github.com/LiamMa/GRIT (configs/GRIT), arXiv 2305.17589"


class GRIT(GraphModel):
    r"""A graph Transformer without message passing, whose layers update states of pairs.

    `"Graph Inductive Biases in Transformers without Message Passing"
    <https://arxiv.org/abs/2305.17589>`_ (Ma et al. 2023): a
    :class:`~pyg_gt.nn.RelativeWalkEncoder`, layers of :class:`~pyg_gt.nn.GRITConv`, and a head.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        heads (int): ``H``. (default: :obj:`8`)
        walk_length (int): Of ``AddRelativeRandomWalkPE``, which adds what the model reads.
            (default: :obj:`16`)
        dropout (float): Of the outputs of attention and in the MLP. (default: :obj:`0.0`)
        attn_dropout (float): Of attention weights. (default: :obj:`0.0`)
        act (str): Activation of the MLP. (default: :obj:`"relu"`)
        norm (str, optional): ``"batch_norm"``, ``"layer_norm"`` or None.
            (default: :obj:`"batch_norm"`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        edge_encoder (torch.nn.Module, optional): Called with the batch, gives ``[E, F]``; None:
            edges have no features. (default: :obj:`None`)
        head (torch.nn.Module, optional): Called with ``(x, data)``; None: the mean over nodes and
            a linear map. (default: :obj:`None`)
        lean (bool): Leave out the update of pairs in the last layer, which is published and which
            nobody reads. (default: :obj:`False`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import GRIT
        >>> from pyg_gt.transforms import AddRelativeRandomWalkPE
        >>> model = GRIT(7, 16, num_layers=2, out_channels=1, walk_length=8)
        >>> data = Data(torch.randn(3, 7), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> model(AddRelativeRandomWalkPE(8)(data)).shape
        torch.Size([1, 1])

        The model of a publication, with its encoders and its training settings:

        >>> model = GRIT.zinc()
        >>> sum(p.numel() for p in model.parameters()), model.recipe.batch_size
        (473473, 32)
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        heads: int = 8,
        walk_length: int = 16,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        act: str = "relu",
        norm: str | None = "batch_norm",
        node_encoder: torch.nn.Module | None = None,
        edge_encoder: torch.nn.Module | None = None,
        head: torch.nn.Module | None = None,
        lean: bool = False,
    ) -> None:
        if head is None:
            head = GraphHead(hidden_channels, out_channels)
        super().__init__(
            in_channels,
            hidden_channels,
            num_layers,
            out_channels,
            node_encoder,
            edge_encoder,
            head,
        )
        check_flags(lean=lean)
        self.walk_encoder = RelativeWalkEncoder(walk_length, hidden_channels)
        self.layers = ModuleList(
            GRITConv(
                hidden_channels, heads, dropout, attn_dropout, act, norm,
                pair_output=not (lean and i == num_layers - 1),
            )
            for i in range(num_layers)
        )  # fmt: skip

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with what the encoders read.
        """
        x = self.node_encoder(data)
        edge_attr = None if self.edge_encoder is None else self.edge_encoder(data)
        walk_length = str(self.walk_encoder.walk_length)
        cure = transform_adds("AddRelativeRandomWalkPE", walk_length, "pair_walk")
        (walk,) = stored(self, data, {"pair_walk": cure})
        layout = GraphLayout.of(data.batch, x.size(0), device=x.device)
        x, pair_attr = self.walk_encoder(x, walk, data.edge_index, edge_attr, layout)
        degrees = degree(data.edge_index[0], x.size(0))
        for layer in self.layers:
            x, pair_attr = layer(x, pair_attr, layout, degrees)
        out: Tensor = self.head(x, data)
        return out

    @classmethod
    def zinc(cls, **changes: Any) -> GRIT:
        """ZINC-12k: 0.059 mean absolute error, 473,473 parameters.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ZINC-12k", source=_SOURCE, transforms=(AddRelativeRandomWalkPE(21),),
            batch_size=32, epochs=2000, warmup_epochs=50, lr=1e-3, min_lr=1e-6,
            weight_decay=1e-5, loss="l1", metric="mae", parameters=473_473,
            published="test 0.059 +- 0.002",
        )  # fmt: skip
        width = changes.get("hidden_channels", 64)
        return cls._preset(
            recipe, changes, width, 10, 1, 21, dict(pool="add", kind="san"), heads=8,
            attn_dropout=0.2, node_encoder=CategoryEncoder(21, width),
            edge_encoder=CategoryEncoder(4, width, "edge_attr"),
        )  # fmt: skip

    @classmethod
    def peptides_func(cls, atom_rows: int = 174, **changes: Any) -> GRIT:
        """Peptides-func: 0.6988 average precision, 443,338 parameters (with 173 atom rows).

        Args:
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="Peptides-func", source=_SOURCE, transforms=(AddRelativeRandomWalkPE(17),),
            batch_size=16, epochs=200, warmup_epochs=10, lr=3e-4, loss="bce", metric="ap",
            parameters=443_338, published="test 0.6988 +- 0.0082",
        )  # fmt: skip
        return cls._molecular(
            recipe, changes, atom_rows, 96, 4, 10, 17, {}, heads=4, attn_dropout=0.5
        )

    @classmethod
    def peptides_struct(
        cls, variant: str = "released", atom_rows: int = 174, **changes: Any
    ) -> GRIT:
        """Peptides-struct: 0.2460 mean absolute error.

        The released settings give 449,483 parameters, those of the paper 438,827 (with 173 atom
        rows; published are 439 thousand): 17 walk steps instead of 24, a head of one layer.

        Args:
            variant (str): ``"released"`` or ``"paper"``. (default: :obj:`"released"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick("variant", variant, {
            "released": dict(steps=24, head_layers=2, parameters=449_483),
            "paper": dict(steps=17, head_layers=1, parameters=438_827),
        })  # fmt: skip
        steps = settings["steps"]
        recipe = Recipe(
            dataset="Peptides-struct", source=_SOURCE,
            transforms=(AddRelativeRandomWalkPE(steps),), batch_size=16, epochs=200,
            warmup_epochs=10, lr=3e-4, loss="l1", metric="mae", parameters=settings["parameters"],
            published="test 0.2460 +- 0.0012",
        )  # fmt: skip
        return cls._molecular(
            recipe, changes, atom_rows, 96, 4, 11, steps,
            dict(num_layers=settings["head_layers"]), heads=8, dropout=0.05, attn_dropout=0.2,
        )  # fmt: skip

    @classmethod
    def pcqm4mv2(cls, atom_rows: int = 174, **changes: Any) -> GRIT:
        """PCQM4Mv2: validation error 0.0859.

        The released settings give 11,832,065 parameters (with 173 atom rows), not the published
        16.6 million.

        Args:
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="PCQM4Mv2", source=_SOURCE, transforms=(AddRelativeRandomWalkPE(16),),
            batch_size=256, epochs=150, warmup_epochs=10, lr=2e-4, schedule="linear", loss="l1",
            metric="mae", parameters=11_832_065, published="validation 0.0859",
            notes="The paper says 16.6 million parameters; its released settings give these.",
        )  # fmt: skip
        return cls._molecular(
            recipe, changes, atom_rows, 256, 16, 1, 16, dict(kind="san", act="gelu"), heads=8,
            dropout=0.1, attn_dropout=0.1, act="gelu",
        )  # fmt: skip

    @classmethod
    def _molecular(
        cls,
        recipe: Recipe,
        changes: dict[str, Any],
        atom_rows: int,
        width: int,
        num_layers: int,
        out_channels: int,
        walk_length: int,
        head: dict[str, Any],
        **settings: Any,
    ) -> GRIT:
        width = changes.get("hidden_channels", width)
        settings |= dict(
            node_encoder=AtomEncoder(width, atom_rows), edge_encoder=BondEncoder(width)
        )
        return cls._preset(
            recipe, changes, width, num_layers, out_channels, walk_length, head, **settings
        )

    @classmethod
    def _preset(
        cls,
        recipe: Recipe,
        changes: dict[str, Any],
        width: int,
        num_layers: int,
        out_channels: int,
        walk_length: int,
        head: dict[str, Any],
        **settings: Any,
    ) -> GRIT:
        out_channels = changes.get("out_channels", out_channels)
        settings |= dict(
            hidden_channels=width, num_layers=num_layers,
            out_channels=out_channels, walk_length=walk_length,
            head=GraphHead(width, out_channels, **head),
        )  # fmt: skip
        return cls._published(recipe, settings, changes)
