"""Graphormer: attention among all nodes, biased by shortest paths, and a token for the graph."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear, ModuleList
from torch_geometric.data import Batch, Data

from ..layout import GraphLayout
from ..nn import DegreeEncoder, EdgePathBias, GraphToken, ShortestPathBias, TransformerBlock
from ..nn.arguments import check_counts, check_flags, check_probabilities
from ..nn.stored_encoding import stored, transform_adds
from ..ops import AttentionBias
from ..transforms import AddDegree, AddShortestPathDistance
from .graph_model import GraphModel
from .joint_table import JointTableEncoder, normal_rows
from .preset import choose
from .recipe import Recipe

_SOURCE = "https://github.com/microsoft/Graphormer (branch v1.0), arXiv 2106.05234"
_SOURCE_2 = "https://github.com/microsoft/Graphormer (examples/property_prediction)"
_FARTHEST = 254  # which the transform can store


class Graphormer(GraphModel):
    r"""Transformer blocks whose scores know shortest paths, and a token that is read out.

    `"Do Transformers Really Perform Bad for Graph Representation?"
    <https://arxiv.org/abs/2106.05234>`_ (Ying et al. 2021). Nodes enter as features and vectors
    of their degrees; scores are those of :class:`~pyg_gt.nn.ShortestPathBias` and
    :class:`~pyg_gt.nn.EdgePathBias`, the same in all layers; :class:`~pyg_gt.nn.GraphToken`
    stands for the graph:

    .. math::
        h_i = x_i + z^-_{\deg^-(i)} + z^+_{\deg^+(i)}, \qquad
        A_{ij} = \frac{q_i^\top k_j}{\sqrt{C}} + b_{d(i, j)} +
        \frac{1}{\min(d(i, j), L)} \sum_{n=1}^{\min(d(i, j), L)} x_{e_n}^\top w_n

    Of a node with itself and of a pair without a path there is no last term.

    Two models have this name. ``"v1"`` (NeurIPS 2021) normalises before each part and once more
    at the end, and its head is a linear map; ``"v2"`` (the authors' later code) normalises the
    embeddings and after each part, and its head is an MLP. They are initialised differently.

    What the authors' code does otherwise: of several shortest paths it takes another one; it
    takes the number of successors for both degrees, which on undirected graphs is the same; what
    stands behind the end of a path counts a fixed random row in v1, and here nothing; paths of
    more than 254 edges have distances of their own there, and here count as none; a repeated edge
    counts once in its degrees, and here as often as it stands.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        heads (int): ``H``. (default: :obj:`8`)
        ffn_channels (int, optional): Width of the MLPs; None: ``F``. (default: :obj:`None`)
        version (str): ``"v1"`` or ``"v2"``. (default: :obj:`"v2"`)
        norm_first (bool, optional): Normalise before each part, and at the end; None: as the
            version does. (default: :obj:`None`)
        input_dropout (float): Of the nodes' first states. (default: :obj:`0.0`)
        dropout (float): Of the outputs of each part. (default: :obj:`0.0`)
        attn_dropout (float): Of attention weights. (default: :obj:`0.0`)
        act_dropout (float): Inside the MLPs. (default: :obj:`0.0`)
        max_degree (int): This and higher degrees share a vector. (default: :obj:`510`)
        max_distance (int): Paths of so many edges and more, and no path, share a score. The
            transform has to tell distances below it apart, up to 254; pairs that it does not
            follow have no edge encoding. (default: :obj:`510`)
        path_length (int): ``L``, edges of a path that count. (default: :obj:`5`)
        unused_positions (int): Published matrices of positions beyond ``path_length``, which
            nobody reads. (default: :obj:`0`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        edge_encoder (torch.nn.Module, optional): Called with the batch, gives ``[E, H]``; None:
            no edge encoding. (default: :obj:`None`)
        head (torch.nn.Module, optional): Called with ``(x, data)`` of the nodes; None: the
            published one, on the token. (default: :obj:`None`)
        lean (bool): Leave out what is published and nobody reads: v2's pooler, and
            ``unused_positions``. (default: :obj:`False`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import Graphormer
        >>> from pyg_gt.transforms import AddDegree, AddShortestPathDistance
        >>> model = Graphormer(7, 16, num_layers=2, out_channels=1)
        >>> data = Data(torch.randn(3, 7), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> model(AddShortestPathDistance(254)(AddDegree()(data))).shape
        torch.Size([1, 1])

        The model of a publication, with its encoders and its training settings:

        >>> model = Graphormer.zinc()
        >>> sum(p.numel() for p in model.parameters()), model.recipe.batch_size
        (489481, 256)
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        heads: int = 8,
        ffn_channels: int | None = None,
        version: Literal["v1", "v2"] = "v2",
        norm_first: bool | None = None,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        act_dropout: float = 0.0,
        max_degree: int = 510,
        max_distance: int = 510,
        path_length: int = 5,
        unused_positions: int = 0,
        node_encoder: torch.nn.Module | None = None,
        edge_encoder: torch.nn.Module | None = None,
        head: torch.nn.Module | None = None,
        lean: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            hidden_channels,
            num_layers,
            out_channels,
            node_encoder,
            edge_encoder,
            head,
        )
        check_counts(heads=heads, max_distance=max_distance)
        check_counts(0, max_degree=max_degree, unused_positions=unused_positions)
        check_probabilities(input_dropout=input_dropout)
        self.version = choose("version", version, ("v1", "v2"))
        norm_first = self.version == "v1" if norm_first is None else norm_first
        check_flags(norm_first=norm_first, lean=lean)
        self.input_dropout = input_dropout
        self.max_distance = max_distance
        # row 0 of both tables is that of padding
        self.degree_encoder = DegreeEncoder(max_degree + 1, hidden_channels)
        self.distance_bias = ShortestPathBias(max_distance, heads)
        self.path_bias = None
        self.unused_positions: torch.nn.Parameter | None = None
        if edge_encoder is not None:
            self.path_bias = EdgePathBias(heads, heads, path_length)
            if unused_positions and not lean:
                shape = (unused_positions, heads, heads)
                self.unused_positions = torch.nn.Parameter(torch.empty(shape))
        self.token = GraphToken(hidden_channels, heads)
        self.embedding_norm = LayerNorm(hidden_channels) if self.version == "v2" else None
        self.layers = ModuleList(
            TransformerBlock(
                hidden_channels, heads, ffn_channels or hidden_channels, dropout, "gelu",
                norm_first=norm_first, backend=backend, attn_dropout=attn_dropout,
                act_dropout=act_dropout,
            )
            for _ in range(num_layers)
        )  # fmt: skip
        self.norm = LayerNorm(hidden_channels) if norm_first else None
        self.token_head: torch.nn.Module | None = None
        self.unused_pooler: Linear | None = None
        if head is None and self.version == "v1":
            self.token_head = Linear(hidden_channels, out_channels)
        elif head is None:
            self.token_head = _MLPHead(hidden_channels, out_channels)
            self.unused_pooler = None if lean else Linear(hidden_channels, hidden_channels)
        self._draw()

    def reset_parameters(self) -> None:
        """Draws all weights anew, by the version's rules."""
        super().reset_parameters()
        self._draw()

    def _draw(self) -> None:
        """By the authors' rules, all but the norms and what encoders and a head draw."""
        std = 0.02 / len(self.layers) ** 0.5 if self.version == "v1" else 0.02
        for name, parameter in self.layers.named_parameters():
            if "norm" not in name:
                _draw_linear(name, parameter, std)
        for weight in self.degree_encoder.parameters():
            normal_rows(weight)
        normal_rows(self.distance_bias.table)
        if self.unused_positions is not None:
            torch.nn.init.normal_(self.unused_positions, std=0.02)
        for lin in (self.unused_pooler, self.token_head):
            if isinstance(lin, Linear):
                for name, parameter in lin.named_parameters():
                    _draw_linear(name, parameter, std)

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph; or what ``head`` gives.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with ``degree`` and ``pair_distance``, and what
                the encoders read.
        """
        x = self.node_encoder(data)
        (degree,) = stored(self, data, {"degree": transform_adds("AddDegree", "", "degree")})
        x = x + self.degree_encoder(degree + 1)
        num_graphs = data.num_graphs if isinstance(data, Batch) else None
        layout: Any = GraphLayout.of(data.batch, x.size(0), num_graphs, x.device)
        x, layout, biases = self.token(x, layout, self._biases(data))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = F.dropout(x, self.input_dropout, self.training)
        for layer in self.layers:
            x = layer(x, layout, biases)
        if self.norm is not None:
            x = self.norm(x)
        nodes, tokens = self.token.split(x, layout)
        if self.head is not None:
            return self.head(nodes, data)  # type: ignore[no-any-return]
        assert self.token_head is not None
        out: Tensor = self.token_head(tokens[:, 0])
        return out

    def _biases(self, data: Data) -> tuple[AttentionBias, ...]:
        far = min(self.max_distance - 1, _FARTHEST)
        cure = transform_adds("AddShortestPathDistance", str(_FARTHEST), "pair_distance")
        (distance,) = stored(self, data, {"pair_distance": cure})
        if distance.dtype == torch.uint8:
            distance = distance.short()
        rows = torch.where(distance > far, self.max_distance + 1, distance + 1)
        bias = self.distance_bias(rows)
        if self.path_bias is None:
            return (bias,)
        assert self.edge_encoder is not None
        return bias, self.path_bias.from_data(data, edge_attr=self.edge_encoder(data))

    @classmethod
    def zinc(cls, version: str = "v1", **changes: Any) -> Graphormer:
        """ZINC-12k: 0.122 mean absolute error by ``"v1"`` with 489,321 parameters.

        That count is without the norm at the end, which the published code has: 489,481 here.
        ``"v2"`` is the later code's model of 959,073 parameters, without a published score.

        Args:
            version (str): ``"v1"`` or ``"v2"``. (default: :obj:`"v1"`)
            **changes (optional): Other arguments of the constructor.
        """
        settings: dict[str, Any] = dict(hidden_channels=80, num_layers=12, out_channels=1, heads=8)
        recipe: dict[str, Any] = dict(dataset="ZINC-12k", loss="l1", metric="mae")
        if choose("version", version, ("v1", "v2")) == "v1":
            settings |= dict(path_length=20, positions=40, max_degree=62, max_distance=38)
            recipe |= dict(
                batch_size=256, epochs=10_000, warmup_epochs=1000, weight_decay=0.01,
                clip_norm=None, parameters=489_321, published="test 0.122",
                notes="400,000 updates, 40,000 of them warm-up.",
            )  # fmt: skip
            settings |= dict(input_dropout=0.1, dropout=0.1, attn_dropout=0.1)
            return cls._preset("v1", changes, recipe, (1, 64), (1, 64), **settings)
        recipe |= dict(
            batch_size=64, epochs=2548, warmup_epochs=382, weight_decay=0.01,
            parameters=959_073, notes="400,000 updates, 60,000 of them warm-up; fp16.",
        )  # fmt: skip
        return cls._preset("v2", changes, recipe, (1, 4609), (1, 1537), **settings)

    @classmethod
    def pcqm4m(cls, **changes: Any) -> Graphormer:
        """PCQM4M (the first version of the set) by v1: 47,085,377 parameters.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = dict(
            dataset="PCQM4M", loss="l1", metric="mae", batch_size=1024, epochs=504,
            warmup_epochs=3, clip_norm=5.0, parameters=47_085_377,
            notes="1,500,000 updates, 10,000 of them warm-up; fp16.",
        )  # fmt: skip
        settings: dict[str, Any] = dict(path_length=20, dropout=0.1, attn_dropout=0.1)
        return cls._preset("v1", changes, recipe, **_BASE, **settings)

    @classmethod
    def pcqm4mv2(cls, **changes: Any) -> Graphormer:
        """PCQM4Mv2 by v2: validation error 0.0865, 48,268,097 parameters.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = dict(
            dataset="PCQM4Mv2", loss="l1", metric="mae", batch_size=256, epochs=76,
            warmup_epochs=5, parameters=48_268_097, published="validation 0.0865",
            notes="1,000,000 updates, 60,000 of them warm-up; fp16.",
        )  # fmt: skip
        return cls._preset("v2", changes, recipe, **_BASE)

    @classmethod
    def ogbg_molhiv(cls, version: str = "v2", **changes: Any) -> Graphormer:
        """ogbg-molhiv, trained on after PCQM4M: 0.8056 ROC-AUC by v2, 0.8051 by v1.

        Args:
            version (str): ``"v1"`` or ``"v2"``, which here normalises before each part.
                (default: :obj:`"v2"`)
            **changes (optional): Other arguments of the constructor.
        """
        v1 = choose("version", version, ("v1", "v2")) == "v1"
        notes = "Begins with the weights of PCQM4M; adversarial steps (FLAG): "
        recipe = dict(
            dataset="ogbg-molhiv", loss="bce", metric="rocauc", batch_size=128,
            epochs=8 if v1 else 4, warmup_epochs=1,
            published="test 0.8051 +- 0.0053" if v1 else "test 0.8056",
            notes=notes + (
                "m = 2, step 0.2, magnitude 0; a tenth of the updates is warm-up." if v1 else
                "m = 3, step 0.01, magnitude 0; 16 % of the updates are warm-up."
            ),
        )  # fmt: skip
        if v1:
            recipe |= dict(clip_norm=None)
        settings: dict[str, Any] = dict(norm_first=True)
        if v1:
            settings = dict(dropout=0.1, attn_dropout=0.1)
        return cls._preset(version, changes, recipe, **_BASE, **settings)

    @classmethod
    def ogbg_molpcba(cls, **changes: Any) -> Graphormer:
        """ogbg-molpcba by v1, trained on after PCQM4M: 0.3139, 119,529,664 parameters.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = dict(
            dataset="ogbg-molpcba", loss="bce", metric="ap", batch_size=256, epochs=10,
            warmup_epochs=1, lr=3e-4, clip_norm=None, parameters=119_529_664,
            published="test 0.3139 +- 0.0032",
            notes="Begins with the weights of PCQM4M; adversarial steps (FLAG): m = 4, step and "
            "magnitude 0.001; a sixteenth of the updates is warm-up.",
        )  # fmt: skip
        settings: dict[str, Any] = dict(dropout=0.1, attn_dropout=0.3)
        large = dict(hidden_channels=1024, num_layers=18, out_channels=128)
        return cls._preset("v1", changes, recipe, **(_BASE | large), **settings)

    @classmethod
    def _preset(
        cls,
        version: str,
        changes: dict[str, Any],
        recipe: dict[str, Any],
        nodes: tuple[int, int] = (9, 4609),
        edges: tuple[int, int] = (3, 1537),
        positions: int = 128,
        **settings: Any,
    ) -> Graphormer:
        """With tables of so many columns and rows, and matrices for so many positions."""
        published: dict[str, Any] = dict(version=version, path_length=5)
        if version == "v2":
            published |= dict(attn_dropout=0.1, act_dropout=0.1)
            recipe = {"clip_norm": 5.0, **recipe}
        merged = {**published, **settings, **changes}
        merged.setdefault("unused_positions", max(0, positions - merged["path_length"]))
        node_encoder = JointTableEncoder(*nodes, merged["hidden_channels"])
        # the authors count one for the offset, one for edges and one for padding
        edge_encoder = JointTableEncoder(*edges, merged["heads"], "edge_attr", 3, "mean")
        paths = AddShortestPathDistance(_FARTHEST, path_length=merged["path_length"])
        common: dict[str, Any] = dict(
            schedule="linear", schedule_unit="step", lr=2e-4, min_lr=1e-9
        )
        common |= dict(
            source=_SOURCE if version == "v1" else _SOURCE_2, transforms=(AddDegree(), paths)
        )
        encoders = dict(node_encoder=node_encoder, edge_encoder=edge_encoder)
        return cls._published(Recipe(**{**common, **recipe}), encoders, merged)


_BASE: dict[str, Any] = dict(hidden_channels=768, num_layers=12, out_channels=1, heads=32)


class _MLPHead(torch.nn.Module):
    """v2's: a linear map, GELU, a norm, and a linear map with one number for all outputs."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin1 = Linear(channels, channels)
        self.norm = LayerNorm(channels)
        self.lin2 = Linear(channels, out_channels, bias=False)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        for module in (self.lin1, self.norm, self.lin2):
            module.reset_parameters()
        torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(self.norm(F.gelu(self.lin1(x)))) + self.bias
        return out


def _draw_linear(name: str, parameter: Tensor, std: float) -> None:
    if name.endswith("bias"):
        torch.nn.init.zeros_(parameter)
    else:
        torch.nn.init.normal_(parameter, std=std)
