"""Our layers with the weights of PyG's and torch's, on random batches: outputs and gradients.

The other layer runs in float64 too. In another type, a layer of ours may be off from that by some
times what the other is in that type, and by a few roundings.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

import pyg_gt
from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.nn import FullTransformerConv, GPSConv, MaskedTransformerConv, TransformerBlock

from .draws import Fault, Random, random_of
from .problems import pick
from .tolerance import UNIT

Run = Callable[[Any, torch.dtype], Any]
_ACTS = ("relu", "gelu", "tanh", "leaky_relu", "elu")
_NORMS = ("batch_norm", "layer_norm", "graph_norm", "instance_norm", "pair_norm", None)


def draw(seed: int, number: int) -> Counter[str]:
    """One layer on one batch."""
    rng = random_of(seed, "layers", number)
    check = pick(rng, (_masked, _masked, _full, _gps, _gps, _block))
    check(rng)
    return Counter([check.__name__.strip("_")])


def _sizes(rng: Random) -> list[int]:
    if rng.random() < 0.05:
        return [int(rng.integers(60, 100))]
    sizes = [int(n) for n in rng.integers(0, 9, int(rng.integers(1, 6)))]
    return sizes if sum(sizes) else [1]


def _batch(sizes: list[int]) -> Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def _edges(rng: Random, sizes: list[int]) -> Tensor:
    parts, start = [torch.empty(2, 0, dtype=torch.int64)], 0
    for n in sizes:
        if n:
            count = int(rng.integers(0, 3 * n + 1))
            parts.append(torch.from_numpy(rng.integers(start, start + n, (2, count))))
        start += n
    return torch.cat(parts, 1)


def _compare(
    what: str,
    ours: torch.nn.Module,
    theirs: torch.nn.Module,
    run_ours: Run,
    run_theirs: Run,
    inputs: dict[str, Tensor],
    dtype: torch.dtype,
    training: bool,
) -> None:
    exact = _results(theirs, run_theirs, inputs, torch.float64, training)
    near = _results(theirs, run_theirs, inputs, dtype, training)
    found = _results(ours, run_ours, inputs, dtype, training)
    # norms of two nearly equal rows lose digits, of which the exact result has 29 to spare
    roundings = {torch.float32: 500, torch.float64: 10_000}.get(dtype, 100)
    times = 30 if dtype in (torch.float32, torch.float64) else 5
    wrong = []
    for name, want in exact.items():
        got = found.get(name)
        if got is None or got.shape != want.shape:
            shape = None if got is None else [*got.shape]
            wrong.append(f"{name} has shape {shape}, expected {[*want.shape]}")
        elif want.numel():
            size = float(want.abs().max())
            theirs_off = float((near[name].double() - want).abs().max())
            allowed = times * theirs_off + roundings * UNIT[dtype] * max(size, 1.0)
            off = float((got.double() - want).abs().max())
            if not off <= allowed and math.isfinite(size + theirs_off):
                wrong.append(
                    f"{name} off by {off:.3g} (allowed {allowed:.3g}, size {size:.3g}, the "
                    f"other layer {theirs_off:.3g})"
                )
    if wrong:
        raise Fault("\n".join([f"{what.split(':')[0]}: {wrong[0]}", *wrong[1:], what]))


def _results(
    layer: torch.nn.Module,
    run: Run,
    inputs: dict[str, Tensor],
    dtype: torch.dtype,
    training: bool,
) -> dict[str, Tensor]:
    layer = copy.deepcopy(layer).to(dtype).train(training)
    leaves = {k: v.detach().to(dtype).requires_grad_() for k, v in inputs.items()}
    out = run(layer, dtype)(**leaves)
    wave = torch.arange(out.numel(), dtype=torch.float64).view(out.shape).cos().to(dtype)
    wanted = {**leaves, **dict(layer.named_parameters())}
    gradients = torch.autograd.grad(
        out, list(wanted.values()), wave, allow_unused=True, materialize_grads=True
    )
    buffers = {f"buffer {k}": v for k, v in layer.named_buffers() if v.is_floating_point()}
    named = {f"gradient of {k}": g for k, g in zip(wanted, gradients, strict=True)}
    return {"output": out.detach(), **named, **buffers}


def _dtype(rng: Random) -> torch.dtype:
    half = (torch.bfloat16, torch.float16)
    found: torch.dtype = pick(rng, (torch.float32, torch.float32, torch.float64, *half))
    return found


def _masked(rng: Random) -> None:
    sizes = _sizes(rng)
    n = sum(sizes)
    heads, channels, edge_dim = int(rng.integers(1, 5)), int(rng.integers(1, 17)), None
    bipartite = rng.random() < 0.25
    if rng.random() < 0.4:
        edge_dim = int(rng.integers(1, 5))
    arguments: dict[str, Any] = {
        "heads": heads, "edge_dim": edge_dim, "concat": rng.random() < 0.6,
        "bias": rng.random() < 0.8, "root_weight": rng.random() < 0.7,
        "aggr": pick(rng, ("add", "add", "add", "add", "mean", "max")),
        "flow": "source_to_target",
    }  # fmt: skip
    arguments["beta"] = arguments["root_weight"] and rng.random() < 0.5
    features = int(rng.integers(1, 9))
    edges = _edges(rng, sizes)
    if bipartite:
        m = int(rng.integers(1, 12))
        edges = torch.stack([torch.from_numpy(rng.integers(0, m, edges.size(1))), edges[1] % n])
        inputs = {"x": torch.randn(m, features), "y": torch.randn(n, 3)}
        width: Any = (features, 3)
    else:
        inputs, width = {"x": torch.randn(n, features)}, features
        if rng.random() < 0.15:
            arguments["flow"] = "target_to_source"
    if edge_dim is not None:
        inputs["edge_attr"] = torch.randn(edges.size(1), edge_dim)
    theirs = pyg.TransformerConv(width, channels, **arguments)
    how = pick(rng, ("class", "swap"))
    if how == "swap":
        ours: Any = pyg_gt.swap(copy.deepcopy(theirs))
    else:
        ours = MaskedTransformerConv(width, channels, **arguments)
        ours.load_state_dict(theirs.state_dict())
    form = pick(rng, ("edge_index", "edge_index", "layout", "int32", "EdgeIndex", "sparse"))
    if form == "sparse" and arguments["flow"] == "source_to_target":
        _masked_sparse(rng, ours, theirs, inputs, edges, (n, len(inputs["x"])), arguments)
        return
    given: Any = edges
    if form == "layout" and not bipartite and arguments["aggr"] == "add":
        given = EdgeLayout.of(edges, n, flow=arguments["flow"])
    elif form == "int32" and arguments["aggr"] == "add":
        given = edges.int()
    elif form == "EdgeIndex":
        given = EdgeIndex(edges, sparse_size=(len(inputs["x"]), n))

    def run(e: Any) -> Run:
        def of(layer: Any, dtype: torch.dtype) -> Any:
            return lambda x, y=None, edge_attr=None: layer(
                x if y is None else (x, y), e, edge_attr
            )

        return of

    what = f"MaskedTransformerConv: {arguments}, {how}, edges as {form}, sizes {sizes}"
    # a row without messages has no largest one in float64 and in ours alike
    _compare(what, ours, theirs, run(given), run(edges), inputs, _dtype(rng), rng.random() < 0.5)


def _masked_sparse(
    rng: Random,
    ours: Any,
    theirs: Any,
    inputs: dict[str, Tensor],
    edges: Tensor,
    shape: tuple[int, int],
    arguments: dict[str, Any],
) -> None:
    """A transposed adjacency, whose values are edge features, weights or nothing."""
    kinds = ("coo", "csr", "SparseTensor") if WITH_TORCH_SPARSE else ("coo", "csr")
    kind, weighted = pick(rng, kinds), rng.random() < 0.5
    if theirs.edge_dim is not None and kind == "csr":
        kind = "coo"  # whose values may be vectors
    weights = torch.randn(edges.size(1), dtype=torch.float64)

    def adjacency(edge_attr: Tensor | None, dtype: torch.dtype) -> Any:
        values: Any = weights.to(dtype) if edge_attr is None else edge_attr
        if kind == "SparseTensor":
            if edge_attr is None and not weighted:
                values = None
            return SparseTensor(row=edges[1], col=edges[0], value=values, sparse_sizes=shape)
        size = (*shape, *values.shape[1:])
        coo = torch.sparse_coo_tensor(edges.flip(0), values, size).coalesce()
        return coo if kind == "coo" else coo.to_sparse_csr()

    def run(layer: Any, dtype: torch.dtype) -> Any:
        return lambda x, y=None, edge_attr=None: layer(
            x if y is None else (x, y), adjacency(edge_attr, dtype)
        )

    what = f"MaskedTransformerConv on {kind}: {arguments}, weighted {weighted}"
    _compare(what, ours, theirs, run, run, inputs, pick(rng, (torch.float32, torch.float64)), True)


def _full(rng: Random) -> None:
    sizes = _sizes(rng)
    n, heads, channels = sum(sizes), int(rng.integers(1, 5)), int(rng.integers(1, 17))
    batch = _batch(sizes)
    if rng.random() < 0.3:
        batch = batch[torch.from_numpy(rng.permutation(n))]
    pairs = (batch[:, None] == batch[None, :]).nonzero().T
    arguments: dict[str, Any] = {
        "heads": heads, "concat": rng.random() < 0.6, "bias": rng.random() < 0.8,
        "root_weight": rng.random() < 0.7,
    }  # fmt: skip
    arguments["beta"] = arguments["root_weight"] and rng.random() < 0.5
    theirs = pyg.TransformerConv(5, channels, **arguments)
    ours = FullTransformerConv(5, channels, **arguments)
    ours.load_state_dict(theirs.state_dict())
    given: Any = batch if rng.random() < 0.6 else GraphLayout.from_batch(batch)

    def run_ours(layer: Any, dtype: torch.dtype) -> Any:
        return lambda x: layer(x, batch=given)

    def run_theirs(layer: Any, dtype: torch.dtype) -> Any:
        return lambda x: layer(x, pairs)

    what = f"FullTransformerConv: {arguments}, sizes {sizes}"
    inputs = {"x": torch.randn(n, 5)}
    _compare(what, ours, theirs, run_ours, run_theirs, inputs, _dtype(rng), rng.random() < 0.5)


def _local(rng: Random, channels: int) -> Any:
    kind = int(rng.integers(5))
    if kind == 0:
        return None
    if kind == 1:
        return pyg.GINConv(torch.nn.Linear(channels, channels))
    if kind == 2:
        return pyg.GCNConv(channels, channels)
    if kind == 3:
        return pyg.TransformerConv(channels, channels)
    return pyg.SAGEConv(channels, channels)


def _gps(rng: Random) -> None:
    sizes = _sizes(rng)
    heads = int(rng.integers(1, 5))
    channels, batch, edges = heads * int(rng.integers(1, 9)), _batch(sizes), _edges(rng, sizes)
    arguments: dict[str, Any] = {
        "heads": heads, "act": pick(rng, _ACTS), "norm": pick(rng, _NORMS),
        "attn_kwargs": pick(rng, (None, None, {"bias": False})),
    }  # fmt: skip
    training = rng.random() < 0.5
    if sum(sizes) < 3:  # a variance of one number is none
        training = False
        if arguments["norm"] == "instance_norm":
            arguments["norm"] = "layer_norm"
    theirs = pyg.GPSConv(channels, _local(rng, channels), **arguments)
    # training a while moves biases and norms from their first values
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    how = pick(rng, ("class", "swap"))
    if how == "swap":
        ours: Any = pyg_gt.swap(copy.deepcopy(theirs))
    else:
        ours = GPSConv(channels, copy.deepcopy(theirs.conv), **arguments)
        ours.load_state_dict(theirs.state_dict())
    one_graph = rng.random() < 0.2
    given: Any = None if one_graph else batch

    def run(layer: Any, dtype: torch.dtype) -> Any:
        return lambda x: layer(x, edges, given)

    inputs = {"x": torch.randn(sum(sizes), channels)}
    what = f"GPSConv: {arguments}, {type(theirs.conv).__name__}, {how}, sizes {sizes}"
    what += f", training {training}"
    _compare(what, ours, theirs, run, run, inputs, _dtype(rng), training)


def _block(rng: Random) -> None:
    sizes = _sizes(rng)
    heads = int(rng.integers(1, 5))
    channels = heads * int(rng.integers(1, 9))
    theirs = torch.nn.TransformerEncoderLayer(
        channels, heads, int(rng.integers(1, 20)), dropout=0.0, batch_first=True,
        activation=pick(rng, ("relu", "gelu")), norm_first=rng.random() < 0.5,
        bias=rng.random() < 0.8,
    )  # fmt: skip
    ours = TransformerBlock.from_torch(theirs)
    batch = _batch(sizes)
    order = torch.from_numpy(rng.permutation(len(batch)))
    if rng.random() < 0.7:
        order = torch.arange(len(batch))

    def run_ours(layer: Any, dtype: torch.dtype) -> Any:
        return lambda x: layer(x, batch[order])

    def run_theirs(layer: Any, dtype: torch.dtype) -> Any:
        def go(x: Tensor) -> Tensor:
            out = torch.zeros_like(x)
            for graph in range(len(sizes)):
                own = (batch[order] == graph).nonzero().flatten()
                if len(own):
                    out = out.index_copy(0, own, layer(x[own][None])[0])
            return out

        return go

    inputs = {"x": torch.randn(len(batch), channels)}
    what = f"TransformerBlock: {channels} channels, {heads} heads, sizes {sizes}"
    _compare(what, ours, theirs, run_ours, run_theirs, inputs, _dtype(rng), rng.random() < 0.5)
