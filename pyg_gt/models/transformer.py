"""A plain Transformer on graphs: attention among all nodes, encodings for the edges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, ModuleList
from torch_geometric.data import Data

from ..layout import GraphLayout
from ..nn import TransformerBlock
from .graph_model import GraphModel
from .heads import GraphHead


class Transformer(GraphModel):
    r"""Pre-norm Transformer blocks over all nodes of each graph.

    `"A Generalization of Transformer Networks to Graphs" <https://arxiv.org/abs/2012.09699>`_
    (Dwivedi & Bresson 2020), attending to every node. What it knows of the edges are the
    encodings in ``node_encoder`` and the biases that ``pair_encoders`` give, the same in all
    layers.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        heads (int): ``H``. (default: :obj:`4`)
        ffn_channels (int, optional): Width of the MLP; None: ``4 F``. (default: :obj:`None`)
        dropout (float): Of attention weights and of each part. (default: :obj:`0.0`)
        act (str): Activation. (default: :obj:`"gelu"`)
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``. (default: :obj:`None`)
        pair_encoders (Iterable[torch.nn.Module]): Called by ``from_data``, each gives a bias, as
            :class:`~pyg_gt.nn.ShortestPathBias`. (default: :obj:`()`)
        head (torch.nn.Module, optional): Called with ``(x, data)``; None: the mean over nodes and
            a linear map. (default: :obj:`None`)
        backend (str): Which attention backend runs; see :func:`pyg_gt.attention`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range; in a call, if the batch
            lacks what an encoder reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import CatEncoder, FeatureEncoder, Transformer
        >>> from pyg_gt.nn import RandomWalkEncoder
        >>> from pyg_gt.transforms import AddRandomWalkPE
        >>> encoder = CatEncoder(FeatureEncoder(7, 12), RandomWalkEncoder(6, 4))
        >>> model = Transformer(None, 16, 2, out_channels=1, node_encoder=encoder)
        >>> data = Data(torch.randn(3, 7), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> model(AddRandomWalkPE(6)(data)).shape
        torch.Size([1, 1])
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        heads: int = 4,
        ffn_channels: int | None = None,
        dropout: float = 0.0,
        act: str = "gelu",
        node_encoder: torch.nn.Module | None = None,
        pair_encoders: Iterable[torch.nn.Module] = (),
        head: torch.nn.Module | None = None,
        backend: str = "auto",
    ) -> None:
        if head is None:
            head = GraphHead(hidden_channels, out_channels)
        super().__init__(
            in_channels, hidden_channels, num_layers, out_channels, node_encoder, head=head
        )
        self.pair_encoders = ModuleList(pair_encoders)
        self.layers = ModuleList(
            TransformerBlock(
                hidden_channels, heads, ffn_channels, dropout, act, norm_first=True,
                backend=backend,
            )
            for _ in range(num_layers)
        )  # fmt: skip
        self.norm = LayerNorm(hidden_channels)

    def forward(self, data: Data) -> Tensor:
        """``[B, out_channels]``: the prediction of each graph.

        Args:
            data (Data): A ``Data`` or a ``Batch`` with what the encoders read.
        """
        x = self.node_encoder(data)
        encoders: Any = self.pair_encoders
        biases = tuple(encoder.from_data(data) for encoder in encoders)
        layout = GraphLayout.of(data.batch, x.size(0), device=x.device)
        for layer in self.layers:
            x = layer(x, layout, biases)
        out: Tensor = self.head(self.norm(x), data)
        return out
