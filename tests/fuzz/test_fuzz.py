"""A short run of each part of the fuzz; the fuzz itself finds faults that are planted."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_gt.ops._backends import cpu as _cpu
from pyg_gt.ops._backends import reference as _reference
from pyg_gt.ops._backends import sdpa as _sdpa
from pyg_gt.transforms import AddKHopEdges, add_degree
from tests.fuzz import arguments, calls, definition, runner, transforms
from tests.fuzz.__main__ import command, main
from tests.fuzz.draws import Fault, Part, random_of
from tests.fuzz.parts import PARTS
from tests.fuzz.problems import random_problem

# seed and number of draws of a short run, of some seconds each
SHORT = {"attention": (13, 300), "edits": (13, 250), "layers": (19, 100), "transforms": (13, 400)}


def said(findings: list[runner.Finding], seed: int = 0) -> str:
    return "\n".join(f"{f.message}\n    {command(f, seed)}" for f in findings[:20])


@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_finds_nothing(name: str) -> None:
    seed, batches = SHORT[name]
    result = runner.run(name, PARTS[name], seed, batches, 600, jobs=1)
    assert result.draws == batches
    assert not result.findings, said(result.findings, seed)


def is_promised(case: arguments.Case) -> bool:
    """Whether words are due: mistakes that are made, not all that there are."""
    annotation = case.call.annotations.get(case.argument, "")
    kinds = {kind.strip() for kind in annotation.replace("'", "").split("|")}
    label, argument = case.label, case.argument
    if label in ("None", "''", "'x'") and kinds & {"int", "float"}:
        return label != "None" or "None" not in kinds
    shapes = ("one dimension more", "one dimension fewer", "last dimension longer", "None")
    more = (*shapes, "last dimension shorter", "sparse", "nested")
    return (
        (argument in ("scale", "dropout_p") and label in ("nan", "True", "[]"))
        or (argument == "x" and label in more)
        or (argument in ("heads", "num_layers") and label == "0")
        or (argument in ("k", "walk_length", "path_length") and label == "10**9")
        or (argument == "batch" and label in ("one entry 10**9", "one entry -1"))
        or (argument == "backend" and label in ("'x'", "None", "1.5"))
        or (argument, label) in (("cache_dir", "''"), ("num_workers", "1.5"))
    )


def test_wrong_arguments_are_refused_in_words() -> None:
    numbers = [i for i, case in enumerate(arguments.cases()) if is_promised(case)]
    assert len(numbers) > 200
    part = Part(lambda seed, number: arguments.draw(seed, numbers[number]))
    result = runner.run("arguments", part, 0, len(numbers), 600, jobs=1)
    findings = [f._replace(number=numbers[f.number]) for f in result.findings]
    assert not findings, said(findings)


def test_every_public_door_is_tried() -> None:
    assert calls.without_a_call() == set()


@pytest.mark.parametrize("call", calls.calls(), ids=lambda call: call.name)
def test_right_arguments_are_right(call: calls.Call) -> None:
    if call.name == "load_ogb":  # without its files
        with pytest.raises(FileNotFoundError):
            call.run(call.valid())
    else:
        call.run(call.valid())


@pytest.mark.parametrize(
    ("backend", "change"),
    [
        (_sdpa, lambda out: out * (1 + 1e-3)),
        (_reference, lambda out: out.detach() + 1.01 * (out - out.detach())),
        pytest.param(_cpu, lambda out: torch.where(out > 1, 0, out), marks=pytest.mark.compiled),
    ],
)
def test_a_backend_that_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, backend: Any, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    forward = backend.forward
    monkeypatch.setattr(backend, "forward", lambda inputs: change(forward(inputs)))
    found = [runner.run_one("attention", PARTS["attention"], 7, i)[1] for i in range(40)]
    messages = [f.message for f in found if f is not None]
    assert sum(f"{backend.NAME}: the " in message for message in messages) >= 4, messages


def test_a_transform_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = AddKHopEdges.encode

    def wrong(self: AddKHopEdges, graphs: Any) -> Any:
        found = encode(self, graphs)
        found[1].values[...] += found[1].values > 1
        return found

    monkeypatch.setattr(AddKHopEdges, "encode", wrong)
    found = [runner.run_one("transforms", PARTS["transforms"], 0, i)[1] for i in range(150)]
    assert any(f is not None and f.message.startswith("k hops: ") for f in found)


def test_an_argument_that_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (i, case)
        for i, case in enumerate(arguments.cases())
        if case.call.name == "AddDegree" and case.argument == "attr_name"
    ]
    assert all(isinstance(arguments.draw(0, i), Counter) for i, _ in cases)
    monkeypatch.setattr(add_degree, "check_attr_name", lambda owner, name: name)
    wrong = 0
    for i, _ in cases:
        try:
            arguments.draw(0, i)
        except Fault:
            wrong += 1
    assert wrong > 3


def test_a_draw_is_made_from_its_number_alone() -> None:
    def once(number: int) -> str:
        return random_problem(random_of(3, "attention", number)).describe()

    first = [once(i) for i in range(20)]
    assert [once(i) for i in reversed(range(20))] == first[::-1]
    assert len(set(first)) == 20


def bad(seed: int, number: int) -> Counter[str]:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        raise Fault("off by 3.25")
    if number == 5:
        raise ValueError("off")
    if number == 7:
        time.sleep(60)
    if number == 9:
        np.ones(10 * 2**30, np.uint8)
    return Counter(["fine"])


@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
@pytest.mark.parametrize("jobs", [1, 2])
def test_dead_and_hanging_processes_are_findings(
    monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(runner, "SECONDS_A_DRAW", 2)
    result = runner.run("bad", Part(bad), 0, 12, 60, jobs)
    said = {f.number: f.message for f in result.findings}
    assert said[2] == "the process died (SIGKILL)"
    assert said[4] == "off by 3.25"
    assert said[5].startswith("ValueError: off")
    assert said[7] == "it took more than 2 s"
    assert "Unable to allocate" in said[9]
    assert len(said) == 5 and result.draws == 12


def test_seconds_end_a_run() -> None:
    def slow(seed: int, number: int) -> Counter[str]:
        time.sleep(0.05)
        return Counter(["fine"])

    assert 1 <= runner.run("slow", Part(slow), 0, 1000, 0.3, jobs=1).draws < 20


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report"
    arguments = ["--what", "transforms", "--batches", "5", "--seed", "1", "--report", str(report)]
    assert main(arguments) == 0
    assert report.read_text() == ""
    assert main([*arguments[:2], "--only", "3", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("transforms: 5 draws in ")
    assert lines[-1].startswith("transforms 3: {")


def test_failures_are_counted_by_kind_with_a_command_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(seed: int, number: int) -> Counter[str]:
        raise Fault(f"off by {number}.5")

    monkeypatch.setitem(PARTS, "transforms", Part(fails))
    report = tmp_path / "report"
    assert main(["--what", "transforms", "--batches", "5", "--report", str(report)]) == 1
    out = capsys.readouterr().out
    line = "python -m tests.fuzz --what transforms --seed 0 --only"
    assert f"5 x off by 0.5\n      {line} 0" in out
    assert report.read_text().splitlines()[3] == f"off by 3.5\t{line} 3"


def test_philox_gives_the_published_words() -> None:
    # known answers of Random123 for philox4x32-10
    zero = [np.zeros(1, np.uint64)] * 4
    words = [int(w[0]) for w in definition.philox(0, zero)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    counter = [np.array([c], np.uint64) for c in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    words = [int(w[0]) for w in definition.philox(0x299F31D0_A4093822, counter)]
    assert words == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_every_transform_is_tried() -> None:
    result = runner.run("transforms", PARTS["transforms"], 2, 120, 600, jobs=1)
    assert set(transforms._CHECKS) <= set(result.compared)
