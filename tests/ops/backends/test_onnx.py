"""Exported to ONNX, attention is made of operations that ONNX has, for graphs of any size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from pyg_gt import EdgeBias, EdgeMask, PairBias, ScoreMod, TableBias, attention, swap
from pyg_gt.nn import FullTransformerConv, MaskedTransformerConv, TransformerBlock
from pyg_gt.ops import qkv_attention

# torch itself does what these are about
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated"),
]

BIASES: dict[str, Callable[..., tuple]] = {
    "none": lambda x: (),
    "pair": lambda x: (PairBias(x["pairs"]),),
    "table": lambda x: (TableBias(x["table"], x["index"]),),
    "edge": lambda x: (EdgeBias(x["edges"], x["values"]),),
    "all": lambda x: (
        TableBias(x["table"], x["index"]), PairBias(x["pairs"]),
        EdgeBias(x["edges"], x["values"]),
    ),
    "mask": lambda x: (EdgeMask(x["edges"]),),
    "mask values features": lambda x: (EdgeMask(x["edges"], x["values"], x["features"]),),
    "mask and all": lambda x: (
        EdgeMask(x["edges"], x["values"]), EdgeBias(x["edges"], x["values"]),
        PairBias(x["pairs"]), TableBias(x["table"], x["index"]),
    ),
}  # fmt: skip


def batch_of(sizes: list[int], order: str, seed: int) -> dict[str, Tensor]:
    """Some nodes have no edge; sizes differ from batch to batch, also of the graphs."""
    torch.manual_seed(seed)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    if order == "unsorted":
        batch = batch[torch.randperm(len(batch))]
    n, pairs = len(batch), sum(size * size for size in sizes)
    source, target = (batch[:, None] == batch[None, :]).nonzero().t()
    kept = torch.randperm(len(source))[: 2 * n]
    edges = torch.stack([source, target])[:, kept]
    values = torch.randn(pairs, 2)
    values[::4] = -float("inf")
    return {
        "qkv": torch.randn(n, 3, 2, 4), "batch": batch, "edges": edges, "pairs": values,
        "index": torch.randint(3, (pairs,)), "values": torch.randn(edges.size(1), 2),
        "features": torch.randn(edges.size(1), 2, 4), "table": torch.randn(3, 2),
    }  # fmt: skip


class Attends(torch.nn.Module):
    def __init__(self, biases: str, **kwargs: Any) -> None:
        super().__init__()
        self.biases, self.kwargs = BIASES[biases], kwargs

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        qkv, biases = x["qkv"], self.biases(x)
        return attention(*qkv.unbind(1), x["batch"], biases, **self.kwargs)


@pytest.fixture
def exports_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.onnx.export`` says so while it exports; what comes then needs 'onnxscript'."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)


def exported(model: torch.nn.Module, args: tuple, shapes: Any) -> torch.export.ExportedProgram:
    with torch.no_grad():
        program = torch.export.export(model.eval(), args, dynamic_shapes=shapes, strict=False)
    return program.run_decompositions()


def ops_of(program: torch.export.ExportedProgram) -> set[str]:
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return {str(node.target) for node in calls}


def shapes_of(x: dict[str, Tensor]) -> dict[str, Any]:
    nodes, edges, pairs = Dim("nodes", min=2), Dim("edges", min=2), Dim("pairs", min=2)
    by_name = {
        "qkv": {0: nodes}, "batch": {0: nodes}, "edges": {1: edges}, "pairs": {0: pairs},
        "index": {0: pairs}, "values": {0: edges}, "features": {0: edges}, "table": {},
    }  # fmt: skip
    return {name: by_name[name] for name in x}


@pytest.mark.usefixtures("exports_onnx")
@pytest.mark.parametrize("scale", [None, -0.7])
@pytest.mark.parametrize("biases", BIASES)
def test_nothing_of_ours_is_exported_and_any_batch_may_come(
    biases: str, scale: float | None
) -> None:
    first = batch_of([5, 3, 7], "sorted", 1)
    program = exported(Attends(biases, scale=scale), (first,), (shapes_of(first),))
    assert all(name.startswith(("aten.", "<built-in")) for name in ops_of(program))
    module = program.module()
    for sizes, order, seed in (([5, 3, 7], "sorted", 1), ([2, 9, 1, 4], "unsorted", 2)):
        x = batch_of(sizes, order, seed)
        want = attention(
            *x["qkv"].double().unbind(1), x["batch"], in_float64(BIASES[biases](x)), scale=scale,
            backend="reference",
        )  # fmt: skip
        torch.testing.assert_close(module(x).double(), want, rtol=0, atol=2e-6)


def in_float64(biases: tuple) -> tuple:
    """The same biases, for the definition."""
    made = []
    for bias in biases:
        fields = vars(bias).values()
        made.append(
            type(bias)(*(x.double() if is_float(x) else x for x in fields))
        )  # fmt: skip
    return tuple(made)


def is_float(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


@pytest.mark.usefixtures("exports_onnx")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    x = batch_of([5, 3, 7], "unsorted", 1)
    x["qkv"] = x["qkv"].to(dtype)
    out = exported(Attends("none"), (x,), None).module()(x)
    want = attention(*x["qkv"].unbind(1), x["batch"], backend="reference")
    assert out.dtype == dtype
    torch.testing.assert_close(out, want)


@pytest.mark.usefixtures("exports_onnx")
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dropout_p": 0.1}, r"after 'model.eval\(\)'"),
        ({"backend": "sdpa"}, "no operator of backend 'sdpa'; export with backend='auto'"),
        ({"biases": ScoreMod(lambda s, b, h, q, k: s)}, "give its values as a 'PairBias'"),
    ],
)
def test_what_cannot_be_exported_is_said_with_the_cure(kwargs: dict, message: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, qkv: Tensor, batch: Tensor) -> Tensor:
            return qkv_attention(qkv, batch, **kwargs)

    x = batch_of([5, 3], "sorted", 1)
    with pytest.raises(NotImplementedError, match="cannot be exported to ONNX: .*" + message):
        exported(Model(), (x["qkv"], x["batch"]), None)


class Layer(torch.nn.Module):
    """With the same arguments whatever it is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torch_geometric.nn import GINConv, GPSConv

        torch.manual_seed(0)
        local = GINConv(torch.nn.Linear(8, 8))
        self.name, self.layer = name, {
            "FullTransformerConv": lambda: FullTransformerConv(8, 4, heads=2),
            "MaskedTransformerConv": lambda: MaskedTransformerConv(8, 4, heads=2, edge_dim=3),
            "TransformerBlock": lambda: TransformerBlock(8, heads=2),
            "GPSConv": lambda: swap(GPSConv(8, local, heads=2, norm=None)),
        }[name]()  # fmt: skip

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        if self.name == "FullTransformerConv":
            return self.layer(x, batch=batch)
        if self.name == "MaskedTransformerConv":
            return self.layer(x, edge_index, edge_attr)
        if self.name == "TransformerBlock":
            return self.layer(x, batch)
        return self.layer(x, edge_index, batch)


LAYERS = ["FullTransformerConv", "MaskedTransformerConv", "TransformerBlock", "GPSConv"]


def arguments(sizes: list[int], order: str, seed: int) -> tuple[Tensor, ...]:
    x = batch_of(sizes, order, seed)
    attr = torch.randn(x["edges"].size(1), 3)
    return torch.randn(len(x["batch"]), 8), x["edges"], attr, x["batch"]


def layer_shapes() -> tuple[dict, ...]:
    nodes, edges = Dim("nodes", min=2), Dim("edges", min=2)
    return {0: nodes}, {1: edges}, {0: edges}, {0: nodes}


@pytest.mark.usefixtures("exports_onnx")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    layer = Layer(name).eval()
    program = exported(layer, arguments([5, 3, 7], "sorted", 1), layer_shapes())
    assert not any(op.startswith("pyg_gt") for op in ops_of(program))
    args = arguments([2, 9, 1, 4], "unsorted", 2)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*args), layer(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_decomposed_programs_keep_what_they_compute(name: str) -> None:
    """``torch.export`` alone keeps the ops, which Python and its compilers run."""
    layer = Layer(name).eval()
    program = exported(layer, arguments([5, 3, 7], "sorted", 1), layer_shapes())
    assert any(op.startswith("pyg_gt") for op in ops_of(program))
    args = arguments([2, 9, 1, 4], "unsorted", 2)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*args), layer(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("exports_onnx")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_traces_for_the_older_export(name: str) -> None:
    layer = Layer(name).eval()
    with torch.no_grad():
        traced = torch.jit.trace(layer, arguments([5, 3, 7], "sorted", 1), check_trace=False)
        assert "pyg_gt::" not in str(traced.inlined_graph)
        args = arguments([2, 9, 1, 4], "unsorted", 2)
        torch.testing.assert_close(traced(*args), layer(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_the_file_that_is_written(name: str, dynamo: bool) -> None:
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    layer, names = Layer(name).eval(), ["x", "edge_index", "edge_attr", "batch"]
    first, second = arguments([5, 3, 7], "sorted", 1), arguments([2, 9, 1, 4], "unsorted", 2)
    if dynamo:
        more: dict[str, Any] = {"dynamic_shapes": layer_shapes()}
    else:
        axes = {"x": {0: "n"}, "edge_index": {1: "e"}, "edge_attr": {0: "e"}, "batch": {0: "n"}}
        more = {"dynamic_axes": axes, "opset_version": 18, "input_names": names}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.onnx itself
        file = BytesIO()
        torch.onnx.export(layer, first, file, dynamo=dynamo, verbose=False, **more)
        model = onnx.load_from_string(file.getvalue())
        given = {n: a.numpy() for n, a in zip(names, second, strict=True)}
        given = {node.name: given[node.name] for node in model.graph.input}
        (out,) = reference.ReferenceEvaluator(model).run(None, given)
        torch.testing.assert_close(torch.from_numpy(out), layer(*second), rtol=1e-5, atol=1e-5)
