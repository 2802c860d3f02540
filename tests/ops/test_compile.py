"""``torch.compile`` sees one node forward and one backward, whatever the sizes of the graphs."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_gt import (
    EdgeBias,
    EdgeLayout,
    EdgeMask,
    GraphLayout,
    PairBias,
    ScoreMod,
    TableBias,
    attention,
)
from pyg_gt.ops import index_checks as _checked

from .cases import CPU


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def make_batch(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Graphs, edges inside them and biases; every size differs from batch to batch."""
    torch.manual_seed(seed)
    sizes = torch.randint(1, 12, (int(torch.randint(2, 9, ())),)).tolist() + [2]
    layout = GraphLayout.from_sizes(sizes)
    n, pairs = layout.num_nodes, layout.num_pairs
    batch = layout.batch.clone()
    if seed % 2:
        batch = batch[torch.randperm(n)]
    source, target = torch.randint(n, (2, 40 * n))
    source, target = (x[batch[source] == batch[target]] for x in (source, target))
    edges = torch.stack([source, target]).unique(dim=1)[:, : 2 * n]
    e = edges.size(1)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    return {
        "query": leaf(n, 2, 4),
        "key": leaf(n, 2, 4),
        "value": leaf(n, 2, 4),
        "batch": batch,
        "pairs": leaf(pairs, 2),
        "table": leaf(5, 2),
        "index": torch.randint(5, (pairs,), dtype=torch.int16),
        "edges": edges,
        "values": leaf(e, 2),
        "features": leaf(e, 2, 4),
    }


BIASES: dict[str, Callable[[dict[str, Tensor]], tuple]] = {
    "none": lambda x: (),
    "pair": lambda x: (PairBias(x["pairs"]),),
    "table": lambda x: (TableBias(x["table"], x["index"]),),
    "edge": lambda x: (EdgeBias(x["edges"], x["values"]),),
    "mask": lambda x: (EdgeMask(x["edges"], x["values"]),),
    "features": lambda x: (EdgeMask(x["edges"], x["values"], x["features"]),),
    "additive-mask": lambda x: (
        PairBias(x["pairs"]),
        TableBias(x["table"], x["index"]),
        EdgeBias(x["edges"], x["values"]),
        EdgeMask(x["edges"]),
    ),
}


def three_layers(x: dict[str, Tensor], bias: str, layout: object = None) -> Tensor:
    """As a model calls it: the layout found anew in each layer, nothing made outside."""
    out = x["query"]
    for _ in range(3):
        found = GraphLayout.of(x["batch"] if layout is None else layout, out.size(0))
        out = out + attention(out, x["key"], x["value"], found, BIASES[bias](x))
    return out


def gradients(out: Tensor, x: dict[str, Tensor]) -> list[Tensor]:
    leaves = [t for t in x.values() if t.requires_grad]
    return list(torch.autograd.grad(out.sin().sum(), leaves, materialize_grads=True))


def assert_same(x: dict[str, Tensor], got: Tensor, want: Tensor) -> None:
    # in float32 traced code may take another backend than eager code
    atol = 1e-12 if want.dtype == torch.float64 else 2e-5
    torch.testing.assert_close(got, want, rtol=0, atol=atol)
    for a, b in zip(gradients(got, x), gradients(want, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@DTYPES
@pytest.mark.parametrize("bias", BIASES)
def test_a_batch_vector(bias: str, dtype: torch.dtype) -> None:
    """Equal to eager with gradients, and at most two graphs for twenty batches."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(three_layers, fullgraph=True, dynamic=True, backend=counter)
    for seed in range(20):
        x = make_batch(seed, dtype)
        assert_same(x, compiled(x, bias), three_layers(x, bias))
    assert 1 <= counter.frame_count <= 2


@pytest.mark.compiled
@pytest.mark.parametrize("bias", [bias for bias in BIASES if bias != "additive-mask"])
def test_the_compiled_kernel_by_name(bias: str) -> None:
    """One node a layer forward and one backward, whatever the sizes."""
    counter = CompileCounterWithBackend("aot_eager")

    def run(x: dict[str, Tensor]) -> Tensor:
        layout = GraphLayout.of(x["batch"], x["query"].size(0))
        return attention(
            x["query"], x["key"], x["value"], layout, BIASES[bias](x), backend="cpu"
        )

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=counter)
    for seed in range(20):
        x = make_batch(seed, torch.float32)
        got, want = compiled(x), run(x)
        assert torch.equal(got, want)
        assert all(map(torch.equal, gradients(got, x), gradients(want, x)))
    assert 1 <= counter.frame_count <= 2


@pytest.mark.parametrize("bias", ["none", "pair", "edge", "two edge biases", "mask"])
def test_a_layout_that_is_handed_on(bias: str) -> None:
    """Straight to the operator, as a model does that gets one with its batch."""
    biases = dict(BIASES)
    biases["two edge biases"] = lambda x: (
        EdgeBias(x["edges"], x["values"]),
        EdgeBias(x["edges"].flip(1), x["values"].sin()),
    )

    def run(x: dict[str, Tensor], layout: GraphLayout) -> Tensor:
        return attention(x["query"], x["key"], x["value"], layout, biases[bias](x))

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for seed in range(3):
        x = make_batch(seed, torch.float32)
        layout = GraphLayout.from_batch(x["batch"])
        assert_same(x, compiled(x, layout), run(x, layout))


@DTYPES
@pytest.mark.parametrize("bias", ["none", "pair", "mask"])
def test_a_layout_as_an_argument(bias: str, dtype: torch.dtype) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(three_layers, fullgraph=True, dynamic=True, backend=counter)
    for seed in range(20):
        x = make_batch(seed, dtype)
        layout = GraphLayout.from_batch(x["batch"])
        assert_same(x, compiled(x, bias, layout), three_layers(x, bias, layout))
    assert 1 <= counter.frame_count <= 2


def test_one_graph_without_a_batch_vector() -> None:
    counter = CompileCounterWithBackend("aot_eager")

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, GraphLayout.of(None, q.size(0), device=q.device))

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=counter)
    for n in range(5, 25):
        q, k, v = (torch.randn(n, 2, 4) for _ in range(3))
        torch.testing.assert_close(compiled(q, k, v), run(q, k, v))
    assert counter.frame_count <= 2


def test_queries_and_keys_with_layouts_of_their_own() -> None:
    """A batch vector does not show trailing empty graphs; the ops find a common number."""
    counter = CompileCounterWithBackend("aot_eager")

    def run(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        keys, queries = GraphLayout.of(b, k.size(0)), GraphLayout.of(a, q.size(0))
        return attention(q, k, v, keys, query_layout=queries)

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=counter)
    for seed in range(20):
        torch.manual_seed(seed)
        a = torch.randint(4, (10 + seed,))
        b = torch.randint(4 if seed % 2 else 3, (23 - seed // 2,)).sort().values
        q, k, v = torch.randn(10 + seed, 2, 4), *torch.randn(2, b.numel(), 2, 4).unbind()
        for x in (q, k, v):
            x.requires_grad_()
        layouts = [GraphLayout.from_batch(x, 4) for x in (b, a)]
        want = attention(q, k, v, layouts[0], query_layout=layouts[1])
        got = compiled(q, k, v, a, b)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got.sin().sum(), (q, k, v)),
            torch.autograd.grad(want.sin().sum(), (q, k, v)),
        )
    assert counter.frame_count <= 2


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_all_layers_share_one_layout(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Counted where they are made; forward and backward."""
    made = []
    function = GraphLayout.from_batch.__func__

    def counting(cls: type, batch: Tensor, num_graphs: int | None = None) -> GraphLayout:
        made.append(batch)
        return function(cls, batch, num_graphs)

    monkeypatch.setattr(GraphLayout, "from_batch", classmethod(counting))
    run = three_layers
    if mode == "compiled":
        run = torch.compile(three_layers, fullgraph=True, dynamic=True, backend="aot_eager")
    for seed in range(5):
        x = make_batch(seed)
        made.clear()
        run(x, "none").sum().backward()
        run(x, "mask").sum().backward()
        assert len(made) == 1


@DTYPES
@pytest.mark.parametrize("bias", ["none", "pair", "mask"])
def test_dropout_has_a_fresh_seed_every_time(bias: str, dtype: torch.dtype) -> None:
    counter = CompileCounterWithBackend("aot_eager")

    def run(x: dict[str, Tensor]) -> Tensor:
        layout = GraphLayout.of(x["batch"], x["query"].size(0))
        return attention(
            x["query"], x["key"], x["value"], layout, BIASES[bias](x), dropout_p=0.5
        )

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=counter)
    for seed in range(8):
        x = make_batch(seed, dtype)
        first, second = compiled(x), compiled(x)
        assert not torch.equal(first, second)
        torch.manual_seed(1)
        first = compiled(x)
        torch.manual_seed(1)
        second = compiled(x)
        assert torch.equal(first, second)
        # the gradients are those of the mask of the forward pass
        direction = torch.randn_like(x["value"])
        (gradient,) = torch.autograd.grad(first.sum(), x["value"])
        torch.manual_seed(1)
        moved = compiled({**x, "value": x["value"] + direction})
        torch.testing.assert_close(
            (moved - first).double().sum(), (gradient * direction).double().sum(),
            **({} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}),
        )  # fmt: skip
    assert counter.frame_count <= 2


def compiled_attention(**changes: object) -> Callable[[], Tensor]:
    """A compiled call on two graphs of 3 and 2 nodes, with one thing changed."""
    x: dict = {
        "batch": torch.tensor([0, 0, 0, 1, 1]),
        "index": torch.zeros(13, dtype=torch.int64),
        "pairs": torch.randn(13, 2),
        "table": torch.randn(4, 2),
        "edges": torch.tensor([[0, 1, 3], [1, 2, 4]]),
        "values": torch.randn(3, 2),
        "features": torch.randn(3, 2, 4),
        "bias": "none",
        "backend": "auto",
        **changes,
    }
    q, k, v = torch.randn(3, 5, 2, 4).unbind()

    def run(x: dict, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        layout = GraphLayout.of(x["batch"], 5)
        return attention(q, k, v, layout, BIASES[x["bias"]](x), backend=x["backend"])

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    return lambda: compiled(x, q, k, v)


@pytest.mark.parametrize("edge", [5, -1])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(
    ("bias", "backend"),
    [
        *(("mask", "sparse"), ("mask", "sdpa"), ("features", "sparse"), ("edge", "sdpa")),
        *(pytest.param(bias, "cpu", marks=pytest.mark.compiled) for bias in ("mask", "edge")),
    ],
)
def test_an_edge_out_of_range(bias: str, backend: str, row: int, edge: int) -> None:
    edges = torch.tensor([[0, 1, 3], [1, 2, 4]])
    compiled_attention(bias=bias, backend=backend, edges=edges.clone())()
    edges[row, 1] = edge
    name = ["source", "target"][row]
    with pytest.raises(IndexError, match=f"Found {name} index {edge} .*there are 5"):
        compiled_attention(bias=bias, backend=backend, edges=edges)()


@pytest.mark.parametrize(
    ("bias", "backend"),
    [
        *(("mask", "sparse"), ("mask", "sdpa"), ("features", "sparse"), ("edge", "sdpa")),
        *(pytest.param(bias, "cpu", marks=pytest.mark.compiled) for bias in ("mask", "edge")),
    ],
)
def test_an_edge_between_graphs(bias: str, backend: str) -> None:
    edges = torch.tensor([[0, 1, 3], [1, 4, 4]])
    with pytest.raises(ValueError, match="edge 1 joins node 1 of graph 0 to node 4 of graph 1"):
        compiled_attention(bias=bias, backend=backend, edges=edges)()


@pytest.mark.parametrize("backend", ["sdpa", CPU])
@pytest.mark.parametrize("row", [4, -1])
def test_a_table_index_out_of_range(row: int, backend: str) -> None:
    index = torch.zeros(13, dtype=torch.int64)
    compiled_attention(bias="table", backend=backend, index=index.clone())()
    index[5] = row
    with pytest.raises(IndexError, match=f"Found table index {row}, .*4 rows"):
        compiled_attention(bias="table", backend=backend, index=index)()


@pytest.mark.parametrize("backend", ["sdpa", CPU])
@pytest.mark.parametrize("bias", ["pair", "table"])
def test_a_bias_with_another_number_of_pairs(bias: str, backend: str) -> None:
    changes = {"pairs": torch.randn(12, 2), "index": torch.zeros(12, dtype=torch.int64)}
    with pytest.raises(ValueError, match="12 pairs, but the layout has 13"):
        compiled_attention(bias=bias, backend=backend, **changes)()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.tensor([0, 0, -1, 1, 1]), "must not hold negative numbers"),
        (torch.tensor([0, 0, 0, 1]), "'batch' describes 4 nodes, but there are 5"),
        (torch.tensor([0.0, 0, 0, 1, 1]), "'batch' must hold integers"),
    ],
)
def test_a_wrong_batch(batch: Tensor, message: str) -> None:
    with pytest.raises(Exception, match=message):
        compiled_attention(batch=batch)()


def test_known_numbers_of_graphs_must_agree() -> None:
    queries = GraphLayout.from_sizes([3, 2])
    batch = torch.tensor([0, 1, 1, 2])
    q, k = torch.randn(5, 2, 4), torch.randn(4, 2, 4)

    def run(q: Tensor, k: Tensor, batch: Tensor) -> Tensor:
        return attention(q, k, k, GraphLayout.of(batch, 4), query_layout=queries)

    with pytest.raises(ValueError, match="'query_layout' has 2 graphs and 'layout' 3"):
        run(q, k, batch)
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    with pytest.raises(ValueError, match="'query_layout' has 2 graphs and 'layout' 3"):
        compiled(q, k, batch)


# dynamo, of the tensors at a break of the graph
@pytest.mark.parametrize("bias", ["none", "additive-mask", "features"])
def test_the_reference_runs_outside_of_the_graph(bias: str) -> None:
    def run(x: dict[str, Tensor]) -> Tensor:
        layout = GraphLayout.of(x["batch"], x["query"].size(0))
        out = attention(
            x["query"].sin(), x["key"], x["value"], layout, BIASES[bias](x), backend="reference"
        )
        return out.cos()

    compiled = torch.compile(run, dynamic=True, backend="aot_eager")
    x = make_batch(1)
    assert_same(x, compiled(x), run(x))


def test_the_reference_checks_edges_when_it_runs() -> None:
    edges = torch.tensor([[0, 1], [1, 4]])
    x = make_batch(0)

    def run(q: Tensor, batch: Tensor, edges: Tensor) -> Tensor:
        return attention(
            q, q, q, GraphLayout.of(batch, 5), (EdgeMask(edges),), backend="reference"
        )

    compiled = torch.compile(run, dynamic=True, backend="aot_eager")
    q, batch = x["query"][:5].detach(), torch.tensor([0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="edge 1 joins node 1 of graph 0"):
        compiled(q, batch, edges)
    with pytest.raises(IndexError, match="Found target index 7"):
        compiled(q, batch, edges + torch.tensor([[0], [3]]))


def test_functions_of_scores_leave_the_graph() -> None:
    def run(x: dict[str, Tensor]) -> Tensor:
        layout = GraphLayout.of(x["batch"], x["query"].size(0))
        mod = ScoreMod(lambda score, graph, head, q, k: score * 2)
        return attention(x["query"], x["key"], x["value"], layout, (mod,))

    x = make_batch(2)
    with torch.no_grad():
        assert_close = torch.testing.assert_close
        assert_close(torch.compile(run, dynamic=True, backend="aot_eager")(x), run(x))


@DTYPES
@pytest.mark.parametrize("bias", ["none", "mask"])
def test_one_tensor_in_several_places(bias: str, dtype: torch.dtype) -> None:
    def run(x: dict[str, Tensor]) -> Tensor:
        layout = GraphLayout.of(x["batch"], x["query"].size(0))
        return attention(x["query"], x["query"], x["query"], layout, BIASES[bias](x))

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for seed in range(3):
        x = make_batch(seed, dtype)
        assert_same(x, compiled(x), run(x))


@DTYPES
def test_an_edge_layout_as_an_argument(dtype: torch.dtype) -> None:
    counter = CompileCounterWithBackend("aot_eager")

    def run(q: Tensor, layout: GraphLayout, edges: EdgeLayout) -> Tensor:
        return attention(q, q, q, layout, (EdgeMask(edges),))

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=counter)
    for seed in range(20):
        x = make_batch(seed, dtype)
        layout = GraphLayout.from_batch(x["batch"])
        edges = EdgeLayout.of(x["edges"], layout.num_nodes)
        q = x["query"].detach()
        torch.testing.assert_close(compiled(q, layout, edges), run(q, layout, edges))
    assert counter.frame_count <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bias", "dtype"),
    [
        ("additive-mask", torch.float64),
        *((bias, torch.float32) for bias in ("pair", "edge", "features")),
    ],
)
def test_inductor_runs_the_same_ops(bias: str, dtype: torch.dtype) -> None:
    compiled = torch.compile(three_layers, fullgraph=True, dynamic=True)
    for seed in range(4):
        x = make_batch(seed, dtype)
        assert_same(x, compiled(x, bias), three_layers(x, bias))


# dynamo, of the tensors at a break of the graph
@pytest.mark.compiled
@pytest.mark.parametrize("bias", ["pair", "mask"])
def test_a_whole_training_step_with_dropout(bias: str) -> None:
    """The backward pass runs where the graph breaks; nothing of the kernel's Python is traced."""

    def step(x: dict[str, Tensor]) -> Tensor:
        layout = GraphLayout.of(x["batch"], x["query"].size(0))
        out = attention(
            x["query"].sin(), x["key"], x["value"], layout, BIASES[bias](x), dropout_p=0.3,
            backend="cpu",
        )  # fmt: skip
        out.square().sum().backward()
        return out.detach()

    compiled = torch.compile(step, dynamic=True, backend="aot_eager")
    for seed in range(3):
        results = []
        for run in (step, compiled):
            x = make_batch(seed, torch.float32)
            torch.manual_seed(5)
            results.append([run(x), *(x[n].grad for n in ("query", "key", "value"))])
        torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_an_index_is_checked_in_each_call_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numpy may write to it unseen; on an accelerator once for each version."""
    checks = []
    function = _checked._check_table_index
    monkeypatch.setattr(
        _checked, "_check_table_index", lambda *args: (checks.append(1), function(*args))
    )
    x = make_batch(0)
    layout = GraphLayout.from_batch(x["batch"])
    for _ in range(10):
        attention(x["query"], x["key"], x["value"], layout, BIASES["table"](x))
    assert len(checks) == 10
    x["table"] = x["table"].detach()[:4]
    x["index"][0] = 4
    with pytest.raises(IndexError, match="Found table index 4"):
        attention(x["query"], x["key"], x["value"], layout, BIASES["table"](x))


FIRST_CALL = """
import torch
from pyg_gt import EdgeMask, GraphLayout, attention

def run(x, batch, edges):
    return attention(x, x, x, batch) + attention(x, x, x, GraphLayout.of(None, 5), EdgeMask(edges))

x, batch, edges = torch.randn(5, 2, 4), torch.tensor([0, 0, 1, 1, 1]), torch.tensor([[0], [1]])
out = torch.compile(run, backend="eager", fullgraph=True)(x, batch, edges)
torch.testing.assert_close(out, run(x, batch, edges))
"""


@pytest.mark.compiled
def test_the_first_call_of_a_process_may_be_compiled() -> None:
    """Dynamo does not follow the loading, or the compiling, of C++."""
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
