"""The default graph network of encoders of eigenvectors."""

from __future__ import annotations

from typing import Any

from torch_geometric.nn import GIN


def graph_network(
    in_channels: int, hidden_channels: int, num_layers: int, out_channels: int
) -> Any:
    r"""A GIN with layer norm, which keeps the nodes of a batch independent.

    Its first layer applies :math:`A + (1 + \epsilon) I` to eigenvectors. With PyG's
    :math:`\epsilon = 0` it would wipe out those of :math:`A` to the eigenvalue -1: on a complete
    graph all that there are. No adjacency matrix of integers has an eigenvalue -1.5.
    """
    return GIN(
        in_channels, hidden_channels, num_layers, out_channels,
        norm="layer_norm", norm_kwargs={"mode": "node"}, eps=0.5, train_eps=True,
    )  # fmt: skip
