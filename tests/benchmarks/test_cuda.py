"""The benchmark for GPUs, tried on a CPU: what it writes, what it catches, what it leaves out."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_gt import GraphLayout, PairBias, TableBias

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "benchmarks" / "cuda_run.py")
PARTS = ["ceilings", "operators", "edges", "layers", "memory", "recompiles"]
PEERS = {"pyg padded", "sdpa dense mask", "efficient ragged", "pyg core"}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the benchmarks; they find each other as scripts do."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    for name in [n for n in sys.modules if n.startswith("cuda_") or n in ("timing", "layer")]:
        del sys.modules[name]


def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, cwd=ROOT, **kwargs
    )  # fmt: skip


@pytest.mark.slow
def test_all_parts_on_a_cpu(tmp_path: Path) -> None:
    start = time.monotonic()
    command = [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--seconds", "100"]
    done = run([*command, "--out", str(tmp_path), "--parts", *PARTS])
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 120
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert list(result["parts"]) == PARTS
    for name, part in result["parts"].items():
        assert part["rows"] and part["errors"] == [] and part["left_out"] == [], name
        assert part["seconds"] < part["budget_seconds"] + 20
    check_rows(result["parts"])
    check_summary(result["summary"])
    pictures = {p.name for p in tmp_path.glob("*.png")}
    assert pictures == {
        f"cuda_no_gpu_{name}.png" for name in ("operators", "edges", "memory", "shares")
    }
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.glob("*.png"))
    table = done.stdout.split("\n\n")[-1]
    assert "measured" in table and "no GPU" in table and "yes" not in table


def check_rows(parts: dict[str, Any]) -> None:
    assert {r["ceiling"] for r in parts["ceilings"]["rows"]} == {
        "copy", "matmul bfloat16", "matmul float32", "exp", "empty launch",
    }  # fmt: skip
    assert all(r["value"] > 0 for r in parts["ceilings"]["rows"])
    for part, modes in (("operators", ["forward", "train"]), ("edges", ["forward"])):
        for row in parts[part]["rows"]:
            kinds = row["candidates"]
            assert set(kinds) >= {"sdpa", "sparse", "cpu", "triton", "varlen", "flex"}
            timed = {n: c for n, c in kinds.items() if "difference" in c}
            assert set(kinds) == set(timed) | {n for n, c in kinds.items() if "objection" in c}
            assert len(timed) >= 2 and row["peer"] in timed
            for candidate in timed.values():
                assert 0 <= candidate["difference"] < 0.05
                assert all(candidate[f"{mode}_ms"] > 0 for mode in modes)
    operators = parts["operators"]["rows"]
    assert {(r["dropout"], r["bias"]) for r in operators} == {
        (0.0, None), (0.5, None), (0.0, "TableBias"), (0.0, "PairBias"),
    }  # fmt: skip
    assert {r["dtype"] for r in operators} == {"bfloat16", "float32"}
    assert {r["shape"] for r in parts["edges"]["rows"]} == {"molecules", "E=400", "products"}
    layers = {(r["layer"], r["mode"]) for r in parts["layers"]["rows"]}
    assert ("GPSConv", "train, attention dropout 0.5") in layers
    assert ("TransformerConv", "train") in layers
    assert {r["nodes"] for r in parts["memory"]["rows"] if "peak_mib" in r} == {40, 80}
    compiled = {r["compiled"]: (r["batches"], r["graphs"]) for r in parts["recompiles"]["rows"]}
    assert set(compiled) == {"flex", "GPSConv"}
    assert all(batches == 4 and graphs in (1, 2) for batches, graphs in compiled.values())


def check_summary(summary: dict[str, Any]) -> None:
    assert summary["wrong"] == [] and summary["errors"] == []
    assert {g["met"] for g in summary["goals"]} == {"no GPU", "not measured"}
    assert len(summary["goals"]) > 8
    for row in summary["fastest"]:
        ours = {n: t for n, t in row["ms"].items() if n not in PEERS}
        assert ours[row["fastest"]] == min(ours.values())
    assert summary["exp_shares"] and summary["copy_shares"]


def section(load: Any, seconds: float = 100.0, path: Path | None = None) -> Any:
    return load("cuda_section").Section("operators", seconds, "cpu", True, path)


def case(load: Any, variant: str = "plain", dtype: torch.dtype = torch.float32) -> Any:
    operators = load("cuda_operators")
    return operators.Case(operators.Config("voc", 64, dtype, variant), "cpu", True)


def wrong_output(right: Any, p: float) -> Tensor:
    return right(p) * 1.01


def wrong_gradient(right: Any, p: float) -> Tensor:
    out = right(p)
    return out + (out - out.detach()) * 0.01


def wrong_row(right: Any, p: float) -> Tensor:
    out = right(p)
    keep = torch.ones(out.size(0), 1, 1)
    keep[-1] = 0
    return out * keep


def infinite(right: Any, p: float) -> Tensor:
    return right(p) * float("nan")


def too_short(right: Any, p: float) -> Tensor:
    return right(p)[1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_output, "the output differs from the reference by 0.01"),
        (wrong_gradient, "the gradient of joined differs from the reference by 0.01"),
        (wrong_row, "the output differs"),
        (infinite, "the output differs from the reference by nan"),
        (too_short, "the output is .33, 4, 64., expected .34, 4, 64."),
    ],
)
def test_a_wrong_candidate_is_caught_and_not_timed(load: Any, change: Any, words: str) -> None:
    one, part = case(load), section(load)
    right = partial(one.ours, "sdpa")
    candidates = {"sdpa": right, "triton": partial(change, right)}
    load("cuda_compare").compared(
        part, one.row(), one.problem(), candidates, {}, "sdpa", seconds=0.01, peak=False
    )
    found = part.rows[0]["candidates"]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found["triton"].pop("wrong"))
    assert found["triton"] == {} and {"forward_ms", "train_ms"} <= set(found["sdpa"])
    assert part.rows[0]["peer_over"] == {"forward": {}, "train": {}}


def test_a_wrong_backend_shows_in_the_end_and_in_the_exit_status(load: Any) -> None:
    one, part = case(load), section(load)
    right = partial(one.ours, "sdpa")
    for name in ("triton", "pyg padded"):
        load("cuda_compare").compared(
            part, one.row(), one.problem(), {name: partial(wrong_output, right)}, {}, "sdpa",
            seconds=0.01, peak=False,
        )  # fmt: skip
    parts = {"operators": part.result()}
    made = load("cuda_report").summary({"parts": parts, "device": "cuda"})
    assert len(made["wrong"]) == 1 and "triton: AssertionError" in made["wrong"][0]
    assert len(made["errors"]) == 2  # the peer's too
    assert "wrong: 1" in load("cuda_report").text(made)


def test_dropout_is_compared_weight_by_weight_where_it_is_one_mask(load: Any) -> None:
    one = case(load, "dropout 0.5")
    problem = one.problem()

    def other_weights(p: float) -> Tensor:
        torch.manual_seed(12)
        return one.reference(p)

    assert problem.difference("triton", one.reference) == 0.0
    with pytest.raises(AssertionError, match="with dropout 0.5"):
        problem.difference("triton", other_weights)
    assert problem.difference("sdpa", other_weights) == 0.0  # whose masks are its own


def test_an_error_of_a_candidate_is_said_and_the_others_go_on(load: Any) -> None:
    one, part = case(load), section(load)

    def fails(p: float) -> Tensor:
        raise RuntimeError("no\nsuch kernel")

    calls: list[float] = []

    def fails_in_training(p: float) -> Tensor:
        if torch.is_grad_enabled():
            calls.append(p)
            if len(calls) == 2:  # the first one is the comparison
                raise torch.OutOfMemoryError("too much")
        return one.ours("sdpa", p)

    candidates = {"cpu": fails, "sparse": fails_in_training, "sdpa": partial(one.ours, "sdpa")}
    load("cuda_compare").compared(
        part, one.row(), one.problem(), candidates, {"flex": "it cannot"}, "sdpa", seconds=0.01,
        peak=False,
    )  # fmt: skip
    found = part.rows[0]["candidates"]
    assert found["cpu"] == {"error": "RuntimeError: no such kernel"}
    assert found["flex"] == {"objection": "it cannot"}
    assert found["sparse"]["train_error"] == "OutOfMemoryError: too much"
    assert found["sparse"]["forward_ms"] > 0 and found["sdpa"]["train_ms"] > 0
    made = load("cuda_report").summary({"parts": {"operators": part.result()}, "device": "cuda"})
    assert len(made["wrong"]) == 1  # too little memory is no wrong result
    assert len(made["errors"]) == 2


def test_what_there_is_no_time_for_is_named(load: Any, tmp_path: Path) -> None:
    part = section(load, 0.0, tmp_path / "part.json")
    load("cuda_operators").run(part)
    assert part.rows == [] and len(part.left_out) == 16
    assert "voc, C=64, float32, pair" in part.left_out
    assert json.loads((tmp_path / "part.json").read_text())["left_out"] == part.left_out
    for name in ("cuda_edges", "cuda_layers", "cuda_memory", "cuda_ceilings"):
        part = section(load, 0.0)
        load(name).run(part)
        assert part.rows == [] and len(part.left_out) >= 2, name


def test_a_part_that_hangs_is_ended_and_said(load: Any, tmp_path: Path) -> None:
    part = load("cuda_section").Section("operators", 300.0, "cpu", False, tmp_path / "part.json")
    start = time.monotonic()
    found = load("cuda_run").apart(part, 5.0)
    assert time.monotonic() - start < 15
    assert found["errors"] == ["the part was killed after 5 s"] and len(found["left_out"]) == 1
    assert load("cuda_run").apart(part, 1.0)["left_out"] == ["all of it"]


@pytest.mark.slow
def test_a_part_in_a_process_of_its_own(load: Any, tmp_path: Path) -> None:
    Section, apart = load("cuda_section").Section, load("cuda_run").apart
    found = apart(Section("ceilings", 60.0, "cpu", True, tmp_path / "part.json"), 100.0)
    assert len(found["rows"]) == 5 and found["errors"] == []
    found = apart(Section("nothing", 60.0, "cpu", True, tmp_path / "other.json"), 100.0)
    assert found["errors"] == ["KeyError: 'nothing'"]


def test_a_part_that_fails_stops_no_other(load: Any, tmp_path: Path, monkeypatch: Any) -> None:
    module = load("cuda_run")

    def fails(part: Any) -> None:
        part.add({"ceiling": "copy", "value": 1.0, "unit": "GB/s", "how": ""})
        raise RuntimeError("lost")

    monkeypatch.setitem(module.PARTS, "ceilings", (fails, 1))
    monkeypatch.setattr(sys, "argv", [
        "cuda_run.py", "--device", "cpu", "--tiny", "--out", str(tmp_path), "--parts", "ceilings",
        "memory", "--seconds", "30",
    ])  # fmt: skip
    assert module.main() == 1
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert result["parts"]["ceilings"]["errors"] == ["RuntimeError: lost"]
    assert len(result["parts"]["ceilings"]["rows"]) == 1 and result["parts"]["memory"]["rows"]
    assert result["summary"]["wrong"] == ["ceilings: RuntimeError: lost"]


@pytest.mark.slow
def test_the_tests_are_counted_and_what_fails_is_said(load: Any, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    head = "import pytest, time\npytestmark = pytest.mark." + "cuda\n"
    for name, body in {
        "good": "def test_a(): pass\ndef test_b(): pytest.skip('no')",
        "bad": "def test_a(): assert 1 == 2\ndef test_b(): pass",
        "broken": "import nowhere_at_all",
        "slow": "def test_a(): time.sleep(60)",
    }.items():
        (tmp_path / "tests" / f"test_{name}.py").write_text(head + body)
    (tmp_path / "tests" / "test_other.py").write_text("def test_a(): pass")
    part = load("cuda_section").Section("tests", 15.0, "cpu")
    load("cuda_tests").run(part, [[sys.executable, "-c", "import time; time.sleep(60)"]], tmp_path)
    rows = {Path(row["file"]).stem: row for row in part.rows}
    assert set(rows) == {"test_good", "test_bad", "test_broken", "test_slow"}
    counted = {
        n: tuple(r.get(k) for k in ("passed", "failed", "skipped")) for n, r in rows.items()
    }
    assert counted["test_good"] == (1, 0, 1) and counted["test_bad"] == (1, 1, 0)
    assert "test_a: assert 1 == 2" in rows["test_bad"]["failures"][0]
    assert rows["test_broken"]["failed"] == 1
    assert rows["test_slow"]["ended"] == "killed: time is up"
    assert part.left_out == ["compiling ahead, part 0"]
    made = load("cuda_report").summary({"parts": {"tests": part.result()}, "device": "cuda"})
    assert len(made["wrong"]) == 3
    (goal,) = [g for g in made["goals"] if g["goal"].startswith("tests that failed")]
    assert goal["measured"] == 3 and goal["met"] == "no"


def test_goals_are_read_from_the_rows(load: Any) -> None:
    one = case(load)
    row = one.row() | {"shape": "molecules x 128", "channels": 16, "scores": 10**9}
    row |= {
        "candidates": {"triton": {"forward_ms": 1.0}, "pyg padded": {"forward_ms": 9.0}},
        "peer_over": {"forward": {"triton": 9.0}},
    }
    ceiling = {"ceiling": "exp", "value": 4e12}
    memory = [
        {"nodes": 200_000, "candidate": name, "peak_mib": 1024.0 * gib}
        for name, gib in (("sdpa", 21.0), ("triton", 3.0), ("pyg padded", 1.0))
    ]
    parts = {
        name: {"rows": rows, "errors": [], "left_out": []}
        for name, rows in (("ceilings", [ceiling]), ("operators", [row]), ("memory", memory))
    }
    made = load("cuda_report").summary({"parts": parts, "device": "cuda"})
    goals = {g["goal"]: (g["measured"], g["met"]) for g in made["goals"]}
    assert goals["PyG padded / ours, molecules x 128, float32, forward"] == (9.0, "yes")
    assert goals["PyG padded / ours, molecules x 128, float32, train"] == (None, "not measured")
    assert goals["share of the exp rate at C = 16"] == (0.25, "no")  # 1e12 of 4e12
    assert goals["200,000 nodes, forward and backward, GiB"] == (3.0, "yes")
    assert made["fastest"][0]["fastest"] == "triton"


@pytest.mark.parametrize("kind", ["none", "TableBias", "PairBias"])
@pytest.mark.parametrize("sizes", [[3, 1, 5], [4], [2, 2]])
def test_the_padded_peer_is_attention(load: Any, kind: str, sizes: list[int]) -> None:
    layout = GraphLayout.from_sizes(sizes)
    joined = torch.randn(layout.num_nodes, 3, 2, 4, dtype=torch.float64)
    values = torch.randn(layout.num_pairs, 2, dtype=torch.float64)
    index = torch.randint(3, (layout.num_pairs,), dtype=torch.uint8)
    bias = {"none": None, "TableBias": TableBias(values[:3], index), "PairBias": PairBias(values)}
    peer = load("cuda_peers").Padded(layout, joined.dtype, bias[kind])
    biases = () if bias[kind] is None else (bias[kind],)
    want = torch.empty_like(joined[:, 0])
    start = at = 0
    for n in sizes:
        q, k, v = (joined[start : start + n, i].transpose(0, 1) for i in range(3))
        scores = q @ k.transpose(1, 2) / 2
        added = {"none": torch.zeros(1, 2), "TableBias": values[index.long()], "PairBias": values}
        if biases:
            scores = scores + added[kind][at : at + n * n].view(n, n, 2).permute(2, 0, 1)
        want[start : start + n] = (scores.softmax(-1) @ v).transpose(0, 1)
        start, at = start + n, at + n * n
    torch.testing.assert_close(peer(joined, 0.0), want)
    if kind == "none":
        torch.testing.assert_close(load("cuda_peers").DenseMask(layout)(joined, 0.0), want)


def test_the_private_operator_takes_these_arguments(load: Any) -> None:
    """Shapes alone: it computes on a GPU, where the benchmark compares it with the reference."""
    layout = GraphLayout.from_sizes([3, 5]).to("meta")
    joined = torch.empty(8, 3, 4, 16, device="meta", requires_grad=True)
    out = load("cuda_peers").Efficient(layout)(joined, 0.5)
    assert out.shape == (8, 4, 16) and out.requires_grad


@pytest.mark.cuda
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_the_private_operator_on_a_gpu(load: Any, p: float) -> None:
    operators = load("cuda_operators")
    config = operators.Config("molecules x 4", 16, torch.float32, "plain")
    one = operators.Case(config, "cuda", True)
    runs, _ = one.candidates()
    assert one.problem().difference("efficient ragged", runs["efficient ragged"]) < 5e-4
    assert runs["efficient ragged"](p).isfinite().all()


@pytest.mark.cuda
def test_a_captured_call_gives_what_the_call_gives(load: Any) -> None:
    x = torch.zeros(3, device="cuda")
    replay = load("cuda_graphs").captured(lambda: x + 1)
    replay()
    counter = torch.zeros(1, device="cuda")
    with pytest.raises(AssertionError, match="another result"):
        load("cuda_graphs").captured(lambda: counter.add_(1).clone())


@pytest.mark.slow
def test_the_script(tmp_path: Path) -> None:
    done = run(
        ["bash", "benchmarks/cuda.sh", "--device", "cpu", "--tiny", "--parts", "ceilings",
         "--out", str(tmp_path)],
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert 480 < result["seconds_given"] <= 510 and result["parts"]["ceilings"]["rows"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu", "--parts", "everything"], "unknown ['everything']; expected tests"),
        pytest.param([], "no GPU that torch can use", marks=pytest.mark.skipif(
            torch.cuda.is_available(), reason="there is a GPU")),
    ],
)  # fmt: skip
def test_what_it_refuses(
    load: Any, arguments: list[str], words: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["cuda_run.py", *arguments])
    with pytest.raises(SystemExit):
        load("cuda_run").main()
    assert words in capsys.readouterr().err


def test_nothing_hides_a_package(load: Any) -> None:
    """A script's folder is on the path of modules, and NVIDIA's package is called ``cuda``."""
    assert not (ROOT / "benchmarks" / "cuda.py").exists()
    assert not (ROOT / "benchmarks" / "cuda").exists()
