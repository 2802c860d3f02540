"""What models of graphs share: encoders, a head, and where they were published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from ..nn.arguments import check_counts, check_module
from .encoders import FeatureEncoder, read
from .recipe import Recipe

Model = TypeVar("Model", bound="GraphModel")


class GraphModel(torch.nn.Module):
    """Base class of models that read a batch by encoders and end in a head.

    Args:
        in_channels (int, optional): Width of ``data.x``; None with a ``node_encoder``.
        hidden_channels (int): ``F``.
        num_layers (int): Number of layers.
        out_channels (int): Number of outputs.
        node_encoder (torch.nn.Module, optional): Called with the batch; None: a linear map of
            ``data.x``.
        edge_encoder (torch.nn.Module, optional): Called with the batch.
        head (torch.nn.Module, optional): What the subclass ends in.

    Raises:
        ValueError: If an argument is of the wrong type or out of range, or neither
            ``in_channels`` nor a ``node_encoder`` is given.
    """

    recipe: Recipe | None = None
    node_encoder: Any
    edge_encoder: Any
    head: Any

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        node_encoder: torch.nn.Module | None = None,
        edge_encoder: torch.nn.Module | None = None,
        head: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_counts(
            hidden_channels=hidden_channels, num_layers=num_layers, out_channels=out_channels
        )
        check_module("node_encoder", node_encoder)
        check_module("edge_encoder", edge_encoder)
        check_module("head", head)
        if node_encoder is None:
            if in_channels is None:
                raise ValueError(
                    "a model reads nodes by 'in_channels', the width of 'data.x', or by a "
                    "'node_encoder' (got None for both)"
                )
            node_encoder = FeatureEncoder(in_channels, hidden_channels)
        self.node_encoder = node_encoder
        self.edge_encoder = edge_encoder
        self.head = head

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for module in self.children():
            reset(module)

    def _edge_attr(self, data: Data) -> Tensor:
        """``[E, F]``: what the encoder gives, or ``data.edge_attr`` as it is."""
        if self.edge_encoder is None:
            return read(self, data, "edge_attr")
        edge_attr: Tensor = self.edge_encoder(data)
        return edge_attr

    @classmethod
    def _published(
        cls: type[Model], recipe: Recipe, settings: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> Model:
        """The model of a publication, with the caller's arguments in place of the published."""
        model = cls(**{"in_channels": None, **settings, **changes})
        model.recipe = recipe
        return model
