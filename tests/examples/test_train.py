"""The training example: what it prints and writes, what it refuses, whether it makes its point."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

for needed in ("matplotlib", "ogb", "tqdm"):
    if importlib.util.find_spec(needed) is None:  # to import ogb starts a thread
        pytest.skip(f"{needed} is not installed (extra 'examples')", allow_module_level=True)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODULES = ("train", "tasks", "graph_model", "report")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / "train.py", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.fixture(scope="module")
def train() -> Iterator[ModuleType]:
    """`examples/train.py` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")  # The module sets it where it is not set.
        patch.syspath_prepend(str(EXAMPLES))
        import train

        yield train
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def molecules(data_root: Path, tmp_path: Path) -> Callable[[str], Path]:
    def root(name: str) -> Path:
        source = data_root / "ogb" / name.replace("-", "_")
        if not source.is_dir():
            pytest.skip(f"no {name} at {source}")
        copied = shutil.copytree(source, tmp_path / "ogb" / source.name)
        for path in (copied, *copied.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        return copied.parent

    return root


def results(out: Path, name: str) -> dict[str, dict[str, list[dict[str, float]]]]:
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(out)) == [f"{name}.json", f"{name}.png"]
    content = json.loads((out / f"{name}.json").read_text())
    return {model["model"]: model for model in content["models"]}


def test_generated_task(tmp_path: Path) -> None:
    done = run("--epochs", 2, "--limit", 40, "--layers", 2, "--channels", 16, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40 / 40 / 40 graphs" in done.stdout and "first 40 of each" in done.stdout
    for model in ("gin", "gps", "transformer"):
        assert f"{model:<11} epoch   2/2" in done.stdout
    assert "test accuracy" in done.stdout
    assert str(tmp_path / "long-range.png") in done.stdout
    written = results(tmp_path, "long-range")
    assert [len(model["epochs"]) for model in written.values()] == [2, 2, 2]


@pytest.mark.slow
def test_attention_reaches_across_the_ring_and_message_passing_does_not(train: ModuleType) -> None:
    """The default comparison on smaller rings: three layers do not cross one of eight nodes."""
    import tasks

    args = train.arguments(
        ["--layers", "3", "--channels", "48", "--batch-size", "32", "--epochs", "8"]
    )
    task = tasks.long_range(2000, seed=0, sizes=(8, 12))
    test = {kind: train.train(kind, task, args).epochs[-1].test for kind in args.models}
    # 500 graphs of 4 classes: four standard deviations above chance is 0.33.
    assert test["gin"] < 0.33
    assert test["gps"] > 0.9 and test["transformer"] > 0.9


@pytest.mark.parametrize(
    ("name", "metric", "models", "workers"),
    [("ogbg-molbace", "ROC-AUC", "gps,gin,transformer", 0), ("ogbg-molesol", "RMSE", "gps", 1)],
)
def test_molecules(
    tmp_path: Path,
    molecules: Callable[[str], Path],
    name: str,
    metric: str,
    models: str,
    workers: int,
) -> None:
    out = tmp_path / "out"
    done = run(
        *("--dataset", name, "--root", molecules(name), "--limit", 40, "--epochs", 1),
        *("--models", models, "--layers", 2, "--num-workers", workers, "--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert f"{metric}: valid" in done.stdout and "train loss" in done.stdout
    written = results(out, name)
    assert list(written) == models.split(",")
    assert all(len(model["epochs"]) == 1 for model in written.values())


def test_published_size(train: ModuleType, molecules: Callable[[str], Path]) -> None:
    """558,625 parameters in GraphGPS's table; ogb's atom table has had a row more since."""
    import report
    import tasks

    root = molecules("ogbg-molbace")
    args = train.arguments(["--dataset", "ogbg-molbace", "--root", str(root), "--epochs", "1"])
    assert (args.layers, args.channels, args.heads, args.attn_dropout) == (10, 64, 4, 0.5)
    task = tasks.molecules("ogbg-molbace", root, 8, download=False)
    result = train.train("gps", task, args)
    assert isinstance(result, report.Result)
    assert result.parameters == 558_625 + 48


def test_same_seed_same_numbers(train: ModuleType) -> None:
    import tasks

    args = train.arguments(["--epochs", "2", "--layers", "1", "--channels", "16"])
    task = tasks.long_range(20, seed=0)
    for kind in args.models:
        runs = [train.train(kind, task, args) for _ in range(2)]
        losses = [[epoch.train_loss for epoch in result.epochs] for result in runs]
        assert losses[0] == losses[1]
        args.seed += 1
        assert train.train(kind, task, args).epochs[0].train_loss != losses[0][0]


def test_score_needs_both_classes(train: ModuleType, molecules: Callable[[str], Path]) -> None:
    import tasks

    task = tasks.molecules("ogbg-molbace", molecules("ogbg-molbace"), 4, download=False)
    logits = torch.tensor([[0.1], [0.9], [0.4]])
    assert task.score(logits, torch.zeros(3, 1)) is None
    assert task.score(logits, torch.tensor([[0], [1], [0]])) == 1.0


def test_best_epoch_is_chosen_by_validation(train: ModuleType) -> None:
    import report

    epochs = [report.Epoch(0.0, valid, test, 1.0) for valid, test in [(0.6, 0.1), (0.5, 0.9)]]
    result = report.Result("gps", 1, [report.Epoch(0.0, None, None, 1.0), *epochs])
    assert result.best(higher_is_better=True).test == 0.1
    assert result.best(higher_is_better=False).test == 0.9
    assert report.Result("gin", 1, [report.Epoch(0.0, None, None, 1.0)]).best(True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "ogbg-molhiv"], "needs --root"),
        (["--dataset", "cora"], "long-range or an ogbg-mol"),
        (["--models", "gin,gat"], "gin, gps, transformer; got 'gat'"),
        (["--models", ""], "gin, gps, transformer; got ''"),
        (["--epochs", "0"], "at least 1, got 0"),
        (["--batch-size", "-3"], "at least 1, got -3"),
        (["--channels", "10"], "multiple of 4, got 10"),
        (["--lr", "0"], "--lr must be above 0"),
        (["--num-workers", "-1"], "--num-workers at least 0"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_wrong_arguments(
    train: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        train.arguments(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_missing_dataset(tmp_path: Path) -> None:
    done = run("--dataset", "ogbg-molhiv", "--root", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "download" in done.stderr and "Traceback" not in done.stderr
