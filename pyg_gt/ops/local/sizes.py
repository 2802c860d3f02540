"""The op ``pyg_gt::graph_sizes``, by which traced code learns how many graphs there are."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layout.graph_layout import layout_of


@torch.library.custom_op(
    "pyg_gt::graph_sizes", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,)
)
def graph_sizes(batch: Tensor) -> Tensor:
    """``[B]``, the number of nodes of each graph, as far as ``batch [N]`` names graphs."""
    # compiled code may hand over the same tensor with other numbers
    return layout_of(batch, by_value=True).ptr.diff()


@graph_sizes.register_fake
def _(batch: Tensor) -> Tensor:
    return batch.new_empty(torch.library.get_ctx().new_dynamic_size(min=0), dtype=torch.int64)
