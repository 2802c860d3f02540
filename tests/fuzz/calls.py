"""A right call of every public function, class and method, in which one argument is made wrong."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, TransformerConv

import pyg_gt
from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    datasets,
    explain,
    explain_choice,
    nn,
    ops,
    qkv_attention,
    swap,
    testing,
    transforms,
)

# of unpacked tensors, which no type describes
attention: Any = pyg_gt.attention


class Call(NamedTuple):
    """A public callable with right arguments.

    Attributes:
        name: as in the documentation.
        annotations: of each argument, by which a value is right or wrong.
        valid: makes right arguments.
        run: calls it with arguments, and uses what it makes.
        fine: (argument, label of a value) that are right although annotations do not tell.
        skip: arguments that another library alone reads.
        huge: whether 10**9 is tried: widths of layers are torch's own affair.
    """

    name: str
    annotations: dict[str, str]
    valid: Callable[[], dict[str, Any]]
    run: Callable[[dict[str, Any]], Any]
    fine: frozenset[tuple[str, str]]
    skip: frozenset[str]
    huge: bool


# made or called by the library itself, or with nothing to get wrong
_LEFT_OUT = {
    "Attribute", "AttentionBias", "BlockDensity", "GraphEncoding", "Graphs", "OGBTask",
    "PrecomputedDataset", "ReorderReport",
    "cached", "pair_values", "apply", "edge_update", "message", "aggregate", "reset_parameters",
    "encode", "get", "len", "get_idx_split", "pin_memory", "report", "check", "explain_message",
    "check_unedited", "is_edited",
}  # fmt: skip

_ONE_GRAPH = {"None"}
_SIZES = [2, 3]
N, H, C, E = 5, 2, 4, 6


def x() -> torch.Tensor:
    """Two graphs of two and three nodes."""
    return torch.randn(N, H * C)


def heads() -> torch.Tensor:
    """``[N, H, C]``."""
    return torch.randn(N, H, C)


def layout() -> GraphLayout:
    """Of :func:`x`."""
    return GraphLayout.from_sizes(_SIZES)


def batch() -> torch.Tensor:
    """Of :func:`x`."""
    return torch.tensor([0, 0, 1, 1, 1])


def edges() -> torch.Tensor:
    """Inside the graphs of :func:`x`."""
    return torch.tensor([[0, 1, 2, 3, 4, 2], [1, 0, 3, 4, 2, 4]])


def data() -> Data:
    """Two graphs as one batch."""
    one = Data(x=torch.randn(2, 3), edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    ring = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])
    return Batch.from_data_list([one, Data(x=torch.randn(3, 3), edge_index=ring, num_nodes=3)])


def pairs(width: int) -> torch.Tensor:
    """``[P, width]``."""
    return torch.rand(4 + 9, width)


def run_attention(*biases: Any, **arguments: Any) -> torch.Tensor:
    """Attention on right tensors."""
    out: torch.Tensor = attention(heads(), heads(), heads(), layout(), biases, **arguments)
    return out


def calls() -> list[Call]:
    """All of them, by name."""
    found = [*_of_attention(), *_of_layouts(), *_of_layers(), *_of_encoders()]
    found += [*_of_edge_sets_and_latents(), *_of_states_of_pairs()]
    found += [*_of_transforms(), *_of_the_rest()]
    return sorted(found, key=lambda call: call.name)


def without_a_call() -> set[str]:
    """Public names that no call is known of; a test wants none."""
    known, missing = {call.name for call in calls()}, set()
    folder = Path(pyg_gt.__file__).parent
    files = {str(path) for path in folder.rglob("*.py")}
    for module in (pyg_gt, ops, nn, transforms, datasets, testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing) or name in _LEFT_OUT:
                continue
            name = getattr(thing, "__name__", name)  # of an alias, the name of what it stands for
            if name not in known:
                missing.add(name)
            for method in dir(thing) if inspect.isclass(thing) else ():
                if method.startswith("_") or method in _LEFT_OUT:
                    continue
                own = getattr(getattr(thing, method), "__module__", None)
                if getattr(sys.modules.get(own or ""), "__file__", "") not in files:
                    continue  # inherited, or written by PyG for each class
                if callable(getattr(thing, method)) and f"{name}.{method}" not in known:
                    missing.add(f"{name}.{method}")
    return missing


def _call(
    name: str,
    function: Callable[..., Any],
    valid: Callable[[], dict[str, Any]],
    run: Callable[[dict[str, Any]], Any] | None = None,
    *,
    fine: dict[str, set[str]] | None = None,
    more: dict[str, str] | None = None,
    skip: tuple[str, ...] = (),
) -> Call:
    annotations = dict(more or {})
    for key, parameter in inspect.signature(function).parameters.items():
        annotations.setdefault(key, str(parameter.annotation))
    allowed = frozenset((a, label) for a, labels in (fine or {}).items() for label in labels)
    kind = inspect.isclass(function) and issubclass(function, torch.nn.Module)
    run = run or (lambda a: function(**a))
    return Call(name, annotations, valid, run, allowed, frozenset(skip), not kind)


def _of_attention() -> list[Call]:
    both = {"query": heads, "key": heads, "value": heads, "layout": layout}

    def made(**more: Any) -> Callable[[], dict[str, Any]]:
        return lambda: {k: v() for k, v in (both | more).items()}

    rest: dict[str, Any] = {"biases": tuple, "query_layout": layout, "scale": lambda: 0.5}
    rest["dropout_p"] = lambda: 0.25
    numbers = {"scale": {"0", "-1"}, "dropout_p": {"0"}}
    found = [
        _call("attention", attention, made(**rest, backend=lambda: "auto"), fine=numbers),
        _call("explain_choice", explain_choice, made(**rest), fine=numbers),
    ]

    def whole() -> dict[str, Any]:
        given = made(**rest, backend=lambda: "auto")()
        del given["query"], given["key"], given["value"], given["query_layout"]
        return {"qkv": torch.randn(N, 3, H, C), **given}

    found.append(_call("qkv_attention", qkv_attention, whole, fine=numbers))
    biases: list[tuple[type[Any], Callable[[], dict[str, Any]]]] = [
        (PairBias, lambda: {"values": pairs(H)}),
        (TableBias, lambda: {"table": torch.randn(4, H), "index": torch.arange(13) % 4}),
        (EdgeBias, lambda: {"edges": edges(), "values": torch.randn(E, H)}),
        (EdgeMask, lambda: {"edges": edges(), "values": torch.randn(E, H),
                            "features": torch.randn(E, H, C)}),
        (ScoreMod, lambda: {"fn": lambda score, graph, head, q, k: score * 2}),
    ]  # fmt: skip
    fine = {"table": {"first dimension longer"}}
    for kind, valid in biases:
        found.append(
            _call(kind.__name__, kind, valid, lambda a, k=kind: run_attention(k(**a)), fine=fine)  # type: ignore[misc]
        )
        if kind is ScoreMod:
            continue
        if kind is PairBias:
            found += _of_dense_biases()
        found.append(
            _call(
                f"{kind.__name__}.materialize",
                kind.materialize,
                lambda: {"layout": layout(), "query_layout": layout()},
                lambda a, k=kind, v=valid: k(  # type: ignore[misc]
                    **{key: value for key, value in v().items() if key != "features"}
                ).materialize(**a),
            )
        )
    return found


def _of_dense_biases() -> list[Call]:
    both = {"layout": layout, "query_layout": layout}

    def made(**more: Any) -> Callable[[], dict[str, Any]]:
        return lambda: {k: v() for k, v in (more | both).items()}

    return [
        _call(
            "PairBias.from_dense", PairBias.from_dense,
            made(dense=lambda: torch.randn(2, H, 3, 4)),
            lambda a: run_attention(PairBias.from_dense(**a)),
            fine={"dense": {"last dimension longer", "last dimension shorter"}},
        ),
        _call("PairBias.to_dense", PairBias.to_dense, made(),
              lambda a: PairBias(pairs(H)).to_dense(**a)),
    ]  # fmt: skip


def _of_layouts() -> list[Call]:
    use: dict[str, Callable[[], Any]] = {
        "batch": batch,
        "num_nodes": lambda: N,
        "num_graphs": lambda: 2,
    }

    def with_all(made: GraphLayout) -> Any:
        return attention(*torch.randn(3, made.num_nodes, H, C), made)

    def by_hand(a: dict[str, Any]) -> Any:
        return with_all(GraphLayout(**a))

    def by_hand_valid() -> dict[str, Any]:
        made = layout()
        names = ("ptr", "batch", "num_nodes", "num_graphs", "max_nodes", "sizes")
        return {name: getattr(made, name) for name in names}

    more_graphs = {"1.5", "'x'"}
    longer = {"first dimension longer", "last dimension longer", "no rows"}
    shorter = {"first dimension shorter", "last dimension shorter"}
    return [
        _call("GraphLayout", GraphLayout, by_hand_valid, by_hand),
        _call(
            "GraphLayout.from_batch", GraphLayout.from_batch,
            lambda: {"batch": batch(), "num_graphs": 2},
            lambda a: with_all(GraphLayout.from_batch(**a)),
            fine={"batch": {*longer, *shorter, "long [3]"}},
        ),
        _call(
            "GraphLayout.from_ptr", GraphLayout.from_ptr,
            lambda: {"ptr": torch.tensor([0, 2, 5]), "ptr_host": [0, 2, 5]},
            lambda a: with_all(GraphLayout.from_ptr(**a)),
        ),
        _call(
            "GraphLayout.from_sizes", GraphLayout.from_sizes,
            lambda: {"sizes": torch.tensor(_SIZES), "device": "cpu"},
            lambda a: with_all(GraphLayout.from_sizes(**a)),
            fine={"sizes": {*longer, *shorter, "long [3]", "list", "numpy array", "()", "numpy"}},
        ),
        _call(
            "GraphLayout.from_data", GraphLayout.from_data, lambda: {"data": data()},
            lambda a: with_all(GraphLayout.from_data(**a)), fine={"data": {"Data()"}},
        ),
        _call(
            "GraphLayout.of", GraphLayout.of,
            lambda: {k: v() for k, v in use.items()} | {"device": "cpu"},
            lambda a: GraphLayout.of(**a), fine={"batch": {"transposed", "meta"}},
        ),
        _call("GraphLayout.to", lambda device: layout().to(device), lambda: {"device": "cpu"},
              more={"device": "torch.device | str"}),
        _call(
            "EdgeLayout", EdgeLayout,
            lambda: {"edge_index": edges(), "num_src": N, "num_dst": N},
            lambda a: run_attention(EdgeMask(EdgeLayout(**a))),
            fine={"edge_index": {"last dimension longer", "last dimension shorter"}},
        ),
        _call(
            "EdgeLayout.of", EdgeLayout.of,
            lambda: {"edges": edges(), "num_src": N, "num_dst": N, "flow": "source_to_target"},
            lambda a: run_attention(EdgeMask(EdgeLayout.of(**a))),
            fine={"edges": {"last dimension longer", "last dimension shorter", *more_graphs}},
        ),
        _call(
            "EdgeLayout.check_within_graphs", EdgeLayout.check_within_graphs,
            lambda: {"query_layout": layout(), "layout": layout()},
            lambda a: EdgeLayout.of(edges(), N).check_within_graphs(**a),  # type: ignore[union-attr]
            fine={"query_layout": set(), "layout": set()},
        ),
    ]  # fmt: skip


def _of_layers() -> list[Call]:
    pyg = {
        k: str(p.annotation).replace("<class '", "").replace("'>", "").replace("typing.", "")
        for k, p in inspect.signature(TransformerConv.__init__).parameters.items()
        if k not in ("self", "kwargs")
    }
    pyg["edge_dim"] = "int | None"
    conv: dict[str, Any] = {
        "in_channels": H * C, "out_channels": C, "heads": H, "concat": True, "beta": False,
        "dropout": 0.25, "edge_dim": 3, "bias": True, "root_weight": True, "backend": "auto",
    }  # fmt: skip
    forward = {"x": x, "edge_index": edges, "edge_attr": lambda: torch.randn(E, 3)}
    lazy = {"in_channels": {"-1"}, "dropout": {"0"}}
    pyg["in_channels"] = "int"

    def made(**more: Any) -> Callable[[], dict[str, Any]]:
        return lambda: {k: v() for k, v in more.items()}

    def trained(module: Any, arguments: dict[str, Any]) -> Any:
        out = module(**arguments)
        out = out[0] if isinstance(out, tuple) else out
        if isinstance(out, torch.Tensor):
            out.sum().backward()
        return out

    def full() -> Any:
        return nn.FullTransformerConv(**conv)

    def masked() -> Any:
        return nn.MaskedTransformerConv(**conv)

    gps: dict[str, Any] = {
        "channels": H * C, "conv": None, "heads": H, "dropout": 0.25, "act": "relu",
        "act_kwargs": {}, "norm": "batch_norm", "norm_kwargs": {}, "attn_type": "multihead",
        "attn_kwargs": {}, "attn_dropout": 0.25, "norm_first": False, "attn": None,
        "backend": "auto",
    }  # fmt: skip
    block: dict[str, Any] = {
        "channels": H * C, "heads": H, "ffn_channels": 16, "dropout": 0.25, "act": "relu",
        "norm_first": False, "gated": False, "backend": "auto",
    }  # fmt: skip
    bias_forward = {"batch": batch, "biases": tuple}
    one_graph = {"batch": _ONE_GRAPH}
    gated: dict[str, Any] = {
        "in_channels": 8,
        "out_channels": 8,
        "dropout": 0.25,
        "residual": True,
    }

    def gin() -> GINConv:
        return GINConv(torch.nn.Linear(H * C, H * C))

    return [
        _call("FullTransformerConv", nn.FullTransformerConv, lambda: dict(conv),
              lambda a: trained(nn.FullTransformerConv(**a), made(**forward, batch=batch)()),
              more=pyg, fine=lazy),
        _call("FullTransformerConv.forward", nn.FullTransformerConv.forward,
              made(**forward, **bias_forward, return_attention_weights=lambda: None),
              lambda a: trained(full(), a), fine={**one_graph, "x": {"sparse"}}),
        _call("MaskedTransformerConv", nn.MaskedTransformerConv, lambda: dict(conv),
              lambda a: trained(nn.MaskedTransformerConv(**a), made(**forward)()),
              more=pyg, fine=lazy),
        _call("MaskedTransformerConv.forward", nn.MaskedTransformerConv.forward,
              made(**forward, return_attention_weights=lambda: None),
              lambda a: trained(masked(), a), fine={"x": {"sparse"}}),
        _call("GPSConv", nn.GPSConv, lambda: dict(gps),
              lambda a: trained(nn.GPSConv(**a), {"x": x(), "edge_index": None, "batch": batch()}),
              fine={"dropout": {"0"}, "attn_dropout": {"0"}},
              skip=("act_kwargs", "norm_kwargs", "attn_kwargs")),
        _call("GPSConv.forward", nn.GPSConv.forward, made(x=x, edge_index=edges, **bias_forward),
              lambda a: trained(nn.GPSConv(**gps | {"conv": gin()}), a), fine=one_graph,
              skip=("edge_index",)),
        _call("GatedGCNConv", nn.GatedGCNConv, lambda: dict(gated),
              lambda a: trained(nn.GatedGCNConv(**a), {"x": x(), "edge_index": edges(),
                                                       "edge_attr": torch.randn(E, 8)}),
              fine={"dropout": {"0"}}),
        _call("GatedGCNConv.forward", nn.GatedGCNConv.forward,
              made(x=x, edge_index=edges, edge_attr=lambda: torch.randn(E, 8)),
              lambda a: trained(nn.GatedGCNConv(**gated), a)),
        _call("TransformerBlock", nn.TransformerBlock, lambda: dict(block),
              lambda a: trained(nn.TransformerBlock(**a), {"x": x(), "batch": batch()}),
              fine={"dropout": {"0"}, "act": {"Identity()"}}),
        _call("TransformerBlock.forward", nn.TransformerBlock.forward, made(x=x, **bias_forward),
              lambda a: trained(nn.TransformerBlock(**block), a), fine=one_graph),
        _call("TransformerBlock.from_torch", nn.TransformerBlock.from_torch,
              lambda: {"layer": torch.nn.TransformerEncoderLayer(8, 2, 16), "backend": "auto"},
              lambda a: trained(nn.TransformerBlock.from_torch(**a),
                                {"x": x(), "batch": batch()})),
        _call("explain", lambda model: explain(model, x(), edges(), batch()),
              lambda: {"model": nn.GPSConv(8, None)}, more={"model": "torch.nn.Module"}),
        _call("swap", swap, lambda: {"model": nn.GPSConv(8, None), "backend": "auto",
                                     "verbose": False},
              lambda a: swap(**a)),
    ]  # fmt: skip


def _of_edge_sets_and_latents() -> list[Call]:
    exphormer: dict[str, Any] = {
        "in_channels": H * C, "out_channels": C, "heads": H, "concat": True, "edge_dim": 3,
        "clamp": 5.0, "dropout": 0.25, "bias": False,
    }  # fmt: skip
    latent: dict[str, Any] = {
        "channels": H * C, "num_latents": 3, "heads": H, "ffn_channels": 8,
        "num_latent_layers": 1, "dropout": 0.25, "act": "relu", "residual": True,
        "backend": "auto",
    }  # fmt: skip
    interactions: dict[str, Any] = {
        "channels": H * C, "edge_channels": 3, "num_virtual_nodes": 1, "expander": True,
    }  # fmt: skip

    def attended() -> dict[str, Any]:
        return {"x": x(), "edge_index": edges(), "edge_attr": torch.randn(E, 3)}

    def joined() -> dict[str, Any]:
        return {**attended(), "batch": batch(), "expander_edge_index": edges()}

    def trained(module: Any, arguments: dict[str, Any]) -> Any:
        out = module(**arguments)
        out = out[0] if isinstance(out, tuple) else out
        out.sum().backward()
        return out

    gnn_plus: dict[str, Any] = {
        "channels": H * C, "conv": nn.GCNEConv(H * C, H * C), "dropout": 0.25, "act": "relu",
        "conv_act": None, "norm": True, "residual": True, "ffn": True, "activated": False,
    }  # fmt: skip
    token: dict[str, Any] = {"channels": H * C, "heads": H, "num_tokens": 2}

    def with_edges() -> dict[str, Any]:
        return {"x": x(), "edge_index": edges(), "edge_attr": torch.randn(E, H * C)}

    def split(arguments: dict[str, Any]) -> None:
        made = nn.GraphToken(**token)
        made.split(**arguments)

    weights = {"return_attention_weights": None}
    longer = {"last dimension longer", "last dimension shorter"}
    return [
        _call("EdgeMask.union", lambda edges, coalesce: EdgeMask.union(edges, coalesce=coalesce),
              lambda: {"edges": edges(), "coalesce": True},
              lambda a: run_attention(EdgeMask.union(edges(), a["edges"], coalesce=a["coalesce"])),
              more={"edges": "Tensor", "coalesce": "bool"}, fine={"edges": longer}),
        _call("GCNEConv", nn.GCNEConv,
              lambda: {"in_channels": H * C, "out_channels": H * C, "bias": True},
              lambda a: trained(nn.GCNEConv(**a), with_edges()), fine={"in_channels": {"-1"}}),
        _call("GCNEConv.forward", nn.GCNEConv.forward, with_edges,
              lambda a: trained(nn.GCNEConv(H * C, H * C), a),
              fine={"x": {"first dimension longer"}}),
        _call("GNNPlusBlock", nn.GNNPlusBlock, lambda: dict(gnn_plus),
              lambda a: trained(nn.GNNPlusBlock(**a), with_edges()),
              fine={"dropout": {"0"}, "act": {"Identity()"}, "conv_act": {"Identity()"}}),
        _call("GNNPlusBlock.forward", nn.GNNPlusBlock.forward, with_edges,
              lambda a: trained(nn.GNNPlusBlock(**gnn_plus), a),
              more={"edge_attr": "Tensor"}, fine={"x": {"first dimension longer"}}),
        _call("GraphToken", nn.GraphToken, lambda: dict(token),
              lambda a: trained(nn.GraphToken(**a), {"x": x(), "batch": batch()})),
        _call("GraphToken.forward", nn.GraphToken.forward,
              lambda: {"x": x(), "batch": batch(), "biases": (), "num_graphs": None},
              lambda a: trained(nn.GraphToken(**token), a), fine={"batch": _ONE_GRAPH}),
        _call("GraphToken.split", nn.GraphToken.split,
              lambda: {"x": torch.randn(N + 4, H * C),
                       "layout": nn.GraphToken(**token)(x(), batch())[1]},
              split, fine={"x": longer | {"last dimension longer"}}),
        _call("ExphormerConv", nn.ExphormerConv, lambda: dict(exphormer),
              lambda a: trained(nn.ExphormerConv(**a), attended()),
              fine={"in_channels": {"-1"}, "edge_dim": {"-1"}, "dropout": {"0"}}),
        _call("ExphormerConv.forward", nn.ExphormerConv.forward, lambda: {**attended(), **weights},
              lambda a: trained(nn.ExphormerConv(**exphormer), a),
              fine={"x": {"first dimension longer"}}),
        _call("LatentTransformerConv", nn.LatentTransformerConv, lambda: dict(latent),
              lambda a: trained(nn.LatentTransformerConv(**a), {"x": x(), "batch": batch()}),
              fine={"num_latent_layers": {"0"}, "dropout": {"0"}, "act": {"Identity()"}}),
        _call("LatentTransformerConv.forward", nn.LatentTransformerConv.forward,
              lambda: {"x": x(), "batch": batch(), **weights},
              lambda a: trained(nn.LatentTransformerConv(**latent), a),
              fine={"batch": _ONE_GRAPH}),
        _call("InteractionGraph", nn.InteractionGraph, lambda: dict(interactions),
              lambda a: nn.InteractionGraph(**a)(**joined()).edge_attr.sum().backward(),
              fine={"num_virtual_nodes": {"0"}}),
        _call("InteractionGraph.forward", nn.InteractionGraph.forward, joined,
              lambda a: trained(nn.InteractionGraph(**interactions), a),
              fine={"batch": _ONE_GRAPH, "expander_edge_index": longer}),
    ]  # fmt: skip


def _of_states_of_pairs() -> list[Call]:
    grit: dict[str, Any] = {
        "channels": H * C, "heads": H, "dropout": 0.25, "attn_dropout": 0.25, "act": "relu",
        "norm": "batch_norm", "pair_output": True,
    }  # fmt: skip
    egt: dict[str, Any] = {
        "channels": H * C, "pair_channels": 3, "heads": H, "dropout": 0.25, "pair_dropout": 0.25,
        "attn_dropout": 0.25, "act": "elu", "ffn_channels": 8, "pair_ffn_channels": 8,
        "scale_degree": True, "pair_output": True,
    }  # fmt: skip
    walks: dict[str, Any] = {"walk_length": 4, "channels": H * C}

    def of_grit() -> dict[str, Any]:
        return {"x": x(), "pair_attr": pairs(H * C), "batch": batch(), "degree": torch.ones(N)}

    def of_egt() -> dict[str, Any]:
        virtual = torch.tensor([True, False, True, False, False])
        return {"x": x(), "pair_attr": pairs(3), "batch": batch(), "is_virtual": virtual}

    def of_walks() -> dict[str, Any]:
        return {"x": x(), "pair_walk": pairs(4), "edge_index": edges(),
                "edge_attr": torch.randn(E, H * C), "batch": batch()}  # fmt: skip

    def trained(module: Any, arguments: dict[str, Any]) -> Any:
        module(**arguments)[0].sum().backward()

    weights = {"return_attention_weights": None}
    rates = {"dropout": {"0"}, "attn_dropout": {"0"}, "act": {"Identity()"}}
    return [
        _call("GRITConv", nn.GRITConv, lambda: dict(grit),
              lambda a: trained(nn.GRITConv(**a), of_grit()), fine=rates),
        _call("GRITConv.forward", nn.GRITConv.forward, lambda: {**of_grit(), **weights},
              lambda a: trained(nn.GRITConv(**grit), a),
              fine={"degree": {"other kind of number"}}),
        _call("EGTConv", nn.EGTConv, lambda: dict(egt),
              lambda a: trained(nn.EGTConv(**a), of_egt()),
              fine={**rates, "pair_dropout": {"0"}}),
        _call("EGTConv.forward", nn.EGTConv.forward, lambda: {**of_egt(), **weights},
              lambda a: trained(nn.EGTConv(**egt), a)),
        _call("RelativeWalkEncoder", nn.RelativeWalkEncoder, lambda: dict(walks),
              lambda a: trained(nn.RelativeWalkEncoder(**a), of_walks())),
        _call("RelativeWalkEncoder.forward", nn.RelativeWalkEncoder.forward, of_walks,
              lambda a: trained(nn.RelativeWalkEncoder(**walks), a)),
    ]  # fmt: skip


def _of_encoders() -> list[Call]:
    k = 3
    eigen: dict[str, Callable[[], Any]] = {
        "vectors": lambda: torch.randn(N, k), "values": lambda: torch.rand(N, k),
        "mask": lambda: torch.ones(N, k, dtype=torch.bool),
    }  # fmt: skip

    def made(**more: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
        return lambda: {key: value() for key, value in more.items()}

    laplacian: dict[str, Any] = {
        "k": k, "channels": 8, "kind": "deepset", "num_layers": 2, "post_layers": 1,
    }  # fmt: skip
    sign_net: dict[str, Any] = {
        "channels": 8, "hidden_channels": 8, "num_layers": 2, "phi": None,
    }  # fmt: skip
    stable: dict[str, Any] = {
        "channels": 8, "num_filters": 4, "hidden_channels": 8, "num_layers": 2, "phi": None,
        "rho": None,
    }  # fmt: skip
    other_edges = {"edge_index": {"last dimension longer", "last dimension shorter"}}
    degree = {"max_degree": 4, "channels": 8, "directed": True}
    walk: dict[str, Any] = {"walk_length": 4, "channels": 8, "num_layers": 1}
    relative: dict[str, Any] = {"walk_length": 4, "heads": H, "hidden_channels": 8}
    path = {"edge_channels": 3, "heads": H, "path_length": 2}
    distance = {"max_distance": 4, "heads": H}
    table: list[tuple[type[Any], dict[str, Any], dict[str, Callable[[], Any]], dict[str, Any]]] = [
        (nn.LaplacianEncoder, laplacian, eigen | {"batch": batch},
         {"post_layers": {"0"}, "batch": _ONE_GRAPH}),
        (nn.SignNetEncoder, sign_net, eigen | {"edge_index": edges}, other_edges),
        (nn.StableEncoder, stable, eigen | {"edge_index": edges}, other_edges),
        (nn.DegreeEncoder, degree, {"degree": lambda: torch.randint(3, (N, 2))},
         {"degree": {"first dimension longer", "first dimension shorter", "no rows",
                     "one entry 10**9", "one entry 2**62"}, "max_degree": {"0"}}),
        (nn.RandomWalkEncoder, walk, {"encoding": lambda: torch.rand(N, 4)},
         {"encoding": {"first dimension longer", "first dimension shorter", "no rows"}}),
        (nn.RelativeWalkBias, relative, {"pair_walk": lambda: pairs(4)}, {}),
        (nn.ShortestPathBias, distance,
         {"pair_distance": lambda: torch.randint(5, (13,), dtype=torch.uint8)}, {}),
        (nn.EdgePathBias, path,
         {"pair_distance_edges": lambda: torch.full((13, 2), -1),
          "edge_attr": lambda: torch.randn(E, 3), "edge_index": edges, "batch": batch},
         {"pair_distance_edges": {"one entry -1"}, "batch": _ONE_GRAPH}),
    ]  # fmt: skip
    found = []
    for kind, arguments, forward, fine in table:

        def use(made: Any) -> Any:
            return run_attention(made) if not isinstance(made, torch.Tensor) else made

        def build(
            a: dict[str, Any], kind: Any = kind, forward: Any = forward, use: Any = use
        ) -> Any:
            return use(kind(**a)(**{key: value() for key, value in forward.items()}))

        def go(
            a: dict[str, Any], kind: Any = kind, arguments: Any = arguments, use: Any = use
        ) -> Any:
            return use(kind(**arguments)(**a))

        name = kind.__name__
        found.append(
            _call(name, kind, lambda a=arguments: dict(a), build, fine=fine)  # type: ignore[misc]
        )
        found.append(_call(f"{name}.forward", kind.forward, made(**forward), go, fine=fine))

        def stored(
            a: dict[str, Any], kind: Any = kind, arguments: Any = arguments, use: Any = use
        ) -> Any:
            return use(kind(**arguments).from_data(**a))

        transform, more = _stored_by(kind)
        found.append(
            _call(
                f"{name}.from_data",
                kind.from_data,
                lambda t=transform, more=more: {"data": t(data()), "attr_name": None, **more},  # type: ignore[misc]
                stored,
            )
        )
    return found


def _stored_by(encoder: type[Any]) -> tuple[Any, dict[str, Any]]:
    """The transform whose attributes an encoder reads, and other arguments of ``from_data``."""
    if encoder is nn.DegreeEncoder:
        return transforms.AddDegree(), {}
    if encoder is nn.RandomWalkEncoder:
        return transforms.AddRandomWalkPE(4), {}
    if encoder is nn.RelativeWalkBias:
        return transforms.AddRelativeRandomWalkPE(4), {}
    if encoder is nn.ShortestPathBias:
        return transforms.AddShortestPathDistance(4), {}
    if encoder is nn.EdgePathBias:
        return transforms.AddShortestPathDistance(4, path_length=2), {
            "edge_attr": torch.randn(data().edge_index.size(1), 3)
        }
    more = {"with_edges": True} if encoder is nn.SignNetEncoder else {}
    return transforms.AddLaplacianEigenvectorPE(3, is_undirected=True), more


def _of_transforms() -> list[Call]:
    table: list[tuple[type[Any], dict[str, Any], dict[str, set[str]]]] = [
        (transforms.AddDegree, {"attr_name": "a"}, {}),
        (transforms.AddElectrostaticSE, {"attr_name": "a"}, {}),
        (transforms.AddHeatKernelSE,
         {"times": (1.0, 2.0), "attr_name": "a", "normalization": "sym"},
         {"times": {"long [3]"}, "normalization": {"None"}}),
        (transforms.AddRandomWalkPE,
         {"walk_length": 3, "attr_name": "a", "num_samples": 4, "seed": 1}, {"seed": {"0"}}),
        (transforms.AddLaplacianEigenvectorPE,
         {"k": 2, "attr_name": "a", "is_undirected": True, "normalization": "sym"},
         {"normalization": {"None"}}),
        (transforms.AddShortestPathDistance,
         {"max_distance": 4, "attr_name": "pair_a", "path_length": 2}, {}),
        (transforms.AddRelativeRandomWalkPE, {"walk_length": 3, "attr_name": "pair_a"}, {}),
        (transforms.AddKHopEdges, {"k": 2, "attr_name": "a_edge_index"}, {}),
        (transforms.AddExpanderEdges,
         {"degree": 3, "attr_name": "a_edge_index", "seed": 1, "max_tries": 3},
         {"seed": {"0"}}),
        (transforms.ReorderNodes, {"method": "rcm", "block_size": 2, "node_attrs": ("x",)}, {}),
    ]  # fmt: skip
    found = []
    for kind, arguments, fine in table:
        name = kind.__name__
        found.append(
            _call(
                name,
                kind,
                lambda a=arguments: dict(a),  # type: ignore[misc]
                lambda a, k=kind: k(**a)(data()),  # type: ignore[misc]
                fine=fine,
            )  # fmt: skip
        )
        found.append(
            _call(
                f"{name}.forward",
                kind.forward,
                lambda: {"data": data()},
                lambda a, k=kind, b=arguments: k(**b)(a["data"]),  # type: ignore[misc]
            )  # fmt: skip
        )
    walk = transforms.AddRandomWalkPE(2)
    found += [
        _call("EncodeAndCollate", transforms.EncodeAndCollate,
              lambda: {"transform": walk, "follow_batch": ["x"], "exclude_keys": ["y"]},
              lambda a: transforms.EncodeAndCollate(**a)([data()[0], data()[1]]),
              fine={"follow_batch": {"['x']"}, "exclude_keys": {"['x']"}}),
        _call("block_density", transforms.block_density,
              lambda: {"edge_index": edges(), "num_nodes": N, "block_size": 2},
              fine={"edge_index": {"last dimension longer", "last dimension shorter"},
                    "num_nodes": {"10**9"}, "block_size": {"10**9"}}),
        _call("precompute", transforms.precompute,
              lambda: {"data": [data()[0], data()[1]], "transform": walk, "cache_dir": None,
                       "num_workers": 0, "progress": False, "rebuild": False},
              fine={"data": {"[]", "()"}, "num_workers": {"0"},
                    "transform": {"[]", "()"}, "cache_dir": {"'x'"}}),
    ]  # fmt: skip
    return found


def _of_the_rest() -> list[Call]:
    q = torch.randn(N, H, C)
    rings: dict[str, Any] = {
        "num_graphs": 4, "sizes": (4, 6), "num_colors": 3, "seed": 1, "transform": None,
        "pre_transform": None,
    }  # fmt: skip
    return [
        _call("LongRange", datasets.LongRange, lambda: dict(rings),
              lambda a: datasets.LongRange(**a)[0], fine={"seed": {"0"}}),
        _call("load_ogb", datasets.load_ogb,
              lambda: {"name": "ogbg-molbace", "root": "/nowhere", "download": False,
                       "pre_transform": None, "transform": None},
              skip=("pre_transform", "transform", "download")),
        _call("assert_same_attention", testing.assert_same_attention,
              lambda: {"backend": "sdpa", "query": q, "key": q, "value": q, "layout": layout(),
                       "biases": (), "query_layout": layout(), "scale": 0.5, "captured": (),
                       "tolerance": 1e-3},
              fine={"scale": {"0", "-1"}, "tolerance": {"0"}}),
    ]  # fmt: skip
