"""The common base of the layers with the weights of PyG's ``TransformerConv``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import TransformerConv

from ...ops.dispatch import check_backend
from ..arguments import (
    check_aggr,
    check_counts,
    check_flags,
    check_kwargs,
    check_probabilities,
)


class TransformerConvBase(TransformerConv):
    """PyG's ``TransformerConv`` with a ``backend``, whose arguments are checked."""

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
        *,
        aggr: Any = "add",
        aggr_kwargs: dict[str, Any] | None = None,
        flow: str = "source_to_target",
        decomposed_layers: int = 1,
        backend: str = "auto",
    ) -> None:
        if isinstance(in_channels, (tuple, list)):
            if len(in_channels) != 2:
                raise ValueError(
                    f"'in_channels' must be one width or a pair, for sources and targets (got "
                    f"{in_channels})"
                )
            for width in in_channels:
                check_counts(lazy=True, in_channels=width)
        else:
            check_counts(lazy=True, in_channels=in_channels)
            in_channels = int(in_channels)
        check_counts(out_channels=out_channels, heads=heads, decomposed_layers=decomposed_layers)
        check_flags(concat=concat, beta=beta, bias=bias, root_weight=root_weight)
        check_probabilities(dropout=dropout)
        if edge_dim is not None:
            check_counts(lazy=True, edge_dim=edge_dim)
        check_aggr(aggr)
        check_kwargs(aggr_kwargs=aggr_kwargs)
        check_backend(backend)
        super().__init__(
            in_channels, out_channels, heads, concat, beta, dropout, edge_dim, bias, root_weight,
            aggr=aggr, aggr_kwargs=aggr_kwargs, flow=flow, decomposed_layers=decomposed_layers,
        )  # fmt: skip
        self.backend = backend

    def _project(self, x_src: Tensor, x_dst: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query ``[Nq, H, C]`` of the targets, key and value ``[Nk, H, C]`` of the sources."""
        shape = (-1, self.heads, self.out_channels)
        query = self.lin_query(x_dst).view(shape)
        return query, self.lin_key(x_src).view(shape), self.lin_value(x_src).view(shape)

    def _join_heads(self, out: Tensor, x_dst: Tensor) -> Tensor:
        """``[N, H * C]`` or ``[N, C]`` of ``out [N, H, C]`` and the nodes themselves."""
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if not self.root_weight:
            return out
        root: Tensor = self.lin_skip(x_dst)
        if self.lin_beta is None:
            return out + root
        beta = self.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()
        joined: Tensor = beta * root + (1 - beta) * out
        return joined
