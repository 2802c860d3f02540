"""The files around the code agree with one another."""

import ast
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import pyg_gt
from pyg_gt import nn, transforms

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    'pip install -e ".[examples]" -c constraints.txt && python examples/train.py',
    'pip install -e ".[test]" -c constraints.txt && pytest',
]
# A path of somebody's machine: a home, a scratch or a mount folder at the root.
MACHINE_PATH = re.compile(r"(?<![\w.~/$}*-])/(?:home|Users|root|tmp|work|mnt|scratch)/\w")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project_files() -> list[Path]:
    """The files git tracks or would track; without git, what lies in the known folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.split("\0") if (ROOT / name).is_file()]
    folders = ("pyg_gt", "tests", "examples", "benchmarks", "docs", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += ROOT.glob("*")
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", pyg_gt.__version__)
    literals = [
        ast.literal_eval(node.value)
        for node in ast.parse(read("pyg_gt/_version.py")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert literals == [pyg_gt.__version__]
    assert '[tool.hatch.version]\npath = "pyg_gt/_version.py"\n' in read("pyproject.toml")
    try:
        installed = metadata.version("pyg_gt")
    except metadata.PackageNotFoundError:
        return
    assert installed == pyg_gt.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_commands_are_the_ones_that_run(command: str) -> None:
    assert command in read("README.md").splitlines()
    assert f"'{command}'" in read(".ci/run")


def test_table_of_encodings_has_all_of_them() -> None:
    text = read("docs/encodings.md")
    names = {name for name in transforms.__all__ if name.startswith("Add")}
    names |= {name for name in nn.__all__ if name.endswith(("Encoder", "Bias"))}
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}" not in text] == []


def test_constraints_are_exact() -> None:
    lines = [line.partition("#")[0].strip() for line in read("constraints.txt").splitlines()]
    lines = [line for line in lines if line]
    assert "torch==2.13.0" in lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines]
    assert len(set(names)) == len(names)


def test_changelog() -> None:
    assert "## [Unreleased]" in read("CHANGELOG.md")


def test_ci_script_can_be_executed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_marked_as_typed() -> None:
    assert (ROOT / "pyg_gt" / "py.typed").is_file()


def test_sources_that_are_compiled_on_first_use_are_part_of_the_package() -> None:
    sources = [*(ROOT / "pyg_gt").rglob("*.cpp"), *(ROOT / "pyg_gt").rglob("*.h")]
    assert ROOT / "pyg_gt" / "ops" / "_kernels" / "cpu" / "csrc" / "full.cpp" in sources
    assert all(path.parent.name == "csrc" for path in sources)
    # hatchling takes all files of the package that git does not ignore
    assert '[tool.hatch.build.targets.wheel]\npackages = ["pyg_gt"]\n\n' in read("pyproject.toml")
    names = [str(path.relative_to(ROOT)) for path in sources]
    command = ["git", "check-ignore", *names]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).stdout == b""


def headings(document: Path) -> set[str]:
    """What links name headings by, as GitHub makes it of them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_between_documents() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text("utf-8"))
        for name, heading in links:
            target = document.parent / name if name else document
            assert target.exists(), f"{document.name} links to {name}"
            known = not heading or heading in headings(target)
            assert known, f"{document.name} links to {name}#{heading}"


def test_no_machine_paths() -> None:
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = MACHINE_PATH.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()!r}"


@pytest.mark.parametrize("path", ["/{}/ada", "root = '/{}/x'", "(/{}/x)", "[x](/{}/x)"])
@pytest.mark.parametrize("folder", ["home", "tmp", "root"])
def test_machine_paths_are_found(path: str, folder: str) -> None:
    assert MACHINE_PATH.search(path.format(folder))


@pytest.mark.parametrize("path", ["tests/tmp/x", "$HOME/tmp/x", "../work/x", "https://a.b/home/x"])
def test_other_paths_are_let_be(path: str) -> None:
    assert not MACHINE_PATH.search(path)
