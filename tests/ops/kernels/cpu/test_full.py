"""The compiled kernel of full attention against the reference, and where its code could break."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_gt import EdgeBias, EdgeLayout, GraphLayout, PairBias, TableBias, attention
from pyg_gt.native import FLAGS, find_compiler
from pyg_gt.ops import AttentionBias
from pyg_gt.ops._kernels.cpu import full as _cpu_full
from pyg_gt.ops.pairs import num_pairs

from ...cases import layout_of, random_edges

INF = float("inf")
pytestmark = pytest.mark.compiled


def random_inputs(
    query_layout: GraphLayout, layout: GraphLayout, heads: int, channels: int
) -> list[Tensor]:
    sizes = (query_layout.num_nodes, layout.num_nodes, layout.num_nodes)
    return [torch.randn(n, heads, channels, requires_grad=True) for n in sizes]


def random_biases(
    kinds: Sequence[str], query_layout: GraphLayout, layout: GraphLayout, heads: int
) -> tuple[AttentionBias, ...]:
    pairs = num_pairs(query_layout, layout)
    biases: list[AttentionBias] = []
    for kind in kinds:
        if kind == "pair":
            biases.append(PairBias(torch.randn(pairs, heads, requires_grad=True)))
        elif kind == "edge":
            batches = [x.batch for x in (layout, query_layout)]
            inside = (batches[1][:, None] == batches[0][None, :]).nonzero().t().flip(0)
            count = inside.size(1)
            edges = inside[:, torch.randint(count, (2 * count,))] if count else inside
            values = torch.randn(edges.size(1), heads, requires_grad=True)
            biases.append(EdgeBias(edges, values))
        else:
            dtype = getattr(torch, kind)
            index = torch.randint(5, (pairs,)).to(dtype)
            biases.append(TableBias(torch.randn(5, heads, requires_grad=True), index))
    return tuple(biases)


def tensors_of(biases: Sequence[AttentionBias]) -> list[Tensor]:
    found = (x for b in biases for x in vars(b).values() if isinstance(x, Tensor))
    return [x for x in found if x.requires_grad]


def in_double(bias: AttentionBias) -> AttentionBias:
    fields = {
        name: x.detach().double().requires_grad_()
        if isinstance(x, Tensor) and x.is_floating_point()
        else x
        for name, x in vars(bias).items()
    }
    return type(bias)(**fields)


def assert_is_the_reference(
    qkv: Sequence[Tensor],
    query_layout: GraphLayout,
    layout: GraphLayout,
    biases: tuple[AttentionBias, ...] = (),
    dropout_p: float = 0.0,
    tolerance: float = 3e-5,
) -> None:
    """Outputs and every gradient, against float64 with the same seed of the dropout."""
    results = []
    wide = [x.detach().double().requires_grad_() for x in qkv]
    for backend, inputs, added in (
        ("cpu", list(qkv), biases),
        ("reference", wide, tuple(map(in_double, biases))),
    ):
        torch.manual_seed(7)
        out = attention(
            *inputs, layout, added, query_layout=query_layout, dropout_p=dropout_p,
            backend=backend,
        )  # fmt: skip
        wave = torch.arange(out.numel()).view(out.shape).cos().to(out.dtype)
        leaves = [*inputs, *tensors_of(added)]
        results.append([out.detach(), *torch.autograd.grad(out, leaves, wave)])
    for got, want in zip(*results, strict=True):
        assert got.shape == want.shape
        if want.numel():
            allowed = tolerance * max(1.0, float(want.abs().max()))
            difference = float((got.double() - want).abs().max())
            assert difference <= allowed, f"{difference} > {allowed} in {list(want.shape)}"


SIZES = st.lists(st.one_of(st.integers(0, 9), st.integers(10, 70)), min_size=1, max_size=4)
KINDS = st.lists(st.sampled_from(["pair", "edge", "uint8", "int64"]), max_size=3)


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(
    sizes=SIZES,
    other=st.none() | SIZES,
    order=st.sampled_from(["sorted", "unsorted"]),
    heads=st.integers(1, 5),
    channels=st.one_of(st.integers(1, 40), st.sampled_from([8, 16, 64])),
    kinds=KINDS,
    dropout_p=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_it_is_the_reference(
    sizes: list[int],
    other: list[int] | None,
    order: str,
    heads: int,
    channels: int,
    kinds: list[str],
    dropout_p: float,
) -> None:
    layout = layout_of(sizes, order)
    query_layout = layout
    if other is not None:
        other = (other + [3] * len(sizes))[: len(sizes)]
        query_layout = layout_of(other, order)
    qkv = random_inputs(query_layout, layout, heads, channels)
    biases = random_biases(kinds, query_layout, layout, heads)
    assert_is_the_reference(qkv, query_layout, layout, biases, dropout_p)


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [[700, 1, 300], [256], [257, 255], [36, 37, 72, 73]])
def test_several_tiles(sizes: list[int], dropout_p: float) -> None:
    layout = layout_of(sizes, "unsorted")
    qkv = random_inputs(layout, layout, 2, 12)
    biases = random_biases(["pair", "int16", "edge"], layout, layout, 2)
    assert_is_the_reference(qkv, layout, layout, biases, dropout_p)


def test_more_channels_than_a_tile_is_wide() -> None:
    layout = layout_of([300, 20])
    assert_is_the_reference(random_inputs(layout, layout, 1, 256), layout, layout)


@pytest.mark.parametrize("kinds", [[], ["pair", "uint8"]])
def test_bfloat16(kinds: list[str]) -> None:
    """Computed in float32 and rounded once."""
    layout = layout_of([25, 1, 0, 300], "unsorted")
    qkv = [x.detach().bfloat16().requires_grad_() for x in random_inputs(layout, layout, 3, 20)]
    biases = random_biases(kinds, layout, layout, 3)
    assert attention(*qkv, layout, biases, backend="cpu").dtype == torch.bfloat16
    assert_is_the_reference(qkv, layout, layout, biases, tolerance=1.5e-2)


@pytest.mark.slow
def test_a_graph_of_ten_thousand_nodes() -> None:
    n, channels = 10_000, 6
    layout = GraphLayout.from_sizes([n])
    qkv = random_inputs(layout, layout, 1, channels)
    out = attention(*qkv, layout, backend="cpu")
    wave = torch.arange(out.numel()).view(out.shape).cos()
    got = [out.detach(), *torch.autograd.grad(out, qkv, wave)]
    query, key, value, grad = (x.detach()[:, 0].double() for x in (*qkv, wave))
    want = [torch.zeros(n, channels, dtype=torch.float64) for _ in range(4)]
    for rows in torch.arange(n).split(1000):
        weights = (query[rows] @ key.t() * channels**-0.5).softmax(1)
        want[0][rows] = weights @ value
        slopes = grad[rows] @ value.t()
        slopes = weights * (slopes - (weights * slopes).sum(1, keepdim=True)) * channels**-0.5
        want[1][rows] = slopes @ key
        want[2] += slopes.t() @ query[rows]
        want[3] += weights.t() @ grad[rows]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a[:, 0].double(), b, rtol=0, atol=2e-5)


def test_scores_of_ten_thousand_keep_their_weights_in_the_backward_pass() -> None:
    """A log-sum-exp in float32 would be off by 1e-3 there."""
    layout = GraphLayout.from_sizes([40])
    query, key = torch.full((40, 1, 1), 128.0), torch.full((40, 1, 1), 80.0)
    key[::2] += 1 / 128  # two kinds of keys, whose scores are 10,240 and 10,241 exactly
    qkv = [query.requires_grad_(), key.requires_grad_(), torch.randn(40, 1, 1, requires_grad=True)]
    assert_is_the_reference(qkv, layout, layout)


def test_pairs_that_are_forbidden() -> None:
    layout = layout_of([5, 40, 300])
    qkv = random_inputs(layout, layout, 2, 8)
    values = torch.randn(num_pairs(layout, layout), 2)
    values[torch.rand(values.size(0)) < 0.5] = -INF
    values[:10] = -INF  # queries 0 and 1 of graph 0 see nothing
    values[25 + 1600 :][: 300 * 7] = -INF
    biases = (PairBias(values.requires_grad_()),)
    out = attention(*qkv, layout, biases, backend="cpu")
    assert not out[:2].any() and not out[45:52].any() and out[52:].any()
    assert_is_the_reference(qkv, layout, layout, biases)


@pytest.mark.parametrize("poison", [float("nan"), INF])
def test_what_is_no_number_comes_out_as_none(poison: float) -> None:
    layout = GraphLayout.from_sizes([30, 300])
    qkv = [x.detach() for x in random_inputs(layout, layout, 1, 4)]
    qkv[1][40] = poison
    out = attention(*qkv, layout, backend="cpu")
    assert out[30:].isnan().any(2).all() if poison != INF else out[30:].isnan().any()
    assert out[:30].isfinite().all()


@pytest.mark.parametrize("dropout_p", [0.0, 0.5])
@pytest.mark.parametrize("kinds", [[], ["pair", "uint8", "edge"]])
def test_threads_change_no_bit(kinds: list[str], dropout_p: float) -> None:
    layout = layout_of([25, 3, 600, 0, 1, 44, 300, *range(20, 60)], "unsorted")
    qkv = random_inputs(layout, layout, 3, 16)
    biases = random_biases(kinds, layout, layout, 3)
    leaves = [*qkv, *tensors_of(biases)]
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            out = attention(*qkv, layout, biases, dropout_p=dropout_p, backend="cpu")
            results.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    finally:
        torch.set_num_threads(1)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_companions_change_no_bit() -> None:
    sizes = [25, 300, 7]
    layout = GraphLayout.from_sizes(sizes)
    qkv = random_inputs(layout, layout, 2, 16)
    out = attention(*qkv, layout, backend="cpu")
    grads = torch.autograd.grad(out.sin().sum(), qkv)
    start = 0
    for n in sizes:
        own = [x.detach()[start : start + n].clone().requires_grad_() for x in qkv]
        alone = attention(*own, GraphLayout.from_sizes([n]), backend="cpu")
        assert torch.equal(alone, out[start : start + n])
        own_grads = torch.autograd.grad(alone.sin().sum(), own)
        for a, b in zip(own_grads, grads, strict=True):
            assert torch.equal(a, b[start : start + n])
        start += n


def test_parts_of_a_joined_projection_are_read_where_they_lie() -> None:
    layout = layout_of([25, 40], "unsorted")
    joined = torch.randn(65, 3, 4, 16, requires_grad=True)
    parts = joined.unbind(1)
    assert all(_cpu_full.with_dense_channels(x) is x for x in parts)
    apart = [x.detach().clone().requires_grad_() for x in parts]
    outs = [attention(*x, layout, backend="cpu") for x in (parts, apart)]
    assert torch.equal(*outs)
    (together,) = torch.autograd.grad(outs[0].sin().sum(), joined)
    assert torch.equal(together, torch.stack(torch.autograd.grad(outs[1].sin().sum(), apart), 1))


def test_channels_that_do_not_lie_side_by_side() -> None:
    layout = layout_of([25, 40])
    qkv = [torch.randn(65, 16, 4).transpose(1, 2).requires_grad_() for _ in range(3)]
    assert all(x.stride(2) != 1 for x in qkv)
    assert_is_the_reference(qkv, layout, layout)
    grad = torch.randn(65, 16, 4).transpose(1, 2)
    want = torch.autograd.grad(attention(*qkv, layout, backend="cpu"), qkv, grad.contiguous())
    got = torch.autograd.grad(attention(*qkv, layout, backend="cpu"), qkv, grad)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    one = [torch.randn(65, 4, 1)[:, :, :1].expand(65, 4, 1) for _ in range(3)]
    assert_is_the_reference([x.clone().requires_grad_() for x in one], layout, layout)


def test_an_expanded_gradient() -> None:
    layout = layout_of([25, 40])
    qkv = random_inputs(layout, layout, 2, 8)
    out = attention(*qkv, layout, backend="cpu")
    got = torch.autograd.grad(out.sum(), qkv)  # its gradient has strides of zero
    want = torch.autograd.grad(
        attention(*qkv, layout, backend="reference"), qkv, torch.ones_like(out)
    )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_only_the_gradients_that_are_wanted() -> None:
    layout = layout_of([5, 9])
    query, key, value = random_inputs(layout, layout, 2, 8)
    biases = random_biases(["pair", "uint8"], layout, layout, 2)
    out = attention(query.detach(), key, value.detach(), layout, biases, backend="cpu")
    (grad,) = torch.autograd.grad(out.sum(), key)
    assert grad.shape == key.shape


def test_several_biases_of_one_kind_add_up() -> None:
    layout = layout_of([5, 30], "unsorted")
    qkv = random_inputs(layout, layout, 2, 8)
    kinds = ["pair", "pair", "uint8", "int32", "edge", "edge"]
    assert_is_the_reference(qkv, layout, layout, random_biases(kinds, layout, layout, 2))


def test_one_edge_set_with_two_biases() -> None:
    layout = layout_of([5, 30])
    edges = random_edges(layout, layout, repeats=True)
    values = [torch.randn(edges.size(1), 2, requires_grad=True) for _ in range(2)]
    biases = tuple(EdgeBias(edges, x) for x in values)
    assert_is_the_reference(random_inputs(layout, layout, 2, 8), layout, layout, biases)


@pytest.mark.parametrize("sizes", [[0], [0, 0], [1]])
def test_hardly_any_nodes(sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes)
    qkv = random_inputs(layout, layout, 2, 8)
    assert_is_the_reference(qkv, layout, layout)


def test_a_table_shared_by_many_graphs() -> None:
    """Its gradient is summed in parts."""
    layout = GraphLayout.from_sizes([7] * 40)
    qkv = random_inputs(layout, layout, 2, 8)
    assert_is_the_reference(qkv, layout, layout, random_biases(["uint8"], layout, layout, 2))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("numbers", [(200, 200), (5, -1), (2**62, -(2**62))])
@pytest.mark.parametrize("later", [False, True])
def test_an_index_edited_behind_torchs_back_is_an_error(
    dtype: str, numbers: tuple[int, int], later: bool
) -> None:
    """Whoever remembers what was checked: not one number is read from outside of the table."""
    info = torch.iinfo(getattr(torch, dtype))
    if not all(info.min <= x <= info.max for x in numbers):
        numbers = (info.max, info.max)
    layout = layout_of([5, 30])
    qkv = random_inputs(layout, layout, 2, 8)
    (bias,) = random_biases([dtype], layout, layout, 2)
    assert isinstance(bias, TableBias)
    out = attention(*qkv, layout, (bias,), backend="cpu")  # checked, and remembered
    bias.index.numpy()[::3] = numbers[0]
    bias.index.numpy()[1::3] = numbers[1]
    with pytest.raises(IndexError, match=r"index"):
        if later:
            out.sin().sum().backward()
        else:
            attention(*qkv, layout, (bias,), backend="cpu")
    with pytest.raises(IndexError, match=r"index"):
        attention(*qkv, layout, (bias,), backend="cpu")
    bias.index.numpy()[:] = 0
    assert attention(*qkv, layout, (bias,), backend="cpu").isfinite().all()


@pytest.mark.parametrize("name", ["ptr", "order", "batch", "sizes", "num_nodes", "num_graphs"])
def test_a_layout_that_contradicts_itself_reads_nothing_else(name: str) -> None:
    """The kernel goes by copies of its own, and compares them with the tensors it is given."""
    batch = torch.tensor([1, 0, 1, 2, 0, 1])
    right = GraphLayout.from_batch(batch)
    wrong: dict[str, object] = {
        "ptr": right.ptr * 1000, "order": right.order + 10**6, "batch": batch * 1000,
        "sizes": (10**6, 10**6, 10**6), "num_nodes": 10**6, "num_graphs": 10**6,
    }  # fmt: skip
    fields = {x: getattr(right, x) for x in (*wrong, "max_nodes")}
    qkv = random_inputs(right, right, 2, 8)
    (bias,) = random_biases(["edge"], right, right, 2)
    assert isinstance(bias, EdgeBias)
    values = bias.values.detach()
    edges = EdgeLayout.of(bias.edges, 6)
    try:
        layout = GraphLayout(**fields | {name: wrong[name]})  # type: ignore[arg-type]
        for biases in ((), (EdgeBias(edges, values),)):
            attention(*qkv, layout, biases, backend="cpu").sum().backward()
    except (ValueError, IndexError) as error:
        assert str(error)


def test_the_kernel_goes_by_copies_of_its_own() -> None:
    batch = torch.tensor([1, 0, 1, 2, 0, 1])
    layout = GraphLayout.from_batch(batch)
    qkv = random_inputs(layout, layout, 2, 8)
    (bias,) = random_biases(["edge"], layout, layout, 2)
    assert isinstance(bias, EdgeBias)
    edges = EdgeLayout.of(bias.edges, 6)
    biases = (EdgeBias(edges, bias.values.detach()),)
    want = attention(*qkv, layout, biases, backend="cpu")
    assert layout.order is not None
    for x in (layout.ptr, layout.order, *edges.by_target, edges.edge_index):
        x.numpy()[:] += 10**6
    out = attention(*qkv, layout, biases, backend="cpu")
    assert torch.equal(out, want)
    out.sum().backward()


def test_memory_does_not_grow_with_pairs() -> None:
    layout = GraphLayout.from_sizes([4000])
    qkv = random_inputs(layout, layout, 1, 8)
    # torch 2.11 warns that it forgets events between cycles, unless told to keep them
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profiler:
        attention(*qkv, layout, backend="cpu").sum().backward()
    most = max(e.nbytes() for e in profiler.profiler.kineto_results.events()
               if e.name() == "[memory]")  # fmt: skip
    assert most <= 4 * 4000 * 8 * 4


def test_the_self_test_finds_a_wrong_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cpu_full._self_test(_cpu_full.FULL.get()) is None
    monkeypatch.setattr(math, "exp", lambda x: 1.0)
    assert "expected" in str(_cpu_full._self_test(_cpu_full.FULL.get()))


MAIN = r"""
#include "full.cpp"
#include <cstdio>
#include <random>

template <class T>
static int run() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int64_t channels : {1, 3, 8, 9, 16, 20, 64})
        for (int trial = 0; trial < 8; trial++) {
            const int64_t heads = 1 + trial % 3, table_rows = 4;
            std::vector<int64_t> query_ptr{0}, key_ptr{0};
            int64_t pairs = 0;
            for (int i = 0; i < 4; i++) {
                const int64_t top = trial == 7 && i == 1 ? 600 : 40;
                const int64_t n = random() % top, m = random() % top;
                query_ptr.push_back(query_ptr.back() + n);
                key_ptr.push_back(key_ptr.back() + m);
                pairs += n * m;
            }
            const int64_t queries = query_ptr.back(), keys = key_ptr.back();
            const auto floats = [&](int64_t n) {
                std::vector<float> x(n);
                for (float& y : x) y = normal(random);
                return x;
            };
            const auto rows = [&](int64_t nodes) {
                std::vector<T> x(nodes * heads * channels);
                for (T& y : x) {
                    if constexpr (sizeof(T) == 2) y = to_bf16(normal(random));
                    else y = normal(random);
                }
                return x;
            };
            const auto q = rows(queries), k = rows(keys), v = rows(keys), g = rows(queries);
            const auto added = floats(pairs * heads), table = floats(table_rows * heads);
            std::vector<uint8_t> index(pairs);
            for (auto& x : index) x = random() % table_rows;
            std::vector<int64_t> order(queries), key_order(keys), position(keys);
            for (int64_t i = 0; i < queries; i++) order[i] = queries - 1 - i;
            for (int64_t i = 0; i < keys; i++) key_order[i] = keys - 1 - i;
            for (int b = 0; b < 4; b++)
                for (int64_t j = key_ptr[b]; j < key_ptr[b + 1]; j++)
                    position[key_order[j]] = j - key_ptr[b];
            std::vector<int64_t> edge_ptr{0}, source, number;
            std::vector<int64_t> graph(queries);
            for (int b = 0; b < 4; b++)
                for (int64_t i = query_ptr[b]; i < query_ptr[b + 1]; i++) graph[order[i]] = b;
            for (int64_t node = 0; node < queries; node++) {
                const int64_t b = graph[node], m = key_ptr[b + 1] - key_ptr[b];
                for (int e = 0; e < 3 && m > 0; e++) {
                    number.push_back((int64_t)source.size());
                    source.push_back(key_order[key_ptr[b] + random() % m]);
                }
                edge_ptr.push_back((int64_t)source.size());
            }
            const auto edge_values = floats((int64_t)source.size() * heads);
            std::vector<T> out(q.size()), dq(q.size()), dk(k.size()), dv(v.size());
            std::vector<float> stats(queries * heads * 2), dpairs(added.size());
            std::vector<float> dtable(table.size()), dedges(edge_values.size());
            const uint64_t seed = 5;
            const Strides strides{heads * channels, channels};
            Arguments a{};
            a.graphs = 4, a.queries = queries, a.keys = keys, a.pair_rows = pairs;
            a.half = sizeof(T) == 2, a.heads = heads, a.channels = channels;
            a.threads = 1 + trial % 2;
            a.scale = 0.3, a.dropout_factor = 2, a.dropout_threshold = int64_t(1) << 31;
            a.seed = trial % 2 ? &seed : nullptr;
            a.query_ptr = query_ptr.data(), a.key_ptr = key_ptr.data();
            a.query_order = order.data(), a.key_order = key_order.data();
            a.query = q.data(), a.key = k.data(), a.value = v.data();
            a.query_strides = a.key_strides = a.value_strides = a.grad_strides = strides;
            a.query_grad_strides = a.key_grad_strides = a.value_grad_strides = strides;
            a.out = out.data(), a.stats = stats.data(), a.pairs = added.data();
            a.index = index.data(), a.index_bytes = 1, a.table_rows = table_rows;
            a.table = table.data(), a.edge_ptr = edge_ptr.data(), a.edge_number = number.data();
            a.edge_source = source.data(), a.key_position = position.data();
            a.edge_values = edge_values.data(), a.grad = g.data();
            a.query_grad = dq.data(), a.key_grad = dk.data(), a.value_grad = dv.data();
            a.pairs_grad = dpairs.data(), a.table_grad = dtable.data();
            a.edge_values_grad = dedges.data();
            if (full_forward(&a) != 0 || full_backward(&a) != 0) return 1;
            for (const auto* x : {&out, &dq, &dk, &dv})
                for (T y : *x)
                    if (!(to_float(y) == to_float(y))) return 2;
            for (const auto* x : {&dpairs, &dtable, &dedges})
                for (float y : *x)
                    if (!(y == y)) return 2;
            if (pairs > 0) {
                index[pairs / 2] = 200;
                if (full_forward(&a) != NO_SUCH_ROW || full_backward(&a) != NO_SUCH_ROW) return 3;
            }
            for (int64_t* size : {&a.queries, &a.keys, &a.pair_rows, &key_ptr[0]}) {
                ++*size;
                if (full_forward(&a) != OTHER_SIZES || full_backward(&a) != OTHER_SIZES) return 4;
                --*size;
            }
            query_ptr[3] = query_ptr[2] - 1;
            if (full_forward(&a) != OTHER_SIZES || full_backward(&a) != OTHER_SIZES) return 4;
        }
    return 0;
}

int main() {
    if (int code = run<float>()) return code;
    if (int code = run<bf16>()) return code;
    std::puts("done");
}
"""


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """No address out of bounds, nothing undefined, for assorted sizes; every array of its own."""
    source = tmp_path / "main.cpp"
    source.write_text(MAIN)
    folder = Path(_cpu_full.__file__).parent / "csrc"
    flags = [x for x in FLAGS if x not in ("-shared", "-O3")]
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = tmp_path / "main"
    command = [*find_compiler(), *flags, *checks, "-fopenmp", "-I", str(folder)]
    done = subprocess.run(
        [*command, str(source), "-o", str(program)], capture_output=True, text=True
    )
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"this compiler comes without sanitizers: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    # a leak checker cannot run under a debugger or in some containers; the kernel keeps scratch
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([str(program)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-3000:]
