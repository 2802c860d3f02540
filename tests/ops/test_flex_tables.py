"""The block tables of FlexAttention against ``create_block_mask``, which evaluates N x N."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.ops._flex_tables import BLOCK, edge_mask, full_mask, packed
from pyg_gt.ops.bias import num_pairs, pair_of_edge

from .cases import layout_of

# a graph is small, about a block, or several blocks long
GRAPH = st.one_of(st.integers(0, 6), st.integers(100, 140), st.sampled_from([0, 128, 256, 300]))
SIZES = st.lists(st.tuples(GRAPH, GRAPH), min_size=1, max_size=7)
ORDERS = st.sampled_from(["sorted", "unsorted"])


def visited(mask: BlockMask) -> Tensor:
    """``[rows, cols]``: which blocks the kernel reads, from the tables alone."""
    return read(mask.kv_num_blocks, mask.kv_indices, mask.seq_lengths[1] // BLOCK)


def visited_backwards(mask: BlockMask) -> Tensor:
    """``[cols, rows]``: the same from the tables of the backward."""
    return read(mask.q_num_blocks, mask.q_indices, mask.seq_lengths[0] // BLOCK)


def read(counts: Tensor, indices: Tensor, width: int) -> Tensor:
    assert counts.dtype == indices.dtype == torch.int32
    found = torch.zeros(counts.size(-1), width, dtype=torch.bool)
    for row, count in enumerate(counts[0, 0].tolist()):
        columns = indices[0, 0, row, :count].long()
        assert len(set(columns.tolist())) == count
        found[row, columns] = True
    return found


def wanted_pairs(query_layout: GraphLayout, layout: GraphLayout) -> Tensor:
    """``[Nq, Nk]`` on the packed axes, from the sizes alone."""
    blocks = [torch.ones(n, m) for n, m in zip(query_layout.sizes, layout.sizes, strict=True)]
    return torch.block_diag(*blocks)[: query_layout.num_nodes, : layout.num_nodes].bool()


def evaluated(mask: BlockMask) -> tuple[Tensor, Tensor]:
    """The function of the mask at every pair, and the blocks that torch derives from it."""
    rows, cols = mask.seq_lengths
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    zero = torch.zeros((), dtype=torch.int64)
    pairs = mask.mask_mod(zero, zero, row, col)
    made = create_block_mask(mask.mask_mod, 1, 1, rows, cols, device="cpu", BLOCK_SIZE=BLOCK)
    return pairs, made.to_dense()[0, 0] > 0


def check_both_directions(mask: BlockMask, compact: bool) -> None:
    assert torch.equal(visited_backwards(mask), visited(mask).t())
    rows, cols = (n // BLOCK for n in mask.seq_lengths)
    assert mask.kv_indices.shape[:3] == (1, 1, rows) and mask.q_indices.shape[:3] == (1, 1, cols)
    if compact:
        assert mask.kv_indices.size(3) == max(1, int(mask.kv_num_blocks.max()))
        assert mask.q_indices.size(3) == max(1, int(mask.q_num_blocks.max()))
    else:
        assert mask.kv_indices.size(3) == cols and mask.q_indices.size(3) == rows


@settings(max_examples=60, deadline=None)
@given(SIZES, ORDERS, st.booleans())
def test_full_attention_on_its_own_nodes(
    sizes: list[tuple[int, int]], order: str, compact: bool
) -> None:
    layout = layout_of([n for n, _ in sizes], order)
    mask = full_mask(packed(layout, layout), compact)
    pairs, blocks = evaluated(mask)
    n = layout.num_nodes
    assert torch.equal(pairs[:n, :n], wanted_pairs(layout, layout))
    assert not pairs[n:].any() and not pairs[:, n:].any()
    assert torch.equal(visited(mask), blocks)
    check_both_directions(mask, compact)


@settings(max_examples=60, deadline=None)
@given(SIZES, ORDERS, st.booleans())
def test_full_attention_between_two_layouts(
    sizes: list[tuple[int, int]], order: str, compact: bool
) -> None:
    query_layout, layout = (layout_of([pair[i] for pair in sizes], order) for i in (0, 1))
    mask = full_mask(packed(query_layout, layout), compact)
    pairs, blocks = evaluated(mask)
    n, m = query_layout.num_nodes, layout.num_nodes
    assert torch.equal(pairs[:n, :m], wanted_pairs(query_layout, layout))
    assert not pairs[n:].any() and not pairs[:, m:].any()
    found = visited(mask)
    assert torch.equal(found & blocks, blocks)  # every block that is needed
    # beyond these only keys of graphs without queries, between the first and the last of a row
    for row in range(found.size(0)):
        needed = blocks[row].nonzero().flatten()
        want = torch.zeros_like(found[row])
        if needed.numel():
            want[needed[0] : needed[-1] + 1] = True
        assert torch.equal(found[row], want)
    check_both_directions(mask, compact)


@settings(max_examples=60, deadline=None)
@given(SIZES, ORDERS, st.booleans(), st.sampled_from([0, 1, 5, 200]), st.integers(0, 2**31))
def test_attention_along_edges(
    sizes: list[tuple[int, int]], order: str, compact: bool, count: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query_layout, layout = (layout_of([pair[i] for pair in sizes], order) for i in (0, 1))
    same = query_layout.batch[:, None] == layout.batch[None, :]
    every = same.nonzero()  # (query, key)
    count = count if len(every) else 0
    some = torch.randint(max(len(every), 1), (count,), generator=generator)
    target, source = every[some].t()
    edges = EdgeLayout.of(torch.stack([source, target]), layout.num_nodes, query_layout.num_nodes)
    assert isinstance(edges, EdgeLayout)
    mask, slot = edge_mask(packed(query_layout, layout), edges, query_layout, layout, compact)
    pairs, blocks = evaluated(mask)
    row_of, col_of = (lay.ptr[lay.batch] + lay.pos for lay in (query_layout, layout))
    want = torch.zeros_like(pairs)
    want[row_of[target], col_of[source]] = True
    assert torch.equal(pairs, want)
    assert torch.equal(visited(mask), blocks)
    check_both_directions(mask, compact)
    # each distinct pair has one slot from 1 on, all others slot 0
    total = num_pairs(query_layout, layout)
    assert slot.dtype == torch.int32 and slot.numel() == max(total, 1)
    joined = torch.zeros(slot.numel(), dtype=torch.bool)
    joined[pair_of_edge(edges, query_layout, layout)] = True
    assert torch.equal(slot > 0, joined)
    assert slot[joined].sort().values.tolist() == list(range(1, int(joined.sum()) + 1))


def test_the_rows_tell_where_a_query_stands() -> None:
    query_layout, layout = layout_of([2, 0, 3], "unsorted"), layout_of([4, 2, 1], "unsorted")
    table = packed(query_layout, layout)
    assert (table.rows, table.cols) == (BLOCK, BLOCK)
    for row in range(5):
        node, graph = int(table.query_node[row]), int(table.graph[row])
        assert int(query_layout.batch[node]) == graph
        start = sum(n * m for n, m in zip([2, 0, 3][:graph], [4, 2, 1][:graph], strict=True))
        first = start + int(query_layout.pos[node]) * [4, 2, 1][graph]
        assert int(table.pair[row]) == first
        assert table.key_node[table.low[row] : table.high[row]].tolist() == (
            (layout.batch == graph).nonzero().flatten().tolist()
        )
    assert table.query_node[:5].sort().values.tolist() == list(range(5))
    assert (table.low[5:] == table.high[5:]).all()


def test_a_large_batch_costs_no_n_by_n() -> None:
    """400,000 nodes: a matrix of all pairs would be 160 GB of bits."""
    layout = GraphLayout.from_sizes([40] * 10_000)
    table = packed(layout, layout)
    mask = full_mask(table, compact=True)
    assert mask.kv_indices.size(3) <= 3
    edges = EdgeLayout.of(torch.arange(400_000).expand(2, -1), 400_000)
    assert isinstance(edges, EdgeLayout)
    mask, _ = edge_mask(table, edges, layout, layout, compact=True)
    assert mask.kv_indices.numel() == 400_000 // BLOCK
    pytest.raises(AssertionError, check_both_directions, mask, compact=False)
