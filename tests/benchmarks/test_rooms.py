"""The rooms of the benchmarks, and the commands that documents name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from benchmarks.record import ROOT

FOLDER = ROOT / "benchmarks"
ROOMS = sorted(path.name for path in FOLDER.iterdir() if list(path.glob("*.py")))
# a module after -m, or a path
NAMED = re.compile(r"-m (benchmarks[\w.]*\w)|\b(benchmarks/[\w/.*-]*[\w*/])")


def test_rooms_do_not_import_one_another() -> None:
    assert ROOMS == ["cpu", "gpu", "transforms"]
    shared = {f"benchmarks.{path.stem}" for path in FOLDER.glob("*.py")}
    for room in ROOMS:
        for path in (FOLDER / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    foreign = node.module.startswith("benchmarks.")
                    foreign &= not node.module.startswith(f"benchmarks.{room}")
                    assert not foreign or node.module in shared, f"{path} imports {node.module}"


def exists(module: str, file: str) -> bool:
    """Whether what a text names is there; one file is planned."""
    if module:
        return ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()
    return "hardware_lottery" in file or bool(list(ROOT.glob(file)))


def test_what_documents_name_is_there() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *FOLDER.rglob("*.sh")]
    texts += [*FOLDER.rglob("*.py"), *(ROOT / "pyg_gt").rglob("*.py")]
    missing = [
        f"{path.relative_to(ROOT)} names {''.join(names)}"
        for path in texts
        for names in NAMED.findall(path.read_text(encoding="utf-8"))
        if not exists(*names)
    ]
    assert missing == []


def test_names_are_found() -> None:
    text = "`python -m benchmarks.cpu.layer`, `bash benchmarks/gpu/run.sh` (benchmarks/results/)."
    assert NAMED.findall(text) == [
        ("benchmarks.cpu.layer", ""), ("", "benchmarks/gpu/run.sh"), ("", "benchmarks/results/"),
    ]  # fmt: skip
    assert not exists("benchmarks.layer", "") and not exists("", "benchmarks/cuda.sh")


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["cpu.attention", "cpu.epoch", "cpu.layer", "cpu.layer_against", "gpu.run", "gpu.tiles",
     "transforms.encodings"],
)  # fmt: skip
def test_every_command_starts(module: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
