"""The choice of a backend: explained, never random, and a named one never falls back."""

import re

import pytest
import torch

from pyg_gt import (
    EdgeBias,
    EdgeMask,
    GraphLayout,
    PairBias,
    TableBias,
    attention,
    explain_choice,
)
from pyg_gt.ops import dispatch as _dispatch
from pyg_gt.ops.dispatch import BACKENDS

from .cases import BIASES, Case, layout_of, make_case, unsupported


def explained(case: Case, **kwargs: object) -> dict[str, str]:
    return explain_choice(
        case.query, case.key, case.value, case.layout, case.biases,
        query_layout=case.query_layout, **kwargs,
    )  # fmt: skip


def ran(monkeypatch: pytest.MonkeyPatch, case: Case, **kwargs: float) -> list[str]:
    """The backends whose ``forward`` is called."""
    called = []
    for name, backend in BACKENDS.items():
        forward = backend.forward

        def counting(inputs: object, name: str = name, forward: object = forward) -> object:
            called.append(name)
            return forward(inputs)  # type: ignore[operator]

        monkeypatch.setattr(backend, "forward", counting)
    case.attention("auto", **kwargs)
    return called


def test_the_names_of_the_backends_in_the_order_in_which_they_are_asked() -> None:
    assert list(BACKENDS) == ["cpu", "triton", "sparse", "sdpa", "flex", "reference"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("bias", BIASES)
def test_one_line_per_backend_and_the_first_that_can_is_taken(
    monkeypatch: pytest.MonkeyPatch, bias: str, p: float, dtype: torch.dtype
) -> None:
    case = make_case(bias, dtype=dtype)
    lines = explained(case, dropout_p=p)
    assert list(lines) == list(BACKENDS)
    can = [name for name in BACKENDS if unsupported(case, name, p) is None]
    assert lines[can[0]] == "chosen"
    for place, name in enumerate(can[1:], 2):
        assert lines[name] == f"could run, choice {place}"
    for name in set(BACKENDS) - set(can):
        assert lines[name] == unsupported(case, name, p)
        assert "\n" not in lines[name] and len(lines[name]) > 10
    assert ran(monkeypatch, case, dropout_p=p) == [can[0]]


@pytest.mark.parametrize(
    ("bias", "chosen"),
    [
        ("none", "sdpa"),
        ("pair", "sdpa"),
        ("mods", "sdpa"),
        ("mask-values-repeats", "sparse"),
        ("mask-features", "sparse"),
        ("edge-on-mask", "sparse"),
        ("edge-on-mask-repeats", "sdpa"),
        ("additive-mask", "sdpa"),
        ("mods-features", "reference"),
    ],
)
def test_what_a_cpu_runs_in_float64(bias: str, chosen: str) -> None:
    assert [n for n, line in explained(make_case(bias)).items() if line == "chosen"] == [chosen]


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("bias", "chosen"),
    [
        *((bias, "cpu") for bias in ("none", "pair", "additive", "mask-values-repeats")),
        *((bias, "cpu") for bias in ("mask-features", "edge-on-mask")),
        ("mods", "sdpa"),
        ("edge-on-mask-repeats", "sdpa"),
        ("additive-mask", "sdpa"),
        ("mods-features", "reference"),
    ],
)
def test_what_a_cpu_runs(bias: str, chosen: str, dtype: torch.dtype) -> None:
    lines = explained(make_case(bias, dtype=dtype))
    assert [name for name, line in lines.items() if line == "chosen"] == [chosen]


@pytest.mark.parametrize(("bias", "chosen"), [("none", "sdpa"), ("mask-features", "sparse")])
def test_what_a_cpu_runs_without_compiled_code(
    monkeypatch: pytest.MonkeyPatch, bias: str, chosen: str
) -> None:
    monkeypatch.setenv("PYG_GT_NATIVE", "0")
    case = make_case(bias, dtype=torch.float32)
    lines = explained(case)
    assert lines["cpu"] == "compiled code is switched off by PYG_GT_NATIVE=0"
    assert lines[chosen] == "chosen"
    assert case.attention("auto").shape == case.query.shape
    with pytest.raises(NotImplementedError, match="'cpu' cannot run.*switched off"):
        case.attention("cpu")


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("dtype", "bias", "chosen"),
    [
        (torch.bfloat16, "none", "triton"), (torch.float32, "additive", "triton"),
        (torch.float32, "mask-values-features-repeats", "triton"),
        (torch.float64, "none", "sdpa"), (torch.float32, "mod", "sdpa"),
        (torch.float64, "mask", "sparse"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_what_a_gpu_runs(dtype: torch.dtype, bias: str, chosen: str, p: float) -> None:
    case = make_case(bias, dtype=dtype, device="cuda")
    lines = explained(case, dropout_p=p)
    assert [name for name, line in lines.items() if line == "chosen"] == [chosen]


def test_explaining_draws_nothing_and_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in BACKENDS.values():
        monkeypatch.setattr(backend, "forward", None)
    before = torch.get_rng_state()
    for bias in BIASES:
        explained(make_case_without_drawing(bias), dropout_p=0.5, scale=2.0)
    assert torch.equal(torch.get_rng_state(), before)


def make_case_without_drawing(bias: str) -> Case:
    with torch.random.fork_rng():
        return make_case(bias)


def test_explaining_checks_its_arguments() -> None:
    case = make_case("none")
    case.query = case.query[:3]
    with pytest.raises(ValueError, match="'query' has 3 nodes"):
        explained(case)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_named_backend_never_falls_back(
    monkeypatch: pytest.MonkeyPatch, backend: str, bias: str
) -> None:
    case = make_case(bias)
    called = []
    for name, other in BACKENDS.items():
        monkeypatch.setattr(
            other, "forward", lambda inputs, name=name: called.append(name) or inputs.query
        )
    reason = unsupported(case, backend)
    if reason is None:
        case.attention(backend)
        assert called == [backend]
    else:
        cure = "Pass backend='auto', or ask 'pyg_gt.explain_choice'"
        message = f"Backend '{backend}' cannot run this attention: {reason}. {cure}"
        with pytest.raises(NotImplementedError, match=re.escape(message)):
            case.attention(backend)
        assert called == []


@pytest.mark.parametrize(
    ("backend", "bias", "reason"),
    [
        ("sdpa", "mask-features", "'features' changes keys and values per edge"),
        ("sparse", "none", "needs an 'EdgeMask'"),
        ("sparse", "pair", "needs an 'EdgeMask'"),
        ("sparse", "additive-mask", "cannot read a 'PairBias'"),
        ("sparse", "everything", "cannot read a '(PairBias|ScoreMod)'"),
        ("sparse", "edge-on-mask-repeats", "adds up over repeated edges"),
        ("flex", "none", "no backward on the CPU"),
        ("cpu", "none", "float32 or bfloat16 .got torch.float64"),
    ],
)
def test_reasons(backend: str, bias: str, reason: str) -> None:
    with pytest.raises(NotImplementedError, match=f"'{backend}' cannot run.*{reason}"):
        make_case(bias).attention(backend)


@pytest.mark.parametrize(
    ("dtype", "bias", "reason"),
    [
        (torch.float16, "none", "float32 or bfloat16 .got torch.float16"),
        (torch.float32, "mod", "cannot call a 'ScoreMod'"),
        (torch.float32, "edge-on-mask-repeats", "adds up over repeated edges"),
        (torch.float32, "additive-mask", "very edges of the 'EdgeMask'"),
    ],
)
def test_what_the_compiled_kernel_refuses(dtype: torch.dtype, bias: str, reason: str) -> None:
    with pytest.raises(NotImplementedError, match=f"'cpu' cannot run.*{reason}"):
        make_case(bias, dtype=dtype).attention("cpu")


def test_the_compiled_kernel_runs_on_cpu_tensors() -> None:
    x = torch.randn(3, 1, 2, device="meta")
    with pytest.raises(NotImplementedError, match="'cpu' cannot run.*CPU tensors .got 'meta'"):
        attention(x, x, x, GraphLayout.of(None, 3, device="meta"), backend="cpu")


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["values", "features", "pairs", "table"])
def test_a_bias_may_be_of_another_type_than_the_query(name: str, dtype: torch.dtype) -> None:
    layout = layout_of([4])
    case = Case(layout, layout, torch.float32)
    edges = torch.tensor([[0, 1, 3], [1, 2, 2]])
    bias = {
        "values": lambda: EdgeMask(edges, case.leaf(3, 2)),
        "features": lambda: EdgeMask(edges, None, case.leaf(3, 2, 3)),
        "pairs": lambda: PairBias(case.leaf(16, 2)),
        "table": lambda: TableBias(case.leaf(5, 2), torch.arange(16) % 5),
    }
    case.dtype = dtype
    case.biases = (bias[name](),)
    results = []
    for backend in ("auto", "reference"):
        out = case.attention(backend)
        results.append([out, *torch.autograd.grad(out.sin().sum(), list(case.leaves.values()))])
    assert results[0][0].dtype == torch.float32 and results[0][-1].dtype == dtype
    # 'sparse' rounds a key plus its feature to the type that both have in common
    torch.testing.assert_close(*results, rtol=2e-2, atol=1e-5)
    if name == "features" and dtype != torch.float32:
        with pytest.raises(NotImplementedError, match="of the type of 'query' .got torch"):
            case.attention("cpu")
    else:
        assert torch.equal(case.attention("cpu"), results[0][0])


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("sparse", torch.float64),
        pytest.param("cpu", torch.float32, marks=pytest.mark.compiled),
    ],
)
def test_the_biases_edges_are_to_be_those_of_the_mask(backend: str, dtype: torch.dtype) -> None:
    layout = layout_of([4])
    case = Case(layout, layout, dtype)
    edges = torch.tensor([[0, 1], [1, 2]])
    values = case.leaf(2, 2)
    case.biases = (EdgeBias(edges.clone(), values), EdgeMask(edges))
    with pytest.raises(NotImplementedError, match="very edges of the 'EdgeMask'"):
        case.attention(backend)
    want = case.attention("sdpa")
    case.biases = (EdgeBias(edges, values), EdgeMask(edges))
    torch.testing.assert_close(case.attention(backend), want)


def test_where_no_backend_can_the_error_lists_every_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, backend in BACKENDS.items():
        monkeypatch.setattr(backend, "unsupported", lambda inputs, name=name: f"{name} is tired")
    x = torch.randn(3, 1, 2)
    reasons = "; ".join(f"{name}: {name} is tired" for name in BACKENDS)
    with pytest.raises(NotImplementedError, match=f"No backend can .*{reasons}"):
        attention(x, x, x, GraphLayout.of(None, 3))


def test_every_backend_has_the_three_names_of_the_protocol() -> None:
    for name, backend in BACKENDS.items():
        assert backend.NAME == name
        assert callable(backend.unsupported) and callable(backend.forward)
    assert tuple(BACKENDS.values()) == _dispatch._ORDER
