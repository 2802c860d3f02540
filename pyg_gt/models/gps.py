"""GPS: local message passing and global attention in every layer."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, ModuleList, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.nn import GINEConv
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from ..layout import GraphLayout
from ..nn import GatedGCNConv, GPSConv, LaplacianEncoder, RandomWalkEncoder
from ..nn.arguments import check_flags
from ..nn.norm.batch_norm import BatchNorm
from ..transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE
from .encoders import CategoryEncoder, CatEncoder, FeatureEncoder
from .graph_model import GraphModel
from .heads import CodeHead, GraphHead
from .ogb_encoders import ASTNodeEncoder, AtomEncoder, BondEncoder, SharedVector
from .preset import choose, pick
from .recipe import Recipe

_SOURCE = "https://github.com/rampasek/GraphGPS (configs/GPS), arXiv 2205.12454"
_TUNED = "https://github.com/toenshoff/LRGB (configs/LRGB-tuned), arXiv 2309.00367"


class GPS(GraphModel):
    r"""Layers of a local convolution and global attention, with encodings of nodes.

    `"Recipe for a General, Powerful, Scalable Graph Transformer"
    <https://arxiv.org/abs/2205.12454>`_ (Rampasek et al. 2022). Layers are
    :class:`~pyg_gt.nn.GPSConv`, with a GatedGCN that updates edges too, or with a GINE.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        heads (int): ``H``. (default: :obj:`4`)
        local (str): ``"gatedgcn"`` or ``"gine"``. (default: :obj:`"gatedgcn"`)
        dropout (float): Of the outputs of each part. (default: :obj:`0.0`)
        attn_dropout (float): Of attention weights. (default: :obj:`0.0`)
        act (str): Activation. (default: :obj:`"relu"`)
        attn_type (str): ``"multihead"``, or ``"performer"``, whose heads are 64 wide.
            (default: :obj:`"multihead"`)
        attention (bool): False leaves out the global part: the same recipe without attention.
            (default: :obj:`True`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        edge_encoder (torch.nn.Module, optional): Called with the batch, gives ``[E, F]``; None:
            ``data.edge_attr`` as it is. (default: :obj:`None`)
        head (torch.nn.Module, optional): Called with ``(x, data)``; None: the mean over nodes and
            a linear map. (default: :obj:`None`)
        lean (bool): Leave out the norm of edges in the last layer, which is published and which
            nobody reads. (default: :obj:`False`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import GPS
        >>> model = GPS(7, 16, num_layers=2, out_channels=1)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> model(Data(torch.randn(3, 7), edge_index, torch.randn(4, 16))).shape
        torch.Size([1, 1])

        The model of a publication, with its encoders and its training settings:

        >>> model = GPS.ogbg_molhiv()
        >>> sum(p.numel() for p in model.parameters()), model.recipe.batch_size
        (558673, 32)
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        heads: int = 4,
        local: Literal["gatedgcn", "gine"] = "gatedgcn",
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        act: str = "relu",
        attn_type: Literal["multihead", "performer"] = "multihead",
        attention: bool = True,
        node_encoder: torch.nn.Module | None = None,
        edge_encoder: torch.nn.Module | None = None,
        head: torch.nn.Module | None = None,
        lean: bool = False,
        backend: str = "auto",
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
        check_flags(attention=attention, lean=lean)
        choose("local", local, ("gatedgcn", "gine"))
        choose("attn_type", attn_type, ("multihead", "performer"))
        self.layers = ModuleList()
        for i in range(num_layers):
            edge_output = not (lean and i == num_layers - 1)
            conv = _local(local, hidden_channels, dropout, act, edge_output)
            if attention:
                layer: torch.nn.Module = GPSConv(
                    hidden_channels, conv, heads, dropout, act,
                    norm_kwargs={"allow_single_element": True}, attn_type=attn_type,
                    attn_kwargs={"dropout": attn_dropout}, backend=backend,
                )  # fmt: skip
            else:
                layer = _LocalLayer(hidden_channels, conv, dropout, act)
            self.layers.append(layer)

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with what the encoders read.
        """
        x = self.node_encoder(data)
        edge_attr = self._edge_attr(data)
        layout = GraphLayout.of(data.batch, x.size(0), device=x.device)
        for layer in self.layers:
            x = layer(x, data.edge_index, layout, edge_attr=edge_attr)
            if isinstance(x, tuple):
                x, edge_attr = x
        out: Tensor = self.head(x, data)
        return out

    @classmethod
    def zinc(cls, **changes: Any) -> GPS:
        """ZINC-12k: 0.070 mean absolute error, 423,717 parameters.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ZINC-12k", source=_SOURCE, transforms=(AddRandomWalkPE(20),), batch_size=32,
            epochs=2000, warmup_epochs=50, lr=1e-3, weight_decay=1e-5, loss="l1", metric="mae",
            parameters=423_717, published="test 0.070 +- 0.004",
        )  # fmt: skip
        width = changes.get("hidden_channels", 64)
        return cls._preset(
            recipe, changes, width, 10, 1, local="gine", attn_dropout=0.5,
            node_encoder=CatEncoder(CategoryEncoder(28, width - 28), RandomWalkEncoder(20, 28)),
            edge_encoder=CategoryEncoder(4, width, "edge_attr"),
            head=dict(pool="add", kind="san"),
        )  # fmt: skip

    @classmethod
    def ogbg_molhiv(cls, atom_rows: int = 174, **changes: Any) -> GPS:
        """ogbg-molhiv: 0.7880 ROC-AUC, 558,625 parameters (with 173 atom rows).

        Args:
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ogbg-molhiv", source=_SOURCE, transforms=(AddRandomWalkPE(16),),
            batch_size=32, epochs=100, warmup_epochs=5, lr=1e-4, weight_decay=1e-5, loss="bce",
            metric="rocauc", parameters=558_625, published="test 0.7880 +- 0.0101",
        )  # fmt: skip
        return cls._molecular(
            recipe, changes, atom_rows, 64, RandomWalkEncoder(16, 16), 10, 1,
            dropout=0.05, attn_dropout=0.5, head=dict(kind="san"),
        )  # fmt: skip

    @classmethod
    def ogbg_molpcba(cls, atom_rows: int = 174, **changes: Any) -> GPS:
        """ogbg-molpcba: 0.2907 average precision, 9,744,496 parameters (with 173 atom rows).

        Args:
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ogbg-molpcba", source=_SOURCE, transforms=(AddRandomWalkPE(16),),
            batch_size=512, epochs=100, warmup_epochs=5, lr=5e-4, weight_decay=1e-5, loss="bce",
            metric="ap", parameters=9_744_496, published="test 0.2907 +- 0.0028",
        )  # fmt: skip
        return cls._molecular(
            recipe, changes, atom_rows, 384, RandomWalkEncoder(16, 20), 5, 128,
            dropout=0.2, attn_dropout=0.5,
        )  # fmt: skip

    @classmethod
    def ogbg_ppa(cls, **changes: Any) -> GPS:
        """ogbg-ppa: 0.8015 accuracy, 3,434,533 parameters, with Performer attention.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ogbg-ppa", source=_SOURCE, batch_size=32, epochs=200, warmup_epochs=10,
            lr=3e-4, weight_decay=1e-5, loss="cross_entropy", metric="acc", parameters=3_434_533,
            published="test 0.8015 +- 0.0033, validation 0.7556 +- 0.0027",
            notes="Accuracy on the test part stays near 1 % for some 160 epochs: do not stop.",
        )  # fmt: skip
        width = changes.get("hidden_channels", 256)
        return cls._preset(
            recipe, changes, width, 3, 37, heads=8, dropout=0.1, attn_dropout=0.5,
            attn_type="performer", node_encoder=SharedVector(width),
            edge_encoder=FeatureEncoder(7, width, "edge_attr"), head=dict(num_layers=2),
        )  # fmt: skip

    @classmethod
    def ogbg_code2(cls, **changes: Any) -> GPS:
        """ogbg-code2: 0.1894 F1, with Performer attention.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="ogbg-code2", source=_SOURCE, batch_size=32, epochs=30, warmup_epochs=2,
            lr=1e-4, weight_decay=1e-5, loss="cross_entropy", metric="f1",
            parameters=12_454_066, published="test 0.1894",
        )  # fmt: skip
        width = changes.get("hidden_channels", 256)
        words = changes.get("out_channels", 5002)
        return cls._preset(
            recipe, {"head": CodeHead(width, words), **changes}, width, 4, words, dropout=0.2,
            attn_dropout=0.5, attn_type="performer", node_encoder=ASTNodeEncoder(width),
            edge_encoder=CategoryEncoder([2, 2], width, "edge_attr"),
        )  # fmt: skip

    @classmethod
    def peptides_func(
        cls, variant: str = "published", atom_rows: int = 174, **changes: Any
    ) -> GPS:
        """Peptides-func: 0.6535 average precision, 504,362 parameters (with 173 atom rows).

        The published encoding holds the eigenvectors of eigenvalue zero, which are constant in
        each component; ours begins with the first that is not.

        Args:
            variant (str): ``"published"``, or ``"tuned"`` (Toenshoff et al. 2023: 0.6534).
                (default: :obj:`"published"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        return cls._peptides(
            variant, atom_rows, changes, 10, (76, 6, "test 0.6534 +- 0.0091"),
            dataset="Peptides-func", loss="bce", metric="ap", parameters=504_362,
            published="test 0.6535 +- 0.0041",
        )  # fmt: skip

    @classmethod
    def peptides_struct(
        cls, variant: str = "published", atom_rows: int = 174, **changes: Any
    ) -> GPS:
        """Peptides-struct: 0.2500 mean absolute error, 504,459 parameters (173 atom rows).

        As :meth:`peptides_func`, without the zero eigenvalues' vectors.

        Args:
            variant (str): ``"published"``, or ``"tuned"`` (Toenshoff et al. 2023: 0.2509).
                (default: :obj:`"published"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        return cls._peptides(
            variant, atom_rows, changes, 11, (64, 8, "test 0.2509 +- 0.0014"),
            dataset="Peptides-struct", loss="l1", metric="mae", parameters=504_459,
            published="test 0.2500 +- 0.0005",
        )  # fmt: skip

    @classmethod
    def pcqm4mv2(cls, size: str = "small", atom_rows: int = 174, **changes: Any) -> GPS:
        """PCQM4Mv2: validation error 0.0937, 0.0858, 0.0852 (small, medium, deep).

        6,152,001, 19,414,641 and 13,807,345 parameters (with 173 atom rows).

        Args:
            size (str): ``"small"``, ``"medium"`` or ``"deep"``. (default: :obj:`"small"`)
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick("size", size, {
            "small": dict(hidden_channels=304, num_layers=5, heads=4, attn_dropout=0.5),
            "medium": dict(hidden_channels=384, num_layers=10, heads=16, dropout=0.1,
                           attn_dropout=0.1),
            "deep": dict(hidden_channels=256, num_layers=16, heads=8, dropout=0.1,
                         attn_dropout=0.1, act="gelu"),
        })  # fmt: skip
        recipe = pick("size", size, {
            "small": dict(epochs=100, warmup_epochs=5, lr=5e-4, parameters=6_152_001,
                          published="validation 0.0937"),
            "medium": dict(epochs=150, warmup_epochs=10, lr=2e-4, parameters=19_414_641,
                           published="validation 0.0858"),
            "deep": dict(epochs=150, warmup_epochs=10, lr=2e-4, parameters=13_807_345,
                         published="validation 0.0852", schedule="linear"),
        })  # fmt: skip
        width, layers = settings.pop("hidden_channels"), settings.pop("num_layers")
        return cls._molecular(
            Recipe(
                dataset="PCQM4Mv2", source=_SOURCE, transforms=(AddRandomWalkPE(16),),
                batch_size=256, loss="l1", metric="mae", **recipe,
            ),
            changes, atom_rows, width, RandomWalkEncoder(16, 20), layers, 1,
            head=dict(kind="san"), **settings,
        )  # fmt: skip

    @classmethod
    def _peptides(
        cls,
        variant: str,
        atom_rows: int,
        changes: dict[str, Any],
        out_channels: int,
        tuned: tuple[int, int, str],
        **recipe: Any,
    ) -> GPS:
        choose("variant", variant, ("published", "tuned"))
        recipe["transforms"] = (AddLaplacianEigenvectorPE(10, normalization=None),)
        settings: dict[str, Any] = dict(attn_dropout=0.5)
        if variant == "published":
            width, layers = 96, 4
            recipe |= dict(source=_SOURCE, batch_size=128, epochs=200, warmup_epochs=10, lr=3e-4)
        else:
            width, layers, score = tuned
            recipe |= dict(source=_TUNED, batch_size=200, epochs=250, warmup_epochs=5, lr=1e-3)
            recipe |= dict(parameters=None)
            recipe |= dict(
                published={10: "test 0.6534 +- 0.0091", 11: "test 0.2509 +- 0.0014"}[out_channels]
            )
            head = dict(kind="mlp_graph", num_layers=2, dropout=0.1, act="gelu")
            settings |= dict(dropout=0.1, act="gelu", head=head)
        encoder = LaplacianEncoder(10, 16)
        return cls._molecular(
            Recipe(**recipe), changes, atom_rows, width, encoder, layers, out_channels, **settings
        )

    @classmethod
    def _molecular(
        cls,
        recipe: Recipe,
        changes: dict[str, Any],
        atom_rows: int,
        width: int,
        encoding: LaplacianEncoder | RandomWalkEncoder,
        num_layers: int,
        out_channels: int,
        **settings: Any,
    ) -> GPS:
        width = changes.get("hidden_channels", width)
        atoms = AtomEncoder(width - encoding.channels, atom_rows)
        settings |= dict(node_encoder=CatEncoder(atoms, encoding), edge_encoder=BondEncoder(width))
        return cls._preset(recipe, changes, width, num_layers, out_channels, **settings)

    @classmethod
    def _preset(
        cls,
        recipe: Recipe,
        changes: dict[str, Any],
        width: int,
        num_layers: int,
        out_channels: int,
        head: dict[str, Any] | None = None,
        **settings: Any,
    ) -> GPS:
        out_channels = changes.get("out_channels", out_channels)
        settings |= dict(
            hidden_channels=width, num_layers=num_layers,
            out_channels=out_channels, head=GraphHead(width, out_channels, **(head or {})),
        )  # fmt: skip
        return cls._published(recipe, settings, changes)


class _LocalLayer(torch.nn.Module):
    """The layer without its global part: the names of ``GPSConv``, less those of attention."""

    def __init__(self, channels: int, conv: torch.nn.Module, dropout: float, act: str) -> None:
        super().__init__()
        self.conv = conv
        self.dropout = dropout
        self.mlp = Sequential(
            Linear(channels, 2 * channels), activation_resolver(act), torch.nn.Dropout(dropout),
            Linear(2 * channels, channels), torch.nn.Dropout(dropout),
        )  # fmt: skip
        self.norm1 = BatchNorm(channels)
        self.norm3 = BatchNorm(channels)

    def reset_parameters(self) -> None:
        for module in self.children():
            reset(module)

    def forward(self, x: Tensor, edge_index: Any, batch: Any = None, **kwargs: Any) -> Any:
        h = self.conv(x, edge_index, **kwargs)
        h, *edge_attr = h if isinstance(h, tuple) else (h,)
        h = self.norm1(x + F.dropout(h, p=self.dropout, training=self.training))
        h = self.norm3(h + self.mlp(h))
        return (h, *edge_attr) if edge_attr else h


def _local(
    local: str, channels: int, dropout: float, act: str, edge_output: bool
) -> torch.nn.Module:
    if local == "gine":
        mlp = Sequential(Linear(channels, channels), ReLU(), Linear(channels, channels))
        return GINEConv(mlp)  # type: ignore[no-any-return]
    # GPSConv drops and adds x itself: once, as published
    return GatedGCNConv(
        channels, channels, residual=False, edge_residual=True, edge_dropout=dropout,
        edge_output=edge_output, act=act,
    )  # fmt: skip
