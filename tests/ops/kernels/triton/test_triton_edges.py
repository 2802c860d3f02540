"""The Triton kernels along edges, in triton's interpreter or on a GPU; and their programs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_gt import EdgeLayout, EdgeMask, GraphLayout
from pyg_gt.ops._backends import triton as _triton
from pyg_gt.ops._kernels.triton.edges.programs import (
    FEW,
    PART,
    EdgePrograms,
    programs_by_source,
    programs_by_target,
)
from pyg_gt.ops._kernels.triton.edges.tiles import edge_tiles
from pyg_gt.ops.dispatch import _inputs

from .processes import needs_triton, run, side_by_side

CASES = "tests/ops/kernels/triton/edge_cases.py"


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter() -> None:
    run(["-m", "pytest", "-q", "-x", CASES], interpret=True)


@needs_triton
@pytest.mark.cuda
def test_kernels_on_a_gpu() -> None:
    run(["-m", "pytest", "-q", *side_by_side(), CASES], interpret=False)


def layout_of(degrees: list[int], sources: int) -> EdgeLayout:
    """Random edges in any order, with so many for each target."""
    target = torch.repeat_interleave(torch.tensor(degrees, dtype=torch.int64))
    edges = torch.stack([torch.randint(max(sources, 1), target.shape), target])
    made = EdgeLayout.of(edges[:, torch.randperm(target.numel())], sources, len(degrees))
    assert isinstance(made, EdgeLayout)
    return made


def ranges_of(table: Tensor) -> list[list[int]]:
    """Rows of a table, without nodes that have no edge."""
    return [row for row in table.tolist() if row[1] < row[2]]


DEGREES = [
    [0, 1, FEW, FEW + 1, 3, PART, PART + 1, 0, 40, 2 * PART, 2 * PART + 1, 2],
    [0, 2, 1, 0],
    [0, 0],
    [],
    [PART + 7],
]


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("end", ["target", "source"])
def test_every_edge_has_one_place_and_every_place_one_program(
    degrees: list[int], end: str
) -> None:
    edges = layout_of(degrees, 9)
    make = programs_by_target if end == "target" else programs_by_source
    programs = make(edges)
    assert programs is make(edges)
    ends, others = (edges.target, edges.source)[:: 1 if end == "target" else -1]
    numbers = programs.edge_ids.long()
    assert torch.equal(numbers.sort().values, torch.arange(edges.num_edges))
    assert torch.equal(programs.neighbors.long(), others[numbers])
    sizes = ends.bincount(minlength=edges.num_dst if end == "target" else edges.num_src)
    whole = ranges_of(programs.light) + ranges_of(programs.parts)
    places = torch.zeros(edges.num_edges, dtype=torch.int64)
    for node, first, last in whole:
        assert last - first <= PART
        assert ends[numbers[first:last]].eq(node).all()
        places[first:last] += 1
    assert places.eq(1).all()
    # every node is written once, also those without edges
    nodes = torch.cat([programs.light[:, 0], programs.heavy[:, 0]])
    assert torch.equal(nodes.sort().values, torch.arange(sizes.numel()).int())
    assert torch.equal(torch.cat([programs.many, programs.few]), programs.light)
    assert_like_degrees(programs, sizes)


def assert_like_degrees(programs: EdgePrograms, sizes: Tensor) -> None:
    few, many, heavy = (
        sizes[t[:, 0].long()] for t in (programs.few, programs.many, programs.heavy)
    )
    assert few.le(FEW).all() and heavy.gt(PART).all()
    assert many.gt(FEW).all() and many.le(PART).all()
    for some in (few, many, heavy):  # neighbours are alike, to a factor of two
        assert (some[1:] < 2 * some[:-1].clamp(min=1)).all()
    for (node, first, last), size in zip(programs.heavy.tolist(), heavy.tolist(), strict=True):
        mine = programs.parts[first:last]
        assert mine[:, 0].eq(node).all() and (mine[:, 2] - mine[:, 1]).sum() == size


def test_edges_of_a_node_keep_the_caller_s_order() -> None:
    edges = layout_of([5, 40, 0, 7], 3)
    programs = programs_by_target(edges)
    for _, first, last in ranges_of(programs.light):
        numbers = programs.edge_ids[first:last]
        assert (numbers[1:] > numbers[:-1]).all()


def test_a_node_s_own_edges_decide_how_it_is_computed() -> None:
    for degree in (1, FEW, FEW + 1, PART, PART + 1):
        alone = programs_by_target(layout_of([degree], 9))
        among = programs_by_target(layout_of([3, degree, 30, 1000], 9))
        for table in ("few", "many", "heavy"):
            has = (getattr(among, table)[:, 0] == 1).any()
            assert bool(has) == bool(getattr(alone, table).size(0)), (degree, table)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [0, 1, 3, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 64, 100, 256])
@pytest.mark.parametrize("features", [False, True])
def test_a_tile_has_at_most_32_numbers_a_thread(
    features: bool, channels: int, heads: int, dtype: torch.dtype
) -> None:
    tiles = edge_tiles(heads, channels, dtype, features)
    assert tiles.width >= channels and tiles.heads >= 1
    for nodes, edges in (tiles.few, tiles.many):
        assert nodes >= 1 and edges >= 1
        assert nodes * edges * tiles.heads * tiles.width <= 32 * 32 * tiles.warps


def test_objections_along_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(_triton, "is_installed", lambda: True)
    layout = GraphLayout.from_sizes([3, 2])
    mask = EdgeMask(torch.tensor([[0, 1], [1, 2]]))
    for dtype, says in ((torch.float32, "None"), (torch.float64, "got torch.float64")):
        query, key, value = torch.randn(3, 5, 2, 4, dtype=dtype)
        inputs = _inputs(query, key, value, layout, (mask,), None, None, 0.0)
        assert says in str(_triton.unsupported(inputs))
