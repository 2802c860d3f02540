"""GNN+: plain message passing with what Transformers have around their attention."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GINEConv

from ..nn import GatedGCNConv, GCNEConv, GNNPlusBlock, RandomWalkEncoder
from ..nn.arguments import check_flags, check_probabilities
from ..transforms import AddRandomWalkPE
from .encoders import CategoryEncoder, CatEncoder, FeatureEncoder
from .graph_model import GraphModel
from .heads import CodeHead, GraphHead
from .ogb_encoders import ASTNodeEncoder, AtomEncoder, BondEncoder, SharedVector
from .preset import choose, pick
from .recipe import Recipe

CONVS = ("gcn", "gin", "gatedgcn")
Conv = Literal["gcn", "gin", "gatedgcn"]
_SOURCE = "https://github.com/LUOyk1999/GNNPlus (configs), arXiv 2502.09263, tables 8-13"


class GNNPlus(GraphModel):
    r"""GCN, GIN or GatedGCN with edge features, norms, dropout, residuals, an MLP and encodings.

    `"Unlocking the Potential of Classic GNNs for Graph-level Tasks"
    <https://arxiv.org/abs/2502.09263>`_ (Luo et al. 2025): the baseline that a Graph Transformer
    has to beat. Layers are :class:`~pyg_gt.nn.GNNPlusBlock`.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gatedgcn"`)
        dropout (float): (default: :obj:`0.0`)
        act (str): Activation. (default: :obj:`"relu"`)
        residual (bool): (default: :obj:`True`)
        ffn (bool): An MLP in each layer. (default: :obj:`True`)
        edges (bool): Whether a GCN reads edge features (:class:`~pyg_gt.nn.GCNEConv`) or not
            (PyG's ``GCNConv``). (default: :obj:`True`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        edge_encoder (torch.nn.Module, optional): Called with the batch, gives ``[E, F]``; None:
            ``data.edge_attr`` as it is. (default: :obj:`None`)
        head (torch.nn.Module, optional): Called with ``(x, data)``; None: the mean over nodes and
            a linear map. (default: :obj:`None`)
        lean (bool): Leave out parameters that no forward pass uses: the last layer's edge norm
            in a GatedGCN, and a bond table that a GCN without edges does not read.
            (default: :obj:`False`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import GNNPlus
        >>> model = GNNPlus(7, 16, num_layers=2, out_channels=1, conv="gin")
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> model(Data(torch.randn(3, 7), edge_index, torch.randn(4, 16))).shape
        torch.Size([1, 1])
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        conv: Conv = "gatedgcn",
        dropout: float = 0.0,
        act: str = "relu",
        residual: bool = True,
        ffn: bool = True,
        edges: bool = True,
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
        check_probabilities(dropout=dropout)
        check_flags(residual=residual, ffn=ffn, edges=edges, lean=lean)
        self.conv = choose("conv", conv, CONVS)
        self.reads_edges = edges or conv != "gcn"
        if lean and not self.reads_edges:
            self.edge_encoder = None
        self.layers = ModuleList()
        for i in range(num_layers):
            layer = _conv(
                conv, hidden_channels, dropout, act, residual, self.reads_edges,
                edge_output=not (lean and i == num_layers - 1),
            )  # fmt: skip
            self.layers.append(
                GNNPlusBlock(
                    hidden_channels,
                    layer,
                    dropout,
                    act,
                    conv_act="relu" if conv == "gin" else None,
                    norm=conv == "gcn",
                    residual=residual,
                    ffn=ffn,
                    activated=conv == "gatedgcn",
                )  # fmt: skip
            )

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with what the encoders read.
        """
        x = self.node_encoder(data)
        edges: dict[str, Any] = {}
        if self.reads_edges:
            edges = {"edge_attr": self._edge_attr(data)}
        for layer in self.layers:
            x = layer(x, data.edge_index, **edges)
            if isinstance(x, tuple):
                x, edges["edge_attr"] = x
        out: Tensor = self.head(x, data)
        return out

    @classmethod
    def ogbg_molhiv(cls, conv: Conv = "gatedgcn", atom_rows: int = 174, **changes: Any) -> GNNPlus:
        """ogbg-molhiv: GatedGCN+ 0.8040 ROC-AUC.

        Args:
            conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gatedgcn"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick(
            "conv",
            conv,
            {
                "gcn": dict(hidden_channels=256, num_layers=4, dropout=0.1, residual=False),
                "gin": dict(hidden_channels=256, num_layers=3, ffn=False),
                "gatedgcn": dict(hidden_channels=256, num_layers=3, ffn=False),
            },
        )
        counts = {"gcn": 1_407_641, "gin": 481_433, "gatedgcn": 1_076_633}
        recipe = Recipe(
            dataset="ogbg-molhiv", source=_SOURCE, transforms=(AddRandomWalkPE(20),),
            batch_size=32, epochs=100, warmup_epochs=5, lr=1e-4, weight_decay=1e-5, loss="bce",
            metric="rocauc", parameters=counts[conv],
            published="test 0.8040" if conv == "gatedgcn" else "",
        )  # fmt: skip
        return _molecular(
            cls, conv, recipe, 20, 16, dict(kind="san"), 1, atom_rows, settings, changes
        )

    @classmethod
    def ogbg_molpcba(
        cls, conv: Conv = "gatedgcn", atom_rows: int = 174, **changes: Any
    ) -> GNNPlus:
        """ogbg-molpcba: GatedGCN+ 0.2981 average precision.

        Args:
            conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gatedgcn"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick(
            "conv",
            conv,
            {
                "gcn": dict(hidden_channels=512, num_layers=10, dropout=0.2, residual=False),
                "gin": dict(hidden_channels=300, num_layers=16, dropout=0.3),
                "gatedgcn": dict(hidden_channels=256, num_layers=10, dropout=0.2),
            },
        )
        counts = {"gcn": 13_316_700, "gin": 8_774_720, "gatedgcn": 6_016_860}
        recipe = Recipe(
            dataset="ogbg-molpcba", source=_SOURCE, transforms=(AddRandomWalkPE(16),),
            batch_size=512, epochs=100, warmup_epochs=5, lr=5e-4, weight_decay=1e-5, loss="bce",
            metric="ap", parameters=counts[conv],
            published="test 0.2981" if conv == "gatedgcn" else "",
        )  # fmt: skip
        return _molecular(cls, conv, recipe, 16, 20, {}, 128, atom_rows, settings, changes)

    @classmethod
    def peptides_func(cls, conv: Conv = "gcn", atom_rows: int = 174, **changes: Any) -> GNNPlus:
        """Peptides-func: GCN+ 0.7261 average precision.

        Args:
            conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gcn"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick(
            "conv",
            conv,
            {
                "gcn": dict(
                    hidden_channels=275, num_layers=3, dropout=0.2, residual=False, act="gelu"
                ),
                "gin": dict(hidden_channels=240, num_layers=3, dropout=0.2),
                "gatedgcn": dict(hidden_channels=135, num_layers=5, dropout=0.05, residual=False),
            },
        )
        counts = {"gcn": 507_351, "gin": 506_126, "gatedgcn": 521_141}
        recipe = Recipe(
            dataset="Peptides-func", source=_SOURCE, transforms=(AddRandomWalkPE(32),),
            batch_size=16, epochs=300, warmup_epochs=5, lr=1e-3 if conv == "gcn" else 5e-4,
            loss="bce", metric="ap", parameters=counts[conv],
            published="test 0.7261" if conv == "gcn" else "",
        )  # fmt: skip
        head: dict[str, Any] = dict(kind="mlp_graph", num_layers=4 if conv == "gcn" else 3)
        settings = {"dropout": 0.2, "ffn": False, **settings}
        return _molecular(cls, conv, recipe, 32, 28, head, 10, atom_rows, settings, changes)

    @classmethod
    def peptides_struct(cls, conv: Conv = "gcn", atom_rows: int = 174, **changes: Any) -> GNNPlus:
        """Peptides-struct: GCN+ 0.2421 mean absolute error, without edge features.

        The published GCN+ has a bond table that nothing reads (``lean=True`` drops it).

        Args:
            conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gcn"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick(
            "conv",
            conv,
            {
                "gcn": dict(hidden_channels=255, num_layers=5, residual=False, edges=False),
                "gin": dict(hidden_channels=200, num_layers=5),
                "gatedgcn": dict(hidden_channels=145, num_layers=4, residual=False),
            },
        )
        counts = {"gcn": 506_127, "gin": 518_127, "gatedgcn": 492_897}
        scores = {
            "gcn": "0.2421 +- 0.0016",
            "gin": "0.2429 +- 0.0019",
            "gatedgcn": "0.2431 +- 0.0020",
        }
        recipe = Recipe(
            dataset="Peptides-struct", source=_SOURCE, transforms=(AddRandomWalkPE(32),),
            batch_size=32, epochs=250 if conv == "gin" else 300, warmup_epochs=5, lr=1e-3,
            loss="l1", metric="mae", parameters=counts[conv], published=f"test {scores[conv]}",
        )  # fmt: skip
        head: dict[str, Any] = dict(kind="mlp_graph", num_layers=3)
        settings |= dict(ffn=False, dropout=0.2)
        return _molecular(cls, conv, recipe, 32, 28, head, 11, atom_rows, settings, changes)

    @classmethod
    def zinc(cls, conv: Conv = "gin", **changes: Any) -> GNNPlus:
        """ZINC-12k: GIN+ 0.065 mean absolute error.

        The published counts are 1,470 to 2,112 above this model's, by exactly one linear map of
        the encoding (``K -> F``) that the settings do not name.

        Args:
            conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gin"`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick(
            "conv",
            conv,
            {
                "gcn": dict(hidden_channels=64, num_layers=12),
                "gin": dict(hidden_channels=80, num_layers=12),
                "gatedgcn": dict(hidden_channels=70, num_layers=9, dropout=0.05),
            },
        )
        steps = 32 if conv == "gcn" else 20
        counts = {"gcn": 260_177, "gin": 477_241, "gatedgcn": 413_355}
        recipe = Recipe(
            dataset="ZINC-12k", source=_SOURCE, transforms=(AddRandomWalkPE(steps),),
            batch_size=32, epochs=2000, warmup_epochs=50, lr=1e-3, weight_decay=1e-5, loss="l1",
            metric="mae", parameters=counts[conv],
            published="test 0.065" if conv == "gin" else "",
        )  # fmt: skip
        width = changes.get("hidden_channels", settings["hidden_channels"])
        settings |= dict(
            node_encoder=CatEncoder(CategoryEncoder(21, width - 28), RandomWalkEncoder(steps, 28)),
            edge_encoder=CategoryEncoder(4, width, "edge_attr"),
            head=GraphHead(width, changes.get("out_channels", 1), "add", "san"),
        )
        return _built(cls, conv, recipe, settings, 1, changes)

    @classmethod
    def ogbg_ppa(cls, conv: Conv = "gatedgcn", **changes: Any) -> GNNPlus:
        """ogbg-ppa: GatedGCN+ 0.8258 accuracy.

        Args:
            conv (str): ``"gcn"``, ``"gin"`` or ``"gatedgcn"``. (default: :obj:`"gatedgcn"`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick(
            "conv",
            conv,
            {
                "gcn": dict(num_layers=4, dropout=0.2),
                "gin": dict(num_layers=5, dropout=0.15, residual=False),
                "gatedgcn": dict(num_layers=4, dropout=0.15, ffn=False),
            },
        )
        counts = {"gcn": 5_549_605, "gin": 8_173_605, "gatedgcn": 5_547_557}
        recipe = Recipe(
            dataset="ogbg-ppa", source=_SOURCE, batch_size=32,
            epochs=400 if conv == "gcn" else 300, warmup_epochs=10, lr=3e-4, weight_decay=1e-5,
            loss="cross_entropy", metric="acc", parameters=counts[conv],
            published="test 0.8258" if conv == "gatedgcn" else "",
        )  # fmt: skip
        width: int = changes.get("hidden_channels", 512)
        settings |= dict(
            hidden_channels=width,
            node_encoder=SharedVector(width),
            edge_encoder=FeatureEncoder(7, width, "edge_attr"),
            head=GraphHead(width, changes.get("out_channels", 37), num_layers=2),
        )
        return _built(cls, conv, recipe, settings, 37, changes)

    @classmethod
    def ogbg_code2(cls, **changes: Any) -> GNNPlus:
        """ogbg-code2: GatedGCN+ 0.1896 F1.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ogbg-code2", source=_SOURCE, batch_size=32, epochs=30, warmup_epochs=2,
            lr=1e-4, weight_decay=1e-6, loss="cross_entropy", metric="f1",
            parameters=29_865_906, published="test 0.1896",
        )  # fmt: skip
        width = changes.get("hidden_channels", 512)
        settings = dict(
            hidden_channels=width,
            num_layers=5,
            dropout=0.2,
            node_encoder=ASTNodeEncoder(width),
            edge_encoder=CategoryEncoder([2, 2], width, "edge_attr"),
            head=CodeHead(width, changes.get("out_channels", 5002)),
        )
        return _built(cls, "gatedgcn", recipe, settings, 5002, changes)


def _conv(
    conv: str,
    channels: int,
    dropout: float,
    act: str,
    residual: bool,
    edges: bool,
    edge_output: bool,
) -> torch.nn.Module:
    if conv == "gatedgcn":
        return GatedGCNConv(
            channels, channels, dropout, residual, edge_output=edge_output, act=act
        )
    if conv == "gin":
        mlp = Sequential(Linear(channels, channels), ReLU(), Linear(channels, channels))
        return GINEConv(mlp)  # type: ignore[no-any-return]
    if edges:
        return GCNEConv(channels, channels)
    return GCNConv(channels, channels)  # type: ignore[no-any-return]


def _molecular(
    cls: type[GNNPlus],
    conv: str,
    recipe: Recipe,
    steps: int,
    pe_channels: int,
    head: dict[str, Any],
    out_channels: int,
    atom_rows: int,
    settings: dict[str, Any],
    changes: dict[str, Any],
) -> GNNPlus:
    width = changes.get("hidden_channels", settings["hidden_channels"])
    out_channels = changes.get("out_channels", out_channels)
    if head.get("kind") == "mlp_graph":
        head |= dict(dropout=settings["dropout"], act=settings.get("act", "relu"))
    settings |= dict(
        node_encoder=CatEncoder(
            AtomEncoder(width - pe_channels, atom_rows), RandomWalkEncoder(steps, pe_channels)
        ),
        edge_encoder=BondEncoder(width),
        head=GraphHead(width, out_channels, **head),
    )
    return _built(cls, conv, recipe, settings, out_channels, changes)


def _built(
    cls: type[GNNPlus],
    conv: str,
    recipe: Recipe,
    settings: dict[str, Any],
    out_channels: int,
    changes: dict[str, Any],
) -> GNNPlus:
    given = dict(out_channels=out_channels, conv=conv, **settings)
    return cls._published(recipe, given, changes)
