"""Fused ragged attention on CUDA devices: kernels in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import GraphLayout
from ._inputs import Inputs
from ._triton_full import MAX_CHANNELS, TYPES, interprets, is_installed
from ._triton_full_op import SAME, FullAttention
from .bias import EdgeBias, PairBias, TableBias, checked_edges_of

NAME = "triton"


def unsupported(inputs: Inputs) -> str | None:
    """See the table of backends."""
    query = inputs.query
    if query.device.type != "cuda" and not (query.device.type == "cpu" and interprets()):
        return f"it needs a CUDA device (got '{query.device}')"
    if not _is_there():
        return "it needs the package 'triton' (pip install 'pyg_gt[triton]')"
    if query.is_cuda and _capability(query.device) < (8, 0):
        found = ".".join(map(str, _capability(query.device)))
        return f"it needs a device of compute capability 8.0 (got {found})"
    if query.dtype not in TYPES:
        return f"it computes in float32 from float32, float16 or bfloat16 (got {query.dtype})"
    if query.size(2) > MAX_CHANNELS:
        return f"it takes at most {MAX_CHANNELS} channels per head (got {query.size(2)})"
    if inputs.mask is not None:
        return "it has no attention along edges (got an 'EdgeMask')"
    if inputs.score_mods:
        return "compiled code cannot call a 'ScoreMod'"
    if inputs.is_transformed:
        return "its ops have no forward-mode derivative and no rule for 'torch.func'"
    edges = {id(checked_edges_of(b)) for b in inputs.additive if isinstance(b, EdgeBias)}
    if len(edges) > 1 and not _is_known(inputs):
        return "two sets of edges with a bias are joined outside of traced code only"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_there() -> bool:
    return is_installed()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _is_known(inputs: Inputs) -> bool:
    return isinstance(inputs.layout, GraphLayout) and isinstance(inputs.query_layout, GraphLayout)


def forward(inputs: Inputs) -> Tensor:
    """``[Nq, H, C]``."""
    pairs: Tensor | None = None
    table: TableBias | None = None
    edges: EdgeBias | None = None
    edge_values: Tensor | None = None
    for bias in inputs.additive:
        if isinstance(bias, TableBias) and table is None:
            table = bias
        elif isinstance(bias, EdgeBias) and (edges is None or edges.edges is bias.edges):
            edges, edge_values = bias, _sum(edge_values, bias.values)
        elif isinstance(bias, PairBias):
            pairs = _sum(pairs, bias.values)
        elif isinstance(bias, TableBias):
            pairs = _sum(pairs, bias.table.index_select(0, bias.index.long()))
        else:
            assert isinstance(inputs.layout, GraphLayout)
            assert isinstance(inputs.query_layout, GraphLayout)
            pairs = _sum(pairs, bias.pair_values(inputs.query_layout, inputs.layout))
    query_batch, query_graphs = inputs.query_layout.batch, inputs.query_layout.num_graphs
    if inputs.query_layout is inputs.layout:
        query_batch, query_graphs = None, SAME
    tensors = [
        inputs.query, inputs.key, inputs.value, pairs, None if table is None else table.table,
        edge_values, None if table is None else table.index,
        None if edges is None else checked_edges_of(edges).edge_index, inputs.seed, query_batch,
        inputs.layout.batch,
    ]  # fmt: skip
    *first, query_batch, batch = _distinct(tensors)
    out: Tensor = FullAttention.apply(  # type: ignore[no-untyped-call]
        *first, query_batch, query_graphs, batch, inputs.layout.num_graphs, inputs.scale,
        inputs.dropout_p,
    )  # fmt: skip
    return out


def _distinct(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """The same tensors as separate objects, which traced ``autograd.Function``s insist on."""
    if not torch.compiler.is_compiling():
        return tensors
    result: list[Tensor | None] = []
    for tensor in tensors:
        seen = tensor is not None and any(tensor is other for other in result)
        result.append(tensor.view_as(tensor) if tensor is not None and seen else tensor)
    return result


def _sum(total: Tensor | None, added: Tensor) -> Tensor:
    """One bias as it is; two in float32, since kernels read any type."""
    return added if total is None else total.float() + added.float()
