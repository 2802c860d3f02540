"""What goes wrong with FlexAttention on batches of graphs if nobody thinks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.kernel.flex.flex_attention import validate_joint_graph
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_gt import EdgeMask, ScoreMod, TableBias
from pyg_gt.ops._backends import flex as _flex
from pyg_gt.ops.dispatch import _inputs
from pyg_gt.ops.inputs import Inputs
from pyg_gt.testing import assert_same_attention

from ...cases import BIASES, Case, layout_of, make_case, unsupported
from .captured import captured, handed_over, joint_graph

TAKEN = [
    "none",
    "table-uint8",
    "mask",
    "mask-repeats",
    "mask-values",
    "mask-values-repeats",
    "mod",
]
SIZES = [6, 5, 11, 0, 40, 150]


@pytest.fixture(autouse=True)
def _no_compiled_code_of_other_tests() -> None:
    torch._dynamo.reset()


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_same(case: Case) -> None:
    assert_same_attention(
        "flex", case.query, case.key, case.value, case.layout, case.biases,
        query_layout=case.query_layout,
    )  # fmt: skip


@pytest.mark.parametrize("bias", TAKEN)
def test_another_graphs_values_change_nothing(bias: str) -> None:
    """Bit for bit, also where a graph of the same tile is full of NaN, which times 0 is NaN."""
    layout = layout_of(SIZES, "unsorted")
    case = Case(layout, layout, torch.float32, grad=False)
    BIASES[bias](case)
    before = case.attention("flex")
    spoiled = torch.isin(layout.batch, torch.tensor([0, 4]))
    assert before.isfinite().all()
    for which in ("query", "key", "value"):
        sound = getattr(case, which)
        for poison in (3.5, float("nan"), float("inf"), -float("inf")):
            setattr(case, which, torch.where(spoiled[:, None, None], poison, sound))
            after = case.attention("flex")
            assert torch.equal(after[~spoiled], before[~spoiled])
            assert not torch.equal(after[spoiled], before[spoiled])
            assert bool(after[spoiled].isfinite().all()) == (poison == 3.5)
        setattr(case, which, sound)


def test_a_table_that_stands_twice_has_a_gradient() -> None:
    """Torch refuses a tensor that a function reads at two places; a copy is another tensor."""
    layout = layout_of([3, 4])
    case = Case(layout, layout, torch.float32, grad=False)
    table = case.leaf(4, 2)
    indices = [torch.randint(4, (case.pairs(),), dtype=torch.uint8) for _ in range(3)]
    case.biases = tuple(TableBias(table, index) for index in indices)
    assert_same(case)

    def twice(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score + table[q, h] + table[kv, h]

    with pytest.raises(NotImplementedError, match="multiple indexing operations"):
        validate_joint_graph(joint_graph(twice, torch.float32).graph)
    graph = joint_graph(handed_over(case)["score_mod"], torch.float32).graph
    validate_joint_graph(graph)
    scattered = [n for n in graph.nodes if "zeros_and_scatter" in str(n.target)]
    assert len(scattered) == 3  # one for each place


def objection(case: Case) -> str | None:
    """What it says of a GPU: on a CPU it has no gradient at all."""
    return _flex._adds_with_atomics(inputs_of(case))


@pytest.mark.parametrize("bias", ["table-uint8", "mod"])
def test_gradients_by_atomics_are_refused_where_they_must_be_deterministic(
    bias: str, deterministic: None
) -> None:
    case = make_case(bias, dtype=torch.float32)
    assert "with atomics" in (objection(case) or "")
    with torch.no_grad():
        assert objection(case) is None
        assert unsupported(case, "flex") is None
    torch.use_deterministic_algorithms(False)
    assert "no backward on the CPU" in (unsupported(case, "flex") or "")


def test_a_table_without_a_gradient_is_deterministic(deterministic: None) -> None:
    """And so are the values of edges: each is read at one pair, so that nothing adds up."""
    assert objection(make_case("table-uint8", dtype=torch.float32, grad=False)) is None
    for bias in ("none", "mask-values", "mask-values-repeats"):
        assert objection(make_case(bias, dtype=torch.float32)) is None


def inputs_of(case: Case) -> Inputs:
    return _inputs(
        case.query, case.key, case.value, case.layout, case.biases, case.query_layout, None, 0.0
    )


@pytest.mark.parametrize("bias", TAKEN)
def test_autocast_does_not_lower_the_scores(bias: str) -> None:
    case = make_case(bias, dtype=torch.float32, grad=False)
    want = case.attention("flex")
    with torch.autocast("cpu", torch.bfloat16):
        got = case.attention("flex")
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


READS = (
    "_local_scalar_dense", "nonzero", "unique", "bincount", "repeat_interleave", "masked_select",
    "sort", "argsort", "is_nonzero", "_to_cpu", "aminmax",
)  # fmt: skip


class Watched(TorchDispatchMode):
    """Notes what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.name().removeprefix("aten::")
        boolean = name.startswith("index.") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        self.names.append("nonzero" if boolean else name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("bias", [*TAKEN, "table-int16"])
def test_a_second_layer_reads_nothing_from_the_device(
    monkeypatch: pytest.MonkeyPatch, bias: str, kind: str
) -> None:
    """All that depends on values was made by the first, and is found again."""
    case = make_case(bias, "unsorted", kind, torch.float32, grad=False)
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(_flex, "run", lambda *args, **kwargs: seen.append(args) or args[0])
    monkeypatch.setattr(_flex, "_is_watched", lambda: False)  # nothing is compiled here
    with Watched() as first:
        case.attention("flex")
    assert any(name.startswith(READS) for name in first.names)  # it would be noticed
    with Watched() as second:
        case.attention("flex")
    assert [name for name in second.names if name.startswith(READS)] == []
    assert seen[0][4] is seen[1][4]  # the block tables
    (before, after) = (call[3] for call in seen)
    for a, b in zip(tensors(before), tensors(after), strict=True):
        assert a is b


def tensors(function: Callable[..., Any] | None) -> list[Tensor]:
    """The integer tensors in a closure."""
    return [x for x in captured(function) if not x.is_floating_point()]


@pytest.mark.parametrize("sizes", [[9, 4, 30], [200, 3], [128, 128, 5]])
def test_a_function_made_for_pairs_of_a_graph_reads_nothing_else(sizes: list[int]) -> None:
    """Graphormer's: its own table of distances, read where the pair of nodes says.

    Between graphs the place would lie outside: an error on a CPU, another's memory on a GPU.
    """
    layout = layout_of(sizes, "unsorted")
    case = Case(layout, layout, torch.float32, grad=False)
    sides = layout.ptr.diff()
    start = (sides**2).cumsum(0) - sides**2
    distance = torch.randint(20, (int((sides**2).sum()),))
    table, degree = case.leaf(20, 2), torch.randint(5, (layout.num_nodes,))
    of_degree = case.leaf(5, 2)
    pos = layout.pos

    def spatial(score: Tensor, graph: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        at = start[graph] + pos[q] * sides[graph] + pos[k]
        return score + table[distance[at], h] + of_degree[degree[k], h]

    case.biases = (ScoreMod(spatial),)
    assert_same(case)
    # and every place that it is shown, padding and other graphs among them, is one of its pairs
    call = handed_over(case)
    rows, cols = call["query"].size(2), call["key"].size(2)
    places: list[Tensor] = []

    def noted(score: Tensor, graph: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        places.append(start[graph] + pos[q] * sides[graph] + pos[k])
        assert torch.equal(layout.batch[q], graph.expand_as(layout.batch[q]))
        assert torch.equal(layout.batch[k], graph.expand_as(layout.batch[k]))
        return score

    case.biases = (ScoreMod(noted),)
    mod = handed_over(case)["score_mod"]
    q, kv = torch.arange(rows)[:, None], torch.arange(cols)[None, :].expand(rows, cols)
    places.clear()  # it was tried on a pair
    mod(torch.zeros(rows, cols), torch.tensor(0), torch.tensor(0), q.expand(rows, cols), kv)
    assert int(places[0].min()) == 0 and int(places[0].max()) == distance.numel() - 1


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_a_function_of_distances_along_edges(kind: str) -> None:
    """Decay with the distance of two points, learned per head, with a table and a mask."""
    case = make_case("mask-values-repeats", "unsorted", kind, torch.float32, grad=False)
    (mask,) = case.biases
    where = case.leaf(case.query_layout.num_nodes, 3), case.leaf(case.layout.num_nodes, 3)
    rate = case.leaf(2).exp()

    def decay(score: Tensor, graph: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        x, y, z = (where[0][q, i] - where[1][k, i] for i in range(3))
        return score - rate[h] * (x * x + y * y + z * z).sqrt()

    BIASES["table-int64"](case)
    case.biases = (ScoreMod(decay), mask, *case.biases)
    assert_same(case)


def test_a_query_with_nothing_to_attend_to_gets_zeros() -> None:
    """Queries of a graph without keys, and without an edge; a graph in between has both."""
    query_layout, layout = layout_of([3, 4, 130]), layout_of([0, 5, 7])
    case = Case(query_layout, layout, torch.float32, grad=False)
    out = case.attention("flex")
    assert not out[:3].any() and out[3:].all()
    edges = torch.tensor([[0, 4, 11], [4, 4, 136]])
    case.biases = (EdgeMask(edges),)
    out = case.attention("flex")
    assert out[4].all() and out[136].all()
    assert not out[torch.arange(137)[~torch.isin(torch.arange(137), torch.tensor([4, 136]))]].any()
    assert_same(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_width_is_at_least_16_and_the_scale_that_of_the_callers(dtype: torch.dtype) -> None:
    layout = layout_of([4, 9])
    for channels in (1, 8, 15, 16, 17):
        case = Case(layout, layout, dtype, grad=False, channels=channels)
        call = handed_over(case)
        assert call["query"].size(-1) == call["value"].size(-1) == max(16, channels)
        assert call["query"].dtype == dtype
        assert call["scale"] == channels**-0.5
        assert not call["query"][..., channels:].any()
        if channels in (8, 16):
            assert_same(case)


def test_no_pair_at_all_still_has_gradients() -> None:
    case = Case(layout_of([3, 0]), layout_of([0, 2]), torch.float32)
    out = _flex.forward(inputs_of(case))
    assert torch.equal(out, torch.zeros(3, 2, 3))
    gradients = torch.autograd.grad(
        out.sum(), [case.query, case.key, case.value], materialize_grads=True
    )
    assert not any(x.any() for x in gradients)
