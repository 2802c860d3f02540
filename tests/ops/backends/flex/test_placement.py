"""Where graphs stand on the packed axes of FlexAttention."""

import random
import time
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_gt.ops._backends.flex.placement import BLOCK, Placement, aligned_to_tiles, in_order, place

SIZE = st.one_of(st.integers(0, 40), st.integers(100, 140), st.sampled_from([0, 128, 256, 300]))
SIZES = st.lists(st.tuples(SIZE, SIZE), max_size=40)


def tiles(start: int, size: int) -> range:
    return range(start // BLOCK, (start + size - 1) // BLOCK + 1) if size else range(0)


def overlap(starts: list[int], sizes: list[int], end: int) -> bool:
    spans = sorted((a, a + n) for a, n in zip(starts, sizes, strict=True) if n)
    ends = [0, *(b for _, b in spans)]
    return any(a < b for (a, _), b in zip(spans, ends, strict=False)) or ends[-1] > end


def blocks_of_pairs(placed: Placement, queries: list[int], keys: list[int]) -> set:
    found = set()
    for row, n, col, m in zip(placed.row_start, queries, placed.col_start, keys, strict=True):
        found |= {(i, j) for i in tiles(row, n) for j in tiles(col, m)}
    return found


@settings(max_examples=300, deadline=None)
@given(SIZES, st.booleans())
def test_no_two_graphs_share_a_place(sizes: list[tuple[int, int]], own: bool) -> None:
    queries = [n for n, _ in sizes]
    keys = queries if own else [m for _, m in sizes]
    for placed in (in_order(queries, keys), aligned_to_tiles(queries, keys), place(queries, keys)):
        assert placed.rows % BLOCK == 0 and placed.cols % BLOCK == 0
        assert min(placed.rows, placed.cols) >= 2 * BLOCK
        assert not overlap(placed.row_start, queries, placed.rows)
        assert not overlap(placed.col_start, keys, placed.cols)
        if own:
            assert placed.row_start == placed.col_start and placed.rows == placed.cols


@settings(max_examples=300, deadline=None)
@given(SIZES)
def test_aligned_no_small_graph_crosses_a_tile(sizes: list[tuple[int, int]]) -> None:
    queries, keys = [n for n, _ in sizes], [m for _, m in sizes]
    placed = aligned_to_tiles(queries, keys)
    for row, n, col, m in zip(placed.row_start, queries, placed.col_start, keys, strict=True):
        if max(n, m) <= BLOCK:
            assert len(tiles(row, n)) <= 1 and len(tiles(col, m)) <= 1
        elif n and m:
            assert row % BLOCK == 0 and col % BLOCK == 0
    # a row of blocks with small graphs only visits one block; with a large one those of that one
    wide: dict[int, int] = {}
    for row, n, m in zip(placed.row_start, queries, keys, strict=True):
        for block in tiles(row, n):
            wide[block] = max(wide.get(block, 0), (m + BLOCK - 1) // BLOCK)
    for block, most in wide.items():
        visited = {j for i, j in blocks_of_pairs(placed, queries, keys) if i == block}
        assert len(visited) <= most


@settings(max_examples=300, deadline=None)
@given(SIZES)
def test_the_cheaper_one_is_taken(sizes: list[tuple[int, int]]) -> None:
    queries, keys = [n for n, _ in sizes], [m for _, m in sizes]
    both = in_order(queries, keys), aligned_to_tiles(queries, keys)
    assert both[0].row_start == [0, *accumulate(queries)][:-1]
    assert place(queries, keys).cost == min(placed.cost for placed in both)
    for placed in both:
        needed = blocks_of_pairs(placed, queries, keys)
        assert placed.visited >= len(needed)
        if all(n and m for n, m in sizes):
            assert placed.visited == len(needed)


@pytest.mark.parametrize("n", [10, 24, 40])
def test_small_graphs_take_less_than_half_of_the_blocks(n: int) -> None:
    plain, aligned = in_order([n] * 512, [n] * 512), aligned_to_tiles([n] * 512, [n] * 512)
    assert aligned.visited == aligned.rows // BLOCK  # one for each row of blocks
    assert 2 * aligned.visited < plain.visited
    assert aligned.rows < 1.15 * plain.rows
    assert place([n] * 512, [n] * 512) == aligned


def test_what_alignment_would_not_help_stands_in_order() -> None:
    for sizes in ([1000], [128] * 20, [129] * 9, [256, 384], [], [0, 0]):
        assert place(sizes, sizes) == in_order(sizes, sizes)
    # a few queries for each graph: aligned they would stand far apart
    assert place([4] * 256, [30] * 256) == in_order([4] * 256, [30] * 256)


def test_the_end_of_a_large_graph_takes_small_ones() -> None:
    placed = aligned_to_tiles([300, 40, 40], [300, 40, 40])
    assert placed.rows == 3 * BLOCK and placed.visited == 9
    assert placed.row_start == [0, 300, 340]


def test_it_is_the_same_each_time() -> None:
    sizes = [random.Random(0).randint(1, 60) for _ in range(500)]
    assert aligned_to_tiles(sizes, sizes) == aligned_to_tiles(sizes, sizes)


def test_many_graphs_take_no_time() -> None:
    """A hundred times the graphs, in less than a thousand times the time."""
    sizes = [random.Random(0).randint(10, 40) for _ in range(30_000)]
    taken = []
    for count in (300, 30_000):
        start = time.process_time()
        place(sizes[:count], sizes[:count])
        taken.append(time.process_time() - start)
    assert taken[1] < 1000 * taken[0]
