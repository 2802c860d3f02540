"""What ``torch.utils.flop_counter.FlopCounterMode`` counts of the ops.

As of torch's own attention: the two products of the forward pass and the five of the backward,
:math:`2 P H C` each over the pairs of nodes that attend to each other, or :math:`2 E H C` along
edges. What a backend computes beside them, such as padding, is not counted, so that all ops count
the same. Backends in torch operations (``reference``, ``sparse``) count what these count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..layout.values import is_readable
from .pairs import num_pairs
from .traced_layouts import layouts_of

_FULL = "full_attention", "bucketed"
_ALONG_EDGES = ("edge_attention",)


def count_flops_of_ops() -> None:
    """Registers the formulas; when all ops are defined."""
    for name in (*_FULL, *_ALONG_EDGES):
        _register(name, 2)
        _register(f"{name}_backward", 5)


def _register(name: str, products: int) -> None:
    op = getattr(torch.ops.pyg_gt, name)
    names = [argument.name for argument in op.default._schema.arguments]

    @register_flop_formula(op, get_raw=True)
    def flops(*args: Any, out_val: object = None, **kwargs: Any) -> int:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        _, heads, channels = given["query"].shape
        count = given["edges"].size(1) if name.startswith(_ALONG_EDGES) else _pairs(given)
        return 2 * products * count * heads * channels  # type: ignore[no-any-return]


def _pairs(given: dict[str, Any]) -> int:
    """``P``; where the sizes of graphs cannot be read, as if all were of one size."""
    query, key = given["query"], given["key"]
    for name in ("pairs", "pair_values", "index"):
        of_pairs = given.get(name)
        if of_pairs is not None:
            return of_pairs.size(0)  # type: ignore[no-any-return]
    rest = [given[name] for name in ("query_batch", "query_graphs", "batch", "graphs")]
    batches = rest[0], rest[2]
    if all(not isinstance(x, Tensor) or is_readable(x) for x in (query, *batches)):
        return num_pairs(*layouts_of(query, key, *rest))
    # -1 stands for an unknown number, and SHARED_LAYOUT for that of the keys
    graphs = max(given["graphs"], given["query_graphs"], 1)
    return query.size(0) * key.size(0) // graphs  # type: ignore[no-any-return]
