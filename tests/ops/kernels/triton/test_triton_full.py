"""The Triton kernels, in triton's interpreter or on a GPU; and what of them needs no triton."""

from __future__ import annotations

import pytest
import torch

from pyg_gt import GraphLayout, PairBias
from pyg_gt.ops._backends import triton as _triton
from pyg_gt.ops._kernels.triton.full import TYPES, launches
from pyg_gt.ops._kernels.triton.full.programs import programs_of
from pyg_gt.ops._kernels.triton.full.tiles import tiles_of
from pyg_gt.ops.dispatch import _inputs

from ...cases import layout_of
from .processes import needs_triton, run, side_by_side

CASES = "tests/ops/kernels/triton/full_cases.py"


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter() -> None:
    run(["-m", "pytest", "-q", "-x", CASES], interpret=True)


@needs_triton
@pytest.mark.cuda
def test_kernels_on_a_gpu() -> None:
    run(["-m", "pytest", "-q", *side_by_side(), CASES], interpret=False)


@needs_triton
@pytest.mark.slow
def test_kernels_compile_for_a_gpu_that_is_not_there() -> None:
    run(["-m", "tests.ops.kernels.triton.compiles"], interpret=False)


@pytest.mark.parametrize("kind", ["self", "cross"])
@pytest.mark.parametrize("channels", [16, 256])
def test_every_node_has_one_program(channels: int, kind: str) -> None:
    layout = layout_of([5, 64, 1, 200, 0, 17, 33, 130, 16, 65, 2])
    query_layout = layout
    if kind == "cross":
        query_layout = layout_of([0, 3, 70, 200, 4, 0, 130, 1, 16, 64, 300])
    tiles = tiles_of(channels, torch.float32)
    programs = programs_of(query_layout, layout, tiles)
    assert programs is programs_of(query_layout, layout, tiles)
    queries, keys = (torch.zeros(x.num_nodes, dtype=torch.int64) for x in (query_layout, layout))
    for side, table in programs.small:
        for first_query, n, first_key, m, *_ in table.tolist():
            assert max(n, m) <= side
            queries[first_query : first_query + n] += 1
            keys[first_key : first_key + m] += 1
    for first_query, n, _, _, _, first, *_ in programs.query_tiles.tolist():
        queries[first_query + first : first_query + min(first + tiles.rows, n)] += 1
    for _, _, first_key, m, _, first, *_ in programs.key_tiles.tolist():
        keys[first_key + first : first_key + min(first + tiles.cols, m)] += 1
    assert queries.eq(1).all() and keys.eq(1).all()
    of_queries = [*(table for _, table in programs.small), programs.query_tiles]
    numbers = torch.cat([table[:, 6] for table in of_queries])
    assert numbers.tolist() == list(range(programs.count))
    for table in of_queries:
        for first_query, n, first_key, m, first_pair, *_ in table.tolist():
            graph = next(
                i for i in range(layout.num_graphs)
                if (query_layout.ptr[i], query_layout.sizes[i]) == (first_query, n)
                and (layout.ptr[i], layout.sizes[i]) == (first_key, m)
            )  # fmt: skip
            sizes = zip(query_layout.sizes[:graph], layout.sizes[:graph], strict=True)
            assert first_pair == sum(a * b for a, b in sizes)
    work = programs.query_tiles[:, 3]
    assert (work[1:] <= work[:-1]).all()


def test_a_graph_has_its_tile_by_its_own_size() -> None:
    tiles = tiles_of(16, torch.float32)
    for n in (1, 16, 17, 64):
        alone, among = (layout_of(x) for x in ([n], [3, 40, n, 300]))
        ((side, _),) = programs_of(alone, alone, tiles).small
        sides = {m: s for s, t in programs_of(among, among, tiles).small for m in t[:, 1].tolist()}
        assert sides[n] == side


def test_float32_is_cut_to_tf32_only_where_torch_may() -> None:
    def precisions() -> list[str]:
        return [launches._precision(x) for x in TYPES]

    before = torch.get_float32_matmul_precision()
    assert precisions() == ["tf32x3", "half", "half"]
    try:
        torch.set_float32_matmul_precision("high")
        assert precisions() == ["tf32", "half", "half"]
    finally:
        torch.set_float32_matmul_precision(before)
    assert precisions() == ["tf32x3", "half", "half"]


def test_it_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")

    def objection(dtype: torch.dtype = torch.float32, channels: int = 8) -> str:
        layout = GraphLayout.from_sizes([3, 2])
        query, key, value = torch.randn(3, 5, 2, channels, dtype=dtype)
        biases = (PairBias(torch.randn(13, 2)),)
        inputs = _inputs(query, key, value, layout, biases, None, None, 0.0)
        return str(_triton.unsupported(inputs))

    assert objection() == "it needs a CUDA device (got 'cpu')"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(_triton, "is_installed", lambda: False)
    assert "pyg_gt[triton]" in objection()
    monkeypatch.setattr(_triton, "is_installed", lambda: True)
    assert objection() == "None"
    assert "got torch.float64" in objection(torch.float64)
    assert "at most 256 channels per head (got 257)" in objection(channels=257)
