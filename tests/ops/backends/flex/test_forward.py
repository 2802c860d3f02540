"""FlexAttention on the packed batch. On a CPU it runs forward only."""

from collections.abc import Callable, Hashable

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from pyg_gt import EdgeMask, GraphLayout, attention
from pyg_gt.ops._backends import flex as _flex
from pyg_gt.ops._backends.flex import compiled as _flex_compiled
from pyg_gt.ops._backends.flex import edge_masks as _flex_edges
from pyg_gt.testing import assert_same_attention

from ...cases import BIASES, Case, layout_of, make_case, unsupported

TAKEN = [
    "none",
    "table-uint8",
    "table-int64",
    "mask",
    "mask-repeats",
    "mask-values",
    "mask-values-repeats",
    "mask-values-inf",
    "mask-no-edges",
    "mod",
    "mods",
]


def all_of_them(case: Case) -> None:
    """Table, two functions and a mask with repeated edges, in no order."""
    BIASES["mods"](case)
    one, two = case.biases
    case.biases = ()
    BIASES["mask-values-repeats"](case)
    (mask,) = case.biases
    BIASES["table-int32"](case)
    case.biases = (mask, one, *case.biases, two)


def assert_same(case: Case, tolerance: float | None = None) -> None:
    assert unsupported(case, "flex") is None
    assert_same_attention(
        "flex", case.query, case.key, case.value, case.layout, case.biases,
        query_layout=case.query_layout, tolerance=tolerance,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _no_compiled_code_of_other_tests() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("bias", [*TAKEN, "all"])
def test_forward_is_the_reference(bias: str) -> None:
    """On a CPU; 'test_backends' has the gradients, where there is a GPU."""
    made = all_of_them if bias == "all" else BIASES[bias]
    for order in ("sorted", "unsorted"):
        layout = layout_of([1, 5, 3, 0, 7, 150], order)
        for query_layout in (layout, layout_of([2, 0, 140, 3, 6, 1], order)):
            case = Case(query_layout, layout, torch.float32, grad=False)
            made(case)
            assert_same(case)
            assert case.attention("flex").any() or bias == "mask-no-edges"


@pytest.mark.slow
@pytest.mark.parametrize("bias", ["none", "table-int16", "all"])
def test_the_kernel_that_reads_the_block_tables(
    monkeypatch: pytest.MonkeyPatch, bias: str
) -> None:
    """Compiled, with sizes as constants: the plain one looks at the function of the mask only."""
    used = []

    def compiled(backend: str, kind: Hashable) -> Callable[..., Tensor]:
        used.append(backend)

        def attend(
            q: Tensor, k: Tensor, v: Tensor, mod: object, mask: object, scale: float, options: None
        ) -> Tensor:
            return flex_attention(q, k, v, mod, mask, scale)

        return torch.compile(attend, dynamic=False, fullgraph=True)

    monkeypatch.setattr(_flex_compiled, "_compiled", compiled)
    layout = layout_of([100, 30, 0, 150, 9, 128], "unsorted")
    query_layout = layout if bias == "none" else layout_of([3, 0, 7, 150, 9, 130], "unsorted")
    case = Case(query_layout, layout, torch.float32, grad=False)
    made = all_of_them if bias == "all" else BIASES[bias]
    made(case)
    assert_same(case)
    assert used == ["eager"]


@pytest.mark.parametrize("channels", [1, 16, 24, 256])
def test_any_width(channels: int) -> None:
    layout = layout_of([4, 9])
    assert_same(Case(layout, layout, torch.float32, grad=False, channels=channels))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    layout = layout_of([4, 9, 140])
    case = Case(layout, layout, dtype, grad=False)
    all_of_them(case)
    assert case.attention("flex").dtype == dtype
    assert_same(case, tolerance)


def test_the_scale_is_that_of_the_width_before_padding() -> None:
    case = make_case("none", dtype=torch.float32, grad=False)
    want = case.attention("reference", scale=1.7)
    torch.testing.assert_close(case.attention("flex", scale=1.7), want)
    assert not torch.allclose(want, case.attention("flex"))


def test_graphs_without_a_common_pair() -> None:
    layout, query_layout = layout_of([0, 4, 0]), layout_of([3, 0, 0])
    case = Case(query_layout, layout, torch.float32, grad=False)
    BIASES["table-uint8"](case)
    assert case.pairs() == 0
    assert torch.equal(case.attention("flex"), torch.zeros(3, 2, 3))


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_no_nodes(sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes)
    assert Case(layout, layout, torch.float32, grad=False).attention("flex").shape == (0, 2, 3)


def test_tables_are_made_once_per_layout_and_edge_set(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("packed_axes", "graph_mask", "edge_mask"):
        function = getattr(_flex, name)

        def counting(*args: object, name: str = name, function: Callable = function) -> object:
            made.append(name)
            return function(*args)

        monkeypatch.setattr(_flex, name, counting)
    batch = torch.tensor([0, 0, 1, 1, 1])
    edges = torch.tensor([[0, 1, 2], [1, 0, 4]])
    for _ in range(10):
        q, k, v = torch.randn(3, 5, 2, 4).unbind()
        layout = GraphLayout.of(batch, 5)
        attention(q, k, v, layout, backend="flex")
        attention(q, k, v, layout, (EdgeMask(edges),), backend="flex")
    assert sorted(made) == ["edge_mask", "graph_mask", "packed_axes"]
    attention(q, k, v, GraphLayout.of(batch, 5), (EdgeMask(edges.clone()),), backend="flex")
    assert sorted(made) == ["edge_mask", "edge_mask", "graph_mask", "packed_axes"]


@pytest.mark.parametrize(
    ("bias", "changes", "reason"),
    [
        ("none", {"grad": True}, "no backward on the CPU"),
        ("mask-values", {"grad": True}, "no backward on the CPU"),
        ("none", {"dtype": torch.float64}, "no float64"),
        ("pair", {}, "cannot read a 'PairBias'"),
        ("edge", {}, "cannot read a 'EdgeBias'"),
        ("mask-features", {}, "'features' changes keys and values"),
    ],
)
def test_what_it_refuses(bias: str, changes: dict, reason: str) -> None:
    case = make_case(bias, **{"dtype": torch.float32, "grad": False, **changes})
    with pytest.raises(NotImplementedError, match=f"'flex' cannot.*{reason}"):
        case.attention("flex")


def test_what_it_refuses_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_of([2, 2])
    wide = Case(layout, layout, torch.float32, grad=False, channels=257)
    with pytest.raises(NotImplementedError, match="at most 256 channels per head .got 257"):
        wide.attention("flex")
    case = make_case("mask", dtype=torch.float32, grad=False)
    monkeypatch.setattr(_flex_edges, "MAX_BYTES", 4 * 16 - 1)
    with pytest.raises(NotImplementedError, match="a bit for each pair, and 64 bytes are more"):
        case.attention("flex")
    monkeypatch.setattr(_flex_edges, "MAX_BYTES", 4 * 16)
    assert unsupported(case, "flex") is None
    for bias in ("mask-values", "mask-repeats"):
        with_slots = make_case(bias, dtype=torch.float32, grad=False)
        monkeypatch.setattr(_flex_edges, "MAX_BYTES", 4 * 84 - 1)
        with pytest.raises(NotImplementedError, match="an int32 for each pair, and 336 bytes are"):
            with_slots.attention("flex")
        monkeypatch.setattr(_flex_edges, "MAX_BYTES", 4 * 84)
        assert unsupported(with_slots, "flex") is None
    monkeypatch.setattr(_flex, "_MAX_CPU_SCORES", 511)
    case = make_case("none", dtype=torch.float32, grad=False)
    with pytest.raises(NotImplementedError, match="all 512 scores"):
        case.attention("flex")


def test_a_gradient_that_nobody_asks_for_is_no_objection() -> None:
    case = make_case("none", dtype=torch.float32)
    with torch.no_grad():
        assert case.attention("flex").shape == case.query.shape
