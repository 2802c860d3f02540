"""Exphormer: local message passing and attention along the edges of an interaction graph."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Dropout, Embedding, Linear, ModuleList, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.nn.inits import reset

from ..layout import GraphLayout
from ..nn import ExphormerConv, GatedGCNConv, InteractionGraph, LaplacianEncoder
from ..nn.arguments import check_flags, check_heads, check_probabilities
from ..nn.interaction_graph import Interactions
from ..nn.norm.batch_norm import BatchNorm
from ..transforms import AddExpanderEdges, AddLaplacianEigenvectorPE
from .encoders import CatEncoder, FeatureEncoder
from .graph_model import GraphModel
from .heads import GraphHead, NodeHead
from .ogb_encoders import AtomEncoder, BondEncoder
from .preset import choose
from .recipe import Recipe

_SOURCE = "https://github.com/hamed1375/Exphormer (configs/Exphormer_LRGB), arXiv 2303.06147"


class ExphormerLayer(torch.nn.Module):
    r"""The layer of GPS with attention along an interaction graph in place of all pairs.

    .. math::
        x_i^L &= \mathrm{BN}(x_i + \mathrm{drop}(\mathrm{Local}(x, A)_i)), \quad
        x_i^A = \mathrm{BN}(x_i + \mathrm{drop}(\mathrm{Attention}(x, I)_i))

        x_i' &= \mathrm{BN}(h_i + \mathrm{MLP}(h_i)), \quad h_i = x_i^L + x_i^A

    and the state of a virtual node becomes what it attends to,
    :math:`\mathrm{Attention}(x, I)_v`, without residual, norm or MLP.

    Args:
        channels (int): ``F``.
        heads (int): ``H``. (default: :obj:`4`)
        local (str): ``"gatedgcn"``, which updates edges too, or ``"gcn"``.
            (default: :obj:`"gatedgcn"`)
        dropout (float): Of the outputs of each part. (default: :obj:`0.0`)
        edge_output (bool): Compute the edges that GatedGCN hands on. (default: :obj:`True`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.models import ExphormerLayer
        >>> from pyg_gt.nn import InteractionGraph
        >>> x, edge_attr, batch = torch.randn(3, 16), torch.randn(4, 16), torch.tensor([0, 0, 1])
        >>> edge_index = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])
        >>> interactions = InteractionGraph(16, num_virtual_nodes=1, expander=False)
        >>> graph = interactions(x, edge_index, edge_attr, batch)
        >>> x, edge_attr = ExphormerLayer(16)(graph.x, edge_index, edge_attr, graph)
        >>> x.shape, edge_attr.shape
        (torch.Size([5, 16]), torch.Size([4, 16]))
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        local: Literal["gatedgcn", "gcn"] = "gatedgcn",
        dropout: float = 0.0,
        edge_output: bool = True,
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        check_probabilities(dropout=dropout)
        self.local: torch.nn.Module
        if choose("local", local, ("gatedgcn", "gcn")) == "gcn":
            self.local = GCNConv(channels, channels)
        else:
            # dropout and residual of nodes are added here, to either
            self.local = GatedGCNConv(
                channels, channels, residual=False, edge_residual=True, edge_dropout=dropout,
                edge_output=edge_output,
            )  # fmt: skip
        self.attn = ExphormerConv(channels, channels // heads, heads, edge_dim=channels)
        self.norm1 = BatchNorm(channels)
        self.norm2 = BatchNorm(channels)
        self.norm3 = BatchNorm(channels)
        self.mlp = Sequential(
            Linear(channels, 2 * channels), ReLU(), Dropout(dropout),
            Linear(2 * channels, channels), Dropout(dropout),
        )  # fmt: skip
        self.dropout = dropout

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for module in self.children():
            reset(module)

    def forward(
        self, x: Tensor, edge_index: Any, edge_attr: Tensor, interactions: Interactions
    ) -> tuple[Tensor, Tensor]:
        """Runs the layer.

        Args:
            x (Tensor): ``[N + B V, F]``, nodes and virtual nodes.
            edge_index (Tensor): ``[2, E]``, edges among the nodes.
            edge_attr (Tensor): ``[E, F]``, their states; those of attention are in
                ``interactions`` and stay as they are.
            interactions (Interactions): Of a :class:`~pyg_gt.nn.InteractionGraph`.

        Returns:
            ``x [N + B V, F]`` and ``edge_attr [E, F]``.
        """
        attended = self.attn(x, interactions.edge_index, interactions.edge_attr)
        num_nodes = interactions.num_nodes
        nodes, virtual = x[:num_nodes], attended[num_nodes:]
        if isinstance(self.local, GCNConv):
            h = self.local(nodes, edge_index)
        else:
            h = self.local(nodes, edge_index, edge_attr)
            h, edge_attr = h if isinstance(h, tuple) else (h, edge_attr)
        h = self.norm1(self._residual(nodes, h))
        h = h + self.norm2(self._residual(nodes, attended[:num_nodes]))
        h = self.norm3(h + self.mlp(h))
        return torch.cat([h, virtual]), edge_attr

    def _residual(self, x: Tensor, h: Tensor) -> Tensor:
        return x + F.dropout(h, p=self.dropout, training=self.training)


class Exphormer(GraphModel):
    r"""Layers of a local convolution and attention along edges, an expander and virtual nodes.

    `"Exphormer: Sparse Transformers for Graphs" <https://arxiv.org/abs/2303.06147>`_ (Shirzad et
    al. 2023). Cost grows with nodes and edges. Layers are :class:`ExphormerLayer`; all attend
    along the same :class:`~pyg_gt.nn.InteractionGraph`, whose features of edges stay those of the
    encoder.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        heads (int): ``H``. (default: :obj:`4`)
        local (str): ``"gatedgcn"`` or ``"gcn"``. (default: :obj:`"gatedgcn"`)
        num_virtual_nodes (int): Virtual nodes of each graph. (default: :obj:`0`)
        expander (bool): Attend along ``data.expander_edge_index`` too, which
            :class:`~pyg_gt.transforms.AddExpanderEdges` adds. (default: :obj:`True`)
        dropout (float): Of the outputs of each part. (default: :obj:`0.0`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        edge_encoder (torch.nn.Module, optional): Called with the batch, gives ``[E, F]``; None:
            ``data.edge_attr`` as it is. (default: :obj:`None`)
        head (torch.nn.Module, optional): Called with ``(x, data)``; None: the mean over nodes and
            a linear map. (default: :obj:`None`)
        lean (bool): Leave out what is published and nobody reads: the vector of expander edges
            without an expander, and GatedGCN's norm of edges in the last layer.
            (default: :obj:`False`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what the model or an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import Exphormer
        >>> from pyg_gt.transforms import AddExpanderEdges
        >>> model = Exphormer(7, 16, num_layers=2, out_channels=1, num_virtual_nodes=1)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> data = Data(torch.randn(3, 7), edge_index, torch.randn(4, 16))
        >>> model(AddExpanderEdges(degree=6)(data)).shape
        torch.Size([1, 1])

        The model of a publication, with its encoders and its training settings:

        >>> model = Exphormer.peptides_func(atom_rows=173)
        >>> sum(p.numel() for p in model.parameters()), model.recipe.batch_size
        (445866, 128)
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        heads: int = 4,
        local: Literal["gatedgcn", "gcn"] = "gatedgcn",
        num_virtual_nodes: int = 0,
        expander: bool = True,
        dropout: float = 0.0,
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
        check_flags(expander=expander, lean=lean)
        self.interactions = InteractionGraph(
            hidden_channels, num_virtual_nodes=num_virtual_nodes, expander=expander
        )
        self.unused_expander = None if expander or lean else Embedding(1, hidden_channels)
        self.layers = ModuleList(
            ExphormerLayer(
                hidden_channels, heads, local, dropout,
                edge_output=not (lean and i == num_layers - 1),
            )
            for i in range(num_layers)
        )  # fmt: skip

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with what the encoders read, and
                ``expander_edge_index`` for an expander.
        """
        nodes = self.node_encoder(data)
        edge_attr = self._edge_attr(data)
        layout = GraphLayout.of(data.batch, nodes.size(0), device=nodes.device)
        expander = None
        if self.interactions.expander is not None:
            expander = data.get("expander_edge_index")
        interactions = self.interactions(nodes, data.edge_index, edge_attr, layout, expander)
        x = interactions.x
        for layer in self.layers:
            x, edge_attr = layer(x, data.edge_index, edge_attr, interactions)
        out: Tensor = self.head(x[: nodes.size(0)], data)
        return out

    @classmethod
    def peptides_func(cls, atom_rows: int = 174, **changes: Any) -> Exphormer:
        """Peptides-func: 0.6527 average precision, 445,866 parameters (with 173 atom rows).

        One virtual node and no expander, as published. The published encoding holds the
        eigenvectors of eigenvalue zero, which are constant in each component; ours begins with the
        first that is not.

        Args:
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        recipe = dict(
            dataset="Peptides-func", loss="bce", metric="ap", parameters=445_866,
            published="test 0.6527 +- 0.0043",
        )  # fmt: skip
        return cls._peptides(recipe, changes, atom_rows, 64, 8, 10, num_virtual_nodes=1)

    @classmethod
    def peptides_struct(cls, atom_rows: int = 174, **changes: Any) -> Exphormer:
        """Peptides-struct: 0.2481 mean absolute error, 425,899 parameters (173 atom rows).

        Six virtual nodes and no expander; as :meth:`peptides_func`, without the zero eigenvalues'
        vectors.

        Args:
            atom_rows (int): Rows of the atom table. (default: :obj:`174`)
            **changes (optional): Other arguments of the constructor.
        """
        recipe = dict(
            dataset="Peptides-struct", loss="l1", metric="mae", parameters=425_899,
            published="test 0.2481 +- 0.0007",
        )  # fmt: skip
        return cls._peptides(recipe, changes, atom_rows, 88, 4, 11, num_virtual_nodes=6)

    @classmethod
    def pascalvoc_sp(cls, **changes: Any) -> Exphormer:
        """PascalVOC-SP: 0.3975 F1, 509 thousand parameters (here 509,013).

        An expander and no virtual nodes, a prediction for each node. The authors' degree 5 is the
        number of permutations, which give every node 10 neighbours. A head of three linear maps is
        the one with which the count comes out. As :meth:`peptides_func`, without the zero
        eigenvalues' vectors.

        Args:
            **changes (optional): Other arguments of the constructor.
        """
        recipe = Recipe(
            dataset="PascalVOC-SP", source=_SOURCE, batch_size=32, epochs=300, warmup_epochs=10,
            lr=5e-4, loss="cross_entropy", metric="f1", published="test 0.3975 +- 0.0037",
            transforms=(AddLaplacianEigenvectorPE(10, normalization=None), AddExpanderEdges(10)),
        )  # fmt: skip
        width = changes.get("hidden_channels", 96)
        out_channels = changes.get("out_channels", 21)
        settings = dict(
            num_layers=4, heads=8, dropout=0.15,
            node_encoder=CatEncoder(FeatureEncoder(14, width - 16), LaplacianEncoder(10, 16)),
            edge_encoder=FeatureEncoder(2, width, "edge_attr"),
            head=NodeHead(width, out_channels, num_layers=3),
        )  # fmt: skip
        return cls._preset(recipe, changes, width, out_channels, **settings)

    @classmethod
    def _peptides(
        cls,
        recipe: dict[str, Any],
        changes: dict[str, Any],
        atom_rows: int,
        width: int,
        num_layers: int,
        out_channels: int,
        num_virtual_nodes: int,
    ) -> Exphormer:
        recipe |= dict(
            source=_SOURCE, batch_size=128, epochs=200, warmup_epochs=10, lr=3e-4,
            transforms=(AddLaplacianEigenvectorPE(10, normalization=None),),
        )  # fmt: skip
        width = changes.get("hidden_channels", width)
        settings = dict(
            num_layers=num_layers, num_virtual_nodes=num_virtual_nodes, expander=False,
            dropout=0.12,
            node_encoder=CatEncoder(
                AtomEncoder(width - 16, atom_rows), LaplacianEncoder(10, 16)
            ),
            edge_encoder=BondEncoder(width),
        )  # fmt: skip
        return cls._preset(Recipe(**recipe), changes, width, out_channels, **settings)

    @classmethod
    def _preset(
        cls,
        recipe: Recipe,
        changes: dict[str, Any],
        width: int,
        out_channels: int,
        **settings: Any,
    ) -> Exphormer:
        settings |= dict(hidden_channels=width, out_channels=out_channels)
        return cls._published(recipe, settings, changes)
