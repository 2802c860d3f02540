"""The block tables of FlexAttention against ``create_block_mask``, which evaluates N x N."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from pyg_gt import EdgeLayout, GraphLayout
from pyg_gt.ops._backends.flex.block_masks import graph_mask
from pyg_gt.ops._backends.flex.edge_masks import EdgeMaps, edge_mask
from pyg_gt.ops._backends.flex.packing import PackedAxes, nearest, packed_axes
from pyg_gt.ops._backends.flex.placement import BLOCK
from pyg_gt.ops.pairs import num_pairs, pair_of_edge

from ...cases import layout_of

# a graph is small, about a block, or several blocks long
GRAPH = st.one_of(st.integers(0, 6), st.integers(100, 140), st.sampled_from([0, 128, 256, 300]))
SIZES = st.lists(st.tuples(GRAPH, GRAPH), min_size=1, max_size=7).filter(
    lambda sizes: any(n and m for n, m in sizes)
)
ORDERS = st.sampled_from(["sorted", "unsorted"])


def read(counts: Tensor, indices: Tensor, width: int) -> Tensor:
    """``[rows, width]``: which blocks a table names."""
    assert counts.dtype == indices.dtype == torch.int32
    found = torch.zeros(counts.size(-1), width, dtype=torch.bool)
    for row, count in enumerate(counts[0, 0].tolist()):
        columns = indices[0, 0, row, :count].long()
        assert columns.tolist() == sorted(set(columns.tolist()))
        found[row, columns] = True
    return found


def tables(mask: BlockMask) -> tuple[Tensor, Tensor]:
    """``[rows, cols]`` each: the blocks with a mask and those without, from the tables alone.

    Checks that the tables of the backward are the transposed ones, and the widths.
    """
    rows, cols = (n // BLOCK for n in mask.seq_lengths)
    partial = read(mask.kv_num_blocks, mask.kv_indices, cols)
    full = read(mask.full_kv_num_blocks, mask.full_kv_indices, cols)
    assert torch.equal(read(mask.q_num_blocks, mask.q_indices, rows), partial.t())
    assert torch.equal(read(mask.full_q_num_blocks, mask.full_q_indices, rows), full.t())
    assert not (partial & full).any()
    # torch 2.11 goes through the full blocks by the strides of the others
    assert mask.kv_indices.stride() == mask.full_kv_indices.stride()
    assert mask.q_indices.stride() == mask.full_q_indices.stride()
    assert mask.kv_indices.is_contiguous() and mask.q_indices.is_contiguous()
    return partial, full


def check_width(mask: BlockMask, compact: bool) -> None:
    rows, cols = (n // BLOCK for n in mask.seq_lengths)
    assert mask.kv_indices.shape[:3] == (1, 1, rows) and mask.q_indices.shape[:3] == (1, 1, cols)
    if compact:
        most = max(int(mask.kv_num_blocks.max()), int(mask.full_kv_num_blocks.max()))
        assert mask.kv_indices.size(3) == max(2, most)
        most = max(int(mask.q_num_blocks.max()), int(mask.full_q_num_blocks.max()))
        assert mask.q_indices.size(3) == max(2, most)
    else:
        assert mask.kv_indices.size(3) == cols and mask.q_indices.size(3) == rows


def evaluated(mask: BlockMask) -> tuple[Tensor, Tensor, Tensor]:
    """The function of the mask at every pair, the blocks torch derives from it, the full ones."""
    rows, cols = mask.seq_lengths
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    zero = torch.zeros((), dtype=torch.int64)
    pairs = mask.mask_mod(zero, zero, row, col)
    made = create_block_mask(mask.mask_mod, 1, 1, rows, cols, device="cpu", BLOCK_SIZE=BLOCK)
    full = pairs.view(rows // BLOCK, BLOCK, cols // BLOCK, BLOCK).all(3).all(1)
    assert torch.equal(full, read(made.full_kv_num_blocks, made.full_kv_indices, cols // BLOCK))
    return pairs, made.to_dense()[0, 0] > 0, full


def in_callers_order(axes: PackedAxes, pairs: Tensor) -> Tensor:
    """``[Nq, Nk]`` of what lies at ``[rows, cols]``; nothing may lie in between."""
    found = pairs[axes.query_row][:, axes.key_col]
    assert int(pairs.sum()) == int(found.sum())
    return found


def layouts(sizes: list[tuple[int, int]], order: str) -> tuple[GraphLayout, GraphLayout]:
    return layout_of([n for n, _ in sizes], order), layout_of([m for _, m in sizes], order)


@settings(max_examples=60, deadline=None)
@given(SIZES, ORDERS, st.booleans())
def test_full_attention_on_its_own_nodes(
    sizes: list[tuple[int, int]], order: str, compact: bool
) -> None:
    layout = layouts(sizes, order)[0]
    axes = packed_axes(layout, layout)
    assert axes.query_row is axes.key_col
    mask = graph_mask(axes, compact)
    pairs, blocks, full = evaluated(mask)
    same_graph = layout.batch[:, None] == layout.batch[None, :]
    assert torch.equal(in_callers_order(axes, pairs), same_graph)
    masked, unmasked = tables(mask)
    assert torch.equal(masked | unmasked, blocks)
    assert torch.equal(unmasked, full)
    check_width(mask, compact)
    if not compact:
        assert torch.equal(mask.to_dense()[0, 0] > 0, blocks)


@settings(max_examples=60, deadline=None)
@given(SIZES, ORDERS, st.booleans())
def test_full_attention_between_two_layouts(
    sizes: list[tuple[int, int]], order: str, compact: bool
) -> None:
    query_layout, layout = layouts(sizes, order)
    axes = packed_axes(query_layout, layout)
    mask = graph_mask(axes, compact)
    pairs, blocks, full = evaluated(mask)
    same_graph = query_layout.batch[:, None] == layout.batch[None, :]
    assert torch.equal(in_callers_order(axes, pairs), same_graph)
    masked, unmasked = tables(mask)
    assert torch.equal(unmasked, full)
    found = masked | unmasked
    assert torch.equal(found & blocks, blocks)  # every block that is needed
    # beyond these only keys of graphs without queries, between the first and the last of a row
    for row in range(found.size(0)):
        needed = blocks[row].nonzero().flatten()
        want = torch.zeros_like(found[row])
        if needed.numel():
            want[needed[0] : needed[-1] + 1] = True
        assert torch.equal(found[row], want)
    check_width(mask, compact)


def some_edges(
    query_layout: GraphLayout, layout: GraphLayout, count: int, seed: int, whole: bool
) -> EdgeLayout:
    """``count`` edges inside graphs, with repeats; with 'whole' every pair of the largest too."""
    generator = torch.Generator().manual_seed(seed)
    same = query_layout.batch[:, None] == layout.batch[None, :]
    every = same.nonzero()  # (query, key)
    some = every[torch.randint(len(every), (count,), generator=generator)]
    if whole:
        largest = max(range(layout.num_graphs), key=lambda g: layout.sizes[g])
        some = torch.cat([some, every[query_layout.batch[every[:, 0]] == largest]])
        some = some[torch.randperm(len(some), generator=generator)]
    target, source = some.t()
    edges = EdgeLayout.of(torch.stack([source, target]), layout.num_nodes, query_layout.num_nodes)
    assert isinstance(edges, EdgeLayout)
    return edges


@settings(max_examples=60, deadline=None)
@given(
    SIZES,
    ORDERS,
    st.sampled_from([0, 1, 5, 200]),
    st.integers(0, 2**31),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
# the queries of the last graph have no keys, hence no words of their own to read
@example([(2, 1), (3, 0)], "sorted", 1, 0, False, False, True)
def test_attention_along_edges(
    sizes: list[tuple[int, int]],
    order: str,
    count: int,
    seed: int,
    whole: bool,
    has_values: bool,
    compact: bool,
) -> None:
    query_layout, layout = layouts(sizes, order)
    edges = some_edges(query_layout, layout, count, seed, whole)
    axes = packed_axes(query_layout, layout)
    maps = edge_mask(axes, edges, query_layout, layout, has_values, compact)
    pairs, blocks, full = evaluated(maps.mask)
    want = torch.zeros(query_layout.num_nodes, layout.num_nodes, dtype=torch.bool)
    want[edges.target, edges.source] = True
    assert torch.equal(in_callers_order(axes, pairs), want)
    masked, unmasked = tables(maps.mask)
    assert torch.equal(masked | unmasked, blocks)
    assert torch.equal(unmasked, full)
    check_width(maps.mask, compact)
    check_slots(maps, edges, query_layout, layout, has_values)


def check_slots(
    maps: EdgeMaps,
    edges: EdgeLayout,
    query_layout: GraphLayout,
    layout: GraphLayout,
    has_values: bool,
) -> None:
    """A map of slots only where something is added, one slot for each distinct pair."""
    at = pair_of_edge(edges, query_layout, layout)
    distinct, counts = at.unique(return_counts=True)
    repeats = len(distinct) < len(at)
    assert (maps.slot is not None) == (has_values or repeats)
    assert (maps.slot_of_edge is not None) == (maps.log_counts is not None) == repeats
    if maps.slot is None:
        return
    assert maps.slot.dtype == torch.int32
    assert maps.slot.numel() == max(2, num_pairs(query_layout, layout))
    has_edge = torch.zeros(maps.slot.numel(), dtype=torch.bool)
    has_edge[distinct] = True
    assert torch.equal(maps.slot >= 0, has_edge)
    of_edge = maps.slot[at].long()
    assert of_edge.sort().values.unique().tolist() == list(range(len(distinct)))
    slot_of_edge = torch.arange(len(at)) if maps.slot_of_edge is None else maps.slot_of_edge
    assert torch.equal(of_edge, slot_of_edge)
    if maps.log_counts is not None:
        torch.testing.assert_close(maps.log_counts[maps.slot[distinct].long()].exp(),
                                   counts.float())  # fmt: skip
    # where there is no edge, what is read is in range, and not the same everywhere
    spare = -1 - maps.slot[maps.slot < 0]
    if spare.numel():
        assert int(spare.min()) >= 0 and int(spare.max()) < max(1, len(distinct))
        if len(distinct) > 1 and spare.numel() > 4 * len(distinct):
            assert spare.bincount().max() < spare.numel()


def test_a_bit_of_every_word() -> None:
    """The 32nd bit is the sign of an int32."""
    layout = layout_of([70])
    edges = EdgeLayout.of(torch.stack([torch.arange(70), torch.arange(70).flip(0)]), 70)
    assert isinstance(edges, EdgeLayout)
    axes = packed_axes(layout, layout)
    maps = edge_mask(axes, edges, layout, layout, has_values=False, compact=True)
    assert maps.slot is None
    captured = dict(zip(maps.mask.mask_mod.__code__.co_freevars,
                        maps.mask.mask_mod.__closure__ or (), strict=True))  # fmt: skip
    words = captured["words"].cell_contents
    assert words.dtype == torch.int32
    assert words.numel() == 70 * 3  # 32 times smaller than one number for each pair
    assert (words < 0).any()
    pairs = in_callers_order(axes, evaluated(maps.mask)[0])
    assert torch.equal(pairs, torch.eye(70).bool().flip(0))


@settings(max_examples=60, deadline=None)
@given(SIZES, ORDERS)
def test_the_rows_tell_where_a_query_stands(sizes: list[tuple[int, int]], order: str) -> None:
    query_layout, layout = layouts(sizes, order)
    axes = packed_axes(query_layout, layout)
    assert axes.query_row.unique().numel() == query_layout.num_nodes
    assert axes.key_col.unique().numel() == layout.num_nodes
    numbers = torch.arange(query_layout.num_nodes)
    pairs_before = [0]
    for n, m in sizes:
        pairs_before.append(pairs_before[-1] + n * m)
    for row in range(axes.rows):
        graph, node = int(axes.graph[row]), int(axes.query_node[row])
        low, high = int(axes.low[row]), int(axes.high[row])
        n, m = sizes[graph]
        # what it names is a pair of the batch, also where the row has none
        assert n and m
        assert int(query_layout.batch[node]) == graph
        assert int(layout.batch[axes.key_node[low]]) == graph
        assert int(axes.pair[row]) == pairs_before[graph] + int(query_layout.pos[node]) * m
        assert high - low in (0, m)
        if high > low:
            assert int(axes.query_row[node]) == row
            keys = (layout.batch == graph).nonzero().flatten()
            assert torch.equal(axes.key_node[low:high], keys)
    with_keys = torch.tensor([m > 0 for _, m in sizes])[query_layout.batch]
    live = (axes.high > axes.low).nonzero().flatten()
    assert torch.equal(axes.query_node[live].sort().values, numbers[with_keys])


@settings(max_examples=30, deadline=None)
@given(SIZES, ORDERS)
def test_a_function_of_scores_sees_pairs_of_the_batch_only(
    sizes: list[tuple[int, int]], order: str
) -> None:
    """Also between graphs and on padding: it may read a tensor at them."""
    query_layout, layout = layouts(sizes, order)
    axes = packed_axes(query_layout, layout)
    q, kv = torch.arange(axes.rows)[:, None], torch.arange(axes.cols)[None, :]
    near = nearest(kv, axes.low[q], axes.high[q])
    graph = layout.batch[axes.key_node[near]]
    assert torch.equal(graph, axes.graph[q].expand_as(graph))
    in_graph = (kv >= axes.low[q]) & (kv < axes.high[q])
    assert torch.equal(near[in_graph], kv.expand_as(near)[in_graph])
    at = axes.pair[q] + near - axes.low[q]
    assert int(at.min()) >= 0 and int(at.max()) < num_pairs(query_layout, layout)
    assert torch.equal(at[in_graph].sort().values, torch.arange(num_pairs(query_layout, layout)))


def test_more_pairs_than_an_int32_counts() -> None:
    """50,000 nodes of one graph have 2.5e9 pairs."""
    layout = layout_of([50_000])
    axes = packed_axes(layout, layout)
    assert axes.pair.dtype == torch.int64
    last = axes.query_row[-1]
    at = axes.pair[last] + nearest(last, axes.low[last], axes.high[last]) - axes.low[last]
    assert int(at) == 50_000**2 - 1
    assert packed_axes(layout_of([46_340]), layout_of([46_340])).pair.dtype == torch.int32


def test_a_large_batch_costs_no_n_by_n() -> None:
    """400,000 nodes: a matrix of all pairs would be 160 GB of bits."""
    layout = GraphLayout.from_sizes([40] * 10_000)
    axes = packed_axes(layout, layout)
    mask = graph_mask(axes, compact=True)
    assert mask.kv_indices.size(3) == 2
    assert int(mask.kv_num_blocks.max()) == 1  # three graphs in a tile
    edges = EdgeLayout.of(torch.arange(400_000).expand(2, -1), 400_000)
    assert isinstance(edges, EdgeLayout)
    mask = edge_mask(axes, edges, layout, layout, has_values=False, compact=True).mask
    assert mask.kv_indices.numel() == 2 * axes.rows // BLOCK
    pytest.raises(AssertionError, check_width, mask, compact=False)
