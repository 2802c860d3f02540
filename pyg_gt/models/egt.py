"""EGT: residual channels of pairs, which bias and gate attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, LayerNorm, Linear, ModuleList, Parameter
from torch.nn.init import normal_
from torch_geometric.data import Data
from torch_geometric.nn.resolver import activation_resolver

from ..layout import DeferredLayout, GraphLayout
from ..nn import EGTConv
from ..nn.arguments import check_counts, check_tensor
from ..nn.message_passing.pair_index import pair_index
from ..nn.stored_encoding import stored, transform_adds
from ..transforms import AddShortestPathDistance
from .encoders import CategoryEncoder
from .graph_model import GraphModel
from .heads import pool_nodes
from .preset import pick
from .recipe import Recipe

_SOURCE = "https://github.com/shamim-hussain/egt_pytorch (configs/pcqm4mv2), arXiv 2108.03348"
_INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class EGT(GraphModel):
    r"""The Edge-augmented Graph Transformer, with virtual nodes for the readout.

    `"Global Self-Attention as a Replacement for Graph Convolution"
    <https://arxiv.org/abs/2108.03348>`_ (Hussain et al. 2022). A pair starts with a vector for its
    distance and, where an edge joins it, the features of that edge; layers are
    :class:`~pyg_gt.nn.EGTConv`, the last without an update of pairs. Each of ``virtual_nodes``
    has a vector for itself and one for its pairs, and all of them side by side are the graph's;
    without them it is the mean over nodes.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        pair_channels (int): Of pairs. (default: :obj:`64`)
        heads (int): ``H``. (default: :obj:`8`)
        max_distance (int): Of ``AddShortestPathDistance``, which adds what the model reads.
            (default: :obj:`16`)
        virtual_nodes (int): Number of virtual nodes of each graph. (default: :obj:`0`)
        dropout (float): Of attention's outputs and the MLP, of nodes. (default: :obj:`0.0`)
        pair_dropout (float): The same of pairs. (default: :obj:`0.0`)
        attn_dropout (float): Of attention weights. (default: :obj:`0.0`)
        act (str): Activation. (default: :obj:`"elu"`)
        ffn_multiplier (float): Width of the MLPs, in channels. (default: :obj:`2.0`)
        scale_degree (bool): Multiply sums by learned degrees. (default: :obj:`False`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        edge_encoder (torch.nn.Module, optional): Called with the batch, gives
            ``[E, pair_channels]``; None: edges have no features. (default: :obj:`None`)
        head (torch.nn.Module, optional): Called with the vectors ``[B, virtual_nodes * F]`` of
            graphs (``[B, F]`` without virtual nodes); None: an MLP with two hidden layers of
            ``F``. (default: :obj:`None`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import EGT
        >>> from pyg_gt.transforms import AddShortestPathDistance
        >>> model = EGT(7, 16, num_layers=2, out_channels=1, pair_channels=8, virtual_nodes=2)
        >>> data = Data(torch.randn(3, 7), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> model(AddShortestPathDistance(16)(data)).shape
        torch.Size([1, 1])
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        pair_channels: int = 64,
        heads: int = 8,
        max_distance: int = 16,
        virtual_nodes: int = 0,
        dropout: float = 0.0,
        pair_dropout: float = 0.0,
        attn_dropout: float = 0.0,
        act: str = "elu",
        ffn_multiplier: float = 2.0,
        scale_degree: bool = False,
        node_encoder: torch.nn.Module | None = None,
        edge_encoder: torch.nn.Module | None = None,
        head: torch.nn.Module | None = None,
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
        check_counts(pair_channels=pair_channels)
        check_counts(0, max_distance=max_distance, virtual_nodes=virtual_nodes)
        self.max_distance = max_distance
        self.distance = Embedding(max_distance + 2, pair_channels)
        self.virtual = None
        if virtual_nodes:
            self.virtual = _VirtualNodes(hidden_channels, pair_channels, virtual_nodes)
        self.layers = ModuleList(
            EGTConv(
                hidden_channels, pair_channels, heads, dropout, pair_dropout, attn_dropout, act,
                round(hidden_channels * ffn_multiplier), round(pair_channels * ffn_multiplier),
                scale_degree, pair_output=i < num_layers - 1,
            )
            for i in range(num_layers)
        )  # fmt: skip
        self.norm = LayerNorm(hidden_channels)
        if head is None:
            width = hidden_channels * max(virtual_nodes, 1)
            self.head = _Readout(width, hidden_channels, out_channels, act)

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with what the encoders read.
        """
        x = self.node_encoder(data)
        num_graphs = 1 if data.batch is None else data.num_graphs
        layout = GraphLayout.of(data.batch, x.size(0), num_graphs, x.device)
        pair_attr = self._pairs(data, layout)
        is_virtual = None
        if self.virtual is not None:
            x, pair_attr, layout, is_virtual = self.virtual(x, pair_attr, layout, num_graphs)
        for layer in self.layers:
            x, pair_attr = layer(x, pair_attr, layout, is_virtual)
        x = self.norm(x)
        if self.virtual is None:
            pooled = pool_nodes(x, data, "mean")
        else:
            first = num_graphs * self.virtual.num_nodes
            pooled = x[:first].view(num_graphs, -1)
        out: Tensor = self.head(pooled)
        return out

    def _pairs(self, data: Data, layout: GraphLayout | DeferredLayout) -> Tensor:
        """``[P, pair_channels]``: distances, and edges where there are."""
        cure = transform_adds("AddShortestPathDistance", str(self.max_distance), "pair_distance")
        (distance,) = stored(self, data, {"pair_distance": cure})
        check_tensor("pair_distance", distance, None, _INTEGERS, cure)
        index = pair_index(layout, distance.size(0), "pair_distance", distance.device)
        # of a transform with a larger 'max_distance': all that is far is one
        pair_attr: Tensor = self.distance(distance.long().clamp(max=self.max_distance + 1))
        if self.edge_encoder is None:
            return pair_attr
        edge_attr = self.edge_encoder(data)
        return pair_attr.index_add(
            0, index.of_edges(data.edge_index, layout), edge_attr.to(pair_attr.dtype)
        )

    @classmethod
    def pcqm4mv2(cls, size: str = "47m", **changes: Any) -> EGT:
        """PCQM4Mv2: validation error 0.0883 (47m) and 0.0869 (90m).

        The published models also read eight singular vectors of the adjacency matrix, which
        these do not: 47,414,273 and 89,322,369 parameters by the official code (published as
        47.4 and 89.3 million), 47,402,689 and 89,308,481 here, without the map of these vectors
        and the zero rows of two tables. 110m (110,677,313) was pre-trained for ogbg-molhiv and
        ogbg-molpcba, and is published with the head of the latter: 110.8 million.

        Args:
            size (str): ``"47m"``, ``"90m"`` or ``"110m"``. (default: :obj:`"47m"`)
            **changes (optional): Other arguments of the constructor.
        """
        settings = pick("size", size, {
            "47m": dict(hidden_channels=640, num_layers=18),
            "90m": dict(hidden_channels=768, num_layers=24),
            "110m": dict(hidden_channels=768, num_layers=30),
        })  # fmt: skip
        recipe = pick("size", size, {
            "47m": dict(lr=1e-4, warmup_epochs=30, published="validation 0.0883"),
            "90m": dict(lr=1e-4, warmup_epochs=30, published="validation 0.0869"),
            "110m": dict(lr=8e-5, warmup_epochs=36),
        })  # fmt: skip
        width = changes.get("hidden_channels", settings.pop("hidden_channels"))
        pair_width = changes.get("pair_channels", 64)
        settings |= dict(
            hidden_channels=width, out_channels=1, pair_channels=pair_width,
            heads=32, virtual_nodes=4, attn_dropout=0.3, ffn_multiplier=1.0, scale_degree=True,
            node_encoder=CategoryEncoder([128] * 9, width),
            edge_encoder=CategoryEncoder([8] * 3, pair_width, "edge_attr"),
        )  # fmt: skip
        published = Recipe(
            dataset="PCQM4Mv2", source=_SOURCE, transforms=(AddShortestPathDistance(16),),
            batch_size=512, epochs=152, optimizer="adam", schedule_unit="step",
            clip_norm=None, loss="l1", metric="mae", notes="A million steps, the first 200,000 "
            "(110m: 240,000) a warm-up. Published with SVD encodings too, which this preset does "
            "not have.", **recipe,
        )  # fmt: skip
        return cls._published(published, settings, changes)


class _VirtualNodes(torch.nn.Module):
    """Adds learned nodes before all others, and the states of their pairs."""

    def __init__(self, channels: int, pair_channels: int, num_nodes: int) -> None:
        super().__init__()
        self.num_nodes = num_nodes
        self.nodes = Parameter(torch.empty(num_nodes, channels))
        self.pairs = Parameter(torch.empty(num_nodes, pair_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        normal_(self.nodes)
        normal_(self.pairs)

    def forward(
        self,
        x: Tensor,
        pair_attr: Tensor,
        layout: GraphLayout | DeferredLayout,
        num_graphs: int,
    ) -> tuple[Tensor, Tensor, GraphLayout | DeferredLayout, Tensor]:
        """States of nodes and pairs, their layout, and which nodes are virtual."""
        N, V, device = x.size(0), self.num_nodes, x.device
        P, first = pair_attr.size(0), num_graphs * V
        old = pair_index(layout, P, "pair_attr", device)
        graphs = torch.arange(num_graphs, device=device).repeat_interleave(V)
        batch = layout.batch
        if batch is None:
            batch = torch.zeros(N, dtype=torch.long, device=device)
        layout = GraphLayout.of(torch.cat([graphs, batch]), first + N, num_graphs)
        new = pair_index(layout, P + V * (2 * N + first), "pair_attr", device)
        is_virtual = torch.arange(first + N, device=device) < first
        # of a virtual and another node the vector of the first, of two their mean
        none = self.pairs.new_zeros(N, self.pairs.size(1))
        vectors = torch.cat([self.pairs.repeat(num_graphs, 1), none])
        share = is_virtual.to(vectors.dtype)
        weight = 1 / (share[new.query] + share[new.key]).clamp(min=1)
        pairs = (vectors[new.query] + vectors[new.key]) * weight.unsqueeze(1)
        place = new.start[old.query + first] + new.pos[old.key + first]
        pairs = pairs.index_add(0, place, pair_attr.to(pairs.dtype))
        x = torch.cat([self.nodes.repeat(num_graphs, 1).to(x.dtype), x])
        return x, pairs, layout, is_virtual


class _Readout(torch.nn.Module):
    """Two hidden layers, and a linear map."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, act: str) -> None:
        super().__init__()
        self.act = activation_resolver(act)
        widths = [in_channels, channels, channels, out_channels]
        self.lins = ModuleList(Linear(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))

    def reset_parameters(self) -> None:
        for lin in self.lins:
            lin.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, out_channels]``."""
        h = self.act(self.lins[1](self.act(self.lins[0](x))))
        out: Tensor = self.lins[2](h)
        return out
