"""The benchmark for GPUs, tried on a CPU: what it writes, its time, what fails beside others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import ceilings, edges, layers, memory, operators
from benchmarks.gpu import run as benchmark
from benchmarks.gpu.part_process import PartProcess
from benchmarks.gpu.peers import PEERS, PEERS_OF_GRAPHS
from benchmarks.gpu.section import Section
from benchmarks.record import ROOT

COMMAND = [sys.executable, "-m", "benchmarks.gpu.run"]
PARTS = ["ceilings", "operators", "edges", "layers", "memory", "recompiles"]


def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=1800, cwd=ROOT, **kwargs
    )  # fmt: skip


@pytest.mark.slow
def test_all_parts_on_a_cpu(tmp_path: Path) -> None:
    # ten times what it takes: that a budget is kept is tested where time does not tell
    command = [*COMMAND, "--device", "cpu", "--tiny", "--seconds", "600"]
    done = run([*command, "--out", str(tmp_path), "--parts", *PARTS])
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert list(result["parts"]) == PARTS
    for name, part in result["parts"].items():
        assert part["rows"] and part["errors"] == [] and part["left_out"] == [], name
        assert part["seconds"] < part["budget_seconds"]
    check_rows(result["parts"])
    check_summary(result["summary"])
    pictures = {p.name for p in tmp_path.glob("*.png")}
    assert pictures == {
        f"cuda_no_gpu_{name}.png" for name in ("operators", "edges", "memory", "shares")
    }
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.glob("*.png"))
    assert "goal " in done.stdout and "no GPU" in done.stdout and " yes" not in done.stdout
    assert "  full, float32, train" in done.stdout


def check_rows(parts: dict[str, Any]) -> None:
    assert {r["ceiling"] for r in parts["ceilings"]["rows"]} == {
        "copy", "matmul bfloat16", "matmul float32", "exp", "empty launch",
    }  # fmt: skip
    assert all(r["value"] > 0 for r in parts["ceilings"]["rows"])
    for part, modes in (("operators", ["forward", "train"]), ("edges", ["forward"])):
        for row in parts[part]["rows"]:
            kinds = row["candidates"]
            assert set(kinds) >= {"sdpa", "sparse", "cpu", "triton", "flex"}
            assert set(kinds) >= set(PEERS_OF_GRAPHS if part == "operators" else ["pyg core"])
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
    groups = {(g["kind"], g["dtype"], g["mode"]) for g in summary["order"]}
    assert groups >= {(k, "float32", m) for k in ("full", "edges") for m in ("forward", "train")}


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    part = Section("operators", 0.0, "cpu", True, tmp_path / "part.json")
    operators.run(part)
    assert part.rows == [] and len(part.left_out) == 16
    assert "voc, C=64, float32, pair" in part.left_out
    assert json.loads((tmp_path / "part.json").read_text())["left_out"] == part.left_out
    for module in (edges, layers, memory, ceilings):
        part = Section("a part", 0.0, "cpu", True)
        module.run(part)
        assert part.rows == [] and len(part.left_out) >= 2, module


@pytest.mark.slow
def test_the_next_part_waits_while_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "in_process", lambda args: False)
    made = []

    class Watched(PartProcess):
        def __init__(self, name: str, *rest: Any) -> None:
            super().__init__(name, *rest)
            made.append((name, self))

    monkeypatch.setattr(benchmark, "PartProcess", Watched)
    monkeypatch.setattr(sys, "argv", [
        "run", "--device", "cpu", "--tiny", "--out", str(tmp_path), "--parts", "ceilings",
        "layers", "memory", "--seconds", "600",
    ])  # fmt: skip
    assert benchmark.main() == 0
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert list(result["parts"]) == ["ceilings", "layers", "memory"]
    assert all(part["rows"] and not part["errors"] for part in result["parts"].values())
    assert [name for name, _ in made] == ["layers", "memory"]
    assert all(waiting.process.returncode == 0 for _, waiting in made)


def test_a_part_that_fails_stops_no_other(tmp_path: Path, monkeypatch: Any) -> None:
    def fails(part: Any) -> None:
        part.add({"ceiling": "copy", "value": 1.0, "unit": "GB/s", "how": ""})
        raise RuntimeError("lost")

    monkeypatch.setitem(benchmark.PARTS, "ceilings", (fails, 1))
    monkeypatch.setattr(sys, "argv", [
        "run", "--device", "cpu", "--tiny", "--out", str(tmp_path), "--parts", "ceilings",
        "memory", "--seconds", "600",
    ])  # fmt: skip
    assert benchmark.main() == 1
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert result["parts"]["ceilings"]["errors"] == ["RuntimeError: lost"]
    assert len(result["parts"]["ceilings"]["rows"]) == 1 and result["parts"]["memory"]["rows"]
    assert result["summary"]["wrong"] == ["ceilings: RuntimeError: lost"]


@pytest.mark.slow
def test_the_script(tmp_path: Path) -> None:
    done = run(
        ["bash", "benchmarks/gpu/run.sh", "--device", "cpu", "--tiny", "--parts", "ceilings",
         "--out", str(tmp_path)],
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "cuda_no_gpu.json").read_text())
    assert 480 < result["seconds_given"] <= 510 and result["parts"]["ceilings"]["rows"]


def test_the_script_installs_wheels_that_lie_there(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "gpu"
    folder.mkdir(parents=True)
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / ".whl").mkdir()
    script = shutil.copy(ROOT / "benchmarks" / "gpu" / "run.sh", folder)
    (folder / "run.py").write_text(
        "import sys, lacking, os\nprint(lacking.__file__, os.getcwd(), sys.argv[1:])\nsys.exit(3)"
    )
    info = "lacking-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / ".whl" / "lacking-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lacking.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lacking\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")
    done = run(["bash", str(script), "--tiny"], env=os.environ | {"PYTHON": sys.executable})
    assert done.returncode == 3, done.stderr
    file, where, *arguments = done.stdout.split()
    assert Path(where) == tmp_path and "--tiny" in done.stdout
    assert not Path(file).exists() and tmp_path not in Path(file).parents  # of a folder now gone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu", "--parts", "everything"], "unknown ['everything']; expected tests"),
        pytest.param([], "no GPU that torch can use", marks=pytest.mark.skipif(
            torch.cuda.is_available(), reason="there is a GPU")),
    ],
)  # fmt: skip
def test_what_it_refuses(arguments: list[str], words: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert words in capsys.readouterr().err
