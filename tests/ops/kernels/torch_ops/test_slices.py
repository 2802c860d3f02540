"""Buckets and edges computed in slices, through the backends that call these kernels."""

import pytest
import torch

from pyg_gt import attention
from pyg_gt.ops._kernels.torch_ops import buckets as _buckets
from pyg_gt.ops._kernels.torch_ops import edges as _edge_slices
from pyg_gt.testing import assert_same_attention

from ...cases import BIASES, Case, layout_of, make_case


def assert_same(case: Case, backend: str) -> None:
    assert_same_attention(
        backend, case.query, case.key, case.value, case.layout, case.biases,
        query_layout=case.query_layout, captured=case.captured,
    )  # fmt: skip


@pytest.mark.parametrize("most", [1, 20, 150, 1000])
@pytest.mark.parametrize("bias", ["none", "pair", "additive-mask-values"])
def test_a_bucket_done_in_slices_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, bias: str, most: int
) -> None:
    monkeypatch.setattr(_buckets, "_MAX_SCORES", dict.fromkeys(_buckets._MAX_SCORES, most))
    counts = []
    tiles = _buckets.tiles

    def counting(bucket: _buckets.Bucket, heads: int) -> list[_buckets.Tile]:
        found = list(tiles(bucket, heads))
        counts.append(len(found))
        return found

    monkeypatch.setattr("pyg_gt.ops._kernels.torch_ops.full.tiles", counting)
    layout = layout_of([1, 5, 3, 0, 7, 20, 19, 24, 33], "unsorted")
    case = Case(layout, layout)
    BIASES[bias](case)
    assert_same(case, "sdpa")
    assert sum(counts) > len(counts)


@pytest.mark.parametrize("most", [1, 3, 10])
@pytest.mark.parametrize(
    "bias",
    ["mask-values-features-repeats", "mask-values-inf", "mask-no-edges", "edge-on-mask"],
)
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_edges_done_in_slices_give_the_same(
    monkeypatch: pytest.MonkeyPatch, kind: str, bias: str, most: int
) -> None:
    monkeypatch.setattr(_edge_slices, "_MAX_EDGES", dict.fromkeys(_edge_slices._MAX_EDGES, most))
    counts = []
    bounds = _edge_slices._bounds

    def counting(ptr: list[int], most: int) -> list[tuple[int, int, int, int]]:
        found = bounds(ptr, most)
        edges = [edge for _, _, start, stop in found for edge in range(start, stop)]
        assert edges == list(range(ptr[-1]))
        for first, last, start, stop in found:
            assert (ptr[first], ptr[last]) == (start, stop)
            assert stop - start <= most or last - first == 1 or ptr[last - 1] == start
        counts.append(len(found))
        return found

    monkeypatch.setattr(_edge_slices, "_bounds", counting)
    case = make_case(bias, "unsorted", kind)
    assert_same(case, "sparse")
    assert counts and (max(counts) > 1) == (bias != "mask-no-edges")


@pytest.mark.parametrize("bias", ["mask-values", "mask-values-features-repeats"])
def test_slices_drop_the_same_edges(monkeypatch: pytest.MonkeyPatch, bias: str) -> None:
    monkeypatch.setattr(_edge_slices, "_MAX_EDGES", dict.fromkeys(_edge_slices._MAX_EDGES, 4))
    case = make_case(bias, "unsorted", "self")
    results = []
    for backend in ("reference", "sparse"):
        torch.manual_seed(7)
        out = attention(
            case.query, case.key, case.value, case.layout, case.biases, dropout_p=0.4,
            backend=backend,
        )  # fmt: skip
        results.append([out, *torch.autograd.grad(out.sin().sum(), list(case.leaves.values()))])
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
