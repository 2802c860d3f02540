"""Folding of biases into the tensors that fused kernels read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...layout.deferred import DeferredEdges
from ...layout.edge_layout import EdgeLayout
from ...layout.graph_layout import GraphLayout
from ...layout.values import is_readable
from ..bias import EdgeBias, EdgeMask, TableBias, checked_edges_of, take_rows
from ..inputs import Inputs
from ..pairs import pair_of_edge


class FullBiases(NamedTuple):
    """The sum of all biases of a full attention, in at most three parts.

    Attributes:
        pairs: ``[P, H]``, or None.
        table: ``[K, H]``, or None.
        table_index: ``[P]``, rows of ``table``.
        edges: where ``edge_values`` are added, or None.
        edge_values: ``[E, H]``.
    """

    pairs: Tensor | None = None
    table: Tensor | None = None
    table_index: Tensor | None = None
    edges: EdgeLayout | DeferredEdges | None = None
    edge_values: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Those that kernels read."""
        return self.pairs, self.table, self.table_index, self.edge_values


_NOTHING = FullBiases()


def unsupported_biases(inputs: Inputs) -> str | None:
    """Which biases of a full attention, or of one along edges, cannot be folded; or None."""
    if not inputs.biases:
        return None
    if inputs.score_mods:
        return "compiled code cannot call a 'ScoreMod'"
    mask = inputs.mask
    if mask is None:
        sets = {id(checked_edges_of(b)) for b in inputs.additive if isinstance(b, EdgeBias)}
        if len(sets) > 1 and not _is_known(inputs):
            return "two sets of edges with a bias are joined outside of traced code only"
        return None
    edges = checked_edges_of(mask)
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            others = checked_edges_of(bias)
            if others is not edges and others.edge_index is not edges.edge_index:
                return "an 'EdgeBias' must lie on the very edges of the 'EdgeMask'"
            if not isinstance(edges, EdgeLayout) or edges.has_repeats:
                return "an 'EdgeBias' adds up over repeated edges, and it goes edge by edge"
        elif not _is_known(inputs) or not isinstance(edges, EdgeLayout):
            return f"a '{type(bias).__name__}' is read along edges outside of traced code only"
    return None


def _is_known(inputs: Inputs) -> bool:
    layouts = inputs.layout, inputs.query_layout
    return is_readable(inputs.query) and all(isinstance(x, GraphLayout) for x in layouts)


def full_biases(inputs: Inputs) -> FullBiases:
    """Those of a full attention: one table and one set of edges as they are, the rest as pairs."""
    folded = _NOTHING
    for bias in inputs.additive:
        if isinstance(bias, TableBias) and folded.table is None:
            folded = folded._replace(table=bias.table, table_index=bias.index)
        elif isinstance(bias, EdgeBias) and (folded.edges is None or folded.edges is bias.edges):
            values = _sum(folded.edge_values, bias.values)
            folded = folded._replace(edges=checked_edges_of(bias), edge_values=values)
        else:
            folded = folded._replace(pairs=_sum(folded.pairs, inputs.pair_values(bias)))
    return folded


def values_on_edges(inputs: Inputs, mask: EdgeMask) -> Tensor | None:
    """``[E, H]``: what all biases together add to the score of each edge of ``mask``."""
    values = mask.values
    pairs: Tensor | None = None
    for bias in inputs.additive:
        if isinstance(bias, EdgeBias):
            values = _sum(values, bias.values)
            continue
        if pairs is None:
            edges = checked_edges_of(mask)
            assert isinstance(edges, EdgeLayout) and isinstance(inputs.layout, GraphLayout)
            assert isinstance(inputs.query_layout, GraphLayout)
            pairs = pair_of_edge(edges, inputs.query_layout, inputs.layout)
        if isinstance(bias, TableBias):
            values = _sum(values, take_rows(bias.table, bias.index[pairs].long()))
        else:
            values = _sum(values, take_rows(inputs.pair_values(bias), pairs))
    return values


def _sum(total: Tensor | None, added: Tensor) -> Tensor:
    """One bias as it is, of any type; several in float32, in which kernels compute."""
    return added if total is None else total.float() + added.float()
