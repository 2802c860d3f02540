"""Buckets: a graph is padded by its own size, and padded work stays near the sum of n^2."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_gt import GraphLayout
from pyg_gt.ops._kernels.torch_ops import buckets as _buckets
from pyg_gt.ops._kernels.torch_ops.buckets import padded, plan_of, tiles

from ...cases import layout_of

SIZES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


def rule(n: int) -> int:
    """The next multiple of an eighth of the power of two below n, at least of 8."""
    step = max(8, 2 ** (n.bit_length() - 1) // 8) if n else 8
    return -(-n // step) * step


def test_the_examples_of_the_docstring() -> None:
    assert padded(torch.tensor([17, 150, 300])).tolist() == [24, 160, 320]
    assert padded(torch.tensor([0, 1, 8, 9, 64, 65, 128, 129])).tolist() == [
        0, 8, 8, 16, 64, 72, 128, 144,
    ]  # fmt: skip


def test_the_rule_and_its_bound_for_every_size() -> None:
    n = torch.arange(20_000)
    wide = padded(n)
    assert wide.tolist() == [rule(i) for i in range(20_000)]
    assert (wide >= n).all() and (wide.diff() >= 0).all()
    assert (wide[64:] <= n[64:] * 9 / 8).all()
    assert (wide[:64] - n[:64] <= 7).all()
    average = (wide[64:].double().square() / n[64:].double().square()).mean()
    assert average < 1.14


@given(st.lists(st.integers(0, 3000), min_size=1))
def test_the_rule_depends_on_the_own_size_alone(sizes: list[int]) -> None:
    together = padded(torch.tensor(sizes)).tolist()
    assert together == [int(padded(torch.tensor(n))) for n in sizes]


@given(st.lists(st.integers(64, 1000), min_size=1, max_size=20))
def test_padded_work(sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes)
    work = sum(b.num * b.rows * b.cols for b in plan_of(layout, layout).buckets)
    assert layout.num_pairs <= work <= (9 / 8) ** 2 * layout.num_pairs


@given(SIZES, st.sampled_from(["sorted", "unsorted"]), st.integers(1, 3))
def test_every_graph_with_pairs_is_in_one_bucket_and_every_node_in_one_slot(
    sizes: list[tuple[int, int]], order: str, heads: int
) -> None:
    queries, keys = ([pair[i] for pair in sizes] for i in (0, 1))
    query_layout, layout = layout_of(queries, order), layout_of(keys, order)
    plan = plan_of(query_layout, layout)
    seen: list[int] = []
    shapes = [(bucket.rows, bucket.cols) for bucket in plan.buckets]
    assert len(set(shapes)) == len(shapes)
    rows_of, cols_of = (x.view(-1, heads) for x in (plan.rows_of(heads), plan.cols_of(heads)))
    for slots, total in ((rows_of, plan.row_slots.total), (cols_of, plan.col_slots.total)):
        assert slots.unique().numel() == slots.numel()
        assert not slots.numel() or 0 <= slots.min() and slots.max() < total * heads
    for bucket in plan.buckets:
        members = bucket.graphs.tolist()
        assert len(members) == bucket.num
        seen += members
        assert bucket.num_rows.tolist() == [queries[g] for g in members]
        assert bucket.num_cols.tolist() == [keys[g] for g in members]
        for place, graph in enumerate(members):
            assert (rule(queries[graph]), rule(keys[graph])) == (bucket.rows, bucket.cols)
            # [b, H, rows] laid out row-major from row_start on
            for slots, lay, start, width in (
                (rows_of, query_layout, bucket.row_start, bucket.rows),
                (cols_of, layout, bucket.col_start, bucket.cols),
            ):
                mine = slots[lay.batch == graph]  # [n, H]
                first = (start + place * width) * heads + width * torch.arange(heads)
                want = first + torch.arange(len(mine)).unsqueeze(1)
                assert torch.equal(mine, want)
        if bucket.padding is None:
            assert all(keys[g] == bucket.cols for g in members)
        else:
            real = torch.arange(bucket.cols) < bucket.num_cols.unsqueeze(1)
            want = torch.where(real, 0.0, -torch.inf)
            assert torch.equal(bucket.padding[:, 0, 0], want)
    assert sorted(seen) == [g for g, (n, m) in enumerate(sizes) if n and m]


def numbers_of_pairs(query_layout: GraphLayout, layout: GraphLayout, graph: int) -> Tensor:
    sizes = list(zip(query_layout.sizes, layout.sizes, strict=True))
    start = sum(n * m for n, m in sizes[:graph])
    n, m = sizes[graph]
    return start + torch.arange(n * m).view(n, m)


@pytest.mark.parametrize("most", [1, 100, 500, 2000, 2**20])
@pytest.mark.parametrize("heads", [1, 3])
def test_slices_cover_a_bucket_once_and_know_its_pairs(
    monkeypatch: pytest.MonkeyPatch, most: int, heads: int
) -> None:
    monkeypatch.setattr(_buckets, "_MAX_SCORES", dict.fromkeys(_buckets._MAX_SCORES, most))
    query_layout, layout = layout_of([3, 20, 7, 0, 17, 2, 8]), layout_of([5, 18, 1, 4, 24, 8, 0])
    found = torch.zeros(3 * 5 + 20 * 18 + 7 * 1 + 17 * 24 + 2 * 8)
    for bucket in plan_of(query_layout, layout).buckets:
        covered = torch.zeros(bucket.num, bucket.rows)
        for tile in tiles(bucket, heads):
            covered[tile.graphs, tile.rows] += 1
            pairs, is_pair = tile.pairs()
            scores = pairs.numel() * heads
            assert scores <= most or pairs.shape[:2] == (1, 1)
            assert pairs.shape == covered[tile.graphs, tile.rows].shape + (bucket.cols,)
            for place, graph in enumerate(bucket.graphs[tile.graphs].tolist()):
                want = numbers_of_pairs(query_layout, layout, graph)
                n, m = want.shape
                real = torch.zeros(bucket.rows, bucket.cols, dtype=torch.bool)
                real[:n, :m] = True
                assert torch.equal(is_pair[place], real[tile.rows])
                # padding shows a pair of its own graph
                assert torch.isin(pairs[place], want).all()
                filled = torch.zeros(bucket.rows, bucket.cols, dtype=torch.int64)
                filled[:n, :m] = want
                assert torch.equal(pairs[place][is_pair[place]], filled[tile.rows][is_pair[place]])
            found[pairs[is_pair]] += 1
        assert (covered == 1).all()
    assert (found == 1).all()


def test_a_plan_is_made_once_for_a_pair_of_layouts() -> None:
    layout, other = layout_of([3, 2]), layout_of([1, 1])
    plan = plan_of(layout, layout)
    assert plan_of(layout, layout) is plan
    cross = plan_of(layout, other)
    assert plan_of(layout, other) is cross and cross is not plan
    assert plan_of(layout, layout) is plan


def test_nothing_to_do() -> None:
    for sizes in ([], [0, 0]):
        layout = GraphLayout.from_sizes(sizes)
        plan = plan_of(layout, layout)
        assert plan.buckets == () and plan.row_slots.total == plan.col_slots.total == 0
