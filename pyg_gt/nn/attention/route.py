"""The route by which a layer computes its attention, as :func:`pyg_gt.explain` reports it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from ...layout.deferred import DeferredLayout
from ...layout.graph_layout import GraphLayout
from ...ops import AttentionBias, explain_choice
from ...ops.dispatch import check_backend

Name = Literal["fused", "messages", "padded", "module"]


@dataclass(frozen=True)
class AttentionRoute:
    """How one call of a layer computes its attention.

    Attributes:
        name: ``"fused"``: by a backend of :func:`pyg_gt.attention`; ``"messages"``: by PyG's
            ``propagate``; ``"padded"``: by its module, on a padded batch; ``"module"``: by an
            object of the caller's.
        reason: What the layer was found to have, for which it is not (or not only) fused.
        requested: The layer's ``backend``.
        backend: The backend that runs, or None.
        choices: A line for each backend, as from :func:`pyg_gt.explain_choice`.
    """

    name: Name
    reason: str | None = None
    requested: str = "auto"
    backend: str | None = None
    choices: dict[str, str] = field(default_factory=dict)

    @property
    def is_refused(self) -> bool:
        """Whether the backend that was asked for cannot run this call."""
        return self.name == "fused" and self.backend is None


def fused_route(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: GraphLayout | DeferredLayout,
    biases: tuple[AttentionBias, ...],
    backend: str,
    dropout_p: float,
    *,
    query_layout: GraphLayout | DeferredLayout | None = None,
    reason: str | None = None,
) -> AttentionRoute:
    """The route of a call of :func:`pyg_gt.attention` with these arguments."""
    check_backend(backend)
    choices = explain_choice(
        query, key, value, layout, biases, query_layout=query_layout, dropout_p=dropout_p
    )
    able = [name for name, line in choices.items() if line.startswith(("chosen", "could run"))]
    chosen = next((name for name in able if backend in ("auto", name)), None)
    route = AttentionRoute("fused", reason, backend, chosen, choices)
    if chosen is None and backend != "auto":
        return replace(route, reason=f"'{backend}' refuses: {choices[backend]}")
    return route
