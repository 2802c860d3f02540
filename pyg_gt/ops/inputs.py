"""What one call of attention computes, and what a backend is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..layout.deferred import DeferredLayout
from ..layout.graph_layout import GraphLayout
from .bias import (
    ADDITIVE,
    AdditiveBias,
    AttentionBias,
    EdgeMask,
    PairBias,
    ScoreMod,
    TableBias,
    take_rows,
)
from .traced_layouts import resolved_layouts

Layout = GraphLayout | DeferredLayout


@dataclass(frozen=True, eq=False)
class Inputs:
    """What one call of attention computes; checked, and free of choices still to make.

    Attributes:
        query: ``[Nq, H, C]``.
        key: ``[Nk, H, C]``.
        value: ``[Nk, H, C]``.
        query_layout: how the queries are split into graphs.
        layout: how the keys are; the same object in self-attention.
        biases: in the order in which they apply.
        scale: factor of the scores.
        dropout_p: probability with which a weight is dropped after the softmax.
        seed: ``[1]`` int64, or None without dropout.
        qkv: ``[N, 3, H, C]`` of which ``query``, ``key`` and ``value`` are the parts, or None: a
            backend that computes its gradient as one tensor need not join three.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_layout: Layout
    layout: Layout
    biases: tuple[AttentionBias, ...]
    scale: float
    dropout_p: float
    seed: Tensor | None
    qkv: Tensor | None = None

    @property
    def additive(self) -> tuple[AdditiveBias, ...]:
        """The biases that are added to scores."""
        return tuple(b for b in self.biases if isinstance(b, ADDITIVE))

    @property
    def score_mods(self) -> tuple[ScoreMod, ...]:
        """The functions of scores."""
        return tuple(b for b in self.biases if isinstance(b, ScoreMod))

    @property
    def mask(self) -> EdgeMask | None:
        """The edges along which attention is allowed, or None for all pairs."""
        return next((b for b in self.biases if isinstance(b, EdgeMask)), None)

    @property
    def heads(self) -> int:
        """``H``."""
        return self.query.size(1)

    @property
    def requires_grad(self) -> bool:
        """Whether autograd will ask for a gradient."""
        return torch.is_grad_enabled() and any(x.requires_grad for x in self._floats())

    @property
    def is_transformed(self) -> bool:
        """Whether ``torch.func`` or forward-mode AD is at work, which reads every operation."""
        if torch.compiler.is_compiling():
            return False
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return True
        if torch.autograd.forward_ad._current_level < 0:
            return False
        tangents = (torch.autograd.forward_ad.unpack_dual(x).tangent for x in self._floats())
        return any(tangent is not None for tangent in tangents)

    def pair_values(self, bias: AdditiveBias) -> Tensor:
        """``[P, H]``: what a bias adds to the score of each pair.

        Raises:
            NotImplementedError: in traced code, for one that has to know the layouts.
        """
        if isinstance(bias, PairBias):
            return bias.values
        if isinstance(bias, TableBias):
            return take_rows(bias.table, bias.index.long())
        known = isinstance(self.query_layout, GraphLayout), isinstance(self.layout, GraphLayout)
        if not all(known):
            raise NotImplementedError(
                f"a '{type(bias).__name__}' has to know the sizes of the graphs, which traced "
                f"code does not tell"
            )
        return bias.pair_values(*self.resolved_layouts())

    def resolved_layouts(self) -> tuple[GraphLayout, GraphLayout]:
        """Those of queries and of keys, with as many graphs each; not for traced code."""
        return resolved_layouts(self.query_layout, self.layout, self.query.device)

    def _floats(self) -> list[Tensor]:
        """Every tensor that may have a gradient, but for what a ``ScoreMod`` captures."""
        tensors = [self.query, self.key, self.value]
        for bias in self.biases:
            fields = (x for x in vars(bias).values() if isinstance(x, Tensor))
            tensors += [x for x in fields if x.is_floating_point()]
        return tensors


class Backend(Protocol):
    """A module is a backend when it has these three names."""

    NAME: str

    def unsupported(self, inputs: Inputs) -> str | None:
        """Why these inputs cannot be run, in words with the values that came; None if they can."""
        ...

    def forward(self, inputs: Inputs) -> Tensor:
        """``[Nq, H, C]``."""
        ...
