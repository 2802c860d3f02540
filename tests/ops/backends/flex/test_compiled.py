"""How FlexAttention is compiled: how often, with which options, and for which tiles."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import sympy
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.kernel.flex import flex_attention as lowering
from torch._inductor.template_heuristics.triton import CUDAConfigHeuristic
from torch.nn.attention.flex_attention import FlexKernelOptions

from pyg_gt import EdgeMask, ScoreMod, TableBias
from pyg_gt.ops._backends.flex import compiled as _flex_compiled
from pyg_gt.ops._backends.flex.kernel_options import kernel_options, known_options
from pyg_gt.ops._backends.flex.placement import BLOCK
from pyg_gt.testing import assert_same_attention

from ...cases import Case, layout_of, make_case
from .captured import handed_over

ROOT = Path(__file__).resolve().parents[4]
WIDTHS = [16, 24, 32, 64, 76, 128, 192, 256]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _no_compiled_code_of_other_tests() -> None:
    torch._dynamo.reset()


def compilations() -> int:
    return int(counters["stats"]["unique_graphs"])


def sloped(slope: Tensor, of_graph: Tensor) -> Callable[..., Tensor]:
    """A new function for each batch, of the same code."""
    return lambda score, graph, head, q, k: score * slope[head] + (q - k) * of_graph[graph]


def batch(seed: int, biases: str) -> Case:
    """At least two nodes, graphs, pairs and edges; some batches fit into one block."""
    torch.manual_seed(seed)
    graphs = int(torch.randint(2, 9, ()))
    most = 70 if seed % 3 else 12
    layout = layout_of(torch.randint(2, most, (graphs,)).tolist(), "unsorted")
    query_layout = layout
    if "cross" in biases:
        query_layout = layout_of(torch.randint(2, most, (graphs,)).tolist(), "unsorted")
    case = Case(query_layout, layout, torch.float32, grad=False)
    if "table" in biases:
        index = torch.randint(4, (case.pairs(),), dtype=torch.uint8)
        case.biases += (TableBias(case.leaf(4, 2), index),)
    if "mod" in biases:
        case.biases += (ScoreMod(sloped(case.leaf(2), case.leaf(graphs))),)
    if "mask" in biases:
        target = torch.randint(query_layout.num_nodes, (int(torch.randint(20, 90, ())),))
        graph = query_layout.batch[target]
        order = torch.arange(layout.num_nodes) if layout.order is None else layout.order
        source = order[layout.ptr[graph] + target % layout.ptr.diff()[graph]]
        edges = torch.stack([source, target]).unique(dim=1)
        edges = torch.cat([edges, edges], 1) if "repeats" in biases else edges
        values = case.leaf(edges.size(1), 2) if "values" in biases else None
        case.biases += (EdgeMask(edges, values),)
    return case


@pytest.mark.parametrize(
    "biases",
    [
        "none",
        "none cross",
        "table",
        "mod",
        "mask",
        pytest.param("mask repeats", marks=pytest.mark.slow),
        pytest.param("table mod mask values cross", marks=pytest.mark.slow),
    ],
)
def test_one_compilation_for_a_hundred_batches(biases: str) -> None:
    before = compilations()
    for seed in range(100):
        case = batch(seed, biases)
        if seed % 10 == 0:
            assert_same_attention(
                "flex", case.query, case.key, case.value, case.layout, case.biases,
                query_layout=case.query_layout,
            )  # fmt: skip
        else:
            case.attention("flex")
    assert compilations() - before == 1


def test_each_kind_of_call_has_a_limit_of_its_own() -> None:
    before = compilations()
    with torch._dynamo.config.patch(recompile_limit=1):
        for biases in ("none", "table", "mod", "mask", "mask repeats", "table mod"):
            for seed in range(3):
                batch(seed, biases).attention("flex")
    assert compilations() - before == 6


def test_past_the_limit_there_is_an_error_not_a_slow_call() -> None:
    """Torch alone would go on without its kernel, and fill all scores of the batch."""

    def scaled(factor: str) -> Callable[..., Tensor]:
        return lambda score, graph, head, q, k: score * len(factor)

    case = batch(1, "none")
    with torch._dynamo.config.patch(recompile_limit=2):
        for length in (1, 2):
            case.biases = (ScoreMod(scaled("x" * length)),)
            case.attention("flex")
        case.biases = (ScoreMod(scaled("xxx")),)
        with pytest.raises(RuntimeError, match="compiled 2 times for calls of one kind.*tensor"):
            case.attention("flex")


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", WIDTHS)
def test_options_are_known_to_the_torch_that_is_installed(
    channels: int, dtype: torch.dtype, reads: bool
) -> None:
    options = kernel_options(dtype, channels, reads)
    known = FlexKernelOptions.__annotations__
    for name in options.keys() - {"IS_DIVISIBLE", "BACKEND"}:
        assert name[:4] in ("fwd_", "bwd_") and name[4:] in known
    assert options["BACKEND"] in typing.get_args(lowering._Backend)
    tiles = {name: size for name, size in options.items() if "BLOCK" in name}
    assert all(16 < size <= BLOCK and BLOCK % size == 0 for size in tiles.values())
    assert ("fwd_BLOCK_M" in tiles) == reads
    if dtype == torch.float32 and channels <= 128:
        assert "bwd_BLOCK_M1" in tiles  # not torch's 16
    if "bwd_BLOCK_M1" in tiles:  # what the template of the backward asserts
        assert tiles["bwd_BLOCK_N1"] % tiles["bwd_BLOCK_M1"] == 0
        assert tiles["bwd_BLOCK_M2"] % tiles["bwd_BLOCK_N2"] == 0


def test_options_that_torch_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost speed, and never a result."""
    uncached = known_options.__wrapped__
    args = torch.float32, 64, True
    every = kernel_options(*args)
    assert uncached(*args) == every
    monkeypatch.delitem(FlexKernelOptions.__annotations__, "num_stages")
    left = uncached(*args)
    assert every.keys() - left.keys() == {"fwd_num_stages", "bwd_num_stages"}
    assert left.items() <= every.items()
    monkeypatch.delattr(torch.nn.attention.flex_attention, "FlexKernelOptions")
    assert uncached(*args) == {}


@pytest.mark.parametrize("other", [False, True])
def test_tiles_that_do_not_compile_are_not_asked_for_again(
    other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's own are; what does not compile with them either is an error as it was."""
    asked = []
    failure = torch._dynamo.exc.BackendCompilerFailed(lambda: None, ValueError("tiles"), None)

    def compiled(backend: str, kind: object) -> Callable[..., Tensor]:
        def kernel(*args: object) -> Tensor:
            asked.append(args[-1])
            if args[-1] is not None or other:
                raise failure
            return torch.zeros(3)

        return kernel

    class OnGpu:
        device, dtype = torch.device("cuda"), torch.float32

        def size(self, dim: int) -> int:
            return 64

    monkeypatch.setattr(_flex_compiled, "_compiled", compiled)
    monkeypatch.setattr(_flex_compiled, "_WITHOUT_OPTIONS", set())
    args = (OnGpu(), None, None, None, None, 0.5, "a kind")
    if other:
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
            _flex_compiled.run(*args, reads=True)  # type: ignore[arg-type]
        return
    said = "(?s)cannot compile FlexAttention with the tiles.*ValueError: tiles"
    with pytest.warns(UserWarning, match=said):
        assert not _flex_compiled.run(*args, reads=True).any()  # type: ignore[arg-type]
    _flex_compiled.run(*args, reads=True)  # type: ignore[arg-type]
    assert [options is None for options in asked] == [False, True, True]


def test_missing_settings_of_torch_cost_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.fx.experimental import _config as shapes

    case = batch(1, "table")
    want = case.attention("flex")
    without = SimpleNamespace(**{k: v for k, v in vars(shapes).items() if k == "__name__"})
    monkeypatch.setattr(torch.fx.experimental, "_config", without)
    monkeypatch.setattr(_flex_compiled, "_PastTheLimit", ())
    assert isinstance(_flex_compiled._no_duck_shapes(), nullcontext)
    torch.testing.assert_close(case.attention("flex"), want)


def test_how_torch_reads_the_options() -> None:
    """Names that are not documented, but where a caller's value goes before torch's own."""
    source = inspect.getsource(lowering)
    assert source.count('kernel_options.setdefault("IS_DIVISIBLE", True)') == 2
    assert source.count('if k.startswith("bwd_")') == 2
    assert source.count('if k.startswith("fwd_")') == 2
    for name in ("BLOCK_M", "BLOCK_N", "BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2"):
        assert source.count(f'cur_kernel_options.setdefault("{name}", ') == 1
        assert f'cur_kernel_options["{name}"] = ' not in source
    for name in ("num_warps", "num_stages"):
        assert source.count(f'cur_kernel_options.setdefault("{name}", conf.{name})') == 2


@pytest.mark.parametrize("bias", ["none", "mask", "table-uint8", "mod"])
def test_what_reads_at_each_pair(bias: str) -> None:
    case = make_case(bias, dtype=torch.float32, grad=False)
    assert handed_over(case)["reads"] == (bias != "none")


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", WIDTHS)
def test_torch_has_tiles_that_divide_the_block(
    channels: int, dtype: torch.dtype, capability: tuple[int, int]
) -> None:
    """It drops a candidate for the backward by its own tiles, before it reads the options."""
    with patch("torch.cuda.get_device_capability", lambda *device: capability):
        heuristic = CUDAConfigHeuristic()
        backward = heuristic.get_flex_attn_bwd_configs(channels, dtype)
        # since torch 2.14 they depend on the number of queries too
        asks = inspect.signature(heuristic.get_flex_attn_fwd_configs).parameters
        lengths: list[tuple[sympy.Expr, ...]] = [()]
        if "seq_len" in asks:
            lengths = [(sympy.Integer(2 * BLOCK),), (sympy.Symbol("s0", positive=True),)]
        forward = [
            config
            for length in lengths
            for config in heuristic.get_flex_attn_fwd_configs(channels, *length, dtype)
        ]
    for config in backward:
        sizes = config.block_m1, config.block_n1, config.block_m2, config.block_n2
        assert all(BLOCK % size == 0 for size in sizes)
    assert all(BLOCK % c.block_m == BLOCK % c.block_n == 0 for c in forward)
    if capability == (9, 0) and dtype != torch.float32 and 64 <= channels <= 128:
        # why the block is not smaller, also where graphs are
        assert any(64 % c.block_n1 for c in backward)


@pytest.mark.parametrize("sizes", [[2], [1, 1], [100, 3], [128, 128], [129], [500, 7]])
def test_lengths_are_multiples_of_the_block_and_never_short(sizes: list[int]) -> None:
    """Fewer than 128 queries go to another kernel, and other lengths to slower code."""
    layout = layout_of(sizes)
    call = handed_over(Case(layout, layout, torch.float32, grad=False))
    for name in ("query", "key", "value"):
        length = call[name].size(2)
        assert length % BLOCK == 0 and length >= 2 * BLOCK
        assert call[name].size(3) == 16
    assert call["mask"].seq_lengths == (call["query"].size(2), call["key"].size(2))


@pytest.mark.slow
@pytest.mark.skipif(
    torch.version.cuda is None or find_spec("triton") is None,
    reason="a torch without CUDA cannot lower for it",
)
def test_it_lowers_for_a_gpu_that_is_not_there() -> None:
    """Both directions, with the options above: there is a candidate, and it fits."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.backends.flex.lowers"], cwd=ROOT, env=env,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
